//! Most events are valid, and most schemas say simple things: this check reads the raw text once, without a tree of values, and says yes
//! where it is sure. Whatever it is not sure of goes to the whole validator, which alone refuses.

use serde_json::Value;

use super::{
    plain::{self, Member, Plain},
    time,
};

/// The simple part of a schema.
#[derive(Debug)]
pub(super) struct Quick {
    fields: Box<[Field]>,
}

#[derive(Debug)]
struct Field {
    name: Box<str>,
    required: bool,
    /// `None`: says something that is not understood here; only its absence is sure.
    rule: Option<Rule>,
}

/// What a value may be: one of these types and, where it is a string, that.
#[derive(Debug, Default)]
pub(super) struct Rule {
    null: bool,
    boolean: bool,
    integer: bool,
    number: bool,
    text: Option<TextRule>,
    /// A list, each item of which is this.
    items: Option<Box<Rule>>,
}

#[derive(Debug, Default)]
struct TextRule {
    shortest: u64,
    longest: Option<u64>,
    format: Option<Format>,
    choices: Option<Box<[Box<str>]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Time,
    Uuid,
}

/// Where a field that is missing from the data comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Elsewhere<'a> {
    /// Nowhere.
    Absent,
    /// This text takes its place.
    Text(&'a str),
    /// A whole number.
    Integer,
    /// A time as this worker writes it.
    Time,
    /// Something that is not looked at here.
    Unknown,
}

impl Quick {
    /// Understands a complete schema; `None` where it says something about the object as a whole that is not understood.
    pub(super) fn of(schema: &Value) -> Option<Self> {
        let schema = schema.as_object()?;
        let silent = ["$schema", "title", "description", "type", "required", "properties", "examples"];
        if schema.keys().any(|keyword| !silent.contains(&keyword.as_str())) || schema.get("type") != Some(&Value::from("object")) {
            return None;
        }
        let required = schema.get("required").and_then(Value::as_array)?;
        let fields: Box<[Field]> = schema
            .get("properties")?
            .as_object()?
            .iter()
            .map(|(name, property)| Field {
                name: name.as_str().into(),
                required: required.iter().any(|needed| needed == name.as_str()),
                rule: Rule::of(property),
            })
            .collect();
        let known = |name: &Value| fields.iter().any(|field| name == &*field.name);
        (fields.len() <= 64 && required.iter().all(known)).then_some(Self { fields })
    }

    /// Whether an object of these members is valid for sure. `elsewhere`: what takes the place of a field that is missing or, where it says
    /// so, null.
    pub(super) fn takes<'e>(&self, data: &[Member<'_>], elsewhere: impl Fn(&str, bool) -> Elsewhere<'e>) -> bool {
        let Some(seen) = self.look(data) else { return false };
        self.fields.iter().enumerate().all(|(index, field)| {
            let bit = 1_u64 << index;
            if seen.present & bit != 0 && seen.null & bit == 0 {
                return true;
            }
            let null = seen.null & bit != 0;
            let rule = field.rule.as_ref();
            match elsewhere(&field.name, null) {
                Elsewhere::Absent if null => rule.is_some_and(|rule| rule.null),
                Elsewhere::Absent => !field.required,
                Elsewhere::Text(text) => rule.is_some_and(|rule| rule.takes_text(text)),
                Elsewhere::Time => rule.is_some_and(Rule::takes_times),
                Elsewhere::Integer => rule.is_some_and(|rule| rule.integer || rule.number),
                Elsewhere::Unknown => false,
            }
        })
    }

    /// Which fields there are; `None` where one of them is not valid for sure.
    fn look(&self, data: &[Member<'_>]) -> Option<Seen> {
        let mut seen = Seen::default();
        for &(name, value) in data {
            let Some(index) = self.fields.iter().position(|field| *field.name == *name) else { continue };
            let bit = 1_u64 << index;
            // Of a name that stands twice the last counts: not sure which that will be for everybody.
            if seen.present & bit != 0 {
                return None;
            }
            seen.present |= bit;
            if value == Plain::Null {
                seen.null |= bit;
            } else if !self.fields[index].rule.as_ref()?.takes(value) {
                return None;
            }
        }
        Some(seen)
    }
}

impl Rule {
    fn of(schema: &Value) -> Option<Self> {
        let schema = schema.as_object()?;
        if let Some(ways) = schema.get("anyOf") {
            let alone = schema.keys().all(|keyword| matches!(keyword.as_str(), "anyOf" | "title" | "description"));
            return alone.then(|| Self::any_of(ways.as_array()?))?;
        }
        let mut rule = Self::default();
        // Without a type anything goes that the other words do not forbid.
        let list = match schema.get("type")? {
            Value::Array(types) => types.iter().map(|name| rule.allow(name.as_str()?)).collect::<Option<Vec<bool>>>()?.contains(&true),
            name => rule.allow(name.as_str()?)?,
        };
        let mut text = TextRule::default();
        for (keyword, value) in schema {
            match keyword.as_str() {
                "type" | "title" | "description" | "examples" | "default" => {}
                "minLength" => text.shortest = value.as_u64()?,
                "maxLength" => text.longest = Some(value.as_u64()?),
                "format" => text.format = Some(Format::of(value.as_str()?)?),
                "enum" => text.choices = Some(rule.choices(value.as_array()?)?),
                "items" if list => rule.items = Some(Box::new(Self::of(value)?)),
                _ => return None,
            }
        }
        if text.choices.is_some() {
            // It says all: what it does not list is refused, whatever its type.
            (rule.boolean, rule.integer, rule.number, rule.items) = (false, false, false, None);
        }
        if let Some(allowed) = &mut rule.text {
            *allowed = text;
        }
        Some(rule)
    }

    /// Adds a type by name; answers whether it is that of lists, which are sure only with a rule for their items.
    fn allow(&mut self, name: &str) -> Option<bool> {
        match name {
            "null" => self.null = true,
            "boolean" => self.boolean = true,
            "integer" => self.integer = true,
            "number" => self.number = true,
            "string" => self.text = Some(TextRule::default()),
            "array" => return Some(true),
            _ => return None,
        }
        Some(false)
    }

    fn choices(&mut self, options: &[Value]) -> Option<Box<[Box<str>]>> {
        let mut names = Vec::new();
        let mut null = false;
        for option in options {
            match option {
                Value::Null => null = true,
                Value::String(name) => names.push(name.as_str().into()),
                _ => return None,
            }
        }
        self.null &= null;
        Some(names.into())
    }

    /// Ways that allow different types are one rule; two that both allow strings are not.
    fn any_of(ways: &[Value]) -> Option<Self> {
        ways.iter().map(Self::of).try_fold(Self::default(), |sum, way| {
            let way = way?;
            let both = sum.text.is_some() && way.text.is_some() || sum.items.is_some() || way.items.is_some();
            (!both).then(|| Self {
                null: sum.null || way.null,
                boolean: sum.boolean || way.boolean,
                integer: sum.integer || way.integer,
                number: sum.number || way.number,
                text: sum.text.or(way.text),
                items: None,
            })
        })
    }

    /// Whether a value that is not null is valid for sure.
    fn takes(&self, value: Plain<'_>) -> bool {
        match value {
            Plain::Boolean => self.boolean,
            Plain::Integer(_) => self.integer || self.number,
            Plain::Decimal => self.number,
            Plain::Text(text) => self.takes_text(text),
            Plain::Escaped(_) => value.text().is_some_and(|text| self.takes_text(&text)),
            Plain::Array(list) => {
                self.items.as_deref().is_some_and(|rule| plain::list(list, |item| rule.takes(item).then_some(())).is_some())
            }
            // A null among a list's items, too.
            Plain::Null | Plain::Object(_) => false,
        }
    }

    /// Whether any time will do.
    fn takes_times(&self) -> bool {
        let free = |rule: &TextRule| rule.shortest <= 1 && rule.longest.is_none() && rule.choices.is_none();
        self.text.as_ref().is_some_and(|rule| free(rule) && rule.format.is_none_or(|format| format == Format::Time))
    }

    fn takes_text(&self, text: &str) -> bool {
        let Some(rule) = &self.text else { return false };
        let chars = || text.chars().count() as u64;
        // No text has more characters than bytes.
        (rule.shortest == 0 || (rule.shortest == 1 && !text.is_empty()) || chars() >= rule.shortest)
            && rule.longest.is_none_or(|longest| text.len() as u64 <= longest || chars() <= longest)
            && rule.choices.as_ref().is_none_or(|choices| choices.iter().any(|choice| **choice == *text))
            && rule.format.is_none_or(|format| format.takes(text))
    }
}

impl Format {
    fn of(name: &str) -> Option<Self> {
        match name {
            "date-time" => Some(Self::Time),
            "uuid" => Some(Self::Uuid),
            _ => None,
        }
    }

    fn takes(self, text: &str) -> bool {
        match self {
            Self::Time => time::parse(text).is_some(),
            Self::Uuid => {
                let dash = |index| matches!(index, 8 | 13 | 18 | 23);
                text.len() == 36
                    && text.bytes().enumerate().all(|(index, byte)| if dash(index) { byte == b'-' } else { byte.is_ascii_hexdigit() })
            }
        }
    }
}

/// Which of an object's fields were there: a bit for each.
#[derive(Debug, Default)]
struct Seen {
    present: u64,
    null: u64,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
