//! The engine: decode, check, handle, settle, commit.
//!
//! ```text
//! poll -> decode -> lane -> check (store) -> route -> handle -> settle -> track -> commit
//! ```
//!
//! One task owns each assigned partition; events of one user run one at a time and in order, those of others concurrently. The
//! invariant: the committed offset never passes an event whose only remaining copy is in memory or in the store. Kafka's log is the
//! retry queue.

mod alerts;
mod at_work;
mod backlog;
mod check;
mod commit;
mod dead;
mod dispatch;
mod drain;
mod guard;
mod intake;
mod io;
mod lane;
mod lease;
mod letters;
mod limits;
pub mod member;
mod meters;
mod overflow;
mod ownership;
mod pace;
mod partition;
pub mod ports;
mod records;
mod report;
mod rules;
mod runs;
mod settle;
mod shared;
mod snapshot;
mod subject;
mod timer;
mod work;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    task::{Id, JoinError, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

#[doc(hidden)]
pub use self::rules::Rules;
pub use self::{
    alerts::{Alert, Alerts},
    dead::{HANDLER, PREFIX, REDRIVES},
    guard::WhenDown,
    shared::{Clock, Options, Parts},
};
use self::{
    commit::Committer,
    io::Command,
    partition::Partition,
    ports::{Assignment, Gate, SourceEvent},
    shared::{Label, Shared},
};
pub use crate::config::engine::OnOverflow;
use crate::event::record::TopicPartition;

/// A partition whose task has ended while the group still counts it as ours is a mistake that only a restart mends; after this long
/// without the group's word the process ends rather than stand there ready and read nothing.
const ORPHAN_LIMIT: Duration = Duration::from_secs(60);
/// Past a drain's deadline, for final commits and leases.
const DRAIN_GRACE: Duration = Duration::from_secs(6);

/// Why the engine ended on its own.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The client is beyond repair.
    #[error("the kafka client failed for good: {0}")]
    Source(String),
    /// A partition is assigned to us, but its task has ended and the group did not take it away.
    #[error("partition {0} is assigned but cannot be worked on; restarting is the way out")]
    Orphan(TopicPartition),
    /// A task panicked.
    #[error("a task of the engine panicked: {0}")]
    Panic(JoinError),
}

impl EngineError {
    /// A short name, for logs and labels.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Source(_) => "source",
            Self::Orphan(_) => "orphan",
            Self::Panic(_) => "panic",
        }
    }
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every run ended and every partition was committed.
    Clean,
    /// The deadline passed with runs or commits left behind; their events come again.
    DeadlineExceeded {
        /// Runs that had not ended.
        runs: usize,
    },
}

/// One assigned partition's task.
struct Owner {
    commands: mpsc::Sender<Command>,
    gate: Arc<Gate>,
    task: Id,
}

/// Works on whatever partitions the Source hands over, until told to shut down.
pub struct Engine {
    shared: Arc<Shared>,
    committer: Option<Committer>,
    owners: BTreeMap<TopicPartition, Owner>,
    orphans: BTreeMap<TopicPartition, Instant>,
    partitions: JoinSet<()>,
    helpers: JoinSet<()>,
}

impl Engine {
    /// Assembles an engine; nothing runs before [`Engine::run`].
    pub fn new(parts: Parts, options: Options) -> Self {
        Self::with_rules(parts, options, Rules::ALL)
    }

    /// As [`Engine::new`], with rules switched off to see what they are good for.
    #[doc(hidden)]
    pub fn with_rules(parts: Parts, options: Options, rules: Rules) -> Self {
        let (commits, committer) = Committer::new(Arc::clone(&parts.offsets), options.commit_interval, parts.metrics.clone());
        Self {
            shared: Arc::new(Shared::new(parts, options, rules, commits)),
            committer: Some(committer),
            owners: BTreeMap::new(),
            orphans: BTreeMap::new(),
            partitions: JoinSet::new(),
            helpers: JoinSet::new(),
        }
    }

    /// Whether the store answered last time, for readiness.
    pub fn store_is_up(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let guard = self.shared.guard.clone();
        move || guard.is_up() || guard.bypassing()
    }

    /// Whether a record was ever found neither settled nor held: a bug that turns readiness off.
    pub fn conserves(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.conservation.broken() == 0
    }

    /// Runs until `shutdown`, then drains.
    ///
    /// # Errors
    /// Where it cannot go on: the process must end, non-zero.
    pub async fn run(mut self, mut source: mpsc::Receiver<SourceEvent>, shutdown: CancellationToken) -> Result<Drained, EngineError> {
        self.helpers.spawn(self.shared.keeper.clone().run());
        if let Some(committer) = self.committer.take() {
            self.helpers.spawn(committer.run());
        }
        let mut orphan_check = tokio::time::interval(Duration::from_secs(5));
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.shut_down(source).await,
                error = self.shared.failed() => return Err(EngineError::Source(error)),
                event = source.recv() => match event {
                    Some(event) => self.on_source(event)?,
                    None => return Err(EngineError::Source("its thread has ended".to_owned())),
                },
                Some(ended) = self.partitions.join_next_with_id() => self.on_ended(ended)?,
                Some(ended) = self.helpers.join_next() => if let Err(error) = ended { return Err(EngineError::Panic(error)) },
                _ = orphan_check.tick() => self.check_orphans()?,
            }
        }
    }

    fn on_source(&mut self, event: SourceEvent) -> Result<(), EngineError> {
        match event {
            SourceEvent::Assigned(assignments) => {
                self.shared.metrics.rebalances.inc();
                for assignment in assignments {
                    self.assign(assignment);
                }
            }
            SourceEvent::Revoked { partitions, drained } => {
                self.shared.metrics.rebalances.inc();
                let deadline = Instant::now() + self.shared.options.drain_timeout;
                let answers = partitions.iter().filter_map(|partition| self.drain(partition, deadline, false)).collect();
                // Bounded by the drain's deadline; the Source waits for the answer, or for its drop.
                self.helpers.spawn(async move {
                    wait_for(answers, deadline + DRAIN_GRACE).await;
                    let _closed = drained.send(());
                });
            }
            SourceEvent::Lost(partitions) => {
                self.shared.metrics.rebalances.inc();
                for partition in partitions {
                    tracing::warn!(kafka.partition = %partition, "partition lost: the group gave it away without asking");
                    self.lose(&partition);
                }
            }
            SourceEvent::Fatal(error) => return Err(EngineError::Source(error)),
        }
        self.share_memory();
        Ok(())
    }

    fn assign(&mut self, assignment: Assignment) {
        let partition = assignment.partition.clone();
        // A partition handed over twice: what we held of it is of an older assignment.
        self.lose(&partition);
        let gate = Arc::clone(&assignment.gate);
        let (commands, receiver) = mpsc::channel(4);
        let task = self.partitions.spawn(Partition::new(Arc::clone(&self.shared), assignment).run(receiver)).id();
        self.owners.insert(partition, Owner { commands, gate, task });
    }

    /// Tells a partition to drain; `None`: there is nothing to wait for.
    fn drain(&mut self, partition: &TopicPartition, deadline: Instant, last: bool) -> Option<oneshot::Receiver<Left>> {
        self.orphans.remove(partition);
        let owner = self.owners.remove(partition)?;
        let (drained, answer) = oneshot::channel();
        owner.commands.try_send(Command::Drain { deadline, drained, last }).ok()?;
        Some(answer)
    }

    fn lose(&mut self, partition: &TopicPartition) {
        self.orphans.remove(partition);
        if let Some(owner) = self.owners.remove(partition) {
            // A task that has ended has nothing left to lose.
            let _ended = owner.commands.try_send(Command::Lose);
        }
    }

    /// Divides the memory budget among the partitions.
    fn share_memory(&self) {
        let share = usize::try_from(self.shared.options.memory).unwrap_or(usize::MAX) / self.owners.len().max(1);
        for owner in self.owners.values() {
            owner.gate.set_budget(share);
        }
        self.shared.metrics.assigned_partitions.set(i64::try_from(self.owners.len()).unwrap_or(i64::MAX));
    }

    fn on_ended(&mut self, ended: Result<(Id, ()), JoinError>) -> Result<(), EngineError> {
        let (id, ()) = ended.map_err(EngineError::Panic)?;
        let orphan = self.owners.iter().find(|(_, owner)| owner.task == id).map(|(partition, _)| partition.clone());
        if let Some(partition) = orphan {
            self.owners.remove(&partition);
            self.orphans.insert(partition, Instant::now());
        }
        Ok(())
    }

    fn check_orphans(&self) -> Result<(), EngineError> {
        let orphan = self.orphans.iter().find(|(_, since)| since.elapsed() > ORPHAN_LIMIT);
        orphan.map_or(Ok(()), |(partition, _)| Err(EngineError::Orphan(partition.clone())))
    }

    /// Drains every partition; the Source is served meanwhile and told that revoked partitions are drained when all are.
    async fn shut_down(mut self, mut source: mpsc::Receiver<SourceEvent>) -> Result<Drained, EngineError> {
        let deadline = Instant::now() + self.shared.options.drain_timeout;
        let partitions: Vec<TopicPartition> = self.owners.keys().cloned().collect();
        tracing::info!(partitions = partitions.len(), "draining");
        let answers = partitions.iter().filter_map(|partition| self.drain(partition, deadline, true)).collect();
        let all = wait_for(answers, deadline + DRAIN_GRACE);
        tokio::pin!(all);
        let mut revoked = Vec::new();
        let left = loop {
            tokio::select! {
                biased;
                left = &mut all => break left,
                Some(event) = source.recv() => if let SourceEvent::Revoked { drained, .. } = event { revoked.push(drained) },
            }
        };
        // Runs that outlived an earlier revoke still hold their leases: they have until the deadline too.
        let lingering = timeout_at(deadline, async { while self.partitions.join_next().await.is_some() {} })
            .await
            .map_or(self.partitions.len(), |()| 0);
        drop(revoked);
        self.shared.metrics.assigned_partitions.set(0);
        match left {
            Some(left) if left.committed && left.runs + lingering == 0 => Ok(Drained::Clean),
            left => Ok(Drained::DeadlineExceeded { runs: left.map_or(0, |left| left.runs) + lingering }),
        }
    }
}

/// What a drained partition left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    /// Runs that had not ended.
    runs: usize,
    /// The final commit was acknowledged, or there was nothing to commit.
    committed: bool,
}

/// What all of them left behind, if all answer by `until`.
async fn wait_for(answers: Vec<oneshot::Receiver<Left>>, until: Instant) -> Option<Left> {
    let answers = timeout_at(until, join_all(answers)).await.ok()?;
    // A task that ended without an answer had nothing to drain.
    let left = answers.into_iter().flatten();
    Some(left.fold(Left { runs: 0, committed: true }, |sum, left| Left {
        runs: sum.runs + left.runs,
        committed: sum.committed && left.committed,
    }))
}
