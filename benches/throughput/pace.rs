//! Writes events at a steady rate, each at its time, and waits for them to arrive.

use std::{
    ops::Range,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::{
    journal::Journal,
    meter::Measured,
    stack::{Stack, USERS, event, user},
    usage::Processes,
};

/// Longest wait for what was written.
const PATIENCE: Duration = Duration::from_secs(20);

/// A steady stream of events.
pub struct Pace {
    /// Per second.
    pub rate: u32,
    /// Events before the first that counts.
    pub warm: u64,
    /// Events that count.
    pub events: u64,
    /// Whose events are to arrive.
    pub arrives: fn(&str) -> bool,
}

impl Pace {
    /// The journal for it.
    pub fn journal(&self) -> Arc<Journal> {
        Arc::new(Journal::new(self.warm, self.events))
    }

    /// Writes the warm-up and waits for it, then the rest; answers what the rest found. Somebody else reads, and tells `journal`.
    ///
    /// # Errors
    /// Where Kafka refuses, or an event of the warm-up does not arrive.
    pub fn run(&self, stack: &Stack, topic: &str, journal: &Journal, processes: &Processes) -> anyhow::Result<Measured> {
        let producer: BaseProducer = stack.client().set("linger.ms", "0").set("acks", "all").create()?;
        let warm = 0..self.warm;
        let all = 0..self.warm + self.events;
        self.write(&producer, topic, warm.clone(), journal)?;
        let expected = self.expected(warm);
        anyhow::ensure!(arrives(journal, expected, 3 * PATIENCE), "{} of the first {expected} events arrived", journal.arrived());
        let first = processes.snapshot();
        self.write(&producer, topic, self.warm..all.end, journal)?;
        let (expected, warm) = (self.expected(all), expected);
        let _late = arrives(journal, expected, PATIENCE);
        let mut measured = Measured::between(&first, &processes.snapshot(), self.events, processes);
        measured.figures = journal.figures();
        let part = share(journal.arrived() - warm, expected - warm);
        measured.figures.insert("arrived %".to_owned(), part * 100.0);
        Ok(measured)
    }

    fn expected(&self, numbers: Range<u64>) -> u64 {
        numbers.filter(|number| (self.arrives)(&user(*number, USERS))).count() as u64
    }

    fn write(&self, producer: &BaseProducer, topic: &str, numbers: Range<u64>, journal: &Journal) -> anyhow::Result<()> {
        let (begin, every) = (Instant::now(), Duration::from_secs(1) / self.rate);
        for (index, number) in (0..).zip(numbers) {
            thread::sleep((begin + every * index).saturating_duration_since(Instant::now()));
            let (user, event) = event(number, USERS, chrono::Utc::now());
            journal.write(number);
            producer.send(BaseRecord::to(topic).key(&user).payload(&event)).map_err(|(error, _)| error)?;
            producer.poll(Duration::ZERO);
        }
        Ok(producer.flush(PATIENCE)?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of events")]
fn share(part: u64, all: u64) -> f64 {
    part as f64 / all as f64
}

/// Whether so many arrive in time.
fn arrives(journal: &Journal, events: u64, within: Duration) -> bool {
    let give_up = Instant::now() + within;
    while journal.arrived() < events {
        if Instant::now() > give_up {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}
