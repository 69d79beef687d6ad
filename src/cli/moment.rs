//! Moments as people write them.

use chrono::{DateTime, Utc};

use crate::{config::units, event::time};

/// A time (`2026-01-31T12:00:00Z`), or how long ago (`2h`).
///
/// # Errors
/// How to write one.
pub fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Some(time) = time::parse(text) {
        return Ok(time);
    }
    let ago = units::parse_duration(text).map_err(|_| "a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h".to_owned())?;
    chrono::TimeDelta::from_std(ago)
        .ok()
        .and_then(|ago| Utc::now().checked_sub_signed(ago))
        .ok_or_else(|| "that is too long ago".to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        assert_eq!(time::format(moment("2026-01-31T12:00:00Z").unwrap()), "2026-01-31T12:00:00Z");
        let ago = Utc::now() - moment("2h").unwrap();
        assert!((7190..7260).contains(&ago.num_seconds()), "{ago}");
        assert!(moment("yesterday").is_err());
    }
}
