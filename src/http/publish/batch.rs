//! A request body to single events. Pure.

use serde_json::value::RawValue;

/// One event of a body, as bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its place among the events, from 0.
    pub index: usize,
    /// Its line in NDJSON, from 1, blank lines counted.
    pub line: Option<usize>,
    /// The event.
    pub bytes: &'a [u8],
}

/// Splits a body by its content type: NDJSON by line (blank lines are skipped), else a JSON array by element, else the whole as one event.
///
/// # Errors
/// Where there is no event in it, or the array is not JSON.
pub fn split<'a>(content_type: &str, body: &'a [u8]) -> Result<Vec<Item<'a>>, String> {
    let items = if is_ndjson(content_type) {
        lines(body)
    } else {
        match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
            None => Vec::new(),
            Some(b'[') => elements(body)?,
            Some(_) => vec![Item { index: 0, line: None, bytes: body.trim_ascii() }],
        }
    };
    if items.is_empty() { Err("no event in the body".to_owned()) } else { Ok(items) }
}

fn is_ndjson(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines")
}

fn lines(body: &[u8]) -> Vec<Item<'_>> {
    let lines = body.split(|&byte| byte == b'\n').enumerate().map(|(number, line)| (number + 1, line.trim_ascii()));
    let events = lines.filter(|(_, line)| !line.is_empty());
    events.enumerate().map(|(index, (line, bytes))| Item { index, line: Some(line), bytes }).collect()
}

fn elements(body: &[u8]) -> Result<Vec<Item<'_>>, String> {
    let elements: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| format!("the body is no JSON array: {error}"))?;
    Ok(elements.into_iter().enumerate().map(|(index, raw)| Item { index, line: None, bytes: raw.get().as_bytes() }).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn texts(content_type: &str, body: &str) -> Vec<(usize, Option<usize>, String)> {
        let items = split(content_type, body.as_bytes()).unwrap();
        items.iter().map(|item| (item.index, item.line, String::from_utf8_lossy(item.bytes).into_owned())).collect()
    }

    #[test]
    fn ndjson_keeps_the_numbers_of_its_lines() {
        let expected = vec![(0, Some(1), "{\"a\":1}".to_owned()), (1, Some(4), "[2]".to_owned())];
        assert_eq!(texts("application/x-ndjson; charset=utf-8", "{\"a\":1}\r\n\n  \n[2]\n"), expected);
        assert_eq!(texts("Application/NDJSON", "{\"a\":1}\n\n\n[2]"), expected);
    }

    #[test]
    fn an_array_is_many_events_and_any_other_json_is_one() {
        assert_eq!(texts("application/json", " [ {\"a\":1}, 2 ]"), [(0, None, "{\"a\":1}".to_owned()), (1, None, "2".to_owned())]);
        assert_eq!(texts("", " {\"a\":[1]} \n"), [(0, None, "{\"a\":[1]}".to_owned())]);
    }

    #[test]
    fn a_body_without_an_event_is_an_error() {
        for (content_type, body) in [("application/json", ""), ("", " \n"), ("application/json", "[]"), ("application/x-ndjson", "\n \n")] {
            assert!(split(content_type, body.as_bytes()).is_err(), "{body:?}");
        }
        assert!(split("application/json", b"[{]").is_err());
    }
}
