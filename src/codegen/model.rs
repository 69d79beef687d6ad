//! What every language can say about an event: the small common ground between JSON Schema and the type systems.

use serde_json::Number;

use crate::event::upcast::Step;

/// One generated file.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// `tasks`.
    pub(super) domain: String,
    /// `Task`: what the names of its types begin with.
    pub(super) name: String,
    /// The events, in the order asked for.
    pub(super) events: Vec<Event>,
    /// Named sets of values.
    pub(super) choices: Vec<Choice>,
    /// Payloads and what is nested in them; what others use stands before them.
    pub(super) objects: Vec<Object>,
    /// Alternatives of types that are no object, by name.
    pub(super) eithers: Vec<Either>,
}

/// One event type.
#[derive(Debug)]
pub(super) struct Event {
    /// `task.created`.
    pub(super) name: String,
    /// `created`; the whole name where it begins with another word than the domain's types do.
    pub(super) action: String,
    /// `2.0`.
    pub(super) version: String,
    /// Other names that it is sent under.
    pub(super) aliases: Vec<String>,
    /// Name of its [`Object`].
    pub(super) payload: String,
    /// Fields that take the event's time.
    pub(super) filled: Vec<String>,
    /// Fields that count as data wherever they stand.
    pub(super) lifted: Vec<String>,
    /// Past versions, oldest first, with the steps to the next one.
    pub(super) past: Vec<(String, Vec<Step>)>,
}

/// An enumeration of strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) name: String,
    pub(super) values: Vec<String>,
}

/// An alternative that a language without anonymous unions has to name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Either {
    pub(super) name: String,
    pub(super) types: Vec<Type>,
}

/// An object with known fields.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) fields: Vec<Field>,
    /// Whether unknown fields are refused.
    pub(super) closed: bool,
    /// At least one of these groups of fields is there and not null.
    pub(super) any_of: Vec<Vec<String>>,
}

/// One field of an [`Object`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) required: bool,
    /// Whether a required field may be null. One that is not required always may.
    pub(super) nullable: bool,
    pub(super) ty: Type,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    /// A string; lengths in characters.
    Text {
        min: Option<u64>,
        max: Option<u64>,
        /// As the module's language writes it.
        pattern: Option<String>,
    },
    /// A [`Choice`], by name.
    Choice(String),
    /// A point in time, as RFC 3339 text.
    Timestamp,
    Uuid,
    Integer(Range),
    Number(Range),
    Boolean,
    List {
        item: Box<Type>,
        min: Option<u64>,
        max: Option<u64>,
        unique: bool,
    },
    /// An object of unknown names and these values.
    Map(Box<Type>),
    /// An [`Object`], by name.
    Object(String),
    /// An [`Either`], by name.
    Either(String),
    /// Anything at all.
    Any,
}

/// Bounds of a number.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Range {
    pub(super) minimum: Option<Number>,
    pub(super) maximum: Option<Number>,
    pub(super) above: Option<Number>,
    pub(super) below: Option<Number>,
}

impl Range {
    /// The bounds that there are: keyword of JSON Schema, limit.
    pub(super) fn bounds(&self) -> impl Iterator<Item = (Bound, &Number)> {
        let all =
            [(Bound::Minimum, &self.minimum), (Bound::Maximum, &self.maximum), (Bound::Above, &self.above), (Bound::Below, &self.below)];
        all.into_iter().filter_map(|(bound, limit)| Some((bound, limit.as_ref()?)))
    }
}

/// Which bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    Minimum,
    Maximum,
    Above,
    Below,
}

impl Module {
    /// The object of that name; every name that a type mentions has one.
    pub(super) fn either(&self, name: &str) -> &[Type] {
        self.eithers.iter().find(|either| either.name == name).map_or(&[], |either| &either.types)
    }

    /// Every type that stands anywhere in the module, also inside lists and alternatives.
    pub(super) fn types(&self) -> Vec<&Type> {
        fn inside<'a>(ty: &'a Type, found: &mut Vec<&'a Type>) {
            found.push(ty);
            match ty {
                Type::List { item, .. } => inside(item, found),
                Type::Map(value) => inside(value, found),
                _ => {}
            }
        }
        let mut found = Vec::new();
        let fields = self.objects.iter().flat_map(|object| &object.fields).map(|field| &field.ty);
        for ty in fields.chain(self.eithers.iter().flat_map(|either| &either.types)) {
            inside(ty, &mut found);
        }
        found
    }

    /// Fields that count as data wherever they stand, of any event.
    pub(super) fn lifted(&self) -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        for name in self.events.iter().flat_map(|event| &event.lifted) {
            if !all.contains(&name.as_str()) {
                all.push(name);
            }
        }
        all
    }
}
