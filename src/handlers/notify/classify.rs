//! What a mail server's refusal means. Pure.

use super::channel::Refusal;

/// Longest error text, in characters.
const LONGEST: usize = 300;

/// Reply codes about who sends (RFC 4954, 4 and 6): a password that expired is no property of the message, and is put right meanwhile.
const OF_SENDER: [u16; 4] = [530, 534, 535, 538];

/// A server's reply: 4xx may pass later, 5xx will not. `to` is taken out of what it says.
pub(super) fn reply(code: u16, text: &str, to: &str) -> Refusal {
    let error = format!("the mail server answered {code}: {}", said(text, to));
    match code {
        _ if OF_SENDER.contains(&code) => Refusal::later(error),
        500.. if is_of_address(code, text) => Refusal::Bounced(error),
        500.. => Refusal::Failed(error),
        _ => Refusal::later(error),
    }
}

/// A conversation that did not come to a reply.
pub(super) fn broken(text: &str, to: &str) -> Refusal {
    let error = format!("the mail server: {}", said(text, to));
    // The one thing about the message itself: an address that this server cannot take.
    if text.contains("SMTPUTF8") { Refusal::Bounced(error) } else { Refusal::later(error) }
}

/// Whether a 5xx is about the recipient's mailbox: by its enhanced code (RFC 3463, 3.2 and 3.3: 5.1.x addresses, 5.2.x mailboxes), else by the codes
/// that RFC 5321, 4.2.2 has for mailboxes, unless the enhanced code names another cause (5.7.x: policy).
fn is_of_address(code: u16, text: &str) -> bool {
    let enhanced = text.split_whitespace().next().filter(|word| word.starts_with("5.") && word.split('.').count() == 3);
    match enhanced.and_then(|word| word.split('.').nth(1)) {
        Some("1" | "2") => true,
        Some("3" | "6" | "7") => false,
        _ => matches!(code, 550 | 551 | 553),
    }
}

fn said(text: &str, to: &str) -> String {
    let line = super::header::line(text);
    let line = if to.is_empty() { line } else { line.replace(to, "<recipient>") };
    line.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(refusal: &Refusal) -> &'static str {
        match refusal {
            Refusal::NoAddress => "no address",
            Refusal::Bounced(_) => "bounced",
            Refusal::Failed(_) => "failed",
            Refusal::Later { .. } => "later",
        }
    }

    #[test]
    fn a_reply_is_read_as_its_standards_say() {
        for (code, text, expected) in [
            (421, "4.3.2 shutting down", "later"),
            (450, "4.2.1 mailbox busy", "later"),
            (451, "greylisted", "later"),
            (550, "5.1.1 user unknown", "bounced"),
            (550, "no such user here", "bounced"),
            (551, "user not local", "bounced"),
            (552, "5.2.2 mailbox full", "bounced"),
            (553, "mailbox name not allowed", "bounced"),
            (550, "5.7.1 relaying denied", "failed"),
            (552, "5.3.4 message too big", "failed"),
            (554, "transaction failed", "failed"),
            (554, "5.6.0 bad content", "failed"),
            (554, "5.1.0 sender address rejected", "bounced"),
            (535, "5.7.8 wrong password", "later"),
            (530, "5.7.0 authentication required", "later"),
        ] {
            assert_eq!(kind(&reply(code, text, "")), expected, "{code} {text}");
        }
        assert_eq!(kind(&broken("Connection refused", "")), "later");
        assert_eq!(kind(&broken("the server does not support SMTPUTF8", "")), "bounced");
    }

    #[test]
    fn what_is_written_down_has_one_line_and_no_address() {
        let Refusal::Bounced(error) = reply(550, "5.1.1 <ada@example.com>:\r\nunknown", "ada@example.com") else { unreachable!() };
        assert_eq!(error, "the mail server answered 550: 5.1.1 <<recipient>>: unknown");
    }
}
