//! Text that is safe in a mail's header or body, whatever an event carries. Pure.

/// Longest subject, in characters.
const SUBJECT: usize = 150;

/// One line of printable text: control characters, line breaks and what turns the direction of writing become spaces, runs of white space one.
pub(super) fn line(text: &str) -> String {
    let printable = text.chars().map(|c| if is_unsafe(c) { ' ' } else { c }).collect::<String>();
    let words = printable.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(SUBJECT) {
        Some(_) => words.chars().take(SUBJECT - 1).chain(['…']).collect(),
        None => words,
    }
}

/// Text without control characters, but for line breaks and tabs.
pub(super) fn body(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect()
}

/// Control characters, separators of lines and paragraphs, and overrides of direction, with which a subject shows another text than it holds.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, proptest};

    use super::{SUBJECT, body, line};

    #[test]
    fn a_line_that_would_begin_another_header_stays_one_line() {
        assert_eq!(line("Milk\r\nBcc: everybody@example.com\n\n<script>"), "Milk Bcc: everybody@example.com <script>");
        assert_eq!(line("a\u{202e}b\u{0}c\u{2028}d"), "a b c d");
        assert_eq!(line(&"ä".repeat(SUBJECT + 1)), "ä".repeat(SUBJECT - 1) + "…");
        assert_eq!(body("a\r\nb\tc\u{7}\u{1b}[1m"), "a\nb\tc[1m");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_second_line_or_an_overlong_one(text in "\\PC*|(.|\r|\n)*") {
            let line = line(&text);
            prop_assert!(!line.chars().any(|c| c.is_control()) && line.chars().count() <= SUBJECT);
        }
    }
}
