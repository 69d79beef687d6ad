//! A TOML file as a layer: each value knows its line.

use std::ops::Range;

use config::{Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::{layer::Table, problem::Problem};

/// Reads a file's TOML; origins are `label:line`. Every syntax error is reported; nothing of the file is then used.
///
/// # Errors
/// The file's syntax errors, with their lines and without the text of the lines, which may hold a secret.
pub fn parse(label: &str, text: &str) -> Result<Table, Vec<Problem>> {
    parse_at(text, &At { label, file: Some(text) })
}

/// Reads TOML that is in no file; the origin of each value is `origin`.
///
/// # Errors
/// As [`parse`].
pub fn parse_inline(origin: &str, text: &str) -> Result<Table, Vec<Problem>> {
    parse_at(text, &At { label: origin, file: None })
}

fn parse_at(text: &str, at: &At<'_>) -> Result<Table, Vec<Problem>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let problem =
            |error: &toml::de::Error| Problem::new(at.line(error.span().unwrap_or(0..0)), format!("not TOML: {}", error.message()));
        return Err(errors.iter().map(problem).collect());
    }
    let mut problems = Vec::new();
    let table = at.table(table.into_inner(), &mut problems);
    if problems.is_empty() { Ok(table) } else { Err(problems) }
}

struct At<'a> {
    label: &'a str,
    /// The text whose lines are counted.
    file: Option<&'a str>,
}

impl At<'_> {
    fn line(&self, span: Range<usize>) -> String {
        let Some(text) = self.file else { return self.label.to_owned() };
        let before = text.as_bytes().get(..span.start).unwrap_or_default();
        format!("{}:{}", self.label, before.iter().filter(|byte| **byte == b'\n').count() + 1)
    }

    fn table(&self, table: DeTable<'_>, problems: &mut Vec<Problem>) -> Table {
        let entry = |(name, value): (toml::Spanned<std::borrow::Cow<'_, str>>, toml::Spanned<DeValue<'_>>)| {
            let at = self.line(name.span());
            (name.into_inner().into_owned(), self.value(value.into_inner(), &at, problems))
        };
        table.into_iter().map(entry).collect()
    }

    fn value(&self, value: DeValue<'_>, at: &String, problems: &mut Vec<Problem>) -> Value {
        let kind = match value {
            DeValue::String(text) => ValueKind::String(text.into_owned()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => ValueKind::I64(number),
                Err(_) => {
                    problems.push(Problem::new(at, format!("the number {number} is too large")));
                    ValueKind::Nil
                }
            },
            DeValue::Float(number) => ValueKind::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => ValueKind::Boolean(flag),
            DeValue::Datetime(time) => ValueKind::String(time.to_string()),
            DeValue::Array(values) => ValueKind::Array(
                values
                    .into_iter()
                    .map(|value| {
                        let at = self.line(value.span());
                        self.value(value.into_inner(), &at, problems)
                    })
                    .collect(),
            ),
            DeValue::Table(table) => ValueKind::Table(self.table(table, problems)),
        };
        Value::new(Some(at), kind)
    }
}
