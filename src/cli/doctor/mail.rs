//! What `notify` handlers hand their messages to: mail servers, webhooks; and who tells them who a user is.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Url;
use tokio::time::timeout;

use super::{apps::reach, finding::Finding};
use crate::{
    config::{Config, notify::NotifyConfig},
    handlers::notify::email::{self, Trouble},
};

/// Time for greeting, encryption and log-in.
const ANSWER: Duration = Duration::from_secs(8);

/// The findings about each handler of the kind. Nothing is sent.
pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let handlers = config.handlers.iter().filter_map(|handler| Some((handler.name.as_str(), handler.notify.as_ref()?)));
    join_all(handlers.map(async |(name, notify)| of_handler(name, notify).await)).await.into_iter().flatten().collect()
}

async fn of_handler(name: &str, notify: &NotifyConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(url) = &notify.smtp {
        let part = format!("mail server of {name}");
        let from = notify.from.as_deref().unwrap_or_default();
        findings.push(match timeout(ANSWER, email::examine(url, from)).await {
            Ok(Ok(())) => Finding::ok(part, format!("{}: it would take mails; none was sent", url.masked())),
            Ok(Err(trouble)) => failed(part, &url.masked(), trouble),
            Err(_) => failed(part, &url.masked(), Trouble::Away(format!("no answer within {} s", ANSWER.as_secs()))),
        });
    }
    if notify.is_webhook() {
        let fix = "start it, or correct webhook; until then its messages are retried";
        // Its path may be the secret that lets messages in.
        let origin = notify.webhook.expose().parse::<Url>().map(|url| url.origin().ascii_serialization()).unwrap_or_default();
        findings.push(reach(format!("webhook of {name}"), &origin, "no message was posted", fix).await);
    }
    if let Some(directory) = &notify.directory {
        let fix = "start it, or correct directory; until then its messages are retried";
        findings.push(reach(format!("directory of {name}"), &directory.replace("{user_id}", "u"), "nobody was asked for", fix).await);
    }
    findings
}

fn failed(part: String, server: &str, trouble: Trouble) -> Finding {
    let (found, fix) = match trouble {
        Trouble::Config(why) => (why, "correct [handlers.notify]"),
        Trouble::Away(why) => (why, "start the mail server, or correct host and port of smtp; 587 is usual for smtp://, 465 for smtps://"),
        Trouble::Lacks(why) => (
            why,
            "write smtps:// where it encrypts from the first byte, ?tls=none where it need not; leave user and password out where it wants none",
        ),
        Trouble::Certificate(why) => {
            (why, "name the host as its certificate does, and make the certificate's authority known to this machine (SSL_CERT_FILE)")
        }
        Trouble::Refused(why) => {
            (why, "correct user and password of smtp, percent-encoded as in any URL, or allow this machine in the server's settings")
        }
    };
    Finding::fail(part, format!("{server}: {found}"), fix)
}
