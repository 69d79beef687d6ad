//! `[handlers.audit]`: where records of events are kept, and what of them.

use std::path::PathBuf;

use serde::Deserialize;

/// `[handlers.audit]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Folder of the files. Default: `audit`, where there is no topic.
    pub dir: Option<PathBuf>,
    /// Topic of the records, beside or instead of files.
    pub topic: Option<String>,
    /// A file that is longer gets no more records, in bytes. Default 64 MiB.
    #[serde(with = "super::units::size")]
    pub max_size: u64,
    /// What of the event is kept.
    pub content: AuditContent,
}

/// What of the event an audit record keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditContent {
    /// All of it.
    #[default]
    Full,
    /// The SHA-256 of its bytes: proves it to whoever has it, and tells nobody else.
    Digest,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { dir: None, topic: None, max_size: 64 << 20, content: AuditContent::default() }
    }
}
