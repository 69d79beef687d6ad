//! The Source's thread: serves the group, reads the open partitions, and never waits for anybody.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError as Native, RDKafkaErrorCode},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    KafkaError,
    batch::{Message, Queue, Shared},
    client::{Clients, Logs},
    commit::{self, Owned},
    lookup::{Found, Lookups},
    member::{self, Membership},
    rebalance::{Action, Event, Lookup, Machine, Revocation},
    source::Control,
    tap::{READ, Tap},
    watch::Watch,
};
use crate::{
    config::{Config, engine::StartAt},
    engine::ports::{Assignment, SourceEvent},
    event::record::TopicPartition,
};

/// Longest sleep for records while nothing else is awaited; the group is served in between.
const IDLE: Duration = Duration::from_millis(25);
/// The same while a gate, an inbox, an offset or a drain is awaited.
const BUSY: Duration = Duration::from_millis(5);
/// Time between two looks at what changes slowly.
const SWEEP: Duration = Duration::from_secs(1);

/// What reads records, made when it is known how many partitions there are.
struct Fetcher {
    client: Arc<Shared<Logs>>,
    common: Queue<Logs>,
    lookups: Lookups,
    lookup_thread: thread::JoinHandle<()>,
}

pub(super) struct Poller {
    clients: Clients,
    memory: u64,
    start_at: StartAt,
    control: Arc<Control>,
    member: commit::Member<Membership>,
    owned: Arc<Owned>,
    watch: Arc<Watch>,
    events: mpsc::Sender<SourceEvent>,
    /// Told in order, also where the engine is slow to listen.
    untold: VecDeque<SourceEvent>,
    machine: Machine,
    fetcher: Option<Fetcher>,
    taps: HashMap<TopicPartition, Tap>,
    found: HashMap<TopicPartition, Found>,
    drains: Vec<(Revocation, oneshot::Receiver<()>)>,
    looking: usize,
    subscribed: usize,
    join_at: Option<Instant>,
    swept: Instant,
    dead: bool,
}

impl Poller {
    pub(super) fn new(
        config: &Config,
        clients: Clients,
        control: Arc<Control>,
        member: commit::Member<Membership>,
        owned: Arc<Owned>,
        watch: Arc<Watch>,
        events: mpsc::Sender<SourceEvent>,
    ) -> Result<Self, KafkaError> {
        let now = Instant::now();
        // The drain has its own deadline; past this one the group would take the partitions anyway.
        let drain_for = (config.engine.drain_timeout + Duration::from_secs(5)).min(clients.max_poll_interval() / 2);
        let mut poller = Self {
            clients,
            memory: config.engine.memory,
            start_at: config.engine.start_at,
            control,
            member,
            owned,
            watch,
            events,
            untold: VecDeque::new(),
            machine: Machine::new(drain_for, now),
            fetcher: None,
            taps: HashMap::new(),
            found: HashMap::new(),
            drains: Vec::new(),
            looking: 0,
            subscribed: 0,
            join_at: None,
            swept: now,
            dead: false,
        };
        poller.make_member()?;
        Ok(poller)
    }

    /// Until closed, or beyond repair.
    pub(super) fn run(mut self) {
        let mut read = Vec::with_capacity(READ);
        while !self.control.closing.load(Ordering::Acquire) && !self.dead {
            self.control.beat();
            self.subscribe();
            self.serve_group();
            self.tell();
            self.sweep();
            let wait = self.patience();
            match &self.fetcher {
                Some(fetcher) => {
                    for tap in self.taps.values_mut() {
                        tap.resume(&fetcher.common);
                    }
                    fetcher.common.read(wait, READ, &mut read);
                    self.distribute(&mut read);
                }
                None => thread::sleep(wait),
            }
        }
        self.close();
    }

    fn patience(&self) -> Duration {
        let awaited = self.looking > 0 || !self.drains.is_empty() || !self.untold.is_empty() || self.taps.values().any(Tap::held);
        if awaited { BUSY } else { IDLE }
    }

    // === the group ===

    fn current(&self) -> Option<Arc<Shared<Membership>>> {
        self.member.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn make_member(&mut self) -> Result<(), KafkaError> {
        let context = Membership::new(Arc::clone(&self.control.closing));
        let consumer = self.clients.create(&self.clients.member(), context)?;
        *self.member.write().unwrap_or_else(PoisonError::into_inner) = Some(Shared::new(consumer));
        self.subscribed = 0;
        Ok(())
    }

    /// Subscribes to the topics that exist, again when more do.
    fn subscribe(&mut self) {
        if self.join_at.is_some_and(|at| at <= Instant::now()) {
            self.join_at = None;
            if let Err(error) = self.make_member() {
                self.fatal(&error.to_string());
            }
        }
        let (topics, partitions) = self.watch.existing();
        if topics.len() == self.subscribed {
            return;
        }
        let Some(consumer) = self.current() else { return };
        if self.fetcher.is_none() {
            match self.make_fetcher(partitions) {
                Ok(fetcher) => self.fetcher = Some(fetcher),
                Err(error) => return self.fatal(&error.to_string()),
            }
        }
        let names: Vec<_> = topics.iter().map(String::as_str).collect();
        match consumer.subscribe(&names) {
            Ok(()) => {
                tracing::info!(kafka.group = self.clients.group_id(), kafka.topics = %names.join(" "), "joining the group");
                self.subscribed = topics.len();
            }
            Err(error) => self.fatal(&format!("cannot subscribe: {error}")),
        }
    }

    fn make_fetcher(&self, partitions: usize) -> Result<Fetcher, KafkaError> {
        // What waits unread in the client is at most a sixteenth of the engine's memory, where partitions are not too many for that.
        let share = self.memory / 16 / 1024 / u64::try_from(partitions.max(1)).unwrap_or(u64::MAX);
        let consumer = self.clients.create(&self.clients.fetcher(share.clamp(1024, 8192)), Logs::default())?;
        let client = Shared::new(consumer);
        let common = Queue::common(&client).ok_or_else(|| KafkaError::Refused("no queue".to_owned()))?;
        let (lookups, lookup_thread) = Lookups::start(Arc::clone(&self.member), Arc::clone(&client), self.start_at)
            .map_err(|error| KafkaError::Refused(format!("no thread: {error}")))?;
        Ok(Fetcher { client, common, lookups, lookup_thread })
    }

    /// Serves both clients' queues, then everything that they and the engine had to say.
    fn serve_group(&mut self) {
        let consumer = self.current();
        if let Some(consumer) = &consumer {
            // Ends when nothing more is waiting; an event that was served counts as something.
            for _ in 0..64 {
                if let Some(Err(error)) = consumer.poll(Duration::ZERO) {
                    self.on_error(&error);
                }
                match consumer.context().next() {
                    Some(event) => self.on(event),
                    None => break,
                }
            }
        }
        if let Some(fetcher) = &self.fetcher {
            let _ = fetcher.client.poll(Duration::ZERO);
            while let Some((lookup, found)) = self.fetcher.as_ref().and_then(|fetcher| fetcher.lookups.next()) {
                self.looking = self.looking.saturating_sub(1);
                self.found.extend(found.into_iter().map(|found| (found.partition.clone(), found)));
                self.on(Event::Found(lookup));
                self.found.clear();
            }
        }
        let drained: Vec<_> = self
            .drains
            .iter_mut()
            .filter_map(|(revocation, answer)| {
                (!matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty))).then_some(*revocation)
            })
            .collect();
        self.drains.retain(|(revocation, _)| !drained.contains(revocation));
        for revocation in drained {
            self.on(Event::Drained(revocation));
        }
        self.on(Event::Tick(Instant::now()));
    }

    fn on_error(&mut self, error: &Native) {
        match error {
            Native::MessageConsumptionFatal(RDKafkaErrorCode::UnreleasedInstanceId) => {
                tracing::warn!("the group has not yet released this member's group.instance.id, joining again until it has");
                self.rejoin();
            }
            Native::MessageConsumptionFatal(code) => self.fatal(&code.to_string()),
            Native::MessageConsumption(RDKafkaErrorCode::InconsistentGroupProtocol) => self.control.conflict(self.clients.group_id()),
            // Said by the client's context already; librdkafka goes on by itself.
            _ => {}
        }
    }

    /// Starts over with a new member.
    fn rejoin(&mut self) {
        self.control.joined.store(false, Ordering::Relaxed);
        self.on(Event::LoseAll);
        self.drains.clear();
        self.member.write().unwrap_or_else(PoisonError::into_inner).take();
        self.join_at = Some(Instant::now() + SWEEP);
    }

    fn fatal(&mut self, words: &str) {
        tracing::error!(error = words, "the kafka consumer is beyond repair");
        self.untold.push_back(SourceEvent::Fatal(words.to_owned()));
        self.dead = true;
        self.tell();
    }

    fn on(&mut self, event: Event) {
        match &event {
            Event::Assign(_) => self.control.has_joined(),
            Event::Lost(_) => self.control.joined.store(false, Ordering::Relaxed),
            _ => {}
        }
        for action in self.machine.on(event) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::AcceptAssignment => self.answer_group(member::accept_assignment),
            Action::AcceptRevocation => self.answer_group(member::accept_revocation),
            Action::LookUp(lookup, partitions) => self.look_up(lookup, partitions),
            Action::Open(partitions) => self.open(partitions),
            Action::Drain(revocation, partitions) => {
                for partition in &partitions {
                    if let Some(tap) = self.taps.get_mut(partition) {
                        tap.stop();
                    }
                }
                let (drained, answer) = oneshot::channel();
                self.drains.push((revocation, answer));
                self.untold.push_back(SourceEvent::Revoked { partitions, drained });
            }
            Action::Release(partitions) => self.release(&partitions),
            Action::TellLost(partitions) => self.untold.push_back(SourceEvent::Lost(partitions)),
        }
    }

    fn answer_group(&self, answer: impl Fn(&BaseConsumer<Membership>) -> Result<(), Native>) {
        if let Some(consumer) = self.current()
            && let Err(error) = answer(&consumer)
        {
            // Refused only where the group went on without us: its next event says how.
            tracing::warn!(error = %error, "the group did not take our answer");
        }
    }

    fn look_up(&mut self, lookup: Lookup, partitions: Vec<TopicPartition>) {
        match &self.fetcher {
            Some(fetcher) if fetcher.lookups.ask(lookup, partitions) => self.looking += 1,
            _ => self.fatal("offsets cannot be looked up"),
        }
    }

    // === partitions ===

    fn open(&mut self, partitions: Vec<TopicPartition>) {
        let Some(fetcher) = &self.fetcher else { return };
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        let mut assigned = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let Some(found) = self.found.remove(&partition) else { continue };
            let Some((tap, outlet)) = Tap::open(&fetcher.client, &fetcher.common, partition.clone(), found.from) else {
                continue;
            };
            if list.add_partition(&partition.topic, partition.partition).set_offset(Offset::Offset(found.from)).is_err() {
                continue;
            }
            outlet.gate.set_log_end(found.end);
            self.taps.insert(partition.clone(), tap);
            assigned.push(Assignment {
                partition,
                start: found.start,
                log_start: found.from,
                committed: found.committed,
                inbox: outlet.inbox,
                gate: outlet.gate,
            });
        }
        if let Err(error) = fetcher.client.incremental_assign(&list) {
            return self.fatal(&format!("partitions cannot be read: {error}"));
        }
        self.owned.add(assigned.iter().map(|assignment| assignment.partition.clone()));
        self.untold.push_back(SourceEvent::Assigned(assigned));
    }

    fn release(&mut self, partitions: &[TopicPartition]) {
        self.owned.remove(partitions);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            if let Some(mut tap) = self.taps.remove(partition) {
                tap.stop();
                list.add_partition(&partition.topic, partition.partition);
            }
        }
        if list.count() > 0
            && let Some(fetcher) = &self.fetcher
            && let Err(error) = fetcher.client.incremental_unassign(&list)
        {
            self.fatal(&format!("partitions cannot be let go: {error}"));
        }
    }

    /// Sorts what was read by partition, one hand-over each.
    fn distribute(&mut self, read: &mut Vec<Message>) {
        // Topic and partition tell records of one read apart: each holds its topic alive.
        let mut groups: Vec<((usize, i32), Vec<Message>)> = Vec::new();
        let mut errors = Vec::new();
        for message in read.drain(..) {
            if let Some(error) = message.error() {
                errors.push((TopicPartition::new(message.topic(), message.partition()), error));
                continue;
            }
            let id = (message.topic_id(), message.partition());
            match groups.iter_mut().rev().find(|(group, _)| *group == id) {
                Some((_, messages)) => messages.push(message),
                None => groups.push((id, vec![message])),
            }
        }
        for (_, messages) in groups {
            let Some(first) = messages.first() else { continue };
            let partition = TopicPartition::new(first.topic(), first.partition());
            // Without a tap: given up a moment ago.
            if let Some(tap) = self.taps.get_mut(&partition) {
                let repeated = tap.take(messages);
                if repeated > 0 {
                    tracing::debug!(kafka.partition = %partition, repeated, "the client read records again; dropped");
                }
            }
        }
        for (partition, error) in errors {
            self.on_partition_error(&partition, error);
        }
    }

    fn on_partition_error(&mut self, partition: &TopicPartition, error: RDKafkaErrorCode) {
        match error {
            // The log no longer has our position: start over from the commit, clamped to what is there.
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange if self.taps.contains_key(partition) => {
                tracing::warn!(kafka.partition = %partition, "the log no longer has the position read, starting over from the commit");
                self.on(Event::Restart(partition.clone()));
            }
            RDKafkaErrorCode::PartitionEOF => {}
            _ => tracing::warn!(kafka.partition = %partition, error = %error, "the partition cannot be read now, the client tries again"),
        }
    }

    // === the engine ===

    /// Tells the engine what it can take now; the rest waits here, in order.
    fn tell(&mut self) {
        while let Some(event) = self.untold.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.untold.push_front(event);
                    return;
                }
                // Nobody listens: there is nothing to read for.
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    self.dead = true;
                    return;
                }
            }
        }
    }

    fn sweep(&mut self) {
        if self.swept.elapsed() < SWEEP {
            return;
        }
        self.swept = Instant::now();
        let mut unread = Vec::new();
        for (partition, tap) in &self.taps {
            tap.refresh_log_end();
            if tap.held() {
                unread.push((partition.clone(), Arc::clone(tap.gate())));
            }
        }
        self.watch.set_unread(unread);
    }

    /// Closes the inboxes, then the clients: in the end the group is left.
    fn close(mut self) {
        // From here on the member answers the group by itself.
        self.control.closing.store(true, Ordering::Release);
        self.control.joined.store(false, Ordering::Relaxed);
        while let Some(event) = self.untold.pop_front() {
            // A last word, such as why it ends; the engine may be waiting for exactly that.
            if self.events.blocking_send(event).is_err() {
                break;
            }
        }
        let all: Vec<_> = self.taps.keys().cloned().collect();
        self.release(&all);
        // What waits for an answer gets it now.
        if let Some(consumer) = self.current() {
            for event in std::iter::from_fn(|| consumer.context().next()) {
                let accept = if matches!(event, Event::Assign(_)) { member::accept_assignment } else { member::accept_revocation };
                self.answer_group(accept);
            }
            if self.machine.draining() {
                self.answer_group(member::accept_revocation);
            }
        }
        if let Some(Fetcher { lookups, lookup_thread, common, client }) = self.fetcher.take() {
            drop((lookups, common));
            let _ = lookup_thread.join();
            drop(client);
        }
        let Some(mut member) = self.member.write().unwrap_or_else(PoisonError::into_inner).take() else { return };
        // A commit under way holds it too, for as long as the coordinator takes to answer.
        loop {
            match Arc::try_unwrap(member) {
                Ok(sole) => return sole.close(),
                Err(shared) => {
                    member = shared;
                    let _ = member.poll(Duration::from_millis(20));
                }
            }
        }
    }
}
