//! Conditions on events, in CEL: <https://github.com/google/cel-spec>. Pure.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
};

use cel::{Context, Env, Program};
use serde_json::Value as Json;

/// The functions and operators that expressions have: CEL's standard ones.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled expression about one variable, `event`: the CloudEvent as a map. Empty text holds for every event.
pub struct Condition {
    text: String,
    program: Option<Program>,
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({:?})", self.text)
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// A CloudEvent that conditions are asked about, converted once for all of them.
pub struct Subject(Context<'static, 'static>);

impl Subject {
    /// Takes the event as JSON.
    pub fn new(event: &Json) -> Self {
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.add_variable_from_value("event", value(event));
        Self(context)
    }
}

impl Condition {
    /// Compiles an expression.
    ///
    /// # Errors
    /// Where it is no CEL, with line and column; where it names another variable than `event`.
    pub fn compile(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self { text: String::new(), program: None });
        }
        let wrong = |why: String| format!("`{text}` is no CEL expression: {why}");
        let program = ENV.compile(text).map_err(|errors| {
            let first = errors.errors.first().map(|error| format!("{} (line {}, column {})", error.msg, error.pos.0, error.pos.1));
            wrong(first.unwrap_or_default())
        })?;
        let references = program.references();
        let names = references.variables();
        // Names that a macro brings, as in `list.exists(x, ..)`, count too: what is surely wrong is to name others alone.
        if let Some(unknown) = names.first().filter(|_| !names.contains(&"event")) {
            return Err(wrong(format!("`{unknown}` is not known; an expression is about `event`")));
        }
        Ok(Self { text: text.to_owned(), program: Some(program) })
    }

    /// Whether it holds for that event.
    ///
    /// # Errors
    /// Where it cannot be told, as for a field that the event lacks, or is neither true nor false. Never with a value of the event.
    pub fn holds(&self, event: &Subject) -> Result<bool, String> {
        let Some(program) = &self.program else { return Ok(true) };
        match program.execute(&event.0) {
            Ok(cel::Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("`{}` is a {}, neither true nor false", self.text, other.type_of())),
            Err(cel::ExecutionError::NoSuchKey(key)) => Err(format!("`{}`: the event has no `{key}`", self.text)),
            Err(cel::ExecutionError::UndeclaredReference(name)) => Err(format!("`{}`: `{name}` is not known", self.text)),
            // The library's words repeat values of the event.
            Err(_) => Err(format!("`{}` cannot be told of this event", self.text)),
        }
    }
}

/// JSON as CEL sees it: whole numbers are integers.
fn value(json: &Json) -> cel::Value {
    match json {
        Json::Null => cel::Value::Null,
        Json::Bool(flag) => cel::Value::Bool(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => cel::Value::Int(number),
            (None, Some(number)) => cel::Value::UInt(number),
            (None, None) => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => items.iter().map(value).collect::<Vec<_>>().into(),
        Json::Object(fields) => fields.iter().map(|(name, field)| (name.as_str(), value(field))).collect::<HashMap<_, _>>().into(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Json {
        json!({"specversion": "1.0", "type": "task.created", "source": "todo", "id": "1", "data": {
            "user_id": "u1", "task_id": 7, "score": 2.5, "tags": ["home", "urgent"], "secret": "hunter2", "title": "Buy <milk>", "none": null,
            "due": "2026-01-02T03:04:05Z"}})
    }

    fn ask(text: &str) -> Result<bool, String> {
        Condition::compile(text).unwrap().holds(&Subject::new(&event()))
    }

    #[test]
    fn expressions_mean_what_cel_says() {
        for (text, expected) in [
            ("event.type == \"task.created\"", true),
            ("event.type == 'task.deleted'", false),
            ("event.data.task_id == 7", true),
            ("event.data.task_id > 6 && event.data.task_id < 8.5", true),
            ("event.data.score >= 2", true),
            ("event.type.startsWith('task.') && !(event.source == 'other')", true),
            ("event.type in ['task.created', 'task.updated']", true),
            ("'urgent' in event.data.tags", true),
            ("size(event.data.tags) == 2", true),
            ("has(event.data.title) && !has(event.data.nothing)", true),
            ("event['type'] == 'task.created'", true),
            ("event.type.matches('^task[.]c')", true),
            ("event.data.tags.exists(tag, tag == 'home')", true),
            ("event.data.none == null", true),
            ("timestamp(event.data.due) < timestamp('2026-02-01T00:00:00Z')", true),
            ("event.data.missing == 'x' || event.type == 'task.created'", true),
            ("", true),
            ("  ", true),
        ] {
            assert_eq!(ask(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_an_error_without_the_events_values() {
        for (text, expected) in [
            ("event.data.missing == 'x'", "has no `missing`"),
            ("event.data.secret + 1 == 2", "cannot be told"),
            ("event.data.secret", "neither true nor false"),
            ("event.data.secret > 5", "cannot be told"),
            ("event.type == other.type", "`other` is not known"),
        ] {
            let told = ask(text).unwrap_err();
            assert!(told.contains(expected) && !told.contains("hunter2"), "{text}: {told}");
        }
    }

    #[test]
    fn what_is_no_expression_about_the_event_is_refused_with_its_place() {
        let told = Condition::compile("event.type == ").unwrap_err();
        assert!(told.contains("line 1"), "{told}");
        assert!(Condition::compile("evnt.type == 'a'").unwrap_err().contains("`evnt`"));
        assert!(Condition::compile(&"(".repeat(100_000)).is_err());
    }
}
