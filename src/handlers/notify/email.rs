//! Mail over SMTP, through a pool of connections.

use std::{error::Error, io, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message as Mail, Tokio1Executor,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{self, AsyncSmtpTransportBuilder, PoolConfig},
};

use super::{
    CONCURRENCY,
    channel::{Message, Refusal},
    classify,
};

/// Longest wait for one answer of the server. The handler's `timeout` is over all of them.
const PATIENCE: Duration = Duration::from_secs(20);
/// Servers close idle connections after minutes; ours go before.
const IDLE: Duration = Duration::from_secs(60);

/// Sends mails from one sender through one server.
pub(super) struct Email {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Email {
    /// Connects when first used.
    ///
    /// # Errors
    /// Where the URL or the sender make no sense, without the password.
    pub(super) fn new(url: &str, from: &str) -> Result<Self, String> {
        let from = from.parse().map_err(|_| "`from` is no address; write it like \"Todo <todo@example.com>\"".to_owned())?;
        // STARTTLS is what a server must offer unless it was said that it need not.
        let url = match url.split_once("?tls=") {
            Some((url, "none")) => url.to_owned(),
            None if url.starts_with("smtp:") => format!("{url}?tls=required"),
            _ => url.to_owned(),
        };
        let builder = server(&url)?;
        let pool = PoolConfig::new().max_size(u32::try_from(CONCURRENCY).unwrap_or(u32::MAX)).idle_timeout(IDLE);
        Ok(Self { transport: builder.timeout(Some(PATIENCE)).pool_config(pool).build(), from })
    }

    /// Resolves once the server has taken the mail.
    pub(super) async fn send(&self, message: &Message) -> Result<(), Refusal> {
        let to = message.words.to.as_deref().unwrap_or_default();
        let mail = self.mail(message, to)?;
        match self.transport.send_raw(mail.envelope(), &mail.formatted()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(refusal(&error, mail.envelope().to().first().map_or(to, AsRef::as_ref))),
        }
    }

    /// Automatic, so that no out-of-office note answers it (RFC 3834).
    fn mail(&self, message: &Message, to: &str) -> Result<Mail, Refusal> {
        let to: Mailbox = to.parse().map_err(|_| Refusal::Bounced("the user's address is none".to_owned()))?;
        let id = format!("<{}@{}>", message.id, self.from.email.domain());
        let builder = Mail::builder().from(self.from.clone()).to(to).subject(message.words.subject.as_str()).message_id(Some(id));
        let builder =
            builder.date_now().raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()));
        let text = message.words.text.clone();
        let mail = match &message.words.html {
            None => builder.singlepart(SinglePart::plain(text)),
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(text, html.clone())),
        };
        mail.map_err(|error| Refusal::Failed(format!("no mail can be made: {error}")))
    }
}

/// Why a mail server would take nothing from us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The address or the sender makes no sense.
    Config(String),
    /// Nobody answers there.
    Away(String),
    /// It does not offer what the address asks for: STARTTLS, or a way to log in.
    Lacks(String),
    /// It cannot be encrypted to, or shows a certificate that is not trusted.
    Certificate(String),
    /// It answered, and will not have us: most likely user or password.
    Refused(String),
}

/// Connects to a mail server as a handler would: greeting, encryption, log-in. No mail is sent.
///
/// # Errors
/// What keeps it from taking mails, without secrets.
pub async fn examine(url: &str, from: &str) -> Result<(), Trouble> {
    let email = Email::new(url, from).map_err(Trouble::Config)?;
    match email.transport.test_connection().await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Trouble::Refused("it answered NOOP with an error".to_owned())),
        Err(error) => Err(trouble(&error)),
    }
}

fn trouble(error: &smtp::Error) -> Trouble {
    let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    match error.status() {
        Some(code) => Trouble::Refused(format!("{code} {text}")),
        None if error.is_client() => Trouble::Lacks(text),
        None if error.is_timeout() || error.source().is_some_and(|source| source.is::<io::Error>()) => Trouble::Away(text),
        None => Trouble::Certificate(text),
    }
}

#[cfg(feature = "tls")]
fn server(url: &str) -> Result<AsyncSmtpTransportBuilder, String> {
    AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
        .map_err(|_| "`smtp` is no address of a mail server; write it like \"smtp://user:password@host:587\"".to_owned())
}

/// Passwords do not go over the network as they are.
#[cfg(not(feature = "tls"))]
fn server(url: &str) -> Result<AsyncSmtpTransportBuilder, String> {
    let url: reqwest::Url = url.parse().map_err(|_| "`smtp` is no address of a mail server".to_owned())?;
    match url.host_str() {
        Some(host) if url.scheme() == "smtp" && url.query().is_none() && url.password().is_none() => {
            Ok(AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host).port(url.port().unwrap_or(25)))
        }
        _ => Err("`smtp`: this binary was built without the feature `tls`: write it like \"smtp://host:25?tls=none\", without a password"
            .to_owned()),
    }
}

fn refusal(error: &smtp::Error, to: &str) -> Refusal {
    let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    match error.status() {
        Some(code) => classify::reply(u16::from(code), &text, to),
        None if error.is_timeout() => Refusal::later("the mail server did not answer in time"),
        None => classify::broken(&text, to),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::{option, prop_assert, prop_assert_eq, proptest};
    use tokio::runtime::Runtime;

    use super::*;
    use crate::handlers::notify::{header, template::Words};

    fn message(to: &str, subject: &str, text: &str, html: Option<&str>) -> Message {
        let words =
            Words { to: Some(to.to_owned()), subject: header::line(subject), text: header::body(text), html: html.map(str::to_owned) };
        Message { id: "id-1".to_owned(), user_id: "u".into(), event_id: "e".into(), event_type: "task.created".into(), words }
    }

    fn email() -> Email {
        Email::new("smtp://localhost:1?tls=none", "Todo <todo@example.com>").unwrap()
    }

    #[tokio::test]
    async fn a_mail_says_who_sends_it_that_no_person_did_and_which_one_it_is() {
        let mail =
            email().mail(&message("Ada <ada@example.com>", "Grüße", "Text\n", Some("<p>Text</p>")), "Ada <ada@example.com>").unwrap();
        let text = String::from_utf8(mail.formatted()).unwrap();
        for line in [
            "From: Todo <todo@example.com>\r\n",
            "To: Ada <ada@example.com>\r\n",
            "Message-ID: <id-1@example.com>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n",
            "Content-Type: text/html; charset=utf-8\r\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(text.is_ascii());
    }

    #[tokio::test]
    async fn what_is_no_address_bounces_and_is_not_repeated_in_the_error() {
        for to in ["", "ada", "ada@example.com, bob@example.com", "ada@example.com\r\nBcc: bob@example.com", "a b@example.com"] {
            let refused = email().mail(&message(to, "s", "t", None), to).unwrap_err();
            assert_eq!(refused, Refusal::Bounced("the user's address is none".to_owned()), "{to:?}");
        }
    }

    #[tokio::test]
    async fn a_server_or_sender_that_makes_no_sense_is_refused_without_the_password() {
        for (url, from) in [("smtp://user:hunter2@host:port", "a@b.c"), ("http://user:hunter2@host", "a@b.c"), ("smtp://h", "nobody")] {
            let error = Email::new(url, from).err().unwrap();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_words_add_a_header_or_a_recipient(subject in "(\\PC|\r|\n|:)*", text in "(\\PC|\r|\n)*", html in option::of("(\\PC|\r|\n)*")) {
            let runtime = Runtime::new().unwrap();
            let _inside = runtime.enter();
            let mail = email().mail(&message("ada@example.com", &subject, &text, html.as_deref()), "ada@example.com").unwrap();
            prop_assert_eq!(mail.envelope().to().len(), 1);
            let formatted = String::from_utf8(mail.formatted()).unwrap();
            let head = formatted.split("\r\n\r\n").next().unwrap();
            let names: Vec<_> = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t'])).map(|line| line.split(':').next().unwrap()).collect();
            let known = ["From", "To", "Subject", "Message-ID", "Date", "Auto-Submitted", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"];
            prop_assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
        }
    }
}
