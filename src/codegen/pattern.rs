//! A schema's `pattern` as each language writes it, with the meaning that the worker gives it: ECMA 262's, found anywhere in the text, where
//! `$` is the very end and `\d`, `\w` and `\b` know ASCII alone.

use super::Language;

/// The same expression in that language; `None` where it has no way to say it.
pub(super) fn written(pattern: &str, language: Language) -> Option<String> {
    match language {
        Language::Rust => rust(pattern),
        Language::Pydantic => python(pattern),
        Language::TypeScript => Some(typescript(pattern)),
        Language::JsonSchema => Some(pattern.to_owned()),
    }
}

/// For the crate `regex`, which has neither look-around nor back references.
fn rust(pattern: &str) -> Option<String> {
    let translated = jsonschema_regex::to_rust_regex(pattern).ok()?;
    regex::Regex::new(&translated).ok()?;
    Some(translated.into_owned())
}

/// For `re.search`, whose classes are Unicode's, and whose `$` stands before a line's end as well.
fn python(pattern: &str) -> Option<String> {
    let mut text = String::with_capacity(pattern.len());
    let mut class = false;
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let escaped = rest.chars().next()?;
                rest = &rest[escaped.len_utf8()..];
                match (escaped, class) {
                    ('d', true) => text.push_str("0-9"),
                    ('d', false) => text.push_str("[0-9]"),
                    ('D', false) => text.push_str("[^0-9]"),
                    ('w', true) => text.push_str("A-Za-z0-9_"),
                    ('w', false) => text.push_str("[A-Za-z0-9_]"),
                    ('W', false) => text.push_str("[^A-Za-z0-9_]"),
                    ('b' | 'B', false) => text.push_str(&format!("(?a:\\{escaped})")),
                    ('u', _) if rest.starts_with('{') => return None,
                    ('s' | 'S' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | 'u' | 'x', _) => text.extend(['\\', escaped]),
                    (letter, _) if letter.is_ascii_alphabetic() => return None,
                    _ => text.extend(['\\', escaped]),
                }
            }
            '[' if class => text.push_str("\\["),
            '[' => {
                // Nothing and anything, which Python reads as a bracket among others.
                if rest.starts_with(']') || rest.starts_with("^]") {
                    return None;
                }
                class = true;
                text.push(c);
            }
            ']' if class => {
                class = false;
                text.push(c);
            }
            '$' if !class => text.push_str("\\Z"),
            // What is looked back at has to be of one length, and groups are named in another way.
            '(' if !class && rest.starts_with("?<") => return None,
            c => text.push(c),
        }
    }
    Some(text)
}

/// For a literal with the flag `u`, which takes no escape that is not needed.
fn typescript(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut class = false;
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match (c, class) {
            ('\\', _) => {
                let Some(escaped) = characters.next() else { break };
                let is_needed = !escaped.is_ascii_punctuation() || "^$\\.*+?()[]{}|/".contains(escaped) || class && escaped == '-';
                text.extend(is_needed.then_some('\\'));
                text.push(escaped);
            }
            ('/', false) => text.push_str("\\/"),
            ('\n', _) => text.push_str("\\n"),
            (c, _) => {
                class = c == '[' || class && c != ']';
                text.push(c);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{python, rust, typescript};

    #[test]
    fn a_pattern_means_the_same_in_each_language_or_is_not_said_at_all() {
        let all = |pattern: &str| (python(pattern), rust(pattern), typescript(pattern));
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(all(r"^[A-Z]{2}-\d+$"), (said(r"^[A-Z]{2}-[0-9]+\Z"), said("^[A-Z]{2}-[0-9]+$"), r"^[A-Z]{2}-\d+$".to_owned()));
        assert_eq!(all(r"^[\d$/[]\$$"), (said(r"^[0-9$/\[]\$\Z"), said(r"^[[0-9]$/\[]\$$"), r"^[\d$/[]\$$".to_owned()));
        assert_eq!(all(r"a\-b/c[\-x]"), (said(r"a\-b/c[\-x]"), said(r"a\-b/c[\-x]"), r"a-b\/c[\-x]".to_owned()));
        for (pattern, in_python, in_rust) in [
            ("^(?!x)a", true, false),
            ("(?<=x)a", false, false),
            (r"(a)\1", true, false),
            (r"^\p{Lu}", false, true),
            (r"\bada\b", true, true),
            (r"^[\W]+$", false, true),
        ] {
            assert_eq!((python(pattern).is_some(), rust(pattern).is_some()), (in_python, in_rust), "{pattern}");
        }
    }
}
