//! Finished events by age, in generations, as Redis keeps them: what is old goes in one piece.

use std::collections::VecDeque;

use hashbrown::HashSet;
use tokio::time::Instant;

use super::MemoryLimits;

/// Generations of half of what is to be remembered, by number and by time: one goes when those after it have all of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Oldest first.
    generations: VecDeque<Generation>,
}

#[derive(Debug)]
struct Generation {
    ids: HashSet<[u8; 16]>,
    began: Instant,
    /// When the last of it finished.
    last: Instant,
}

impl Done {
    /// Whether it is finished.
    pub(super) fn contains(&self, id: &[u8; 16]) -> bool {
        self.generations.iter().rev().any(|generation| generation.ids.contains(id))
    }

    /// Notes those that finished now; answers how many this generation did not know.
    pub(super) fn extend(&mut self, ids: impl Iterator<Item = [u8; 16]>, limits: &MemoryLimits, now: Instant) -> usize {
        ids.filter(|id| self.newest(limits, now).insert(*id)).count()
    }

    fn newest(&mut self, limits: &MemoryLimits, now: Instant) -> &mut HashSet<[u8; 16]> {
        let (most, longest) = (limits.members.div_ceil(2), limits.retention / 2);
        let newest = self.generations.back();
        let turns = newest.is_none_or(|newest| newest.ids.len() >= most || now.saturating_duration_since(newest.began) > longest);
        if turns {
            // As many will come as came, most likely: a set that grows is moved each time.
            let room = newest.map_or(0, |newest| newest.ids.len());
            self.generations.push_back(Generation { ids: HashSet::with_capacity(room), began: now, last: now });
        }
        let newest = self.generations.len() - 1;
        self.generations[newest].last = now;
        &mut self.generations[newest].ids
    }

    /// Lets go of what is too old or too many.
    pub(super) fn forget(&mut self, limits: &MemoryLimits, now: Instant) {
        while let Some(oldest) = self.generations.front() {
            let after: usize = self.generations.iter().skip(1).map(|generation| generation.ids.len()).sum();
            if after < limits.members && now.saturating_duration_since(oldest.last) <= limits.retention {
                break;
            }
            self.generations.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list of all that finished.
        #[test]
        fn what_is_young_enough_and_among_the_last_is_remembered_and_nothing_for_much_longer(
            steps in proptest::collection::vec((0..4_u64, 0..30_u8), 1..120),
            members in 1..20_usize,
        ) {
            let limits = MemoryLimits { members, retention: Duration::from_secs(20), ..MemoryLimits::default() };
            let (mut done, start, mut seconds) = (Done::default(), Instant::now(), 0);
            let mut all: Vec<(u64, u8)> = Vec::new();
            for (wait, number) in steps {
                seconds += wait * wait;
                let now = start + Duration::from_secs(seconds);
                done.forget(&limits, now);
                for number in 0..30 {
                    let age = all.iter().rev().find(|(_, found)| *found == number).map(|(at, _)| seconds - at);
                    let others = all.iter().rev().position(|(_, found)| *found == number);
                    let must = age.is_some_and(|age| age <= 20) && others.is_some_and(|others| others < members);
                    let may = age.is_some_and(|age| age <= 30);
                    let remembered = done.contains(&[number; 16]);
                    prop_assert!(remembered || !must, "{number} is forgotten after {age:?} s and {others:?} others");
                    prop_assert!(may || !remembered, "{number} is remembered after {age:?} s");
                }
                done.extend([[number; 16]].into_iter(), &limits, now);
                all.push((seconds, number));
            }
            let kept: usize = done.generations.iter().map(|generation| generation.ids.len()).sum();
            prop_assert!(kept <= members + members.div_ceil(2), "{kept} are kept");
        }
    }
}
