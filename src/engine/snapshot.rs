//! A partition's commits: offset and map of one moment, sent when due, dirty until the broker has them.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    drain::Mode,
    io::Io,
    ownership::LeaseState,
    partition::Partition,
    ports::{Commit, CommitError},
    work::PartState,
};
use crate::progress::{Head, Snapshot, Tier};

/// Without any change, the commit is repeated this often, so that the group does not forget an idle partition (F20).
const IDLE_COMMIT: Duration = Duration::from_secs(6 * 60 * 60);

impl Partition {
    /// Time to commit, if there is anything new.
    pub(super) fn on_tick(&mut self) {
        self.report();
        if self.tracker.is_dirty() || self.regaining || self.last_commit.elapsed() >= IDLE_COMMIT {
            self.commit_now = true;
        }
        self.check_proof();
        self.relieve();
    }

    /// Sends the due commit, if none is under way.
    pub(super) fn start_commit(&mut self) {
        if self.commit_now && !self.committing && matches!(self.mode, Mode::Running) && !matches!(self.lease, LeaseState::Gone) {
            self.commit_now = false;
            self.send_commit(None);
        }
    }

    pub(super) fn send_commit(&mut self, until: Option<Instant>) {
        let snapshot = self.snapshot();
        self.committing = true;
        let commit = Commit { partition: self.id.clone(), offset: snapshot.offset, metadata: snapshot.metadata.clone() };
        let (commits, no_commits) = (self.shared.commits.clone(), self.no_commits.clone());
        self.io.push(Box::pin(async move {
            let call = commits.commit(commit);
            let late = async {
                match until {
                    None => std::future::pending().await,
                    Some(until) => tokio::time::sleep_until(until).await,
                }
            };
            let result = tokio::select! {
                biased;
                // One that is still queued is not sent any more: it would land behind the next owner's (F16).
                () = no_commits.cancelled() => Err(CommitError::NotOwner("the partition was given away".to_owned())),
                result = call => result,
                () = late => Err(CommitError::Retriable("no answer in time".to_owned())),
            };
            Io::Committed { snapshot, result }
        }));
    }

    /// Offset and map of this moment, from the heads of every lane.
    fn snapshot(&mut self) -> Snapshot {
        let now = Instant::now();
        let wall_ms = self.shared.clock.now_ms();
        let heads = self.lanes.iter().filter_map(|(_, lane)| {
            let offset = lane.head()?;
            let work = lane.work.as_deref();
            let due = work.into_iter().flat_map(|work| &work.parts).filter_map(|part| match part.state {
                PartState::Retry { due } => Some(wall_ms + super::work::millis(due.saturating_duration_since(now))),
                _ => None,
            });
            // A head whose turn has not come still has what the loaded map said of it.
            let hint = self.hints.get(&offset).filter(|_| work.is_none());
            let attempts = work.map_or(0, |work| work.attempts()).max(hint.map_or(0, |hint| hint.attempts));
            let due_ms = due.min().or(hint.and_then(|hint| hint.due_ms));
            Some(Head { offset, first_keyed: lane.first_keyed(), attempts, due_ms })
        });
        if !self.shared.rules.one_snapshot {
            let now = heads.collect();
            let before = std::mem::replace(&mut self.heads_before, now);
            return self.tracker.snapshot(before, self.map_epoch, self.limits);
        }
        self.tracker.snapshot(heads, self.map_epoch, self.limits)
    }

    /// Says what found no room in the map, once for each time that less finds room (F22).
    fn note_tier(&mut self, tier: Tier) {
        if tier != Tier::Full {
            self.shared.metrics.commit_map_overflows.with_label_values(&[&*self.id.topic, tier.code()]).inc();
        }
        if tier > self.tier {
            tracing::warn!(
                kafka.partition = %self.id, commit_map.tier = tier.code(), commit_map.max_chars = self.limits.max_chars,
                "too many blocked users for the commit map; what it leaves out is replayed or retried early after a restart"
            );
        }
        self.tier = tier;
    }

    pub(super) fn on_committed(&mut self, snapshot: Snapshot, result: Result<(), CommitError>) {
        self.committing = false;
        self.last_commit = Instant::now();
        match &result {
            Ok(()) => {
                self.proved();
                self.tracker.acked(&snapshot);
                let chars = snapshot.metadata.encode_utf16().count();
                let labels = [&*self.id.topic, &self.id.partition.to_string()];
                self.shared.metrics.commit_map_chars.with_label_values(&labels).set(i64::try_from(chars).unwrap_or(i64::MAX));
                self.note_tier(snapshot.tier);
                self.sweep_to = Some(snapshot.offset);
            }
            Err(CommitError::MetadataTooLarge) => {
                // The broker refuses per partition, the client reports all: whoever is longer than the new limit is sent shorter.
                self.limits = self.limits.halved();
                self.commit_now = true;
            }
            Err(CommitError::NotOwner(_)) if (self.prove.is_some() || self.regaining) && matches!(self.mode, Mode::Running) => {
                self.abandon()
            }
            Err(_) => {}
        }
        self.mode.commit_answered(&result);
    }
}
