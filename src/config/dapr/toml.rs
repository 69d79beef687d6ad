//! A translated folder as a TOML file.

use serde_json::Value as Json;

use super::tree::Node;
use crate::config::layer::join;

/// A line longer than this has its origin above it.
const LONG: usize = 100;

/// The TOML text: each value with the place that it came from.
pub fn to_toml(root: &Node) -> String {
    let mut out = "# Made from a folder of Dapr's component files by `worker import dapr`.\n".to_owned();
    table(root, "", "", &mut out);
    out
}

fn table(node: &Node, path: &str, header: &str, out: &mut String) {
    let Node::Table(fields) = node else { return };
    let is_value = |node: &&(String, Node)| matches!(node.1, Node::Value { .. } | Node::Placeholder { .. });
    let values: Vec<_> = fields.iter().filter(is_value).collect();
    if !header.is_empty() && !values.is_empty() {
        out.push_str(&format!("\n{header}\n"));
    }
    for (name, node) in values {
        line(name, node, out);
    }
    for (name, node) in fields.iter().filter(|field| !is_value(field)) {
        let path = join(path, name);
        match node {
            Node::Table(_) => table(node, &path, &format!("[{path}]"), out),
            Node::List(items) => items.iter().for_each(|item| table(item, &path, &format!("[[{path}]]"), out)),
            Node::Value { .. } | Node::Placeholder { .. } => {}
        }
    }
}

fn line(name: &str, node: &Node, out: &mut String) {
    let key = join("", name);
    match node {
        Node::Value { json, from } => {
            let text = format!("{key} = {}", value(json));
            match text.len() + from.len() > LONG || text.contains('\n') {
                true => out.push_str(&format!("# {from}\n{text}\n")),
                false => out.push_str(&format!("{text}   # {from}\n")),
            }
        }
        Node::Placeholder { example, why } => out.push_str(&format!("# {why}\n# {key} = {example}\n")),
        Node::Table(_) | Node::List(_) => {}
    }
}

/// A scalar or a list of scalars as TOML writes it.
pub(super) fn value(json: &Json) -> String {
    match json {
        Json::Array(items) => format!("[{}]", items.iter().map(value).collect::<Vec<_>>().join(", ")),
        Json::String(text) => ::toml::Value::String(text.clone()).to_string(),
        other => other.to_string(),
    }
}
