//! What a handler may answer, and what becomes of an event: the vocabulary of verdicts.

use std::time::Duration;

/// A handler's verdict on one run: finished, or failed.
pub type HandlerResult = Result<Handled, Failure>;

/// A run that finished its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handled {
    /// The effect took place.
    Done,
    /// The handler decided that nothing is to be done, for the reason given. Counted, never retried.
    Dropped(String),
}

/// A run that did not finish its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// May pass later: retried on the event type's schedule, then dead-lettered as `exhausted`.
    Transient {
        /// What went wrong, for the log and the dead letter.
        error: String,
        /// A delay that the called side asked for (`Retry-After`). Clamped to the schedule's longest.
        after: Option<Duration>,
    },
    /// Will never pass: dead-lettered at once.
    Permanent {
        /// What went wrong, for the log and the dead letter.
        error: String,
    },
}

impl Failure {
    /// A failure that the type's own schedule retries.
    pub fn transient(error: impl Into<String>) -> Self {
        Self::Transient { error: error.into(), after: None }
    }

    /// A failure that no retry can mend.
    pub fn permanent(error: impl Into<String>) -> Self {
        Self::Permanent { error: error.into() }
    }

    /// The handler's own words.
    pub fn error(&self) -> &str {
        match self {
            Self::Transient { error, .. } | Self::Permanent { error } => error,
        }
    }
}

/// How one run ended, with the two ways that are no answer of the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The handler answered.
    Answered(HandlerResult),
    /// No answer within the handler's timeout; counts as transient.
    TimedOut(Duration),
    /// The handler panicked; counts as transient.
    Panicked(String),
}

impl Outcome {
    /// The metric label `result`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Answered(Ok(Handled::Done)) => "ok",
            Self::Answered(Ok(Handled::Dropped(_))) => "drop",
            Self::Answered(Err(Failure::Transient { .. })) => "transient",
            Self::Answered(Err(Failure::Permanent { .. })) => "permanent",
            Self::TimedOut(_) => "timeout",
            Self::Panicked(_) => "panic",
        }
    }

    /// The same verdict, with timeout and panic told as the transient failures that they are.
    pub fn into_result(self) -> HandlerResult {
        match self {
            Self::Answered(result) => result,
            Self::TimedOut(limit) => Err(Failure::transient(format!("no answer within {}", humantime::format_duration(limit)))),
            Self::Panicked(message) => Err(Failure::transient(format!("handler panicked: {message}"))),
        }
    }
}

/// Why an event is in the DLQ: the closed set of `x-dlq-reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadReason {
    /// Every delay of its schedule was used.
    Exhausted,
    /// A handler said that no retry can help.
    Permanent,
    /// Neither an envelope nor a CloudEvent could be read.
    Undecodable,
    /// The data does not fit the catalogue's schema.
    Schema,
    /// Nobody's event: no user_id at any of its three places.
    MissingUserId,
    /// The catalogue does not know the type.
    UnknownType,
    /// Five runs began and none was ever answered: it keeps killing the process.
    CrashLoop,
    /// Behind a failing event of the same user, beyond `max_held_events` or `max_hold_age`, or where the memory was full of them.
    UserOverflow,
    /// Too big for the DLQ topic: a stub that points to the original.
    Oversize,
    /// The handler that began it is no longer configured.
    HandlerGone,
}

impl DeadReason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::Exhausted,
        Self::Permanent,
        Self::Undecodable,
        Self::Schema,
        Self::MissingUserId,
        Self::UnknownType,
        Self::CrashLoop,
        Self::UserOverflow,
        Self::Oversize,
        Self::HandlerGone,
    ];

    /// The name in headers and metric labels.
    pub fn code(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Permanent => "permanent",
            Self::Undecodable => "undecodable",
            Self::Schema => "schema",
            Self::MissingUserId => "missing_user_id",
            Self::UnknownType => "unknown_type",
            Self::CrashLoop => "crash_loop",
            Self::UserOverflow => "user_overflow",
            Self::Oversize => "oversize",
            Self::HandlerGone => "handler_gone",
        }
    }

    /// The reason of that name.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// What became of an event: the metric label `outcome` of `worker_events_settled_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Settled {
    /// Every handler finished, at least one with an effect.
    Done,
    /// The ledger knew it.
    Duplicate,
    /// Every handler declined it, or it is a skipped unknown type.
    Dropped,
    /// Its `expiration` had passed.
    Expired,
    /// A known type that no handler is bound to.
    Unrouted,
    /// The broker acknowledged its DLQ record.
    Dead(DeadReason),
}

impl Settled {
    /// The metric label.
    pub fn code(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Duplicate => "duplicate",
            Self::Dropped => "dropped",
            Self::Expired => "expired",
            Self::Unrouted => "unrouted",
            Self::Dead(_) => "dead",
        }
    }
}
