//! Pydantic models, as ruff and Black format them.

mod tables;

use serde_json::Value;

use self::tables::tables;
use super::{
    Options,
    layout::{Piece, Style},
    model::{Bound, Choice, Event, Field, Module, Object, Range, Type},
    names,
    template::fill,
};

const STYLE: Style = Style { width: 88, indent: 4, narrow: usize::MAX, together: true };

/// Python's own words, and names that a model has already.
const RESERVED: [&str; 51] = [
    "False",
    "None",
    "True",
    "and",
    "as",
    "assert",
    "async",
    "await",
    "break",
    "class",
    "continue",
    "def",
    "del",
    "elif",
    "else",
    "except",
    "finally",
    "for",
    "from",
    "global",
    "if",
    "import",
    "in",
    "is",
    "lambda",
    "nonlocal",
    "not",
    "or",
    "pass",
    "raise",
    "return",
    "try",
    "while",
    "with",
    "yield",
    "construct",
    "copy",
    "dict",
    "from_orm",
    "json",
    "model_computed_fields",
    "model_config",
    "model_dump",
    "model_dump_json",
    "model_extra",
    "model_fields",
    "parse_obj",
    "parse_raw",
    "schema",
    "schema_json",
    "validate",
];

pub(super) fn write(module: &Module, options: Options) -> String {
    let types = module.types();
    let any = |is: fn(&Type) -> bool| types.iter().any(|ty| is(ty));
    let unique = any(|ty| matches!(ty, Type::List { unique: true, .. }));
    let pattern = any(|ty| matches!(ty, Type::Text { pattern: Some(_), .. }));
    let migrations = options.versioning && module.events.iter().any(|event| !event.past.is_empty());
    let flags = [
        ("metadata", options.metadata),
        ("validation", options.validation),
        ("versioning", options.versioning),
        ("migrations", migrations),
        ("integer", any(|ty| matches!(ty, Type::Integer(_)))),
        ("number", any(|ty| matches!(ty, Type::Number(_)))),
        ("boolean", any(|ty| matches!(ty, Type::Boolean))),
        ("uuid", any(|ty| matches!(ty, Type::Uuid))),
        ("list", any(|ty| matches!(ty, Type::List { .. }))),
        ("nulls", module.objects.iter().flat_map(|object| &object.fields).any(|field| field.required && field.nullable)),
        ("unique", unique),
        ("pattern", pattern),
        ("after", unique || pattern),
    ];
    let payloads: Vec<_> = module.events.iter().map(|event| Piece::word(&event.payload)).collect();
    let names: Vec<&str> = module.events.iter().map(|event| event.name.as_str()).collect();
    let models = models(module);
    let values = [
        ("models", models.as_str()),
        ("tables", &tables(module, migrations)),
        ("lifted", &list(module.lifted().into_iter().map(quoted), "_LIFTED = ".len())),
        ("union", &union(&payloads, 1, "    data: ".len(), 0)),
        ("types", &names.join(", ")),
        ("domain", &module.domain),
        ("Name", &module.name),
    ];
    fill(include_str!("templates/models.py"), &flags, &values)
}

// === Types ===

fn models(module: &Module) -> String {
    let mut parts = vec![event_type(module)];
    parts.extend(module.choices.iter().map(choice));
    parts.extend(module.objects.iter().map(|object| class(module, object)));
    parts.join("\n\n\n")
}

/// The event types with their other names: an alias, or the type with its major version, is the same member.
fn event_type(module: &Module) -> String {
    let name = &module.name;
    let members = module.events.iter().map(|event| format!("    {} = {}\n", member(event), quoted(&event.name)));
    let mut text =
        format!("class {name}EventType(str, Enum):\n    \"\"\"The events of the domain.\"\"\"\n\n{}", members.collect::<String>());
    text += "\n    @classmethod\n    def _missing_(cls, value: object) -> Any:\n";
    text += "        name = re.sub(r\"\\.v\\d+$\", \"\", value) if isinstance(value, str) else value\n";
    text += "        name = _ALIASES.get(name, name)\n";
    text + "        return next((member for member in cls if member.value == name), None)"
}

fn member(event: &Event) -> String {
    names::shouted(&event.action)
}

fn choice(choice: &Choice) -> String {
    let members = names::distinct(choice.values.iter().map(String::as_str), names::shouted);
    let lines = members.iter().zip(&choice.values).map(|(member, value)| format!("    {member} = {}", quoted(value)));
    format!("class {}(str, Enum):\n{}", choice.name, lines.collect::<Vec<_>>().join("\n"))
}

fn class(module: &Module, object: &Object) -> String {
    let mut text = format!("class {}(_Model):\n", object.name);
    if !object.doc.is_empty() {
        text += &format!("    {}\n", docstring(&object.doc));
    }
    if object.closed {
        text += "\n    model_config = ConfigDict(extra=\"forbid\")\n";
    }
    for field in &object.fields {
        text += &format!("\n    {}\n", annotated(module, field));
        if !field.doc.is_empty() {
            text += &format!("    {}\n", docstring(&field.doc));
        }
    }
    if !object.any_of.is_empty() {
        text += &any_of(object);
    }
    text += &nulls(object);
    if object.doc.is_empty() && object.fields.is_empty() && !object.closed {
        text += "    pass\n";
    }
    // A class without docstring begins with its first field.
    text.trim_end().replacen(":\n\n", ":\n", usize::from(object.doc.is_empty()))
}

fn any_of(object: &Object) -> String {
    let all = object.any_of.iter().map(|group| group.join(" and ")).collect::<Vec<_>>().join(", or ");
    let has = |field: &String| format!("self.{} is not None", attribute(field));
    let group = |fields: &Vec<String>| {
        let all = fields.iter().map(has).collect::<Vec<_>>().join(" and ");
        Piece::word(if fields.len() > 1 { format!("({all})") } else { all })
    };
    let groups = Piece::group("any((", object.any_of.iter().map(group), "))");
    let shown = groups.render(STYLE, 2, "        if not ".len(), 1);
    let said = quoted(&format!("neither {}", all.replace(", or ", " nor ")));
    format!(
        "\n    @model_validator(mode=\"after\")\n    def _one_of(self) -> {}:\n        if not {shown}:\n            raise ValueError({said})\n        return self\n",
        object.name
    )
}

/// `to_json` leaves nulls out, but not those that have to be there.
fn nulls(object: &Object) -> String {
    let kept = object.fields.iter().filter(|field| field.required && field.nullable);
    let kept: Vec<_> = kept.map(|field| Piece::word(format!("{}: None", quoted(&field.name)))).collect();
    if kept.is_empty() {
        return String::new();
    }
    let kept = Piece::group("{", kept.into_iter().chain([Piece::word("**write(self)")]), "}").render(STYLE, 2, "        return ".len(), 0);
    let head = "    @model_serializer(mode=\"wrap\")\n    def _with_nulls(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:";
    format!("\n{head}\n        return {kept}\n")
}

fn annotated(module: &Module, field: &Field) -> String {
    let name = attribute(&field.name);
    let optional = !field.required || field.nullable;
    let alias = (name != field.name).then(|| format!("alias={}", quoted(&field.name)));
    let value = match (field.required, alias) {
        (true, None) => String::new(),
        (true, Some(alias)) => format!(" = Field({alias})"),
        (false, None) => " = None".to_owned(),
        (false, Some(alias)) => format!(" = Field(default=None, {alias})"),
    };
    let mut members = match &field.ty {
        Type::Either(name) => module.either(name).iter().map(|ty| annotation(module, ty)).collect(),
        ty => vec![annotation(module, ty)],
    };
    members.extend((optional && field.ty != Type::Any).then(|| Piece::word("None")));
    let before = 4 + name.len() + 2;
    format!("{name}: {}{value}", union(&members, 1, before, value.len()))
}

/// `A | B`, in brackets where it is too long for the line.
fn union(members: &[Piece], depth: usize, before: usize, after: usize) -> String {
    if let [only] = members {
        return only.render(STYLE, depth, before, after);
    }
    let wide = Style { width: usize::MAX, ..STYLE };
    let flat = members.iter().map(|member| member.render(wide, 0, 0, 0)).collect::<Vec<_>>().join(" | ");
    let (inner, outer) = (" ".repeat(4 * (depth + 1)), " ".repeat(4 * depth));
    if before + flat.len() + after <= STYLE.width {
        flat
    } else if inner.len() + flat.len() <= STYLE.width {
        format!("(\n{inner}{flat}\n{outer})")
    } else {
        let each: Vec<_> = members.iter().map(|member| member.render(STYLE, depth + 1, inner.len() + 2, 0)).collect();
        format!("(\n{inner}{}\n{outer})", each.join(&format!("\n{inner}| ")))
    }
}

/// The type's annotation.
fn annotation(module: &Module, ty: &Type) -> Piece {
    let base = |name: &str, rules: Vec<String>, more: Vec<String>| {
        let field = (!rules.is_empty()).then(|| Piece::group("Field(", rules.into_iter().map(Piece::Word), ")"));
        let items: Vec<_> = field.into_iter().chain(more.into_iter().map(Piece::Word)).collect();
        if items.is_empty() { Piece::word(name) } else { Piece::group("Annotated[", [Piece::word(name)].into_iter().chain(items), "]") }
    };
    let lengths = |min: &Option<u64>, max: &Option<u64>| {
        [("min_length", min), ("max_length", max)].iter().filter_map(|(rule, limit)| Some(format!("{rule}={}", limit.as_ref()?))).collect()
    };
    match ty {
        Type::Text { min, max, pattern } => {
            base("Text", lengths(min, max), pattern.iter().map(|pattern| format!("_matches({})", quoted(pattern))).collect())
        }
        Type::Choice(name) | Type::Object(name) => Piece::word(name),
        Type::Timestamp => Piece::word("Timestamp"),
        Type::Uuid => Piece::word("Uuid"),
        Type::Integer(range) => base("Integer", bounds(range), Vec::new()),
        Type::Number(range) => base("Number", bounds(range), Vec::new()),
        Type::Boolean => Piece::word("Boolean"),
        Type::List { item, min, max, unique } => {
            let rules: Vec<String> = lengths(min, max);
            let mut items = vec![Piece::group("list[", [annotation(module, item)], "]"), Piece::word("BeforeValidator(_list)")];
            items.extend((!rules.is_empty()).then(|| Piece::group("Field(", rules.into_iter().map(Piece::Word), ")")));
            items.extend(unique.then(|| Piece::word("AfterValidator(_unique)")));
            Piece::group("Annotated[", items, "]")
        }
        Type::Map(value) => Piece::group("dict[", [Piece::word("str"), annotation(module, value)], "]"),
        Type::Either(name) => {
            let each = module.either(name).iter().map(|ty| annotation(module, ty).render(STYLE, 1, 0, 0)).collect::<Vec<_>>();
            Piece::word(each.join(" | "))
        }
        Type::Any => Piece::word("Any"),
    }
}

fn bounds(range: &Range) -> Vec<String> {
    let rule = |bound| match bound {
        Bound::Minimum => "ge",
        Bound::Maximum => "le",
        Bound::Above => "gt",
        Bound::Below => "lt",
    };
    range.bounds().map(|(bound, limit)| format!("{}={limit}", rule(bound))).collect()
}

// === Words ===

/// A field's name in Python.
fn attribute(field: &str) -> String {
    let mut name: String = field.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit() || c == '_') {
        name.insert_str(0, "field_");
    }
    if RESERVED.contains(&name.as_str()) || name.starts_with("model_") {
        name.push('_');
    }
    name
}

/// A string as Black quotes it: in double quotes, unless that takes more escapes.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    if text.contains('"') && !text.contains(['\'', '\\']) { format!("'{text}'") } else { json }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => quoted(text),
        Value::Number(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{}: {}", quoted(name), literal(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A tuple.
fn list(items: impl Iterator<Item = String>, before: usize) -> String {
    let mut items: Vec<_> = items.map(Piece::Word).collect();
    if let [Piece::Word(only)] = items.as_mut_slice() {
        return format!("({only},)");
    }
    Piece::group("(", items, ")").render(STYLE, 0, before, 0)
}

fn docstring(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace("\"\"\"", "\\\"\\\"\\\"");
    // A quote at the end would be the closing one's.
    if text.ends_with('"') { format!("\"\"\"{text} \"\"\"") } else { format!("\"\"\"{text}\"\"\"") }
}
