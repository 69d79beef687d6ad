//! The typed parse of the floor: what any careful program does.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The canonical envelope, borrowed.
#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "some of it is parsed only to be parsed")]
pub struct Envelope<'a> {
    /// Identity.
    #[serde(borrow)]
    pub event_id: Cow<'a, str>,
    /// Type.
    #[serde(borrow)]
    pub event_type: Cow<'a, str>,
    /// Version.
    #[serde(borrow)]
    pub event_version: Option<Cow<'a, str>>,
    /// Time.
    #[serde(borrow)]
    pub timestamp: Option<Cow<'a, str>>,
    /// Origin.
    #[serde(borrow)]
    pub source: Option<Cow<'a, str>>,
    /// Untouched.
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
    /// Untouched.
    #[serde(borrow)]
    pub metadata: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    /// Reads it.
    pub fn read(value: &'a [u8]) -> Option<Self> {
        serde_json::from_str(std::str::from_utf8(value).ok()?).ok()
    }
}
