//! What a publish request says about itself besides the event. Pure.

use std::{collections::BTreeMap, time::Duration};

/// Names and values of a request: `metadata.*` of a query, or a gRPC message's map. All of them become record headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata(pub BTreeMap<String, String>);

impl Metadata {
    /// Of a query's parameters: those that begin with `metadata.`, without it; of a name that stands twice the first counts.
    pub fn of_query<'q>(query: impl IntoIterator<Item = (&'q str, &'q str)>) -> Self {
        let mut found = BTreeMap::new();
        for (name, value) in query {
            if let Some(name) = name.strip_prefix("metadata.") {
                found.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        Self(found)
    }

    /// This request's, and `other`'s where this one says nothing.
    pub fn or(&self, other: &Self) -> Self {
        let mut both = other.0.clone();
        both.extend(self.0.clone());
        Self(both)
    }

    /// A value that is not empty, by its exact name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A value that is not empty, by its name in any case.
    pub fn any_case(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, value)| found.eq_ignore_ascii_case(name) && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// `rawPayload`: whether the body is written untouched.
    ///
    /// # Errors
    /// Where it is no boolean.
    pub fn raw_payload(&self) -> Result<bool, String> {
        match self.get("rawPayload") {
            None => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(value) => Err(format!("rawPayload value must be a valid boolean: actual is '{value}'")),
        }
    }

    /// `ttl`, else `ttlInSeconds`: whole seconds or a Go duration. What cannot be read is none, as in Dapr.
    pub fn ttl(&self) -> Option<Duration> {
        let text = self.any_case("ttl").or_else(|| self.any_case("ttlInSeconds"))?;
        match text.parse::<u64>() {
            Ok(0) => None,
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => go_duration(text),
        }
    }

    /// The record key that the request asks for: `partitionKey`, else `__key`.
    pub fn key(&self) -> Option<&str> {
        self.get("partitionKey").or_else(|| self.get("__key"))
    }

    /// `partitionNumber`.
    ///
    /// # Errors
    /// Where it is no partition's number.
    pub fn partition(&self) -> Result<Option<i32>, String> {
        let Some(text) = self.0.get("partitionNumber") else { return Ok(None) };
        match text.parse::<i32>() {
            Ok(number) if number >= 0 => Ok(Some(number)),
            Ok(number) => Err(format!("partitionNumber must be non-negative, got {number}")),
            Err(error) => Err(format!("invalid partitionNumber metadata value \"{text}\": {error}")),
        }
    }
}

/// Reads `1h30m`, `1.5s`, `300ms`; a negative one is zero.
fn go_duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit = rest[number..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |end| number + end);
        let scale = match &rest[number..unit] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += rest[..number].parse::<f64>().ok()? * scale;
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(if negative { 0.0 } else { seconds }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> Metadata {
        Metadata(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_first_of_a_name_counts_and_other_parameters_do_not() {
        let query = [("metadata.a", "1"), ("metadata.a", "2"), ("Metadata.b", "3"), ("c", "4"), ("metadata.d", "")];
        assert_eq!(Metadata::of_query(query), metadata(&[("a", "1"), ("d", "")]));
    }

    #[test]
    fn raw_payload_is_a_boolean_as_go_reads_it_under_its_exact_name() {
        for (value, expected) in [("true", Ok(true)), ("1", Ok(true)), ("T", Ok(true)), ("False", Ok(false)), ("", Ok(false))] {
            assert_eq!(metadata(&[("rawPayload", value)]).raw_payload(), expected, "{value}");
        }
        assert!(metadata(&[("rawPayload", "yes")]).raw_payload().is_err_and(|why| why.contains("'yes'")));
        assert_eq!(metadata(&[("rawpayload", "true")]).raw_payload(), Ok(false));
    }

    #[test]
    fn a_time_to_live_is_seconds_or_a_duration_and_anything_else_is_none() {
        for (value, expected) in [
            ("60", Some(Duration::from_secs(60))),
            ("1m30s", Some(Duration::from_secs(90))),
            ("1.5h", Some(Duration::from_secs(5400))),
            ("300ms", Some(Duration::from_millis(300))),
            ("-5s", Some(Duration::ZERO)),
            ("0", None),
            ("-5", None),
            ("soon", None),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(metadata(&[("TTLinseconds", value)]).ttl(), expected, "{value}");
        }
        assert_eq!(metadata(&[("ttlInSeconds", "1"), ("ttl", "2")]).ttl(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn keys_and_partitions_are_read_by_their_exact_names() {
        assert_eq!(metadata(&[("__key", "a"), ("partitionKey", "b")]).key(), Some("b"));
        assert_eq!(metadata(&[("__key", "a"), ("partitionkey", "b")]).key(), Some("a"));
        assert_eq!(metadata(&[("partitionNumber", "3")]).partition(), Ok(Some(3)));
        for value in ["-1", "x", "", "2147483648"] {
            assert!(metadata(&[("partitionNumber", value)]).partition().is_err(), "{value}");
        }
    }

    #[test]
    fn an_entrys_own_values_win_over_the_requests() {
        let entry = metadata(&[("a", "entry")]);
        assert_eq!(entry.or(&metadata(&[("a", "request"), ("b", "request")])), metadata(&[("a", "entry"), ("b", "request")]));
    }
}
