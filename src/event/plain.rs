//! JSON without anything unusual, read without a tree and without a copy: most events are nothing else.
//!
//! What is found here is JSON beyond doubt, and what serde_json would find. Whatever is unusual (a lone surrogate, an exponent, a number
//! of many digits, a name with an escape, deep nesting, no JSON at all) is left to it: `None` says nothing, only it refuses.

mod scan;

use std::borrow::Cow;

use self::scan::ordinary;

/// Levels of nesting that are read here.
const DEEPEST: u8 = 16;
/// Digits that surely fit 64 bits with a sign.
const INTEGER_DIGITS: usize = 18;
/// Digits that surely fit a double.
const DECIMAL_DIGITS: usize = 64;

/// One value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Plain<'a> {
    Null,
    Boolean,
    Integer(i64),
    /// A number with a fraction.
    Decimal,
    /// A string's content, which has no escapes.
    Text(&'a str),
    /// A string with escapes, as it was written.
    Escaped(&'a str),
    /// As it was written.
    Array(&'a str),
    /// As it was written.
    Object(&'a str),
}

impl<'a> Plain<'a> {
    /// The string, where it is one.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Escaped(written) => serde_json::from_str(written).ok().map(Cow::Owned),
            _ => None,
        }
    }
}

/// A member of an object.
pub(super) type Member<'a> = (&'a str, Plain<'a>);

/// Members of most objects.
const MEMBERS: usize = 16;
/// Of an object with more of them none are kept: they would take many times its text.
const MOST_MEMBERS: usize = 64;

/// Shows each item of a list in order; `None` where it is no list, where something in it is unusual, or where `each` says so.
pub(super) fn list<'a>(text: &'a str, each: impl FnMut(Plain<'a>) -> Option<()>) -> Option<()> {
    let mut reader = Reader::of(text);
    reader.items(each)?;
    reader.end()
}

/// Reads one text from its start to its end.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Levels left.
    depth: u8,
}

impl<'a> Reader<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, at: 0, depth: DEEPEST }
    }

    /// Reads an object: of each member `each` is given the name, and reads the value.
    pub(super) fn members(&mut self, mut each: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        let mut goes_on = self.begins(b'{', b'}')?;
        while goes_on {
            self.expect(b'"')?;
            let name = self.unescaped()?;
            self.expect(b':')?;
            each(self, name)?;
            goes_on = self.goes_on(b'}')?;
        }
        self.depth += 1;
        Some(())
    }

    fn items(&mut self, mut each: impl FnMut(Plain<'a>) -> Option<()>) -> Option<()> {
        let mut goes_on = self.begins(b'[', b']')?;
        while goes_on {
            each(self.value()?)?;
            goes_on = self.goes_on(b']')?;
        }
        self.depth += 1;
        Some(())
    }

    /// Reads any value.
    pub(super) fn value(&mut self) -> Option<Plain<'a>> {
        let first = self.next()?;
        let start = self.at;
        match first {
            b'"' => {
                self.at += 1;
                self.unescaped().map(Plain::Text).or_else(|| self.escaped(start))
            }
            b'{' => {
                self.members(|reader, _| reader.value().map(|_| ()))?;
                self.since(start).map(Plain::Object)
            }
            b'[' => {
                self.items(|_| Some(()))?;
                self.since(start).map(Plain::Array)
            }
            b'n' => self.word("null", Plain::Null),
            b't' => self.word("true", Plain::Boolean),
            b'f' => self.word("false", Plain::Boolean),
            _ => self.number(),
        }
    }

    /// Reads any value, as it was written; of an object that is not too large its members as well.
    pub(super) fn written(&mut self) -> Option<(&'a str, Option<Vec<Member<'a>>>)> {
        self.written_of(MEMBERS, |_| true)
    }

    /// As [`Reader::written`]; of the members only those that are to be kept, for about `room` of which there is room.
    pub(super) fn written_of(&mut self, room: usize, keeps: impl Fn(&str) -> bool) -> Option<(&'a str, Option<Vec<Member<'a>>>)> {
        let first = self.next()?;
        let start = self.at;
        let mut members = None;
        if first == b'{' {
            let mut kept = Vec::with_capacity(room);
            let mut count = 0;
            self.members(|reader, name| {
                let value = reader.value()?;
                if !keeps(name) {
                    return Some(());
                }
                count += 1;
                if count <= MOST_MEMBERS {
                    kept.push((name, value));
                }
                Some(())
            })?;
            members = Some(kept).filter(|_| count <= MOST_MEMBERS);
        } else {
            self.value()?;
        }
        Some((self.since(start)?, members))
    }

    /// Nothing follows.
    pub(super) fn end(mut self) -> Option<()> {
        self.next().is_none().then_some(())
    }

    /// The byte that follows, white space or not.
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The byte that follows white space, where there is any.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        if byte > b' ' { Some(byte) } else { self.after_space() }
    }

    fn after_space(&mut self) -> Option<u8> {
        while matches!(self.peek()?, b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
        self.peek()
    }

    /// Steps over this byte and white space before it.
    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        let found = self.next()? == byte;
        self.at += usize::from(found);
        found.then_some(())
    }

    fn since(&self, start: usize) -> Option<&'a str> {
        self.text.get(start..self.at)
    }

    /// Goes one level down; whether anything stands there.
    fn begins(&mut self, start: u8, end: u8) -> Option<bool> {
        self.expect(start)?;
        self.depth = self.depth.checked_sub(1)?;
        Some(self.expect(end).is_none())
    }

    /// Whether a comma follows and not the end.
    #[inline]
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        let found = self.next()?;
        self.at += 1;
        (found == b',' || found == end).then_some(found == b',')
    }

    fn word<T>(&mut self, word: &str, value: T) -> Option<T> {
        let found = self.text.as_bytes().get(self.at..)?.starts_with(word.as_bytes());
        self.at += word.len();
        found.then_some(value)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Option<Plain<'a>> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let first = self.peek();
        let whole = self.digits();
        let zero = first == Some(b'0');
        if whole == 0 || whole > 1 && zero || whole > DECIMAL_DIGITS {
            return None;
        }
        match self.peek() {
            Some(b'.') => {
                self.at += 1;
                let decimals = self.digits();
                let plain = decimals > 0 && decimals <= DECIMAL_DIGITS && !matches!(self.peek(), Some(b'e' | b'E'));
                plain.then_some(Plain::Decimal)
            }
            Some(b'e' | b'E') => None,
            // -0 is a double.
            _ if whole > INTEGER_DIGITS || negative && zero => None,
            _ => self.since(start)?.parse().ok().map(Plain::Integer),
        }
    }

    /// The rest of a string that has no escapes; `None`: reads up to what makes it another.
    #[inline]
    fn unescaped(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.at += ordinary(self.text.as_bytes().get(start..)?);
        if self.peek()? != b'"' {
            return None;
        }
        let text = self.since(start)?;
        self.at += 1;
        Some(text)
    }

    /// The rest of a string, from its first escape on.
    #[cold]
    fn escaped(&mut self, start: usize) -> Option<Plain<'a>> {
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.escape()?,
                // A control character.
                _ => return None,
            }
            self.at += ordinary(self.text.as_bytes().get(self.at..)?);
        }
        self.at += 1;
        self.since(start).map(Plain::Escaped)
    }

    /// One escape, or two that are one character.
    fn escape(&mut self) -> Option<()> {
        self.at += 2;
        match self.text.as_bytes().get(self.at - 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => match self.unit()? {
                0xD800..0xDC00 => {
                    self.word("\\u", ())?;
                    (0xDC00..0xE000).contains(&self.unit()?).then_some(())
                }
                0xDC00..0xE000 => None,
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4).filter(|digits| !digits.starts_with('+'))?;
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}

/// Appends a text as a JSON string. Most texts need no escape.
pub(crate) fn quote(text: &str, out: &mut Vec<u8>) {
    if ordinary(text.as_bytes()) == text.len() {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Nothing in it can fail to be written.
        let _written = serde_json::to_writer(out, text);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
