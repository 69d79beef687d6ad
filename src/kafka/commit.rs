//! Commits offsets, synchronously and in order, on a thread of its own.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, RwLock, mpsc},
    thread,
    time::Duration,
};

use futures_util::future::BoxFuture;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer, ConsumerContext},
    error::RDKafkaErrorCode as Code,
};
use tokio::sync::oneshot;

use super::batch::Shared;
use crate::{
    engine::ports::{Commit, CommitError, OffsetSink},
    event::record::TopicPartition,
};

/// Requests that may wait; the engine keeps one in flight per partition.
const WAITING: usize = 64;

/// Which partitions may be committed: from the assignment to the answer of the revocation.
#[derive(Debug, Default)]
pub(super) struct Owned(Mutex<HashSet<TopicPartition>>);

impl Owned {
    pub(super) fn add(&self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(partitions);
    }

    pub(super) fn remove<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        let mut owned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in partitions {
            owned.remove(partition);
        }
    }

    fn first_foreign(&self, commits: &[Commit]) -> Option<TopicPartition> {
        let owned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        commits.iter().map(|commit| &commit.partition).find(|partition| !owned.contains(*partition)).cloned()
    }
}

/// The member that commits now; none while a new one is made.
pub(super) type Member<C> = Arc<RwLock<Option<Arc<Shared<C>>>>>;

type Request = (Vec<Commit>, oneshot::Sender<Result<(), CommitError>>);

/// The group's offsets. Lives as long as anybody holds it; refuses everything once the Source is closed.
pub struct Offsets {
    requests: mpsc::SyncSender<Request>,
    owned: Arc<Owned>,
}

impl Offsets {
    /// Starts the thread; it ends when the sink is dropped or the member is gone for good.
    pub(super) fn start<C: ConsumerContext + 'static>(
        member: Member<C>,
        owned: Arc<Owned>,
    ) -> std::io::Result<(Arc<Self>, thread::JoinHandle<()>)> {
        let (requests, queue) = mpsc::sync_channel::<Request>(WAITING);
        let guard = Arc::clone(&owned);
        let thread = thread::Builder::new().name("kafka-commit".to_owned()).spawn(move || {
            while let Ok((commits, answer)) = queue.recv() {
                let _ = answer.send(commit(&member, &guard, &commits));
            }
        })?;
        Ok((Arc::new(Self { requests, owned }), thread))
    }
}

impl OffsetSink for Offsets {
    fn commit(&self, commits: Vec<Commit>) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(async move {
            if commits.is_empty() {
                return Ok(());
            }
            if let Some(foreign) = self.owned.first_foreign(&commits) {
                return Err(CommitError::NotOwner(format!("{foreign} was given up")));
            }
            let (answer, answered) = oneshot::channel();
            match self.requests.try_send((commits, answer)) {
                Ok(()) => answered.await.unwrap_or_else(|_| Err(CommitError::Retriable("the consumer was closed".to_owned()))),
                Err(mpsc::TrySendError::Full(_)) => Err(CommitError::Retriable("too many commits wait".to_owned())),
                Err(mpsc::TrySendError::Disconnected(_)) => Err(CommitError::Retriable("the consumer was closed".to_owned())),
            }
        })
    }
}

/// One request to the group's coordinator. Asked again here is only what the next instant mends.
fn commit<C: ConsumerContext + 'static>(member: &Member<C>, owned: &Owned, commits: &[Commit]) -> Result<(), CommitError> {
    // Asked again: a revocation may have been answered while this waited.
    if let Some(foreign) = owned.first_foreign(commits) {
        return Err(CommitError::NotOwner(format!("{foreign} was given up")));
    }
    let mut list = TopicPartitionList::with_capacity(commits.len());
    for commit in commits {
        let mut entry = list.add_partition(&commit.partition.topic, commit.partition.partition);
        entry.set_metadata(&commit.metadata);
        if entry.set_offset(Offset::Offset(commit.offset)).is_err() {
            return Err(CommitError::Fatal(format!("{} is no offset", commit.offset)));
        }
    }
    for wait in [Duration::from_millis(20), Duration::from_millis(100)] {
        match attempt(member, &list) {
            Err(CommitError::Retriable(_)) => thread::sleep(wait),
            answer => return answer,
        }
    }
    attempt(member, &list)
}

fn attempt<C: ConsumerContext + 'static>(member: &Member<C>, list: &TopicPartitionList) -> Result<(), CommitError> {
    let Some(consumer) = member.read().unwrap_or_else(PoisonError::into_inner).clone() else {
        return Err(CommitError::Retriable("the consumer is not in its group".to_owned()));
    };
    match consumer.commit(list, CommitMode::Sync) {
        Ok(()) => Ok(()),
        Err(error) => Err(sort(error.rdkafka_error_code(), &error.to_string())),
    }
}

/// Sorts a refused commit by what the engine can do.
fn sort(code: Option<Code>, words: &str) -> CommitError {
    let words = words.to_owned();
    match code {
        Some(Code::OffsetMetadataTooLarge | Code::InvalidCommitOffsetSize) => CommitError::MetadataTooLarge,
        // Only what says that this *member* is out. A generation that has passed is a rebalance seen late: the partitions that stay
        // can be committed right after it, those that go are told by the group.
        Some(
            Code::UnknownMemberId | Code::FencedInstanceId | Code::FencedMemberEpoch | Code::AssignmentLost | Code::UnreleasedInstanceId,
        ) => CommitError::NotOwner(words),
        Some(
            Code::Fatal
            | Code::InvalidGroupId
            | Code::GroupAuthorizationFailed
            | Code::TopicAuthorizationFailed
            | Code::UnsupportedVersion
            | Code::InvalidArgument,
        ) => CommitError::Fatal(words),
        _ => CommitError::Retriable(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passed_generation_is_tried_again_and_a_member_unknown_to_the_group_owns_nothing() {
        assert_eq!(sort(Some(Code::IllegalGeneration), "").code(), "retriable");
        assert_eq!(sort(Some(Code::RebalanceInProgress), "").code(), "retriable");
        assert_eq!(sort(Some(Code::BrokerTransportFailure), "").code(), "retriable");
        assert_eq!(sort(Some(Code::UnknownMemberId), "").code(), "not_owner");
        assert_eq!(sort(Some(Code::OffsetMetadataTooLarge), "").code(), "metadata_too_large");
        assert_eq!(sort(Some(Code::GroupAuthorizationFailed), "").code(), "fatal");
    }
}
