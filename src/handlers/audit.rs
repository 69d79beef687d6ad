//! Kind `audit`: a record of each event, in files or a topic, that shows when one of them is removed or changed.

mod topic;

use serde_json::{Value, json};

use self::topic::TopicJournal;
use super::outlet::Outlet;
use crate::{
    audit::{
        chain::{Body, digest},
        journal::JournalOptions,
        writer::Writer,
    },
    config::audit::{AuditConfig, AuditContent},
    event::{Event, time},
    handler::{Handler, Run},
    outcome::{Failure, Handled, HandlerResult},
    telemetry,
};

/// Where records are written that configuration names no place for.
const DIR: &str = "audit";

/// Writes a record of each event; it is on the disk, or acknowledged, before the event counts as handled.
///
/// An event whose run is repeated may have two records, with the same event id. A disk that is full is a transient failure.
pub struct AuditHandler {
    name: String,
    content: AuditContent,
    files: Option<Writer>,
    topic: Option<TopicJournal>,
}

impl AuditHandler {
    /// Chains are named by the handler and this machine.
    ///
    /// # Errors
    /// Where there can be no thread.
    pub fn new(name: &str, config: &AuditConfig, outlet: Outlet) -> Result<Self, String> {
        let chain = format!("{name}-{}", telemetry::host());
        let dir = config.dir.clone().or_else(|| config.topic.is_none().then(|| DIR.into()));
        let options = |dir| JournalOptions { dir, chain: chain.clone(), max_size: config.max_size };
        let files = dir.map(|dir| Writer::start(options(dir)).map_err(|error| error.to_string())).transpose()?;
        let topic = config.topic.as_deref().map(|topic| TopicJournal::new(topic, &chain, outlet));
        Ok(Self { name: name.to_owned(), content: config.content, files, topic })
    }

    fn body(&self, event: &Event) -> Body {
        let record = event.record();
        let mut body = json!({
            "id": event.id(), "type": &**event.event_type(), "user_id": event.user_id(), "time": time::format(event.time()),
            "source": { "topic": &**record.topic(), "partition": record.partition().partition, "offset": record.offset() },
            "handler": self.name,
        });
        match self.content {
            AuditContent::Full => body["content"] = serde_json::from_slice(&event.to_canonical()).unwrap_or(Value::Null),
            AuditContent::Digest => body["sha256"] = digest(record.value().unwrap_or_default()).into(),
        }
        Body::Event(body)
    }
}

impl Handler for AuditHandler {
    async fn handle(&self, run: Run) -> HandlerResult {
        let body = self.body(&run.event);
        if let Some(files) = &self.files {
            files.append(body.clone()).await.map_err(Failure::transient)?;
        }
        if let Some(topic) = &self.topic {
            topic.append(body).await?;
        }
        Ok(Handled::Done)
    }
}
