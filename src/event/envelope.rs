//! One level of an envelope, read in one pass with borrowed strings: what identifies an event, and where its data stands.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    fields::Text,
    plain::{Member, Plain, Reader},
};

/// The fields of an event's or a CloudEvent's top level that mean something here. Of a field that stands twice the last counts. What is
/// read further is kept as it was written.
#[derive(Debug, Default)]
pub(super) struct Head<'a> {
    pub(super) event_id: Scalar<'a>,
    pub(super) event_type: Scalar<'a>,
    pub(super) event_version: Scalar<'a>,
    pub(super) timestamp: Scalar<'a>,
    pub(super) source: Scalar<'a>,
    pub(super) user_id: Scalar<'a>,
    pub(super) task_id: Scalar<'a>,
    pub(super) data: Option<Written<'a>>,
    pub(super) payload: Option<Written<'a>>,
    pub(super) metadata: Option<Written<'a>>,
    pub(super) traceparent: Scalar<'a>,
    pub(super) tracestate: Scalar<'a>,
    /// CloudEvents `specversion`.
    pub(super) specversion: Scalar<'a>,
    /// CloudEvents `type`.
    pub(super) kind: Scalar<'a>,
    /// CloudEvents `id`.
    pub(super) id: Scalar<'a>,
    /// CloudEvents `time`.
    pub(super) time: Scalar<'a>,
    /// Dapr's `expiration`, or the CloudEvents extension `expirytime`.
    pub(super) expires: Scalar<'a>,
    /// CloudEvents extension names have no underscore.
    pub(super) userid: Scalar<'a>,
    pub(super) correlationid: Scalar<'a>,
    pub(super) causationid: Scalar<'a>,
    pub(super) data_base64: Scalar<'a>,
    /// How many fields there are, whatever they mean.
    pub(super) fields: usize,
}

/// A value as it was written, which is JSON.
#[derive(Debug)]
pub(super) struct Written<'a> {
    pub(super) text: &'a str,
    /// Of an object without anything unusual; of the metadata those alone that a [`Leaf`] has.
    pub(super) members: Option<Vec<Member<'a>>>,
}

/// What stands in `data` or `metadata` and matters before they are read as a whole.
#[derive(Debug, Default)]
pub(super) struct Leaf<'a> {
    pub(super) user_id: Scalar<'a>,
    pub(super) task_id: Scalar<'a>,
}

/// A value that should be a string or a number.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) enum Scalar<'a> {
    #[default]
    Absent,
    Null,
    Text(Cow<'a, str>),
    Integer(i64),
    /// Beyond 63 bits.
    Large(u64),
    Float(f64),
    Other,
}

impl<'a> Scalar<'a> {
    /// The string, where it is one and not empty.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// A non-empty string or an integer, as text.
    pub(super) fn name(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Integer(number) => Some(Cow::Owned(number.to_string())),
            Self::Large(number) => Some(Cow::Owned(number.to_string())),
            _ => self.text().map(Cow::Borrowed),
        }
    }

    /// Whether nothing is there, or null.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Absent | Self::Null)
    }

    pub(super) fn owned(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }

    /// The same as serde would read; a decimal is left to it.
    fn plain(value: Plain<'a>) -> Option<Self> {
        Some(match value {
            Plain::Null => Self::Null,
            Plain::Integer(number) => Self::Integer(number),
            Plain::Text(_) | Plain::Escaped(_) => Self::Text(value.text()?),
            Plain::Boolean | Plain::Array(_) | Plain::Object(_) => Self::Other,
            Plain::Decimal => return None,
        })
    }
}

impl<'a> Head<'a> {
    /// Reads an object into an empty head.
    ///
    /// # Errors
    /// Where it is none, or something in it cannot be read: what is in the head then means nothing.
    pub(super) fn read(&mut self, text: &'a str) -> serde_json::Result<()> {
        if self.read_plain(text).is_none() {
            *self = serde_json::from_str(text)?;
        }
        Ok(())
    }

    fn read_plain(&mut self, text: &'a str) -> Option<()> {
        let mut reader = Reader::of(text);
        reader.members(|reader, name| {
            self.fields += 1;
            if let Some(place) = self.written(name) {
                // Nobody looks at other members of the metadata than those that a leaf has.
                let written = if name == "metadata" { reader.written_of(1, Leaf::has)? } else { reader.written()? };
                *place = Written::unless_null(written);
            } else {
                let value = reader.value()?;
                if let Some(scalar) = self.scalar(name) {
                    *scalar = Scalar::plain(value)?;
                }
            }
            Some(())
        })?;
        reader.end()
    }

    fn written(&mut self, name: &str) -> Option<&mut Option<Written<'a>>> {
        match name {
            "data" => Some(&mut self.data),
            "payload" => Some(&mut self.payload),
            "metadata" => Some(&mut self.metadata),
            _ => None,
        }
    }

    fn scalar(&mut self, name: &str) -> Option<&mut Scalar<'a>> {
        Some(match name {
            "event_id" => &mut self.event_id,
            "event_type" => &mut self.event_type,
            "event_version" => &mut self.event_version,
            "timestamp" => &mut self.timestamp,
            "user_id" => &mut self.user_id,
            "task_id" => &mut self.task_id,
            "data_base64" => &mut self.data_base64,
            _ => return self.attribute(name),
        })
    }

    /// Where an attribute of a CloudEvent goes, whether it stands in a value or in a header.
    pub(super) fn attribute(&mut self, name: &str) -> Option<&mut Scalar<'a>> {
        Some(match name {
            "source" => &mut self.source,
            "traceparent" => &mut self.traceparent,
            "tracestate" => &mut self.tracestate,
            "specversion" => &mut self.specversion,
            "type" => &mut self.kind,
            "id" => &mut self.id,
            "time" => &mut self.time,
            "expiration" | "expirytime" => &mut self.expires,
            "userid" => &mut self.userid,
            "correlationid" => &mut self.correlationid,
            "causationid" => &mut self.causationid,
            _ => return None,
        })
    }

    /// Whether there is no field but those of shape A, each once.
    pub(super) fn is_canonical(&self) -> bool {
        let scalars = [&self.event_id, &self.event_type, &self.event_version, &self.timestamp, &self.source];
        let parts = [&self.data, &self.metadata];
        let found =
            scalars.iter().filter(|scalar| ***scalar != Scalar::Absent).count() + parts.iter().filter(|part| part.is_some()).count();
        found == self.fields
    }

    /// Whether these are a CloudEvent's attributes and no event's: `specversion` and `type`, and no `event_type`.
    pub(super) fn is_cloudevent(&self) -> bool {
        self.event_type.text().is_none() && self.specversion.text().is_some() && self.kind.text().is_some()
    }
}

/// Steps over a value and still reads all of it, as `IgnoredAny` does not: lone surrogates, numbers beyond a double and bombs of nesting
/// (128 levels at most) are found here, once, so that nobody who reads the value later can fail on it.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Scalar::deserialize(from).map(|_| Self)
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::owned(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Scalar<'de>, E> {
                Ok(i64::try_from(number).map_or(Scalar::Large(number), Scalar::Integer))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Integer(number))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Float(number))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Other)
            }

            fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Null)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar<'de>, A::Error> {
                while items.next_element::<Sound>()?.is_some() {}
                Ok(Scalar::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
                while map.next_key::<Sound>()?.is_some() {
                    map.next_value::<Sound>()?;
                }
                Ok(Scalar::Other)
            }
        }
        from.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Head<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Head<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head<'de>, A::Error> {
                let mut head = Head::default();
                while let Some(name) = map.next_key::<Text<'de>>()? {
                    head.fields += 1;
                    if let Some(place) = head.written(&name.0) {
                        let written = Written::unless_null((map.next_value::<&'de RawValue>()?.get(), None));
                        // Of what stands twice only the last counts, and is looked into later.
                        if let Some(before) = std::mem::replace(place, written) {
                            before.check().map_err(A::Error::custom)?;
                        }
                    } else if let Some(scalar) = head.scalar(&name.0) {
                        *scalar = map.next_value()?;
                    } else {
                        map.next_value::<Sound>()?;
                    }
                }
                Ok(head)
            }
        }
        from.deserialize_map(Reader)
    }
}

impl<'a> Leaf<'a> {
    /// Whether it has a field of that name.
    fn has(name: &str) -> bool {
        matches!(name, "user_id" | "task_id")
    }

    /// Reads any value into an empty leaf.
    ///
    /// # Errors
    /// Where something in it cannot be read.
    pub(super) fn read(&mut self, written: &Written<'a>) -> serde_json::Result<()> {
        let Some(members) = &written.members else {
            *self = serde_json::from_str(written.text)?;
            return Ok(());
        };
        for &(name, value) in members {
            let place = match name {
                "user_id" => &mut self.user_id,
                "task_id" => &mut self.task_id,
                _ => continue,
            };
            // A decimal is neither a name nor missing.
            *place = Scalar::plain(value).unwrap_or(Scalar::Other);
        }
        Ok(())
    }
}

impl<'a> Written<'a> {
    pub(super) fn unless_null((text, members): (&'a str, Option<Vec<Member<'a>>>)) -> Option<Self> {
        (text != "null").then_some(Self { text, members })
    }

    /// Looks into what nobody reads.
    ///
    /// # Errors
    /// Where something in it cannot be read.
    pub(super) fn check(&self) -> serde_json::Result<()> {
        if self.members.is_some() { Ok(()) } else { serde_json::from_str::<Sound>(self.text).map(drop) }
    }
}

impl<'de> Deserialize<'de> for Leaf<'de> {
    /// Never fails on a value that is no object: then nothing stands in it.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Leaf<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_str<E>(self, _: &str) -> Result<Leaf<'de>, E> {
                Ok(Leaf::default())
            }

            fn visit_u64<E>(self, _: u64) -> Result<Leaf<'de>, E> {
                Ok(Leaf::default())
            }

            fn visit_i64<E>(self, _: i64) -> Result<Leaf<'de>, E> {
                Ok(Leaf::default())
            }

            fn visit_f64<E>(self, _: f64) -> Result<Leaf<'de>, E> {
                Ok(Leaf::default())
            }

            fn visit_bool<E>(self, _: bool) -> Result<Leaf<'de>, E> {
                Ok(Leaf::default())
            }

            fn visit_unit<E>(self) -> Result<Leaf<'de>, E> {
                Ok(Leaf::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Leaf<'de>, A::Error> {
                while items.next_element::<Sound>()?.is_some() {}
                Ok(Leaf::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Leaf<'de>, A::Error> {
                let mut leaf = Leaf::default();
                while let Some(name) = map.next_key::<Text<'de>>()? {
                    match &*name.0 {
                        "user_id" => leaf.user_id = map.next_value()?,
                        "task_id" => leaf.task_id = map.next_value()?,
                        _ => {
                            map.next_value::<Sound>()?;
                        }
                    }
                }
                Ok(leaf)
            }
        }
        from.deserialize_any(Reader)
    }
}

/// Whether the text is one JSON value, without looking into it.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}
