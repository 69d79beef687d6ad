//! The schemas as data, for the checks at run time.

use super::{STYLE, array, entry, renamed, spread, word};
use crate::codegen::{
    layout::Piece,
    model::{Bound, Field, Module, Object, Range, Type},
};

pub(super) fn rules(module: &Module) -> String {
    let name = |object: &Object| format!("{}Rule", object.name);
    let mut text = String::new();
    for object in &module.objects {
        let mut items = vec![entry("kind", word("object"))];
        items.push(renamed("fields", Piece::object("{", object.fields.iter().map(|one| field(module, one)))));
        items.extend(object.closed.then(|| Piece::word("closed: true")));
        let groups = object.any_of.iter().map(|group| array("[", group.iter().map(|name| word(name))));
        items.extend((!object.any_of.is_empty()).then(|| renamed("anyOf", Piece::group("[", groups, "]"))));
        let rule = spread(Piece::object("{", items)).broken().render(STYLE, 0, 0, 1);
        text += &format!("const {}: ObjectRule = {rule};\n\n", name(object));
    }
    let rows = module.events.iter().map(|event| entry(&event.name, Piece::word(format!("{}Rule", event.payload))));
    text + &format!("const RULES: Record<EventType, Rule> = {};", Piece::object("{", rows).broken().render(STYLE, 0, 0, 1))
}

fn field(module: &Module, field: &Field) -> Piece {
    let mut items = vec![renamed("rule", rule(module, &field.ty))];
    items.extend(field.required.then(|| Piece::word("required: true")));
    items.extend((field.required && field.nullable).then(|| Piece::word("nullable: true")));
    entry(&field.name, Piece::object("{", items))
}

fn rule(module: &Module, ty: &Type) -> Piece {
    let plain = |kind: &str, more: Vec<Piece>| Piece::object("{", [entry("kind", word(kind))].into_iter().chain(more));
    let limit = |name: &str, limit: &Option<u64>| limit.map(|limit| Piece::word(format!("{name}: {limit}")));
    match ty {
        Type::Text { min, max, pattern } => {
            let mut items: Vec<_> = [limit("min", min), limit("max", max)].into_iter().flatten().collect();
            items.extend(pattern.iter().map(|pattern| Piece::word(format!("pattern: /{pattern}/u"))));
            plain("text", items)
        }
        Type::Choice(name) => {
            let values = module.choices.iter().find(|choice| choice.name == *name).map_or(&[][..], |choice| &choice.values);
            plain("choice", vec![renamed("values", array("[", values.iter().map(|value| word(value))))])
        }
        Type::Timestamp => plain("timestamp", vec![]),
        Type::Uuid => plain("uuid", vec![]),
        Type::Boolean => plain("boolean", vec![]),
        Type::Integer(range) => plain("integer", bounds(range)),
        Type::Number(range) => plain("number", bounds(range)),
        Type::List { item, min, max, unique } => {
            let mut items = vec![renamed("item", rule(module, item))];
            items.extend([limit("min", min), limit("max", max)].into_iter().flatten());
            items.extend(unique.then(|| Piece::word("unique: true")));
            plain("list", items)
        }
        Type::Map(value) => plain("map", vec![renamed("value", rule(module, value))]),
        Type::Object(name) => Piece::word(format!("{name}Rule")),
        Type::Either(name) => {
            plain("either", vec![renamed("of", Piece::group("[", module.either(name).iter().map(|ty| rule(module, ty)), "]"))])
        }
        Type::Any => plain("any", vec![]),
    }
}

fn bounds(range: &Range) -> Vec<Piece> {
    let name = |bound| match bound {
        Bound::Minimum => "minimum",
        Bound::Maximum => "maximum",
        Bound::Above => "above",
        Bound::Below => "below",
    };
    range.bounds().map(|(bound, limit)| Piece::word(format!("{}: {limit}", name(bound)))).collect()
}
