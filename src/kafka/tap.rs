//! One assigned partition's way from the fetcher to its inbox: open, or held with what had already arrived kept in order.

use std::{collections::VecDeque, ffi::CString, sync::Arc};

use tokio::sync::mpsc;

use super::{
    batch::{Batch, Message, Queue, Shared},
    client::Logs,
    native,
};
use crate::{
    engine::ports::{Gate, weight},
    event::record::{RawRecord, RecordBatch, TopicPartition},
};

/// Records of one hand-over.
pub(super) const READ: usize = 512;
/// Hand-overs that may wait in an inbox: what waits for longer has left the processor's caches when its turn comes.
const INBOX: usize = 4;

/// A partition that is read.
pub(super) struct Tap {
    client: Arc<Shared<Logs>>,
    queue: Queue<Logs>,
    name: CString,
    partition: TopicPartition,
    inbox: mpsc::Sender<Box<dyn RecordBatch>>,
    gate: Arc<Gate>,
    /// Arrived while the partition was held.
    stash: VecDeque<Message>,
    /// Lowest offset that may come next.
    next: i64,
    forwarded: bool,
    gate_open: bool,
    stopped: bool,
}

/// The far end of a [`Tap`].
pub(super) struct Outlet {
    pub(super) inbox: mpsc::Receiver<Box<dyn RecordBatch>>,
    pub(super) gate: Arc<Gate>,
}

impl Tap {
    /// Takes the partition's queue; to be called before the partition is assigned, so that no record goes elsewhere.
    pub(super) fn open(client: &Arc<Shared<Logs>>, common: &Queue<Logs>, partition: TopicPartition, next: i64) -> Option<(Self, Outlet)> {
        let name = native::c_name(&partition.topic);
        let queue = Queue::of_partition(client, &name, partition.partition)?;
        queue.forward(common);
        let (sender, inbox) = mpsc::channel(INBOX);
        let gate = Arc::new(Gate::default());
        let tap = Self {
            client: Arc::clone(client),
            queue,
            name,
            partition,
            inbox: sender,
            gate: Arc::clone(&gate),
            stash: VecDeque::new(),
            next,
            forwarded: true,
            gate_open: true,
            stopped: false,
        };
        Some((tap, Outlet { inbox, gate }))
    }

    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Whether it waits for its gate or its inbox.
    pub(super) fn held(&self) -> bool {
        !self.forwarded && !self.stopped
    }

    /// Ends reading for good; what arrived and was not handed over is read again by the next owner.
    pub(super) fn stop(&mut self) {
        self.hold();
        self.stash.clear();
        self.stopped = true;
    }

    fn hold(&mut self) {
        if self.forwarded {
            self.queue.keep();
            self.forwarded = false;
        }
    }

    /// Takes what was read, in order. Answers how many records had been here before (F47): after a rebalance of its own books the client
    /// may fetch again what it had given out.
    pub(super) fn take(&mut self, messages: Vec<Message>) -> usize {
        let count = messages.len();
        let mut fresh = messages;
        fresh.retain(|message| {
            let fresh = message.offset() >= self.next;
            if fresh {
                self.next = message.offset() + 1;
            }
            fresh
        });
        let repeated = count - fresh.len();
        if self.stopped || fresh.is_empty() {
            return repeated;
        }
        if let Some(end) = native::cached_log_end(&self.client, &self.name, self.partition.partition) {
            self.gate.set_log_end(end);
        }
        // Behind what already waits, else out of order.
        let rest = if self.stash.is_empty() { self.hand_over(fresh).unwrap_or_default() } else { fresh };
        self.stash.extend(rest);
        repeated
    }

    /// Goes on where the gate or the inbox stopped it.
    pub(super) fn resume(&mut self, common: &Queue<Logs>) {
        if !self.held() {
            return;
        }
        while !self.stash.is_empty() {
            let piece: Vec<_> = self.stash.drain(..self.stash.len().min(READ)).collect();
            if let Some(back) = self.hand_over(piece) {
                for message in back.into_iter().rev() {
                    self.stash.push_front(message);
                }
                return;
            }
        }
        if self.is_open() && self.inbox.capacity() > 0 {
            self.queue.forward(common);
            self.forwarded = true;
        }
    }

    fn is_open(&mut self) -> bool {
        self.gate_open = self.gate.open(self.gate_open);
        self.gate_open
    }

    /// Sends one batch; gives it back, and holds the partition, where it cannot go now.
    fn hand_over(&mut self, messages: Vec<Message>) -> Option<Vec<Message>> {
        if !self.is_open() {
            self.hold();
            return Some(messages);
        }
        let full = match self.inbox.try_reserve() {
            Ok(place) => {
                self.gate.add(messages.iter().map(|message| weight(message)).sum());
                place.send(Box::new(Batch::new(&self.client, messages)));
                None
            }
            Err(error) => Some((error, messages)),
        };
        match full {
            None => {}
            Some((mpsc::error::TrySendError::Full(()), messages)) => {
                self.hold();
                return Some(messages);
            }
            // The engine has let go of it already.
            Some((mpsc::error::TrySendError::Closed(()), _)) => {
                self.stop();
                return None;
            }
        }
        // Closed by what was just handed over: stop here, not after the next read.
        if !self.is_open() {
            self.hold();
        }
        None
    }

    /// Keeps the lag fresh where nothing is read.
    pub(super) fn refresh_log_end(&self) {
        if let Some(end) = native::cached_log_end(&self.client, &self.name, self.partition.partition) {
            self.gate.set_log_end(end);
        }
    }
}
