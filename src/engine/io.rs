//! What reaches a partition from outside, records apart: the engine's commands, and the answers that it waits for.

use tokio::{sync::oneshot, time::Instant};

use super::{
    Left,
    backlog::Refetched,
    check::Checked,
    dead::Cause,
    guard::NoAnswer,
    lane::LaneId,
    limits::Permit,
    ownership::Leased,
    ports::{Acked, CommitError},
};
use crate::progress::Snapshot;

/// What the engine tells a partition.
pub(super) enum Command {
    /// Finish what runs, commit, give it up; answers what was left behind.
    Drain {
        deadline: Instant,
        drained: oneshot::Sender<Left>,
        /// The process ends afterwards: a lease with a run behind it is not released.
        last: bool,
    },
    /// The group gave it to somebody else already: commit nothing.
    Lose,
}

/// Answers that a partition waits for.
pub(super) enum Io {
    Leased(Leased),
    Checked(Checked),
    Granted {
        queue: usize,
        permit: Permit,
    },
    Saved {
        lanes: Vec<LaneId>,
        result: Result<(), NoAnswer>,
        /// Of the lease that it was sent under.
        epoch: u64,
    },
    Swept {
        left: Vec<i64>,
    },
    /// A lease went back, or will end by itself.
    Released,
    /// `None`: not written, and not tried again.
    Buried {
        lane: LaneId,
        cause: Cause,
        acked: Option<Acked>,
    },
    Finished {
        lanes: Vec<LaneId>,
        result: Result<usize, NoAnswer>,
        /// Of the lease that it was sent under.
        epoch: u64,
    },
    Committed {
        snapshot: Snapshot,
        result: Result<(), CommitError>,
    },
    Refetched(Refetched),
}
