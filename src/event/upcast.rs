//! Old versions of `data` to the current one, one declared step after the other.
//!
//! Paths are dotted names (`schedule.pattern`). A step that finds nothing to do does nothing, so that data which is already new stays as it is.

use std::{borrow::Cow, fmt};

use serde_json::{Value, value::RawValue};

use super::fields::{Fields, raw};

/// What a `call` step runs: a value to its new form.
pub type Function = fn(Value) -> Value;

/// Functions that a catalogue's files can call besides those that a program adds.
pub const FUNCTIONS: [(&str, Function); 4] = [("lowercase", lowercase), ("uppercase", uppercase), ("integer", integer), ("text", text)];

/// One change of `data`.
#[derive(Clone)]
pub enum Step {
    /// Gives a field that is absent a value.
    Add {
        /// Where.
        field: String,
        /// What.
        value: Value,
    },
    /// Gives a field another name or place; one that is there already wins, and the old one stays.
    Move {
        /// Where it was.
        from: String,
        /// Where it will be.
        to: String,
    },
    /// Takes a field away.
    Remove {
        /// Which.
        field: String,
    },
    /// Runs a function over a field that is there.
    Call {
        /// Its name in the file.
        name: String,
        /// What runs.
        run: Function,
        /// On what.
        field: String,
    },
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { field, .. } => write!(f, "add {field}"),
            Self::Move { from, to } => write!(f, "move {from} to {to}"),
            Self::Remove { field } => write!(f, "remove {field}"),
            Self::Call { name, field, .. } => write!(f, "call {name} on {field}"),
        }
    }
}

impl Step {
    pub(super) fn apply(&self, data: &mut Fields<'_>) {
        match self {
            Self::Add { field, value } => {
                if look(data, field).is_none() {
                    put(data, field, raw(value));
                }
            }
            Self::Move { from, to } => {
                if look(data, to).is_none()
                    && let Some(value) = take(data, from)
                {
                    put(data, to, value);
                }
            }
            Self::Remove { field } => drop(take(data, field)),
            Self::Call { run, field, .. } => {
                if let Some(value) = look(data, field).and_then(|old| serde_json::from_str(old.get()).ok()) {
                    put(data, field, raw(&run(value)));
                }
            }
        }
    }
}

/// Runs the steps over a `data` in memory: for examples and tests.
pub fn upcast<'s>(data: &Value, steps: impl IntoIterator<Item = &'s Step>) -> Value {
    let text = raw(data);
    let Some(mut fields) = Fields::of(text.get()) else { return data.clone() };
    for step in steps {
        step.apply(&mut fields);
    }
    serde_json::from_str(fields.to_raw().get()).unwrap_or_else(|_| data.clone())
}

fn look(fields: &Fields<'_>, path: &str) -> Option<Box<RawValue>> {
    match path.split_once('.') {
        None => fields.get(path).map(ToOwned::to_owned),
        Some((first, rest)) => look(&Fields::of(fields.get(first)?.get())?, rest),
    }
}

fn take(fields: &mut Fields<'_>, path: &str) -> Option<Box<RawValue>> {
    let Some((first, rest)) = path.split_once('.') else {
        return fields.remove(path).map(Cow::into_owned);
    };
    let (taken, left) = {
        let mut inner = Fields::of(fields.get(first)?.get())?;
        (take(&mut inner, rest)?, inner.to_raw())
    };
    fields.set(first, Cow::Owned(left));
    Some(taken)
}

/// Puts a value where the path says. A place inside something that is no object is left alone: the schema will name it.
fn put(fields: &mut Fields<'_>, path: &str, value: Box<RawValue>) {
    let Some((first, rest)) = path.split_once('.') else {
        return fields.set(path, Cow::Owned(value));
    };
    let changed = match fields.get(first) {
        None => {
            let mut inner = Fields::default();
            put(&mut inner, rest, value);
            inner.to_raw()
        }
        Some(outer) => {
            let Some(mut inner) = Fields::of(outer.get()) else { return };
            put(&mut inner, rest, value);
            inner.to_raw()
        }
    };
    fields.set(first, Cow::Owned(changed));
}

fn lowercase(value: Value) -> Value {
    if let Value::String(text) = &value { Value::String(text.to_lowercase()) } else { value }
}

fn uppercase(value: Value) -> Value {
    if let Value::String(text) = &value { Value::String(text.to_uppercase()) } else { value }
}

/// `"12"` and `12.0` to `12`; anything else stays.
fn integer(value: Value) -> Value {
    let read = match &value {
        Value::String(text) => text.trim().parse::<i64>().ok(),
        // Exact for every integer that a double can tell from its neighbours.
        Value::Number(number) => number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15).map(|number| number as i64),
        _ => None,
    };
    read.map_or(value, Value::from)
}

fn text(value: Value) -> Value {
    if value.is_number() || value.is_boolean() { Value::String(value.to_string()) } else { value }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{FUNCTIONS, Step, upcast};

    fn call(name: &str, field: &str) -> Option<Step> {
        let (_, run) = FUNCTIONS.into_iter().find(|(found, _)| *found == name)?;
        Some(Step::Call { name: name.to_owned(), run, field: field.to_owned() })
    }

    fn mv(from: &str, to: &str) -> Step {
        Step::Move { from: from.to_owned(), to: to.to_owned() }
    }

    #[test]
    fn each_step_does_what_it_says_and_nothing_the_second_time() {
        let steps: Vec<Step> = [
            Step::Add { field: "priority".to_owned(), value: json!("low") },
            mv("name", "title"),
            mv("when", "schedule.due"),
            Step::Remove { field: "legacy.flag".to_owned() },
        ]
        .into_iter()
        .chain(call("lowercase", "state"))
        .chain(call("integer", "count"))
        .chain(call("text", "code"))
        .collect();
        let old = json!({ "name": "x", "when": "t", "legacy": { "flag": true, "kept": 1 }, "state": "OPEN", "count": "12", "code": 7 });
        let new = json!({
            "legacy": { "kept": 1 }, "state": "open", "count": 12, "code": "7", "priority": "low", "title": "x", "schedule": { "due": "t" }
        });
        assert_eq!(upcast(&old, &steps), new);
        assert_eq!(upcast(&new, &steps), new);
    }

    #[test]
    fn a_moved_field_never_overwrites_one_that_is_there() {
        let data = json!({ "name": "old", "title": "new" });
        assert_eq!(upcast(&data, &[mv("name", "title")]), data);
    }

    #[test]
    fn a_path_through_something_that_is_no_object_changes_nothing() {
        let data = json!({ "a": 1 });
        assert_eq!(upcast(&data, &[Step::Add { field: "a.b".to_owned(), value: json!(1) }, mv("a.c", "d")]), data);
    }
}
