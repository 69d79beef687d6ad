//! TypeScript, as Prettier formats it.

mod rules;

use serde_json::Value;

use self::rules::rules;
use super::{
    Options,
    layout::{Piece, Style},
    model::{Choice, Event, Module, Object, Type},
    names,
    template::fill,
};
use crate::event::upcast::Step;

const STYLE: Style = Style { width: 80, indent: 2, narrow: usize::MAX, together: false };

pub(super) fn write(module: &Module, options: Options) -> String {
    let migrations = options.versioning && module.events.iter().any(|event| !event.past.is_empty());
    let flags = [
        ("metadata", options.metadata),
        ("validation", options.validation),
        ("versioning", options.versioning),
        ("either", options.validation || options.versioning),
        ("migrations", migrations),
    ];
    let names: Vec<&str> = module.events.iter().map(|event| event.name.as_str()).collect();
    let payloads: Vec<_> = module.events.iter().map(|event| format!("  {}: {};", key(&event.name), event.payload)).collect();
    let rules = rules(module);
    let values = [
        ("models", models(module)),
        ("envelopes", envelopes(module)),
        ("payloads", payloads.join("\n")),
        ("versions", versions(module)),
        ("aliases", aliases(module)),
        ("filled", filled(module)),
        ("migrations", past(module)),
        ("lifted", array("[", module.lifted().into_iter().map(word)).render(STYLE, 0, "const LIFTED: readonly string[] = ".len(), 1)),
        ("rules", rules),
        ("types", names.join(", ")),
        ("domain", module.domain.clone()),
        ("Name", module.name.clone()),
    ];
    fill(include_str!("templates/models.ts"), &flags, &values.each_ref().map(|(name, value)| (*name, value.as_str())))
}

// === Types ===

fn models(module: &Module) -> String {
    let types = module.events.iter().map(|event| (names::shouted(&event.action), event.name.clone()));
    let mut parts = vec![constants(&format!("{}EventType", module.name), types)];
    parts.extend(module.choices.iter().map(choice));
    parts.extend(module.objects.iter().map(|object| interface(module, object)));
    parts.join("\n\n")
}

fn choice(choice: &Choice) -> String {
    let members = names::distinct(choice.values.iter().map(String::as_str), names::shouted);
    constants(&choice.name, members.into_iter().zip(choice.values.iter().cloned()))
}

fn constants(name: &str, members: impl Iterator<Item = (String, String)>) -> String {
    let lines: String = members.map(|(member, value)| format!("  {member}: {},\n", quoted(&value))).collect();
    let value = format!("(typeof {name})[keyof typeof {name}];");
    let start = format!("export type {name} =");
    let space = if start.len() + 1 + value.len() > STYLE.width { "\n  " } else { " " };
    format!("export const {name} = {{\n{lines}}} as const;\n{start}{space}{value}")
}

fn interface(module: &Module, object: &Object) -> String {
    let mut text = doc(&object.doc, "");
    text += &format!("export interface {} {{\n", object.name);
    for field in &object.fields {
        text += &doc(&field.doc, "  ");
        let optional = if field.required { "" } else { "?" };
        let mut members = alternatives(module, &field.ty);
        if !field.required || field.nullable {
            members.push("null".to_owned());
        }
        if members.iter().any(|member| member == "unknown") {
            members = vec!["unknown".to_owned()];
        }
        text += &format!("  {}\n", union(&format!("{}{optional}:", key(&field.name)), &members, 1));
    }
    if !object.closed {
        text += "  [field: string]: unknown;\n";
    }
    text + "}"
}

/// `start A | B;`, one alternative per line where that is too long.
fn union(start: &str, members: &[String], depth: usize) -> String {
    let flat = format!("{start} {};", members.join(" | "));
    if 2 * depth + flat.len() <= STYLE.width || members.len() == 1 {
        return flat;
    }
    let inner = "  ".repeat(depth + 1);
    let together = format!("{inner}{};", members.join(" | "));
    if together.len() <= STYLE.width {
        return format!("{start}\n{together}");
    }
    format!("{start}{};", members.iter().map(|member| format!("\n{inner}| {member}")).collect::<String>())
}

/// The types that a value may have, each once.
fn alternatives(module: &Module, ty: &Type) -> Vec<String> {
    let one = match ty {
        Type::Text { .. } | Type::Timestamp | Type::Uuid => "string".to_owned(),
        Type::Integer(_) | Type::Number(_) => "number".to_owned(),
        Type::Boolean => "boolean".to_owned(),
        Type::Choice(name) | Type::Object(name) => name.clone(),
        Type::List { item, .. } => match alternatives(module, item).as_slice() {
            [one] => format!("{one}[]"),
            several => format!("({})[]", several.join(" | ")),
        },
        Type::Map(value) => format!("Record<string, {}>", alternatives(module, value).join(" | ")),
        Type::Either(name) => {
            let mut all: Vec<String> = Vec::new();
            for one in module.either(name).iter().flat_map(|ty| alternatives(module, ty)) {
                if !all.contains(&one) {
                    all.push(one);
                }
            }
            return all;
        }
        Type::Any => "unknown".to_owned(),
    };
    vec![one]
}

fn envelopes(module: &Module) -> String {
    let name = |event: &Event| format!("{}Event", names::pascal(&event.name));
    let each = module.events.iter().map(|event| {
        let items = [Piece::word(quoted(&event.name)), Piece::word(&event.payload)];
        let start = format!("export type {} = ", name(event));
        let flat = format!("{start}Envelope<{}, {}>;", quoted(&event.name), event.payload);
        if flat.len() <= STYLE.width {
            return flat;
        }
        // Type arguments take no comma at their end.
        let broken = Piece::group("Envelope<", items, ">").broken().render(STYLE, 0, 0, 0).replace(",\n>", "\n>");
        format!("{start}{broken};")
    });
    let mut lines: Vec<_> = each.collect();
    lines.push(String::new());
    lines.push("/** Any of them: `event_type` tells which. */".to_owned());
    let members: Vec<_> = module.events.iter().map(name).collect();
    lines.push(union(&format!("export type {}Event =", module.name), &members, 0));
    lines.join("\n")
}

// === Tables ===

fn versions(module: &Module) -> String {
    let rows = module.events.iter().map(|event| entry(&event.name, word(&event.version)));
    Piece::object("{", rows).broken().render(STYLE, 0, 0, 1)
}

fn aliases(module: &Module) -> String {
    let rows = module.events.iter().flat_map(|event| event.aliases.iter().map(|alias| entry(alias, word(&event.name))));
    table(rows.collect())
}

fn filled(module: &Module) -> String {
    let rows = module.events.iter().filter(|event| !event.filled.is_empty());
    table(rows.map(|event| entry(&event.name, array("[", event.filled.iter().map(|name| word(name))))).collect())
}

fn past(module: &Module) -> String {
    let rows = module.events.iter().filter(|event| !event.past.is_empty()).map(|event| {
        let versions = event.past.iter().map(|(version, steps)| {
            let steps = Piece::group("[", steps.iter().map(step), "]");
            Piece::group("[", [word(version), steps], "]")
        });
        entry(&event.name, Piece::group("[", versions, "]"))
    });
    table(rows.map(spread).collect())
}

/// Arrays of several arrays or objects with several items are never on one line.
fn spread(piece: Piece) -> Piece {
    let Piece::Group { open, items, close, spaced, broken } = piece else { return piece };
    let items: Vec<_> = items.into_iter().map(spread).collect();
    let long = |item: &Piece| matches!(item, Piece::Group { open, items, .. } if matches!(open.as_str(), "[" | "{") && items.len() > 1);
    let kinds = items
        .iter()
        .all(|item| matches!((item, &items[0]), (Piece::Group { close, .. }, Piece::Group { close: first, .. }) if close == first));
    let broken = broken || close == "]" && items.len() > 1 && items.iter().all(long) && kinds;
    Piece::Group { open, items, close, spaced, broken }
}

fn step(step: &Step) -> Piece {
    let words = match step {
        Step::Add { field, value } => vec!["add".into(), field.as_str().into(), value.clone()],
        Step::Move { from, to } => vec!["move".into(), from.as_str().into(), to.as_str().into()],
        Step::Remove { field } => vec!["remove".into(), field.as_str().into()],
        Step::Call { name, field, .. } => vec!["call".into(), field.as_str().into(), name.as_str().into()],
    };
    Piece::group("[", words.iter().map(literal), "]")
}

fn table(rows: Vec<Piece>) -> String {
    if rows.is_empty() { "{}".to_owned() } else { Piece::object("{", rows).broken().render(STYLE, 0, 0, 1) }
}

// === Words ===

/// `key: value`.
fn entry(name: &str, value: Piece) -> Piece {
    renamed(&key(name), value)
}

/// The piece after a key that is written as it is.
fn renamed(key: &str, value: Piece) -> Piece {
    match value {
        Piece::Word(text) => Piece::Word(format!("{key}: {text}")),
        Piece::Group { open, items, close, spaced, broken } => {
            Piece::Group { open: format!("{key}: {open}"), items, close, spaced, broken }
        }
    }
}

fn array(open: &str, items: impl Iterator<Item = Piece>) -> Piece {
    Piece::group(open, items, "]")
}

fn word(text: &str) -> Piece {
    Piece::word(quoted(text))
}

fn key(name: &str) -> String {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '$';
    let plain = name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit());
    if plain { name.to_owned() } else { quoted(name) }
}

/// A string as Prettier quotes it: in double quotes, unless that takes more escapes.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    if text.contains('"') && !text.contains(['\'', '\\']) { format!("'{text}'") } else { json }
}

fn literal(value: &Value) -> Piece {
    match value {
        Value::String(text) => word(text),
        Value::Array(items) => Piece::group("[", items.iter().map(literal), "]"),
        Value::Object(fields) => Piece::object("{", fields.iter().map(|(name, value)| entry(name, literal(value)))),
        plain => Piece::word(plain.to_string()),
    }
}

fn doc(text: &str, indent: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{indent}/** {} */\n", text.replace("*/", "*\\/")) }
}
