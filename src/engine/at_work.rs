//! Identities at work in this process: a second copy in another lane waits and asks the ledger again.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use smallvec::SmallVec;

/// Parts of the set, a power of two. With some ten thousand events at work each holds a few.
const PARTS: usize = 4096;

/// Of a part's identities these stand in the part itself, so that to enter or leave touches one line of the processor's cache.
const HERE: usize = 4;

/// The set, for all partitions.
#[derive(Debug)]
pub(super) struct AtWork {
    seed: u64,
    parts: Box<[Part]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Part(Mutex<SmallVec<[u64; HERE]>>);

impl Default for AtWork {
    fn default() -> Self {
        Self::with_parts(PARTS)
    }
}

impl AtWork {
    fn with_parts(count: usize) -> Self {
        Self { seed: RandomState::new().hash_one(0), parts: (0..count).map(|_| Part::default()).collect() }
    }

    /// What stands for an identity: 64 bits of it, by a secret of this process, so that nobody can make ids that meet. Should two different
    /// ones meet after all, the later waits for the earlier.
    fn token(&self, id: [u8; 16]) -> u64 {
        let (low, high) = id.split_at(8);
        [low, high].into_iter().fold(self.seed, |state, half| {
            let half = half.try_into().map_or(0, u64::from_le_bytes);
            let product = u128::from(state ^ half) * 0x9E37_79B9_7F4A_7C15;
            #[expect(clippy::cast_possible_truncation, reason = "both halves count")]
            let folded = (product >> 64) as u64 ^ product as u64;
            folded
        })
    }

    fn part(&self, token: u64) -> MutexGuard<'_, SmallVec<[u64; HERE]>> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let part = &self.parts[token as usize & (self.parts.len() - 1)];
        // A part is never left half-changed, so a poisoned lock holds a good one.
        part.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One partition's way into the set: what its claims count references of is its own, and no other thread's.
#[derive(Debug)]
pub(super) struct Claims(Arc<AtWork>);

/// One identity at work; dropping it lets the next copy ask.
#[derive(Debug)]
pub(super) struct Claim {
    of: Arc<Claims>,
    token: u64,
}

impl Claims {
    pub(super) fn new(all: &Arc<AtWork>) -> Arc<Self> {
        Arc::new(Self(Arc::clone(all)))
    }

    /// Enters `id`; `None`: it is at work already.
    pub(super) fn enter(self: &Arc<Self>, id: [u8; 16]) -> Option<Claim> {
        let token = self.0.token(id);
        let mut part = self.0.part(token);
        if part.contains(&token) {
            return None;
        }
        part.push(token);
        Some(Claim { of: Arc::clone(self), token })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut part = self.of.0.part(self.token);
        if let Some(place) = part.iter().position(|token| *token == self.token) {
            part.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_second_copy_of_an_id_waits_until_the_first_is_through(steps in proptest::collection::vec((any::<bool>(), 0..40_u8), 0..400)) {
            // All in one part, which has no place for most.
            let all = Arc::new(AtWork::with_parts(1));
            let partitions = [Claims::new(&all), Claims::new(&all)];
            let mut held = HashMap::new();
            for (enters, number) in steps {
                if enters {
                    let claim = partitions[usize::from(number % 2)].enter([number; 16]);
                    prop_assert_eq!(claim.is_some(), !held.contains_key(&number));
                    held.extend(claim.map(|claim| (number, claim)));
                } else {
                    held.remove(&number);
                }
            }
            drop(held);
            prop_assert!(all.part(0).is_empty());
        }
    }

    #[test]
    fn a_part_is_one_line_of_the_processors_cache() {
        assert_eq!(size_of::<Part>(), 64);
    }
}
