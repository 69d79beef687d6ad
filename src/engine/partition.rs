//! The task that owns one assigned partition: all of its state in one place, changed by one thread of control, no locks.
//!
//! The steps of an event stand in their own files: `intake` (poll to lane), `check` (the ledger), `dispatch` (permits, runs),
//! `settle` (verdicts, dead letters, the ledger again), `drain` (commits, and the way out).

use std::{collections::VecDeque, future::poll_fn, pin::pin, sync::Arc};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use hashbrown::HashMap;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    at_work::Claims,
    check,
    dispatch::{Queues, RunDone},
    drain::Mode,
    intake::Hint,
    io::{Command, Io},
    lane::{LaneId, Lanes},
    lease::Held,
    meters::Meters,
    ownership::LeaseState,
    pace::Pace,
    ports::{Assignment, EventRecord, Gate},
    report::Counts,
    runs::Runs,
    timer::Timer,
};
use crate::{
    event::record::{RecordBatch, TopicPartition},
    progress::{Head, MapLimits, Tier, Tracker},
};

/// One assigned partition.
pub(super) struct Partition {
    pub(super) shared: Arc<Shared>,
    /// With a topic name of its own: every record counts its references, and other partitions are other threads'.
    pub(super) id: TopicPartition,
    /// Each handler's name, for the same reason.
    pub(super) names: Box<[Arc<str>]>,
    pub(super) gate: Arc<Gate>,
    /// Where this assignment began: everything below is settled.
    pub(super) start: i64,
    /// First offset that the log had when the partition was assigned.
    pub(super) log_start: i64,
    /// Not read until an overflowing lane has moved (`on_overflow = "pause_partition"`).
    pub(super) paused: Option<LaneId>,
    /// Latest turn of an event that was handled since.
    pub(super) handled_from: Option<Instant>,
    pub(super) mode: Mode,
    inbox: mpsc::Receiver<Box<dyn RecordBatch>>,
    inbox_open: bool,

    pub(super) tracker: Tracker,
    pub(super) lanes: Lanes,
    pub(super) map_epoch: u64,
    /// Failures and due times that the commit map remembers, by offset.
    pub(super) hints: HashMap<i64, Hint>,

    pub(super) owner: Arc<str>,
    pub(super) lease: LeaseState,
    /// The lease was told to somebody who waits: prove membership by a commit.
    pub(super) prove: Option<Instant>,
    /// Nobody has confirmed us to somebody who waits: the lease goes back when what is under way has ended.
    pub(super) yielding: bool,
    /// The lease was lost while the group counts the partition as ours: it is asked for again once a commit has proved that.
    pub(super) regaining: bool,
    pub(super) remembered: HashMap<i64, EventRecord>,
    /// Offsets up to this one may be in a dead owner's hands: their runs are counted before they start.
    pub(super) suspects_below: Option<i64>,
    /// Highest offset handed to a handler, as the store knows it.
    pub(super) mark: i64,

    /// Identities of its heads, among all partitions'.
    pub(super) claims: Arc<Claims>,
    pub(super) ready: VecDeque<LaneId>,
    /// Lanes whose id is at work in another lane: they ask again.
    pub(super) twins: Vec<LaneId>,
    pub(super) twins_ask_at: Option<Instant>,
    /// Heads in the ledger check that is under way.
    pub(super) checking: usize,
    pub(super) queues: Queues,
    pub(super) pace: Pace,
    /// Something may run, but not before the lease is renewed.
    pub(super) stalled: bool,
    /// Runs may start that have not been looked at yet.
    pub(super) more_runs: bool,
    pub(super) runs: Runs,
    /// Those that have ended, for as long as a step takes; kept for its room.
    ended: Vec<RunDone>,
    pub(super) timer: Timer,

    pub(super) to_save: Vec<LaneId>,
    pub(super) saving: bool,
    pub(super) to_bury: VecDeque<LaneId>,
    pub(super) bury_again_at: Option<Instant>,
    pub(super) burying: usize,
    /// A dead letter that is refused now is the next owner's.
    pub(super) last_letters: CancellationToken,
    pub(super) to_finish: Vec<LaneId>,
    /// Heads whose verdicts are being written.
    pub(super) finishing: usize,
    /// Settled events whose exceptional record goes when a commit covers them.
    pub(super) removable: VecDeque<i64>,
    /// One has, up to here.
    pub(super) sweep_to: Option<i64>,
    pub(super) to_refetch: VecDeque<LaneId>,
    pub(super) refetching: bool,

    pub(super) committing: bool,
    /// The partition is not ours to commit any more.
    pub(super) no_commits: CancellationToken,
    pub(super) limits: MapLimits,
    /// How much of the last commit's map found room.
    pub(super) tier: Tier,
    pub(super) commit_now: bool,
    /// Heads of the snapshot before, for a test without `Rules::one_snapshot`.
    pub(super) heads_before: Vec<Head>,
    pub(super) last_commit: Instant,

    /// The wall clock, milliseconds since 1970, as of this step: for the ages of many events at once.
    pub(super) wall_ms: i64,
    pub(super) io: FuturesUnordered<BoxFuture<'static, Io>>,
    pub(super) meters: Meters,
    pub(super) counts: Counts,
    pub(super) rng: fastrand::Rng,
    /// Told to every run: nobody waits for it any more.
    pub(super) cancelled: Arc<CancellationToken>,
    pub(super) reported: Counts,
}

impl Partition {
    pub(super) fn new(shared: Arc<Shared>, assignment: Assignment) -> Self {
        let map = assignment.committed.as_ref().and_then(|committed| shared.read_map(&assignment.partition, committed));
        let map_epoch = map.as_ref().map_or(0, |map| map.epoch);
        let first_commit = assignment.committed.is_none();
        let rng = shared.fork_rng();
        let queues = Queues::new(shared.registry.bindings().len());
        let names = shared.registry.bindings().iter().map(|binding| Arc::from(&*binding.name)).collect();
        let id = TopicPartition::new(&*assignment.partition.topic, assignment.partition.partition);
        Self {
            tracker: Tracker::with_rules(assignment.start, map, shared.rules.progress),
            owner: shared.new_owner(),
            meters: Meters::new(Arc::clone(&shared), &assignment.partition),
            id,
            names,
            gate: assignment.gate,
            start: assignment.start,
            log_start: assignment.log_start,
            paused: None,
            handled_from: None,
            mode: Mode::Running,
            inbox: assignment.inbox,
            inbox_open: true,
            lanes: Lanes::default(),
            map_epoch,
            hints: HashMap::new(),
            lease: LeaseState::Asking,
            prove: None,
            yielding: false,
            regaining: false,
            remembered: HashMap::new(),
            suspects_below: None,
            mark: -1,
            claims: Claims::new(&shared.at_work),
            ready: VecDeque::new(),
            twins: Vec::new(),
            twins_ask_at: None,
            checking: 0,
            queues,
            pace: Pace::default(),
            stalled: false,
            more_runs: false,
            runs: Runs::default(),
            ended: Vec::new(),
            timer: Timer::default(),
            to_save: Vec::new(),
            saving: false,
            to_bury: VecDeque::new(),
            bury_again_at: None,
            burying: 0,
            last_letters: CancellationToken::new(),
            to_finish: Vec::new(),
            finishing: 0,
            removable: VecDeque::new(),
            sweep_to: None,
            to_refetch: VecDeque::new(),
            refetching: false,
            committing: false,
            no_commits: CancellationToken::new(),
            limits: MapLimits { max_chars: shared.options.commit_map_chars, ..MapLimits::default() },
            tier: Tier::Full,
            commit_now: first_commit,
            heads_before: Vec::new(),
            last_commit: Instant::now(),
            wall_ms: 0,
            io: FuturesUnordered::new(),
            counts: Counts::default(),
            rng,
            cancelled: Arc::default(),
            reported: Counts::default(),
            shared,
        }
    }

    /// Owns the partition until it is drained, lost, or the engine drops the task.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.ask_for_lease();
        let mut ticks = self.shared.commits.ticks();
        let mut alarm = pin!(tokio::time::sleep_until(Instant::now()));
        while !self.over() {
            self.advance();
            if self.over() {
                break;
            }
            let wake = self.next_wake();
            // One that rings too early costs less than setting it anew each time.
            if let Some(wake) = wake.filter(|wake| alarm.is_elapsed() || *wake < alarm.deadline()) {
                alarm.as_mut().reset(wake);
            }
            let held = match &self.lease {
                LeaseState::Held(held) => Some(Arc::clone(held)),
                LeaseState::Asking | LeaseState::Gone => None,
            };
            let reading = self.inbox_open && self.mode.reads() && self.reads_on();
            // Biased: what frees memory comes before what takes more of it.
            tokio::select! {
                biased;
                Some(command) = commands.recv() => self.command(command),
                () = poll_fn(|context| self.runs.poll_ended(context, &mut self.ended)), if !self.runs.is_empty() => {
                    let mut ended = std::mem::take(&mut self.ended);
                    ended.drain(..).for_each(|done| self.on_run(done));
                    self.ended = ended;
                }
                Some(io) = self.io.next() => self.on_io(io),
                // Others of this thread have their turn first.
                () = tokio::task::yield_now(), if self.has_more() => {}
                () = &mut alarm, if wake.is_some() => self.on_timer(),
                () = changed(held.as_deref()), if held.is_some() => self.on_lease_change(),
                _ = ticks.tick() => self.on_tick(),
                batch = self.inbox.recv(), if reading => match batch {
                    Some(batch) => self.intake(&*batch),
                    None => self.inbox_open = false,
                },
                else => break,
            }
        }
        self.leave().await;
    }

    /// Starts whatever can be started without waiting.
    fn advance(&mut self) {
        self.see_clock();
        let now = Instant::now();
        // However much else there is to do.
        self.runs.look(now);
        if self.mode.works() {
            self.start_check(now);
            self.start_refetch();
            self.dispatch();
            self.start_bury();
        }
        self.start_save();
        self.start_finish(now);
        self.start_commit();
        self.advance_yield();
        self.advance_drain();
        self.meters.flush();
    }

    fn next_wake(&self) -> Option<Instant> {
        let stalled = self.stalled.then(|| Instant::now() + super::lease::MARGIN / 4);
        // A drain that waits for the answer to an older commit is woken by that.
        let drain = self.mode.deadline().filter(|_| !self.committing);
        [self.timer.next(), self.bury_again_at, self.twins_ask_at, self.pace.ends(self.mode.works()), self.runs.look_at(), stalled, drain]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether more records would be of use. Beyond a full exchange of events that nothing but the store keeps they would only wait: grow cold,
    /// and where users are few end up as stubs, to be read twice. A lane whose head runs or waits for a retry may hold what a lane holds
    /// besides: behind those the log is searched for other users' events. Not so where none of those could run either.
    fn reads_on(&self) -> bool {
        let at_store = self.ready.len() + self.checking + self.to_finish.len() + self.finishing;
        if self.shared.reader.is_none() {
            // Nothing spills: how much a lane holds says nothing.
            return at_store < check::BATCH;
        }
        let whole = self.counts.taken.saturating_sub(self.counts.settled + self.counts.stubs);
        let elsewhere = if self.permits_are_out() { 0 } else { self.lanes.len().saturating_sub(at_store) };
        whole < (check::BATCH + elsewhere * (self.shared.options.lane_events + 1)) as u64
    }

    /// Whether one step of `advance` has left work for an earlier one: the next round must not wait for anything.
    fn has_more(&self) -> bool {
        let may_run = self.mode.works() && self.may_run(Instant::now());
        let check = !self.ready.is_empty() && self.checking == 0 && !self.pace.holds_heads();
        let bury = !self.to_bury.is_empty() && self.bury_again_at.is_none();
        let save = !self.to_save.is_empty() && !self.saving && self.may_write();
        save || may_run && (check || bury || self.more_runs)
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        while let Some((id, offset)) = self.timer.pop(now) {
            if self.lanes.get(id).is_some_and(|lane| lane.head() == Some(offset)) {
                self.wake(id, now);
            }
        }
        if self.bury_again_at.is_some_and(|at| at <= now) {
            self.bury_again_at = None;
        }
        if self.twins_ask_at.is_some_and(|at| at <= now) {
            self.twins_ask_at = None;
            for lane in std::mem::take(&mut self.twins) {
                self.make_ready(lane);
            }
        }
        self.stalled = false;
    }

    fn see_clock(&mut self) {
        self.wall_ms = self.shared.clock.now().timestamp_millis();
    }

    fn on_io(&mut self, io: Io) {
        self.see_clock();
        match io {
            Io::Leased(leased) => self.on_leased(leased),
            Io::Checked(checked) => self.on_checked(checked),
            Io::Granted { queue, permit } => self.on_granted(queue, permit),
            Io::Saved { lanes, result, epoch } => self.on_saved(lanes, result, epoch),
            Io::Swept { left } => {
                self.saving = false;
                self.removable.extend(left);
            }
            Io::Buried { lane, cause, acked } => self.on_buried(lane, &cause, acked),
            Io::Released => {}
            Io::Finished { lanes, result, epoch } => self.on_finished(lanes, result, epoch),
            Io::Committed { snapshot, result } => self.on_committed(snapshot, result),
            Io::Refetched(refetched) => self.on_refetched(refetched),
        }
    }
}

/// Resolves when the keeper has news of the lease.
async fn changed(held: Option<&Held>) {
    if let Some(held) = held {
        held.changed.notified().await;
    }
}
