//! Durations and sizes as people write them.

use std::time::Duration;

/// Reads `"30s"`, `"1h 30m"`.
///
/// # Errors
/// Where the text is no duration: what is wrong and how to write one.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|_| {
        let hint = if text.trim().parse::<f64>().is_ok() { format!("\"{}s\"", text.trim()) } else { "\"30s\" or \"1h 30m\"".to_owned() };
        format!("`{text}` is no duration; write it like {hint}")
    })
}

/// A duration as people write it: `1h 30m`.
pub fn show(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Bytes of `"256MiB"`; units B, KiB, MiB, GiB, kB, MB, GB, none for bytes.
///
/// # Errors
/// Where the text is no size: what is wrong and how to write one.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let scale = match unit.trim() {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "kB" | "KB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        _ => None,
    };
    scale
        .and_then(|scale: u64| number.parse::<u64>().ok()?.checked_mul(scale))
        .ok_or_else(|| format!("`{text}` is no size; write it like \"256MiB\""))
}

/// For `#[serde(with)]` on a [`Duration`].
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    /// Reads `"30s"`.
    ///
    /// # Errors
    /// Where the text is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// For `#[serde(with)]` on an optional list of [`Duration`]s.
pub mod durations {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    /// Reads `["30s", "5m"]`.
    ///
    /// # Errors
    /// Where one is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Duration>>, D::Error> {
        let texts: Option<Vec<String>> = Option::deserialize(from)?;
        let parse = |texts: Vec<String>| texts.iter().map(|text| super::parse_duration(text)).collect::<Result<_, _>>();
        texts.map(parse).transpose().map_err(D::Error::custom)
    }
}

/// For `#[serde(with)]` on a number of bytes.
pub mod size {
    use serde::{Deserialize, Deserializer, de::Error};

    /// Reads `"256MiB"`.
    ///
    /// # Errors
    /// Where the text is no size.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        super::parse_size(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{parse_duration, parse_size};

    #[test]
    fn sizes_have_units_of_two_kinds() {
        assert_eq!(parse_size("256MiB"), Ok(256 << 20));
        assert_eq!(parse_size("1 kB"), Ok(1000));
        assert_eq!(parse_size("17"), Ok(17));
        for bad in ["", "MiB", "1.5GiB", "-1", "1mib", "99999999999999999999", "18446744073709551615GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_answered_with_the_way_to_write_it() {
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("25"), Err("`25` is no duration; write it like \"25s\"".to_owned()));
        assert!(parse_duration("soon").is_err());
        assert!(parse_duration("").is_err());
    }
}
