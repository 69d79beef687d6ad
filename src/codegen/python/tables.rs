//! What the helpers look up: versions, payloads, aliases, steps.

use super::{STYLE, attribute, list, literal, member, quoted};
use crate::{
    codegen::{
        layout::Piece,
        model::{Event, Module},
    },
    event::upcast::Step,
};

pub(super) fn tables(module: &Module, migrations: bool) -> String {
    let key = |event: &Event| format!("{}EventType.{}", module.name, member(event));
    let aliases = module.events.iter().flat_map(|event| event.aliases.iter().map(move |alias| (quoted(alias), quoted(&event.name))));
    let versions = module.events.iter().map(|event| (key(event), quoted(&event.version)));
    let payloads = module.events.iter().map(|event| (key(event), event.payload.clone()));
    let filled = module.events.iter().filter(|event| !event.filled.is_empty());
    let filled = filled.map(|event| (key(event), list(event.filled.iter().map(|name| quoted(&attribute(name))), 0)));
    let mut text = table("_ALIASES: dict[Any, str]", aliases)
        + &table("VERSIONS", versions)
        + &table("_PAYLOADS: dict[Any, type[_Model]]", payloads)
        + &table("_FILLED: dict[Any, tuple[str, ...]]", filled);
    if migrations {
        let past = module.events.iter().filter(|event| !event.past.is_empty());
        text += &table("_MIGRATIONS: dict[Any, list[Any]]", past.map(|event| (key(event), steps(event))));
    }
    text.trim_end().to_owned()
}

fn table(name: &str, rows: impl Iterator<Item = (String, String)>) -> String {
    let rows: String = rows.map(|(key, value)| format!("    {key}: {value},\n")).collect();
    if rows.is_empty() { format!("{name} = {{}}\n") } else { format!("{name} = {{\n{rows}}}\n") }
}

fn steps(event: &Event) -> String {
    let step = |step: &Step| {
        let words = match step {
            Step::Add { field, value } => vec!["add".into(), field.as_str().into(), value.clone()],
            Step::Move { from, to } => vec!["move".into(), from.as_str().into(), to.as_str().into()],
            Step::Remove { field } => vec!["remove".into(), field.as_str().into()],
            Step::Call { name, field, .. } => vec!["call".into(), field.as_str().into(), name.as_str().into()],
        };
        Piece::group("(", words.iter().map(|word| Piece::word(literal(word))), ")")
    };
    let mut text = String::from("[\n");
    for (version, steps) in &event.past {
        text += &format!("        (\n            {},\n            [\n", quoted(version));
        for one in steps {
            text += &format!("                {},\n", step(one).render(STYLE, 4, 16, 1));
        }
        text += "            ],\n        ),\n";
    }
    text + "    ]"
}
