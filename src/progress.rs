//! How far a partition is: the low watermark, the commit map, replay after a restart. Pure.
//!
//! One user's events settle in order, so what is settled above the watermark is a prefix of each lane: the head of every lane that
//! holds an unsettled event, and the frontier (highest settled offset), say it all:
//!
//! ```text
//! unsettled = { o <= frontier : o's lane has head h, o >= h }  +  { o > frontier }
//! ```
//!
//! The committed offset is the watermark (lowest unsettled), and the heads and the frontier travel with it as the commit's metadata
//! ([`Map`]). No keys are stored: on replay the head record itself says whose it is. The [`Tracker`] holds no entry per offset either:
//! the engine's lanes know their heads and tell them when a snapshot is taken.
//!
//! Why each rule is there, and what was lost in a model without it, is written where the rule is kept; [`Rules`] names them.

mod map;
#[cfg(test)]
mod model;
mod replay;
mod text;
mod tracker;

pub use self::{
    map::{Encoded, Map, MapError, MapHead, MapLimits, Tier},
    tracker::{Gap, Head, Intake, Snapshot, Tracker},
};

/// The rules without which a crash loses events. All hold; a test switches one off to see that it would notice.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// After an assignment the loaded map is committed unchanged until the scan has passed its frontier.
    pub freeze: bool,
    /// A lane that replay has met stays taken until the scan has passed the frontier, even if it drains before.
    pub stay_blocked: bool,
    /// A head that the log no longer has ends the skipping.
    pub vanished_heads: bool,
    /// A map that leaves heads out pulls the frontier back below the first of them.
    pub pull_back: bool,
    /// A record without a key is never skipped: nobody knows whose it is.
    pub keyless_taken: bool,
}

impl Rules {
    /// Every rule holds.
    pub const ALL: Self = Self { freeze: true, stay_blocked: true, vanished_heads: true, pull_back: true, keyless_taken: true };
}
