//! A request as it is written, for whichever way it travels.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// A POST in the making: its headers, each name once, and its body.
pub(super) struct Request {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

/// Headers, as a way takes them.
pub(super) enum Head {
    /// As they go over an HTTP/1.1 connection, request line first.
    Text(Vec<u8>),
    /// For a client that writes them itself.
    Map(HeaderMap),
}

impl Request {
    /// Adds a header. `name` is in lowercase and may be one; `value` is text that HTTP allows.
    pub(super) fn header(&mut self, name: &str, value: &[u8]) {
        match &mut self.head {
            Head::Text(text) => {
                text.extend_from_slice(name.as_bytes());
                text.extend_from_slice(b": ");
                text.extend_from_slice(value);
                text.extend_from_slice(b"\r\n");
            }
            Head::Map(map) => {
                if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
                    map.insert(name, value);
                }
            }
        }
    }

    /// Adds a header whose value is a number.
    pub(super) fn number(&mut self, name: &str, value: impl itoa::Integer) {
        self.header(name, itoa::Buffer::new().format(value).as_bytes());
    }
}
