//! The payloads of a domain's events, and the way from their past versions.

use super::{CALL, ident, quoted};
use crate::{
    codegen::{
        Options,
        layout::Piece,
        model::{Event, Module},
        names,
    },
    event::upcast::Step,
};

pub(super) fn payloads(module: &Module, options: Options) -> String {
    let name = format!("{}Payload", module.name);
    let kind = format!("{}EventType", module.name);
    let each = |line: &dyn Fn(&Event, String) -> String| -> String {
        module.events.iter().map(|event| line(event, names::pascal(&event.action))).collect()
    };
    let variants = each(&|event, variant| format!("    /// Of `{}`.\n    {variant}({}),\n", event.name, event.payload));
    let types = each(&|_, variant| format!("            Self::{variant}(_) => {kind}::{variant},\n"));
    let users = each(&|_, variant| format!("            Self::{variant}(data) => &data.user_id,\n"));
    let reads = each(&|_, variant| format!("            {kind}::{variant} => serde_json::from_value(data).map(Self::{variant}),\n"));
    let checked = each(&|_, variant| format!("            Self::{variant}(payload) => payload.check(\"data\", problems),\n"));
    let check = match options.validation {
        true => format!("\n    fn check(&self, problems: &mut Vec<String>) {{\n        match self {{\n{checked}        }}\n    }}\n"),
        false => String::new(),
    };
    let fill = each(&|event, variant| match event.filled.as_slice() {
        [] => format!("            Self::{variant}(_) => {{}}\n"),
        names => {
            let lines: String =
                names.iter().map(|name| format!("                payload.{}.get_or_insert(time);\n", ident(name))).collect();
            format!("            Self::{variant}(payload) => {{\n{lines}            }}\n")
        }
    });
    let time = if module.events.iter().any(|event| !event.filled.is_empty()) { "time" } else { "_time" };
    let from = each(&|event, variant| {
        format!(
            "\n\nimpl From<{0}> for {name} {{\n    fn from(payload: {0}) -> Self {{\n        Self::{variant}(payload)\n    }}\n}}",
            event.payload
        )
    });
    format!(
        "/// What each event carries.\n#[derive(Debug, Clone, PartialEq, Serialize)]\n#[serde(untagged)]\npub enum {name} {{\n{variants}}}\n\n\
         impl {name} {{\n    /// What kind of event carries it.\n    pub fn event_type(&self) -> {kind} {{\n        match self {{\n{types}        }}\n    }}\n\n\
         \x20   fn user_id(&self) -> &str {{\n        match self {{\n{users}        }}\n    }}\n\n\
         \x20   fn read(event_type: {kind}, data: Value) -> Result<Self, EventError> {{\n        match event_type {{\n{reads}        }}\n\
         \x20       .map_err(|error| EventError::of(format!(\"data: {{error}}\")))\n    }}\n{check}\n\
         \x20   /// Gives the times that are open the event's own.\n    fn fill(&mut self, {time}: Timestamp) {{\n        match self {{\n{fill}        }}\n    }}\n}}{from}"
    )
}

pub(super) fn upcast(module: &Module) -> String {
    let kind = format!("{}EventType", module.name);
    let mut arms = String::new();
    for event in module.events.iter().filter(|event| !event.past.is_empty()) {
        arms += &format!("        {kind}::{} => {{\n", names::pascal(&event.action));
        for (past, steps) in &event.past {
            let (major, minor) = past.split_once('.').unwrap_or((past, "0"));
            arms += &format!("            if sent <= ({major}, {minor}) {{\n");
            for step in steps {
                let (path, step) = match step {
                    Step::Add { field, value } => (field, format!("Step::Add(serde_json::json!({value}))")),
                    Step::Move { from, to } => (from, format!("Step::Move({})", quoted(to))),
                    Step::Remove { field } => (field, "Step::Remove".to_owned()),
                    Step::Call { name, field, .. } => (field, format!("Step::Call({name})")),
                };
                let call = Piece::group("apply(", [Piece::word("data"), Piece::word(quoted(path)), Piece::word(step)], ")");
                arms += &format!("                {};\n", call.render(CALL, 4, 16, 1));
            }
            arms += "            }\n";
        }
        arms += "        }\n";
    }
    if module.events.iter().any(|event| event.past.is_empty()) {
        arms += "        _ => {}\n";
    }
    format!("fn upcast(event_type: Kind, sent: (u32, u32), data: &mut Map<String, Value>) {{\n    match event_type {{\n{arms}    }}\n}}")
}

/// The functions that the steps call.
pub(super) fn functions(module: &Module) -> String {
    let steps = || module.events.iter().flat_map(|event| &event.past).flat_map(|(_, steps)| steps);
    let is_called = |wanted: &str| steps().any(|step| matches!(step, Step::Call { name, .. } if name == wanted));
    let body = |name: &str| match name {
        "lowercase" => "    if let Value::String(text) = &value {\n        return text.to_lowercase().into();\n    }\n    value\n",
        "uppercase" => "    if let Value::String(text) = &value {\n        return text.to_uppercase().into();\n    }\n    value\n",
        "integer" => concat!(
            "    let whole = |number: &f64| number.fract() == 0.0 && number.abs() < 9e15;\n",
            "    let read = match &value {\n",
            "        Value::String(text) => text.trim().parse::<i64>().ok(),\n",
            "        Value::Number(number) => number.as_f64().filter(whole).map(|number| number as i64),\n",
            "        _ => None,\n",
            "    };\n",
            "    read.map_or(value, Value::from)\n",
        ),
        _ => "    if value.is_number() || value.is_boolean() {\n        return value.to_string().into();\n    }\n    value\n",
    };
    let called = ["lowercase", "uppercase", "integer", "text"].into_iter().filter(|name| is_called(name));
    called.map(|name| format!("\nfn {name}(value: Value) -> Value {{\n{}}}\n", body(name))).collect::<String>().trim_end().to_owned()
}
