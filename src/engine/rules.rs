//! The rules that keep an engine from losing or reordering events, each by name. All hold; a test switches one off to see that it would
//! notice.

use crate::progress;

/// Without any of these, some crash, outage or handover breaks a promise.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Rules {
    /// The commit map's.
    pub progress: progress::Rules,
    /// Nothing runs without the partition's lease.
    pub lease_before_run: bool,
    /// A run starts only well before the end of the lease as last acknowledged: a woken zombie starts nothing.
    pub last_check: bool,
    /// The ledger is asked before retries as well.
    pub ask_before_retries: bool,
    /// The highest offset about to run is written down before it runs.
    pub mark: bool,
    /// After an unclean takeover a start is counted before it is made.
    pub count_starts: bool,
    /// A failure is written down before its backoff or its dead letter.
    pub save_before_next: bool,
    /// A recorded verdict to give up is carried out without another run.
    pub recorded_dead_stays: bool,
    /// A handler that had begun an event and is gone gives it to the DLQ.
    pub handler_gone: bool,
    /// The ledger knows a verdict before the tracker does.
    pub ledger_before_settle: bool,
    /// A verdict is sent to the ledger only under a valid lease.
    pub verdict_under_lease: bool,
    /// Redrives are a part of an event's identity.
    pub redrives_in_member: bool,
    /// A lease is given back only when its runs have ended.
    pub runs_keep_lease: bool,
    /// Somebody who waits for the lease is given proof of membership, or the partition.
    pub prove_to_waiter: bool,
    /// A dead letter is acknowledged before its event is settled.
    pub letter_before_settle: bool,
    /// A lane's next event waits for the one before it.
    pub one_at_a_time: bool,
    /// The ledger knows an event only when all of its handlers are through.
    pub all_handlers: bool,
    /// An assignment is an owner of its own, even of the same process.
    pub owner_per_assignment: bool,
    /// Offset and heads of a commit are of one moment.
    pub one_snapshot: bool,
    /// Of the events that may have killed the process one at a time runs.
    pub suspects_alone: bool,
}

impl Rules {
    /// Every rule holds.
    pub const ALL: Self = Self {
        progress: progress::Rules::ALL,
        lease_before_run: true,
        last_check: true,
        ask_before_retries: true,
        mark: true,
        count_starts: true,
        save_before_next: true,
        recorded_dead_stays: true,
        handler_gone: true,
        ledger_before_settle: true,
        verdict_under_lease: true,
        redrives_in_member: true,
        runs_keep_lease: true,
        prove_to_waiter: true,
        letter_before_settle: true,
        one_at_a_time: true,
        all_handlers: true,
        owner_per_assignment: true,
        one_snapshot: true,
        suspects_alone: true,
    };
}
