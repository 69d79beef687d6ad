//! Compares topics as they are declared with those that are there. Pure.

mod compare;
mod wanted;

use clap::ValueEnum;

pub(super) use self::wanted::{Wanted, wanted};
use crate::kafka::topics::TopicDescription;

/// Lets the broker decide.
const BROKERS_DEFAULT: i32 = -1;

/// What a change can cost, each allowed by its own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Risk {
    /// More partitions: keys move, so that for a while a user's older events wait in one partition and the newer ones run in another
    AddPartitions,
    /// A shorter retention or another cleanup policy: Kafka deletes records sooner
    LoseRecords,
    /// Topics that topics.yaml lists under `gone`, with all their records
    Delete,
}

impl Risk {
    /// As it is written after `--allow`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AddPartitions => "add-partitions",
            Self::LoseRecords => "lose-records",
            Self::Delete => "delete",
        }
    }
}

/// What is not as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// The topic is missing.
    Create,
    /// It has another number of partitions.
    Partitions,
    /// It has another number of copies.
    Replication,
    /// A setting of Kafka's has another value.
    Setting(String),
    /// It should be no more.
    Delete,
}

/// How a difference goes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// `apply` does it.
    Safe,
    /// `apply` does it where that is allowed by name.
    Risky(Risk),
    /// Not by `apply`: why, and what would.
    Stuck(String),
}

/// One thing that is not as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) what: What,
    pub(super) wanted: String,
    pub(super) found: String,
    pub(super) way: Way,
    /// What became of it; `None`: nothing was tried.
    pub(super) outcome: Option<Result<(), String>>,
}

impl Difference {
    /// What it is about, for people and programs: `partitions`, `retention.ms`.
    pub(super) fn setting(&self) -> &str {
        match &self.what {
            What::Create | What::Delete => "topic",
            What::Partitions => "partitions",
            What::Replication => "replication",
            What::Setting(key) => key,
        }
    }

    /// Whether `apply` with these risks allowed would do it.
    pub(super) fn is_allowed(&self, allowed: &[Risk]) -> bool {
        match &self.way {
            Way::Safe => true,
            Way::Risky(risk) => allowed.contains(risk),
            Way::Stuck(_) => false,
        }
    }

    /// Whether it could be done and is not yet.
    pub(super) fn is_pending(&self) -> bool {
        !matches!(self.way, Way::Stuck(_)) && self.outcome != Some(Ok(()))
    }
}

/// One topic and what is not as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) name: String,
    /// As declared; `None`: it should be no more.
    pub(super) wanted: Option<Wanted>,
    pub(super) differences: Vec<Difference>,
    /// Why its settings were not compared.
    pub(super) hidden: Option<String>,
}

impl Topic {
    /// Whether something was done about it.
    pub(super) fn is_changed(&self) -> bool {
        self.differences.iter().any(|found| found.outcome == Some(Ok(())))
    }

    /// Whether what was done shows in what the brokers say of it.
    pub(super) fn shows_in(&self, found: Option<TopicDescription>) -> bool {
        let Some(wanted) = self.wanted.clone() else { return found.is_none() };
        let left = compare::topic(wanted, found).differences;
        !self.differences.iter().any(|made| made.outcome == Some(Ok(())) && left.iter().any(|left| left.what == made.what))
    }
}

/// A topic that should be no more, and what it holds where it is still there.
pub(super) type Gone = (String, Option<String>);

/// Every topic and where it stands.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) topics: Vec<Topic>,
}

impl Plan {
    /// `found` in the order of `wanted`.
    pub(super) fn new(wanted: Vec<Wanted>, found: Vec<Option<TopicDescription>>, gone: Vec<Gone>) -> Self {
        let declared = wanted.into_iter().zip(found).map(|(wanted, found)| compare::topic(wanted, found));
        Self { topics: declared.chain(gone.into_iter().map(compare::gone)).collect() }
    }

    /// Every difference.
    pub(super) fn differences(&self) -> impl Iterator<Item = &Difference> {
        self.topics.iter().flat_map(|topic| &topic.differences)
    }

    /// How many changes could be made and are not.
    pub(super) fn pending(&self) -> usize {
        self.differences().filter(|found| found.is_pending()).count()
    }

    /// How many differences `apply` cannot mend.
    pub(super) fn stuck(&self) -> usize {
        self.differences().filter(|found| matches!(found.way, Way::Stuck(_))).count()
    }

    /// How many changes were refused.
    pub(super) fn refused(&self) -> usize {
        self.differences().filter(|found| matches!(found.outcome, Some(Err(_)))).count()
    }
}
