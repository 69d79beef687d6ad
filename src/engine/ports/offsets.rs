//! Commits for the group.

use futures_util::future::BoxFuture;

use crate::event::record::TopicPartition;

/// One partition's progress, to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Which.
    pub partition: TopicPartition,
    /// Lowest unsettled offset.
    pub offset: i64,
    /// The commit map as text.
    pub metadata: String,
}

/// Commits offsets for the group.
pub trait OffsetSink: Send + Sync + 'static {
    /// Commits all of them in one request; resolves with the broker's answer. On an error none of them may be taken for committed.
    fn commit(&self, commits: Vec<Commit>) -> BoxFuture<'_, Result<(), CommitError>>;
}

/// Why a commit did not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A metadata is longer than this broker takes: halve and send again.
    #[error("the broker refused the commit's metadata as too large")]
    MetadataTooLarge,
    /// The group says that these partitions are not ours (any more).
    #[error("the group does not count this member as owner: {0}")]
    NotOwner(String),
    /// Passing trouble (coordinator moving, rebalance under way, broker away): send again later.
    #[error("commit failed: {0}")]
    Retriable(String),
    /// The client is beyond repair.
    #[error("commit failed for good: {0}")]
    Fatal(String),
}

impl CommitError {
    /// The metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::MetadataTooLarge => "metadata_too_large",
            Self::NotOwner(_) => "not_owner",
            Self::Retriable(_) => "retriable",
            Self::Fatal(_) => "fatal",
        }
    }
}
