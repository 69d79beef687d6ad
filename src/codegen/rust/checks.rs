//! Statements that check what the types do not say.

use serde_json::Number;

use super::{CALL, ident, quoted};
use crate::codegen::{
    layout::Piece,
    model::{Bound, Field, Module, Object, Range, Type},
};

pub(super) fn check_field(module: &Module, field: &Field) -> String {
    let (name, optional) = (ident(&field.name), !field.required || field.nullable);
    let place = format!("{{path}}.{}", field.name.replace('{', "{{").replace('}', "}}"));
    let path = format!("&format!(\"{place}\")");
    if !optional {
        return checks(module, &field.ty, &format!("&self.{name}"), &path, 2);
    }
    match checks(module, &field.ty, "value", &path, 3).as_str() {
        "" => String::new(),
        inner => format!("        if let Some(value) = &self.{name} {{\n{inner}        }}\n"),
    }
}

/// Statements that check a value behind a reference; none where the type says it all.
pub(super) fn checks(module: &Module, ty: &Type, value: &str, path: &str, depth: usize) -> String {
    let call = |name: &str, arguments: &[String]| {
        let pieces = arguments.iter().map(Piece::word);
        let call = Piece::group(format!("{name}("), pieces, ")").render(CALL, depth, 4 * depth, 1);
        format!("{}{call};\n", "    ".repeat(depth))
    };
    let limit = |limit: &Option<u64>| limit.map_or_else(|| "None".to_owned(), |limit| format!("Some({limit})"));
    match ty {
        Type::Text { min, max, pattern } => {
            let lengths = [path.into(), value.into(), limit(min), limit(max), "problems".into()];
            let mut text = if min.or(*max).is_some() { call("text", &lengths) } else { String::new() };
            if let Some(pattern) = pattern {
                text += &call("matches", &[path.into(), value.into(), quoted(pattern), "problems".into()]);
            }
            text
        }
        Type::Integer(range) | Type::Number(range) => bounds(range, ty, value, path, depth),
        Type::Object(name) => call(&format!("{name}::check"), &[value.into(), path.into(), "problems".into()]),
        Type::Either(name) if module.either(name).iter().any(|ty| !checks(module, ty, "value", "path", 0).is_empty()) => {
            call(&format!("{name}::check"), &[value.into(), path.into(), "problems".into()])
        }
        Type::List { item, min, max, unique } => {
            let mut text = String::new();
            if min.is_some() || max.is_some() {
                let length = format!("{}.len()", plain(value));
                text += &call("count", &[path.into(), length, quoted("items"), limit(min), limit(max), "problems".into()]);
            }
            if *unique {
                text += &call("unique", &[path.into(), value.into(), "problems".into()]);
            }
            text + &each(
                &checks(module, item, "item", "&path", depth + 1),
                &format!("{}.iter().enumerate()", plain(value)),
                path,
                "[{key}]",
                depth,
            )
        }
        Type::Map(inner) => each(&checks(module, inner, "item", "&path", depth + 1), value, path, ".{key}", depth),
        _ => String::new(),
    }
}

/// `self.x` of `&self.x`.
fn plain(value: &str) -> &str {
    value.trim_start_matches('&')
}

fn each(inner: &str, items: &str, path: &str, end: &str, depth: usize) -> String {
    if inner.is_empty() {
        return String::new();
    }
    let indent = "    ".repeat(depth);
    let name = path.trim_start_matches("&format!(\"").trim_end_matches("\")");
    let name = if name == "&path" || name == "path" { "{path}" } else { name };
    format!("{indent}for (key, item) in {items} {{\n{indent}    let path = format!(\"{name}{end}\");\n{inner}{indent}}}\n")
}

fn bounds(range: &Range, ty: &Type, value: &str, path: &str, depth: usize) -> String {
    let indent = "    ".repeat(depth);
    let name = path.trim_start_matches("&format!(\"").trim_end_matches("\")");
    let name = if name == "&path" || name == "path" { "{path}" } else { name };
    let mut text = String::new();
    for (bound, limit) in range.bounds() {
        let (broken, said) = match bound {
            Bound::Minimum => ("<", "less than"),
            Bound::Maximum => (">", "more than"),
            Bound::Above => ("<=", "not more than"),
            Bound::Below => (">=", "not less than"),
        };
        let condition = match ty {
            Type::Integer(_) => format!("{} {broken} {}", dereferenced(value), whole(limit, bound)),
            _ => format!("{}.as_f64().is_some_and(|number| number {broken} {})", plain(value), double(limit)),
        };
        text += &format!("{indent}if {condition} {{\n{indent}    problems.push(format!(\"{name}: {said} {limit}\"));\n{indent}}}\n");
    }
    text
}

/// The value itself: `self.x` of `&self.x`, `*value` of a reference.
fn dereferenced(value: &str) -> String {
    value.strip_prefix('&').map_or_else(|| format!("*{value}"), str::to_owned)
}

/// A bound of integers as an integer.
fn whole(limit: &Number, bound: Bound) -> String {
    let up = matches!(bound, Bound::Minimum | Bound::Below);
    limit.as_i64().map_or_else(
        || {
            limit
                .as_f64()
                .map(|limit| if up { limit.ceil() } else { limit.floor() })
                .map_or_else(|| limit.to_string(), |limit| format!("{limit:.0}"))
        },
        |limit| limit.to_string(),
    )
}

fn double(limit: &Number) -> String {
    format!("{:?}", limit.as_f64().unwrap_or_default())
}

pub(super) fn any_of(object: &Object) -> String {
    if object.any_of.is_empty() {
        return String::new();
    }
    let has = |field: &String| format!("self.{}.is_some()", ident(field));
    let groups = object.any_of.iter().map(|group| match group.as_slice() {
        [one] => Piece::word(has(one)),
        all => Piece::word(all.iter().map(has).collect::<Vec<_>>().join(" && ")),
    });
    let said = object.any_of.iter().map(|group| group.join(" and ")).collect::<Vec<_>>().join(" nor ");
    let array = Piece::group("[", groups, "]").render(CALL, 2, "        let groups = ".len(), 1);
    format!(
        "        let groups = {array};\n        if !groups.contains(&true) {{\n            problems.push(format!(\"{{path}}: neither {said}\"));\n        }}\n"
    )
}
