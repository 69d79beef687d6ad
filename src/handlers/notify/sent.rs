//! What this process handed over already: a run that is repeated because its result could not be published sends nothing again.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

/// Messages that are remembered; each waits for a retry of its event at most.
const KEPT: usize = 10_000;

/// Ids of messages, the oldest forgotten first.
#[derive(Debug, Default)]
pub(super) struct Sent(Mutex<(HashSet<String>, VecDeque<String>)>);

impl Sent {
    pub(super) fn contains(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.contains(id)
    }

    pub(super) fn insert(&self, id: String) {
        let (known, order) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.insert(id.clone()) {
            order.push_back(id);
        }
        if order.len() > KEPT
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Sent};

    #[test]
    fn the_oldest_are_forgotten_first() {
        let sent = Sent::default();
        (0..=KEPT).for_each(|n| sent.insert(n.to_string()));
        sent.insert(KEPT.to_string());
        assert!(!sent.contains("0") && sent.contains("1") && sent.contains(&KEPT.to_string()));
    }
}
