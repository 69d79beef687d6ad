//! A configuration in the making: tables, lists of tables, and values that know where they came from.

use config::{Value, ValueKind};
use serde_json::Value as Json;

use crate::config::layer::Table;

/// A table, a list of tables, or a value.
#[derive(Debug, Clone)]
pub enum Node {
    /// Keys in the order in which they were set.
    Table(Vec<(String, Node)>),
    /// Tables.
    List(Vec<Node>),
    /// A scalar, or a list of scalars.
    Value {
        /// What it is.
        json: Json,
        /// File and key.
        from: String,
    },
    /// A key that is left out on purpose: as a comment, what to write there.
    Placeholder {
        /// TOML of the value that would stand there.
        example: String,
        /// Why it is not there.
        why: String,
    },
}

impl Default for Node {
    fn default() -> Self {
        Self::Table(Vec::new())
    }
}

impl Node {
    /// Sets a value below this table; a number in the path is an index of a list.
    pub fn set(&mut self, path: &[&str], json: Json, from: &str) {
        self.place(path, Self::Value { json, from: from.to_owned() });
    }

    /// Notes that a key is left out.
    pub(super) fn leave_out(&mut self, path: &[&str], example: String, why: &str) {
        self.place(path, Self::Placeholder { example, why: why.to_owned() });
    }

    fn place(&mut self, path: &[&str], node: Self) {
        let Some((name, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if let Ok(index) = name.parse::<usize>() {
            if !matches!(self, Self::List(_)) {
                *self = Self::List(Vec::new());
            }
            if let Self::List(items) = self {
                if items.len() <= index {
                    items.resize_with(index + 1, Self::default);
                }
                items[index].place(rest, node);
            }
            return;
        }
        if !matches!(self, Self::Table(_)) {
            *self = Self::default();
        }
        if let Self::Table(fields) = self {
            let at = fields.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                fields.push(((*name).to_owned(), Self::default()));
                fields.len() - 1
            });
            fields[at].1.place(rest, node);
        }
    }

    /// What stands at that path.
    pub(super) fn get(&self, path: &[&str]) -> Option<&Self> {
        let Some((name, rest)) = path.split_first() else { return Some(self) };
        match self {
            Self::Table(fields) => fields.iter().find(|(known, _)| known == name)?.1.get(rest),
            Self::List(items) => items.get(name.parse::<usize>().ok()?)?.get(rest),
            Self::Value { .. } | Self::Placeholder { .. } => None,
        }
    }

    /// How many tables the list at that path has.
    pub(super) fn len(&self, path: &[&str]) -> usize {
        match self.get(path) {
            Some(Self::List(items)) => items.len(),
            _ => 0,
        }
    }

    /// Whether this table has that key.
    pub fn has(&self, name: &str) -> bool {
        self.get(&[name]).is_some()
    }

    /// As a layer of the configuration; `shown` makes an origin of a file and key.
    pub fn to_layer(&self, shown: &dyn Fn(&str) -> String) -> Table {
        match self.to_value(shown).map(|value| value.kind) {
            Some(ValueKind::Table(table)) => table,
            _ => Table::new(),
        }
    }

    fn to_value(&self, shown: &dyn Fn(&str) -> String) -> Option<Value> {
        match self {
            Self::Table(fields) => {
                let fields = fields.iter().filter_map(|(name, node)| Some((name.clone(), node.to_value(shown)?)));
                let from = self.first_origin().map(|from| shown(&from));
                Some(Value::new(from.as_ref(), fields.collect::<Table>()))
            }
            Self::List(items) => {
                let from = self.first_origin().map(|from| shown(&from));
                Some(Value::new(from.as_ref(), items.iter().filter_map(|item| item.to_value(shown)).collect::<Vec<_>>()))
            }
            Self::Value { json, from } => Some(value(json, &shown(from))),
            Self::Placeholder { .. } => None,
        }
    }

    fn first_origin(&self) -> Option<String> {
        match self {
            Self::Table(fields) => fields.iter().find_map(|(_, node)| node.first_origin()),
            Self::List(items) => items.iter().find_map(Self::first_origin),
            Self::Value { from, .. } => Some(from.clone()),
            Self::Placeholder { .. } => None,
        }
    }
}

fn value(json: &Json, from: &String) -> Value {
    let kind = match json {
        Json::Null | Json::Object(_) => ValueKind::Nil,
        Json::Bool(flag) => ValueKind::Boolean(*flag),
        Json::Number(number) => number.as_i64().map_or_else(|| ValueKind::Float(number.as_f64().unwrap_or_default()), ValueKind::I64),
        Json::String(text) => ValueKind::String(text.clone()),
        Json::Array(items) => ValueKind::Array(items.iter().map(|item| value(item, from)).collect()),
    };
    Value::new(Some(from), kind)
}
