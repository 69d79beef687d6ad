//! A JSON object read one level deep: each value stays the text that it was, so that what nobody changes is passed on byte for byte.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// Names and raw values in the order in which they were written. A name that stands twice is kept twice; the last one counts.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

/// A JSON string that borrows where it has no escapes, which serde's own `Cow` does only with an attribute.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Reader)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<Text<'de>>()? {
                    fields.push((name.0, Cow::Borrowed(map.next_value::<&'de RawValue>()?)));
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(Reader)
    }
}

impl<'a> Fields<'a> {
    /// The fields of an object, as JSON without space before it; `None` where the text is something else.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
    }

    /// The value that counts under that name.
    pub(super) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().rev().find(|(found, _)| found == name).map(|(_, value)| &**value)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Gives the name this value, in its place where it has one, else at the end.
    pub(super) fn set(&mut self, name: &str, value: Cow<'a, RawValue>) {
        match self.0.iter_mut().rev().find(|(found, _)| found == name) {
            Some((_, place)) => *place = value,
            None => self.push(name, value),
        }
    }

    /// As [`Fields::set`], with a value to be serialised.
    pub(super) fn set_value(&mut self, name: &str, value: &Value) {
        self.set(name, Cow::Owned(raw(value)));
    }

    /// Takes every value of that name out; answers the one that counted.
    pub(super) fn remove(&mut self, name: &str) -> Option<Cow<'a, RawValue>> {
        let last = self.0.iter().rposition(|(found, _)| found == name)?;
        let (_, value) = self.0.remove(last);
        self.0.retain(|(found, _)| found != name);
        Some(value)
    }

    /// Gives a name that is new this value.
    pub(super) fn push(&mut self, name: &str, value: Cow<'a, RawValue>) {
        self.0.push((Cow::Owned(name.to_owned()), value));
    }

    /// Leaves of each name the value that counts.
    pub(super) fn dedup(&mut self) {
        let is_last = |at: usize| self.0[at + 1..].iter().all(|(name, _)| *name != self.0[at].0);
        // A few names are compared sooner than hashed.
        if self.0.len() <= 16 && (0..self.0.len()).all(is_last) {
            return;
        }
        let mut seen = HashSet::with_capacity(self.0.len());
        let mut counts: Vec<_> = self.0.iter().rev().map(|(name, _)| seen.insert(&**name)).collect();
        self.0.retain(|_| counts.pop().unwrap_or(true));
    }

    /// The fields, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The object as text.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::with_capacity(2 + self.0.iter().map(|(name, value)| name.len() + value.get().len() + 4).sum::<usize>());
        text.push('{');
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            if name.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
                text.push('"');
                text.push_str(name);
                text.push('"');
            } else {
                text.push_str(raw(&Value::String(name.clone().into_owned())).get());
            }
            text.push(':');
            text.push_str(value.get());
        }
        text.push('}');
        text
    }

    /// The object as one raw value.
    pub(super) fn to_raw(&self) -> Box<RawValue> {
        RawValue::from_string(self.to_text()).unwrap_or_default()
    }
}

/// JSON as a raw value. The `null` of the fallback, for what is no JSON, is never seen.
pub(super) fn written(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap_or(RawValue::NULL)
}

/// A value as raw text. A `Value` can always be written, so the `null` of the fallback is never seen.
pub(super) fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{json, value::RawValue};

    use super::Fields;

    #[test]
    fn what_is_not_touched_keeps_its_text() {
        let text =
            RawValue::from_string(r#"{"big":123456789012345678901234567890,"a\n":1.50,"x":{ "deep" : [1, 2] }}"#.to_owned()).unwrap();
        let mut fields = Fields::of(text.get()).unwrap();
        fields.set_value("x", &json!(true));
        fields.set_value("new", &json!("v"));
        assert_eq!(fields.to_raw().get(), r#"{"big":123456789012345678901234567890,"a\n":1.50,"x":true,"new":"v"}"#);
    }

    #[test]
    fn of_a_name_that_stands_twice_the_last_counts() {
        let text = RawValue::from_string(r#"{"a":1,"b":2,"a":3}"#.to_owned()).unwrap();
        let mut fields = Fields::of(text.get()).unwrap();
        fields.dedup();
        assert_eq!(fields.to_raw().get(), r#"{"b":2,"a":3}"#);
        let mut fields = Fields::of(text.get()).unwrap();
        assert_eq!(fields.get("a").unwrap().get(), "3");
        assert_eq!(fields.remove("a").unwrap().get(), "3");
        assert_eq!(fields.to_raw().get(), r#"{"b":2}"#);
    }
}
