//! JSON Schemas of the catalogue to the model of types.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Value};

use super::{
    Language, Options,
    model::{Choice, Either, Event, Field, Module, Object, Range, Type},
    names, pattern,
};
use crate::event::{EventType, schema::REMARKS};

/// Names that the fixed parts of the generated files have.
const TAKEN: [&str; 18] = [
    "Any",
    "Boolean",
    "DateTime",
    "Envelope",
    "EventError",
    "EventMetadata",
    "Integer",
    "Map",
    "Number",
    "Option",
    "PublishError",
    "Published",
    "Rule",
    "String",
    "Text",
    "Timestamp",
    "Uuid",
    "Value",
];

/// The module of these events, and what their schemas ask for that it cannot say.
pub(super) fn module(domain: &str, kinds: &[Arc<EventType>], language: Language, options: Options) -> (Module, Vec<String>) {
    let prefix = names::prefix(domain, kinds);
    let name = names::pascal(prefix);
    let own = ["Event", "EventType", "Payload"].map(|end| format!("{name}{end}"));
    let taken = TAKEN.into_iter().map(str::to_owned).chain(own).collect();
    let module = Module { domain: domain.to_owned(), name, ..Module::default() };
    let mut lowering = Lowering { module, taken, constrained: options.validation, language, unchecked: Vec::new(), event: String::new() };
    for kind in kinds {
        lowering.event(prefix, kind);
    }
    (lowering.module, lowering.unchecked)
}

struct Lowering {
    module: Module,
    taken: BTreeSet<String>,
    constrained: bool,
    language: Language,
    unchecked: Vec<String>,
    /// `TaskCreated`: what is being lowered.
    event: String,
}

/// Where a schema stands: `data.dlq_metadata.error`, of the event type at hand.
struct At<'a> {
    kind: &'a str,
    path: String,
    field: &'a str,
}

impl Lowering {
    fn event(&mut self, prefix: &str, kind: &EventType) {
        self.event = names::pascal(&kind.name);
        let payload = names::unused(&mut self.taken, format!("{}Payload", self.event));
        let at = At { kind: &kind.name, path: "data".to_owned(), field: "" };
        let mut object = self.object(payload.clone(), kind.schema.json(), &at);
        object.doc.clone_from(&kind.description);
        for field in object.fields.iter_mut().filter(|field| kind.fill.contains(&field.name)) {
            field.required = false;
        }
        self.module.objects.push(object);
        self.module.events.push(Event {
            name: kind.name.to_string(),
            action: names::action(prefix, &kind.name).to_owned(),
            version: kind.version.to_string(),
            aliases: kind.aliases.clone(),
            payload,
            filled: kind.fill.clone(),
            lifted: kind.lift.clone(),
            past: kind.past.iter().map(|past| (past.version.to_string(), past.upcast.clone())).collect(),
        });
    }

    fn unchecked(&mut self, at: &At<'_>, what: &str) {
        let said = format!("{}: {}: {what}", at.kind, at.path);
        if self.constrained && !self.unchecked.contains(&said) {
            self.unchecked.push(said);
        }
    }

    /// Names every keyword that is neither a remark nor one of these.
    fn leftover(&mut self, schema: &Map<String, Value>, at: &At<'_>, known: &[&str]) {
        for keyword in schema.keys().map(String::as_str).filter(|keyword| !REMARKS.contains(keyword) && !known.contains(keyword)) {
            self.unchecked(at, keyword);
        }
    }

    fn object(&mut self, name: String, schema: &Value, at: &At<'_>) -> Object {
        let empty = Map::new();
        let keywords = schema.as_object().unwrap_or(&empty);
        let required = strings(keywords.get("required"));
        let mut fields = Vec::new();
        for (field, schema) in keywords.get("properties").and_then(Value::as_object).unwrap_or(&empty) {
            let at = At { kind: at.kind, path: format!("{}.{field}", at.path), field };
            let (ty, nullable) = self.ty(schema, &at);
            let required = required.contains(&field.as_str());
            fields.push(Field { name: field.clone(), doc: doc(schema), required, nullable, ty });
        }
        for name in &required {
            if fields.iter().any(|field| field.name == *name) {
                continue;
            }
            fields.push(Field { name: (*name).to_owned(), doc: String::new(), required: true, nullable: true, ty: Type::Any });
        }
        let groups = keywords.get("anyOf").map(groups);
        if groups == Some(None) {
            self.unchecked(at, "anyOf");
        }
        if keywords.get("additionalProperties").is_some_and(|more| !more.is_boolean()) {
            self.unchecked(at, "additionalProperties");
        }
        self.leftover(keywords, at, &["type", "required", "properties", "anyOf", "additionalProperties"]);
        let any_of = groups.flatten().filter(|_| self.constrained).unwrap_or_default();
        let closed = keywords.get("additionalProperties") == Some(&Value::Bool(false));
        Object { name, doc: doc(schema), fields, closed, any_of }
    }

    /// What a value of that schema is, and whether it may be null.
    fn ty(&mut self, schema: &Value, at: &At<'_>) -> (Type, bool) {
        let Some(keywords) = schema.as_object() else {
            if schema == &Value::Bool(false) {
                self.unchecked(at, "false");
            }
            return (Type::Any, true);
        };
        for keyword in ["anyOf", "oneOf"] {
            if let Some(branches) = keywords.get(keyword).and_then(Value::as_array) {
                if keyword == "oneOf" {
                    self.unchecked(at, "oneOf: that only one matches");
                }
                self.leftover(keywords, at, &[keyword]);
                return self.either(branches.iter(), at);
            }
        }
        match keywords.get("type") {
            Some(Value::String(name)) => (self.single(name, keywords, at), name == "null"),
            Some(Value::Array(_)) => {
                let each: Vec<_> = strings(keywords.get("type")).into_iter().map(|name| of_type(keywords, name)).collect();
                self.either(each.iter(), at)
            }
            _ if keywords.contains_key("enum") || keywords.contains_key("const") => (self.single("string", keywords, at), false),
            _ => {
                self.leftover(keywords, at, &[]);
                (Type::Any, true)
            }
        }
    }

    fn either<'v>(&mut self, branches: impl Iterator<Item = &'v Value>, at: &At<'_>) -> (Type, bool) {
        let (mut types, mut nullable): (Vec<Type>, _) = (Vec::new(), false);
        for branch in branches {
            if branch.get("type").is_some_and(|name| name == "null") {
                nullable = true;
                continue;
            }
            let (ty, null) = self.ty(branch, at);
            nullable |= null;
            if !types.contains(&ty) {
                types.push(ty);
            }
        }
        // A string takes everything that is written as one: it comes last.
        types.sort_by_key(|ty| matches!(ty, Type::Text { .. } | Type::Any));
        if types.contains(&Type::Any) || types.is_empty() {
            return (Type::Any, nullable);
        }
        if types.len() == 1 {
            return (types.swap_remove(0), nullable);
        }
        let short = names::of_field(&self.module.name, at.field);
        if let Some(same) = self.module.eithers.iter().find(|either| either.name == short && either.types == types) {
            return (Type::Either(same.name.clone()), nullable);
        }
        let name = self.name(short, at);
        self.module.eithers.push(Either { name: name.clone(), types });
        (Type::Either(name), nullable)
    }

    /// A name for what a field holds: the short one where it is free, else with the event's.
    fn name(&mut self, short: String, at: &At<'_>) -> String {
        let name = if self.taken.contains(&short) { format!("{}{}", self.event, names::pascal(at.field)) } else { short };
        names::unused(&mut self.taken, name)
    }

    fn single(&mut self, name: &str, keywords: &Map<String, Value>, at: &At<'_>) -> Type {
        match name {
            "string" => self.string(keywords, at),
            "integer" | "number" => {
                self.leftover(keywords, at, &["type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]);
                let range = self.range(keywords);
                if name == "integer" { Type::Integer(range) } else { Type::Number(range) }
            }
            "boolean" => {
                self.leftover(keywords, at, &["type"]);
                Type::Boolean
            }
            "array" => {
                self.leftover(keywords, at, &["type", "items", "minItems", "maxItems", "uniqueItems"]);
                let item = keywords.get("items").map_or(Type::Any, |items| self.ty(items, at).0);
                let [min, max] = ["minItems", "maxItems"].map(|keyword| self.limit(keywords, keyword));
                let unique = self.constrained && keywords.get("uniqueItems") == Some(&Value::Bool(true));
                Type::List { item: Box::new(item), min, max, unique }
            }
            "object" if keywords.contains_key("properties") => {
                let name = names::unused(&mut self.taken, format!("{}{}", self.event, names::pascal(at.field)));
                let object = self.object(name.clone(), &Value::Object(keywords.clone()), at);
                self.module.objects.push(object);
                Type::Object(name)
            }
            "object" => {
                self.leftover(keywords, at, &["type", "additionalProperties"]);
                let value = keywords.get("additionalProperties").map_or(Type::Any, |values| self.ty(values, at).0);
                Type::Map(Box::new(value))
            }
            _ => Type::Any,
        }
    }

    fn string(&mut self, keywords: &Map<String, Value>, at: &At<'_>) -> Type {
        if let Some(values) = values_of(keywords) {
            self.leftover(keywords, at, &["type", "enum", "const"]);
            return match values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>() {
                Some(values) => Type::Choice(self.choice(values, at)),
                None => {
                    self.unchecked(at, "enum");
                    Type::Any
                }
            };
        }
        let ty = match keywords.get("format").and_then(Value::as_str) {
            Some("date-time") => Type::Timestamp,
            Some("uuid") => Type::Uuid,
            _ => {
                self.leftover(keywords, at, &["type", "minLength", "maxLength", "pattern"]);
                let [min, max] = ["minLength", "maxLength"].map(|keyword| self.limit(keywords, keyword));
                return Type::Text { min, max, pattern: self.pattern(keywords, at) };
            }
        };
        self.leftover(keywords, at, &["type", "format"]);
        ty
    }

    fn pattern(&mut self, keywords: &Map<String, Value>, at: &At<'_>) -> Option<String> {
        let asked = keywords.get("pattern").and_then(Value::as_str).filter(|_| self.constrained)?;
        let said = pattern::written(asked, self.language);
        if said.is_none() {
            self.unchecked(at, "pattern");
        }
        said
    }

    fn choice(&mut self, values: Vec<String>, at: &At<'_>) -> String {
        let short = names::of_field(&self.module.name, at.field);
        if self.module.choices.iter().any(|choice| choice.name == short && choice.values == values) {
            return short;
        }
        let name = self.name(short, at);
        self.module.choices.push(Choice { name: name.clone(), values });
        name
    }

    fn range(&self, keywords: &Map<String, Value>) -> Range {
        let limit = |keyword: &str| keywords.get(keyword).filter(|_| self.constrained)?.as_number().cloned();
        Range { minimum: limit("minimum"), maximum: limit("maximum"), above: limit("exclusiveMinimum"), below: limit("exclusiveMaximum") }
    }

    fn limit(&self, keywords: &Map<String, Value>, keyword: &str) -> Option<u64> {
        keywords.get(keyword).filter(|_| self.constrained)?.as_u64()
    }
}

/// The values of `enum` or `const`, without null: what may be null is said by the field.
fn values_of(keywords: &Map<String, Value>) -> Option<Vec<&Value>> {
    let listed = keywords.get("enum").and_then(Value::as_array).map(|values| values.iter().filter(|value| !value.is_null()).collect());
    listed.or_else(|| keywords.get("const").map(|value| vec![value]))
}

/// The schema of one of several types: the keywords that mean something to it.
fn of_type(keywords: &Map<String, Value>, name: &str) -> Value {
    let fits = |keyword: &str| match keyword {
        "minLength" | "maxLength" | "pattern" | "format" => name == "string",
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => name == "integer" || name == "number",
        "items" | "prefixItems" | "minItems" | "maxItems" | "uniqueItems" | "contains" => name == "array",
        "properties" | "required" | "additionalProperties" => name == "object",
        _ => true,
    };
    let mut one: Map<String, Value> = keywords.iter().filter(|(keyword, _)| fits(keyword)).map(|(k, v)| (k.clone(), v.clone())).collect();
    one.insert("type".to_owned(), name.into());
    Value::Object(one)
}

/// `anyOf` of an object as groups of fields of which one must be there; `None` where it says more than that.
fn groups(branches: &Value) -> Option<Vec<Vec<String>>> {
    let group = |branch: &Value| {
        let keywords = branch.as_object()?;
        let required = strings(keywords.get("required"));
        let empty = Map::new();
        let properties = keywords.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        // Besides naming a field, a branch may say that it is not null: by its type alone.
        let plain = |(name, schema): (&String, &Value)| {
            required.contains(&name.as_str()) && schema.as_object().is_some_and(|keywords| keywords.keys().all(|keyword| keyword == "type"))
        };
        let known =
            keywords.keys().all(|keyword| ["required", "properties"].contains(&keyword.as_str()) || REMARKS.contains(&keyword.as_str()));
        let usable = known && !required.is_empty() && properties.len() == required.len() && properties.iter().all(plain);
        usable.then(|| required.into_iter().map(str::to_owned).collect())
    };
    branches.as_array()?.iter().map(group).collect()
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What a field's documentation says: its description, and the default that an absent one stands for.
fn doc(schema: &Value) -> String {
    let said = schema.get("description").and_then(Value::as_str).unwrap_or_default().trim();
    let default = schema.get("default").map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let default = default.map(|value| format!("Absent means {value}."));
    [Some(said.to_owned()).filter(|said| !said.is_empty()), default].into_iter().flatten().collect::<Vec<_>>().join(" ")
}
