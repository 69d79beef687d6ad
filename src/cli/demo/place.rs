//! What the tour's own jobs have outside of the worker: a mail server, and a folder for audit records.

use std::{env, fs, io, path::PathBuf};

use anyhow::Context;
use serde_json::json;
use uuid::Uuid;

use super::{figures::Audited, mailbox::Mailbox};
use crate::audit::verify::verify_dir;

/// Both, for as long as the tour lasts.
pub(super) struct Place {
    pub(super) mailbox: Mailbox,
    audit: Folder,
}

impl Place {
    pub(super) async fn new() -> anyhow::Result<Self> {
        let mailbox = Mailbox::open().await.context("the tour's mail server")?;
        Ok(Self { mailbox, audit: Folder::new().context("a temporary folder for audit records")? })
    }

    /// What the worker does by itself, beside the tour's own handler: `handlers = [..]`.
    pub(super) fn handlers(&self) -> String {
        let (mailbox, audit) = (self.mailbox.address(), json!(self.audit.0));
        format!(
            r#"handlers = [
    {{ name = "recurrence", kind = "recurrence" }}, {{ name = "reminders", kind = "reminder" }},
    {{ name = "points", kind = "points" }}, {{ name = "security", kind = "security" }},
    {{ name = "audit", kind = "audit", audit.dir = {audit} }},
    {{ name = "mail", kind = "notify", events = ["reminder.due"], notify = {{
        smtp = "smtp://{mailbox}?tls=none", from = "Todo <todo@example.com>", to = "{{{{ user_id }}}}@example.com" }} }},
]"#
        )
    }

    /// The audit records as `worker audit verify` finds them. `deleted`: those that must be there.
    pub(super) fn audited(&self, deleted: usize) -> anyhow::Result<Audited> {
        let reports = verify_dir(&self.audit.0, false).context("reading the audit records back")?;
        Ok(Audited {
            deleted,
            chains: reports.iter().map(|report| report.chain.clone()).collect(),
            records: reports.iter().map(|report| report.events).sum(),
            broken: reports.into_iter().find_map(|report| report.broken),
        })
    }
}

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("worker-demo-{}", Uuid::now_v7()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is the temporary directory's to clear.
        let _gone = fs::remove_dir_all(&self.0);
    }
}
