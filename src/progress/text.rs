//! Bytes as text that a broker keeps unharmed: 15 bits per character, or base64url where characters beyond ASCII are not welcome.

/// First code point of the 32 768 that carry 15 bits each: U+3400 to U+B3FF lie in the basic plane, so each counts as one UTF-16 unit,
/// and hold neither surrogates nor noncharacters, so each is valid UTF-8.
const WIDE_FIRST: u32 = 0x3400;

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// How bytes become characters. The text's first character tells which, and that the text is ours at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// 15 bits per character.
    Wide,
    /// 6 bits per character, RFC 4648 without padding.
    Base64Url,
}

impl Alphabet {
    fn mark(self) -> char {
        match self {
            Self::Wide => 'W',
            Self::Base64Url => 'w',
        }
    }

    fn bits(self) -> usize {
        match self {
            Self::Wide => 15,
            Self::Base64Url => 6,
        }
    }

    /// Bytes that fit in a text of `chars` characters, mark included.
    pub(super) fn capacity(self, chars: usize) -> usize {
        chars.saturating_sub(1) * self.bits() / 8
    }

    fn character(self, value: u32) -> char {
        match self {
            Self::Wide => char::from_u32(WIDE_FIRST + value).unwrap_or(char::REPLACEMENT_CHARACTER),
            Self::Base64Url => char::from(BASE64URL[value as usize & 63]),
        }
    }

    fn value(self, character: char) -> Option<u32> {
        match self {
            Self::Wide => u32::from(character).checked_sub(WIDE_FIRST).filter(|value| *value < 1 << 15),
            Self::Base64Url => Some(match character {
                'A'..='Z' => u32::from(character) - u32::from('A'),
                'a'..='z' => u32::from(character) - u32::from('a') + 26,
                '0'..='9' => u32::from(character) - u32::from('0') + 52,
                '-' => 62,
                '_' => 63,
                _ => return None,
            }),
        }
    }

    /// The mark, then the bytes, highest bit first, the last character filled up with zeros.
    pub(super) fn write(self, bytes: &[u8]) -> String {
        let bits = self.bits();
        let mut text = String::with_capacity(1 + (bytes.len() * 8).div_ceil(bits) * 3);
        text.push(self.mark());
        let (mut buffer, mut held) = (0_u32, 0);
        for byte in bytes {
            buffer = buffer << 8 | u32::from(*byte);
            held += 8;
            while held >= bits {
                held -= bits;
                text.push(self.character(buffer >> held));
                buffer &= (1 << held) - 1;
            }
        }
        if held > 0 {
            text.push(self.character(buffer << (bits - held)));
        }
        text
    }
}

/// Reads what [`Alphabet::write`] wrote, with up to one byte of zeros more; `None` where the text is none of ours.
pub(super) fn read(text: &str) -> Option<Vec<u8>> {
    let mut characters = text.chars();
    let mark = characters.next()?;
    let alphabet = [Alphabet::Wide, Alphabet::Base64Url].into_iter().find(|alphabet| alphabet.mark() == mark)?;
    let bits = alphabet.bits();
    let mut bytes = Vec::with_capacity(text.len() * bits / 8);
    let (mut buffer, mut held) = (0_u32, 0);
    for character in characters {
        buffer = buffer << bits | alphabet.value(character)?;
        held += bits;
        while held >= 8 {
            held -= 8;
            bytes.push((buffer >> held) as u8);
            buffer &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::{collection::vec, prelude::any, prop_assert, prop_assert_eq, proptest};

    use super::{Alphabet, read};

    #[test]
    fn base64url_is_the_one_of_the_standard() {
        assert_eq!(Alphabet::Base64Url.write(b"any carnal pleas"), "wYW55IGNhcm5hbCBwbGVhcw");
        assert_eq!(Alphabet::Base64Url.write(&[0xfb, 0xff]), "w-_8");
    }

    #[test]
    fn every_character_of_the_wide_alphabet_is_one_utf16_unit() {
        for value in 0..1_u32 << 15 {
            let character = Alphabet::Wide.character(value);
            assert_eq!(character.len_utf16(), 1);
            assert_ne!(character, char::REPLACEMENT_CHARACTER);
            assert_eq!(Alphabet::Wide.value(character), Some(value));
        }
        assert_eq!(Alphabet::Wide.value('\u{33ff}'), None);
        assert_eq!(Alphabet::Wide.value('\u{b400}'), None);
    }

    proptest! {
        #[test]
        fn bytes_survive_both_alphabets(bytes in vec(any::<u8>(), 0..200)) {
            for alphabet in [Alphabet::Wide, Alphabet::Base64Url] {
                let text = alphabet.write(&bytes);
                prop_assert!(alphabet.capacity(text.encode_utf16().count()) >= bytes.len());
                let back = read(&text).unwrap();
                prop_assert_eq!(&back[..bytes.len()], &bytes[..]);
                prop_assert!(back.len() <= bytes.len() + 1);
            }
        }

        #[test]
        fn a_text_within_the_capacity_never_gets_longer(chars in 1_usize..300) {
            for alphabet in [Alphabet::Wide, Alphabet::Base64Url] {
                let bytes = vec![0xff; alphabet.capacity(chars)];
                prop_assert!(alphabet.write(&bytes).encode_utf16().count() <= chars);
            }
        }
    }
}
