//! The committer: all dirty partitions in one request per tick, and the drained ones at once.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::ports::{Commit, CommitError, OffsetSink};
use crate::telemetry::Metrics;

/// After the first request of a round, this long for the others to come along.
const GATHER: Duration = Duration::from_millis(2);

/// One partition's commit, and where its answer goes.
pub(super) struct Job {
    pub(super) commit: Commit,
    pub(super) answer: oneshot::Sender<Result<(), CommitError>>,
}

/// What partitions hold of the committer.
#[derive(Clone)]
pub(super) struct Commits {
    jobs: mpsc::Sender<Job>,
    started: Instant,
    interval: Duration,
}

impl Commits {
    /// When it is time to commit what is dirty: the same times for every partition, so that one request carries all of them.
    pub(super) fn ticks(&self) -> Interval {
        let period = self.interval.max(Duration::from_millis(1));
        let into = self.started.elapsed().as_nanos() % period.as_nanos();
        let next = Instant::now() + period - Duration::from_nanos(u64::try_from(into).unwrap_or_default());
        let mut ticks = interval_at(next, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }

    /// Commits one partition together with whoever else asks now.
    pub(super) async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        let (answer, answered) = oneshot::channel();
        let closed = || CommitError::Retriable("the committer has ended".to_owned());
        self.jobs.send(Job { commit, answer }).await.map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// The committer's own end.
pub(super) struct Committer {
    jobs: mpsc::Receiver<Job>,
    sink: Arc<dyn OffsetSink>,
    metrics: Metrics,
}

impl Committer {
    pub(super) fn new(sink: Arc<dyn OffsetSink>, interval: Duration, metrics: Metrics) -> (Commits, Self) {
        let (sender, jobs) = mpsc::channel(1024);
        (Commits { jobs: sender, started: Instant::now(), interval }, Self { jobs, sink, metrics })
    }

    /// Runs until the last [`Commits`] is dropped. One request is under way at a time, so no older commit can land after a newer (F16).
    pub(super) async fn run(mut self) {
        while let Some(job) = self.jobs.recv().await {
            self.round(job).await;
        }
    }

    async fn round(&mut self, first: Job) {
        tokio::time::sleep(GATHER).await;
        let mut jobs = vec![first];
        while let Ok(job) = self.jobs.try_recv() {
            jobs.push(job);
        }
        // Whoever does not wait any more has given the partition up: its commit would land behind the next owner's (F16).
        jobs.retain(|job| !job.answer.is_closed());
        if jobs.is_empty() {
            return;
        }
        match self.commit(jobs.iter().map(|job| job.commit.clone()).collect()).await {
            // One partition that is no longer ours fails the request for all: each is asked for alone, so that the others do not pay.
            Err(CommitError::NotOwner(_)) if jobs.len() > 1 => {
                for job in jobs.into_iter().filter(|job| !job.answer.is_closed()) {
                    let result = self.commit(vec![job.commit]).await;
                    // A partition that is gone no longer asks.
                    let _gone = job.answer.send(result);
                }
            }
            result => {
                for job in jobs {
                    let _gone = job.answer.send(result.clone());
                }
            }
        }
    }

    async fn commit(&self, commits: Vec<Commit>) -> Result<(), CommitError> {
        let partitions = commits.len();
        let result = self.sink.commit(commits).await;
        let code = result.as_ref().map_or_else(CommitError::code, |()| "ok");
        self.metrics.commits.with_label_values(&[code]).inc();
        if let Err(error) = &result {
            tracing::warn!(error = %error, partitions, "offset commit not taken; the partitions stay dirty");
        }
        result
    }
}
