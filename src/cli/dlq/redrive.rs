//! `worker dlq redrive`: dead letters back to their topics, a window at a time: send, acknowledge, note, tell.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};

use super::{Columns, Desk, Exit, Format, Globals, Objects, Reading, Which, one_line, or_dash};
use crate::{
    dlq::{
        Letter, Pointer,
        checkpoint::{Checkpoint, State},
        redrive::{Plan, Refusal, plan, restore},
    },
    engine::ports::{Acked, LogReader, Message, PublishError, Publisher},
    event::record::TopicPartition,
    kafka::{marks::Marks, publisher::KafkaPublisher, reader::KafkaReader},
    shutdown::Shutdown,
};

/// Letters that are sent before their acknowledgements are noted: what a kill can make go twice.
const WINDOW: usize = 100;
/// Time for what is on its way when the run ends.
const LEAVE: Duration = Duration::from_secs(5);

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A letter that was sent back is not sent again by a later run, whatever its filters: which ones were is kept in the \
                        commits of the groups <GROUP>-<n> for as long as the brokers keep an idle group's (offsets.retention.minutes, 7 \
                        days). A stopped run goes on where it was when given again. Run one at a time."
)]
pub struct Args {
    /// Do it; without this, only say what would be done
    #[arg(long)]
    execute: bool,
    /// At most so many in a second
    #[arg(long, value_name = "N/s", default_value = "100", value_parser = rate)]
    rate: f64,
    /// Leave letters that were sent back so often already
    #[arg(long, value_name = "N", default_value_t = 3)]
    max_redrives: u32,
    /// Also those that an earlier run sent back; each goes with a higher count, so that the ledger takes it for new
    #[arg(long)]
    again: bool,
    /// Where to note what was sent back; <group_id>-dlq-redrive if not given
    #[arg(long, value_name = "GROUP")]
    checkpoint: Option<String>,
    /// How to print the outcome of each letter
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    // Last: its heading covers whatever follows.
    #[command(flatten)]
    which: Which,
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim();
    number.parse().ok().filter(|rate: &f64| *rate > 0.0 && rate.is_finite()).ok_or_else(|| "letters in a second, such as 100/s".to_owned())
}

/// Runs it: exit 1 where a letter could not be sent, or the run was stopped.
///
/// # Errors
/// Where the DLQ, the checkpoint or the brokers cannot be used.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::new();
    tokio::select! {
        biased;
        second = shutdown.follow_signals() => {
            second.context("signals cannot be caught")?;
            Ok(Exit::Interrupted)
        }
        ended = work(&args, globals, &shutdown) => ended,
    }
}

async fn work(args: &Args, globals: &Globals, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    let desk = Desk::open(globals, &args.which).await?;
    let group = args.checkpoint.clone().unwrap_or_else(|| format!("{}-dlq-redrive", desk.config.group_id()));
    let checkpoint = Checkpoint::new(Marks::new(&desk.clients), group, args.again);
    let publisher = KafkaPublisher::new(&desk.clients)?;
    let mut reading = desk.read(&args.which, true).await?;
    let mut report = Report::new(args.output);
    let mut redrive =
        Redrive { args, desk: &desk, checkpoint, publisher: &publisher, reader: None, closed: HashSet::new(), next_at: Instant::now() };
    let ended = redrive.all(&mut reading, &mut report, shutdown).await;
    reading.bar.finish_and_clear();
    let left = publisher.close(LEAVE).await;
    let counts = report.end()?;
    eprintln!("{}", summary(&counts, args.execute));
    if left > 0 {
        tracing::warn!(records = left, "copies were not acknowledged in time; they may have arrived");
    }
    match ended? {
        Ended::Whole => Ok(if counts.contains_key("failed") { Exit::Error } else { Exit::Ok }),
        Ended::Stopped => {
            eprintln!("stopped by a signal; the same command goes on from here");
            Ok(Exit::Error)
        }
    }
}

enum Ended {
    Whole,
    Stopped,
}

/// What became of one letter.
enum Outcome {
    /// A dry run: it would go to that topic.
    WouldSend(Arc<str>),
    Sent(Arc<str>, Acked),
    /// By an earlier run.
    AlreadySent,
    Refused(Refusal),
    Failed(String),
}

impl Outcome {
    fn code(&self) -> &'static str {
        match self {
            Self::WouldSend(_) => "would_send",
            Self::Sent(..) => "sent",
            Self::AlreadySent => "already_sent",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }
}

/// What one run works with.
struct Redrive<'a> {
    args: &'a Args,
    desk: &'a Desk,
    checkpoint: Checkpoint,
    publisher: &'a KafkaPublisher,
    reader: Option<KafkaReader>,
    /// Topics that are missing or forbidden: asked once.
    closed: HashSet<Arc<str>>,
    /// When the next letter may go.
    next_at: Instant,
}

impl Redrive<'_> {
    /// A tenth of a second's worth: a signal, or a kill, finds little under way.
    fn window(&self) -> usize {
        ((self.args.rate / 10.0) as usize).clamp(1, WINDOW)
    }

    async fn all(&mut self, reading: &mut Reading, report: &mut Report, shutdown: &Shutdown) -> anyhow::Result<Ended> {
        loop {
            let mut window = Vec::with_capacity(self.window());
            let mut whole = false;
            while window.len() < self.window() && !shutdown.is_draining() {
                let Some(letter) = reading.next().await? else {
                    whole = true;
                    break;
                };
                match self.judge(&letter).await? {
                    Ok(message) => window.push((letter, message)),
                    Err(outcome) => {
                        // The limit counts what goes, so that the same command can be given again and again.
                        reading.give_back();
                        report.put(&letter, &outcome)?;
                    }
                }
            }
            if self.args.execute {
                self.send(window, report, shutdown).await?;
            } else {
                for (letter, message) in window {
                    report.put(&letter, &Outcome::WouldSend(message.topic))?;
                }
            }
            if shutdown.is_draining() {
                return Ok(Ended::Stopped);
            }
            if whole {
                return Ok(Ended::Whole);
            }
        }
    }

    /// The copy that goes, or why none does.
    async fn judge(&mut self, letter: &Letter) -> anyhow::Result<Result<Message, Outcome>> {
        let State::Waiting { rounds } = self.checkpoint.state(letter.record.partition(), letter.record.offset()).await? else {
            return Ok(Err(Outcome::AlreadySent));
        };
        let planned = match plan(letter, rounds, self.args.max_redrives, &self.desk.catalog) {
            Ok(Plan::Ready(message)) => Ok(message),
            Ok(Plan::Fetch(source)) => match self.original(&source).await {
                Ok(original) => restore(letter, rounds, &source, original.as_ref()),
                Err(error) => return Ok(Err(Outcome::Failed(format!("the original could not be read: {error}")))),
            },
            Err(refusal) => Err(refusal),
        };
        Ok(planned.map_err(Outcome::Refused))
    }

    async fn original(&mut self, source: &Pointer) -> anyhow::Result<Option<crate::event::record::Record>> {
        if source.partition < 0 || source.offset < 0 {
            return Ok(None);
        }
        let reader = match self.reader.take() {
            Some(reader) => self.reader.insert(reader),
            None => self.reader.insert(KafkaReader::start(&self.desk.clients)?),
        };
        let partition = TopicPartition::new(source.topic.clone(), source.partition);
        Ok(reader.read(&partition, &[source.offset]).await?.pop())
    }

    /// Sends a window at the rate that is allowed, notes what was acknowledged, then tells.
    async fn send(&mut self, window: Vec<(Letter, Message)>, report: &mut Report, shutdown: &Shutdown) -> anyhow::Result<()> {
        // A new round must be known before its first copy goes.
        self.checkpoint.save().await?;
        let pause = Duration::from_secs_f64(1.0 / self.args.rate);
        let mut under_way = Vec::with_capacity(window.len());
        for (letter, message) in window {
            let now = Instant::now();
            self.next_at = self.next_at.max(now);
            if self.next_at > now {
                tokio::select! {
                    () = sleep_until(self.next_at) => {}
                    () = shutdown.draining() => break,
                }
            }
            self.next_at += pause;
            let topic = message.topic.clone();
            if self.closed.contains(&topic) {
                report.put(&letter, &Outcome::Failed(format!("topic {topic} is missing or forbidden, as said above")))?;
                continue;
            }
            under_way.push((letter, topic, self.publisher.publish(message)));
        }
        let (letters, sending): (Vec<_>, Vec<_>) = under_way.into_iter().map(|(letter, topic, sending)| ((letter, topic), sending)).unzip();
        let answers = join_all(sending).await;
        for ((letter, _), _) in letters.iter().zip(&answers).filter(|(_, answer)| answer.is_ok()) {
            self.checkpoint.sent(letter.record.partition(), letter.record.offset()).await?;
        }
        // Before anything is told: a line that says "sent" must be true of the next run too.
        self.checkpoint.save().await.context("what was sent last could not be noted and may go again")?;
        let mut fatal = None;
        for ((letter, topic), answer) in letters.into_iter().zip(answers) {
            let outcome = match answer {
                Ok(acked) => Outcome::Sent(topic, acked),
                Err(error) => {
                    match &error {
                        PublishError::TopicMissing(_) | PublishError::Forbidden(_) => drop(self.closed.insert(topic)),
                        PublishError::TooLarge | PublishError::Refused(_) => {}
                        PublishError::QueueFull | PublishError::Unreachable(_) | PublishError::Fatal(_) => fatal = Some(error.clone()),
                    }
                    Outcome::Failed(error.to_string())
                }
            };
            report.put(&letter, &outcome)?;
        }
        fatal.map_or(Ok(()), |error| {
            Err(anyhow::Error::from(error).context("nothing more can be sent now; the same command goes on from here"))
        })
    }
}

/// Tells what became of each letter as it is known, and counts.
struct Report {
    counts: BTreeMap<&'static str, u64>,
    columns: Option<Columns<8>>,
    objects: Objects,
}

impl Report {
    fn new(format: Format) -> Self {
        let header = ["AT", "OUTCOME", "TYPE", "REASON", "USER", "REDRIVES", "TO", "WHY"];
        let columns = (format == Format::Table).then(|| Columns::new(header));
        Self { counts: BTreeMap::new(), columns, objects: Objects::new(format) }
    }

    fn put(&mut self, letter: &Letter, outcome: &Outcome) -> anyhow::Result<()> {
        *self.counts.entry(outcome.code()).or_default() += 1;
        let (to, why) = match outcome {
            Outcome::WouldSend(topic) => (json!({ "topic": topic }), Value::Null),
            Outcome::Sent(topic, acked) => (json!({ "topic": topic, "partition": acked.partition, "offset": acked.offset }), Value::Null),
            Outcome::AlreadySent => (Value::Null, Value::Null),
            Outcome::Refused(refusal) => (Value::Null, json!(refusal.to_string())),
            Outcome::Failed(error) => (Value::Null, json!(error)),
        };
        if let Some(columns) = &mut self.columns {
            let place = |to: &Value| match (to["topic"].as_str(), to["partition"].as_i64(), to["offset"].as_i64()) {
                (Some(topic), Some(partition), Some(offset)) => format!("{}:{partition}@{offset}", one_line(topic, 60)),
                (Some(topic), ..) => one_line(topic, 60),
                _ => "-".to_owned(),
            };
            return columns.put([
                letter.position(),
                outcome.code().to_owned(),
                one_line(&letter.event_type, 40),
                one_line(&letter.reason, 20),
                or_dash(&letter.user_id, 36),
                letter.redrives.to_string(),
                place(&to),
                or_dash(why.as_str().unwrap_or_default(), 120),
            ]);
        }
        let record = &letter.record;
        let line = json!({
            "outcome": outcome.code(),
            "dlq": { "topic": record.topic(), "partition": record.partition().partition, "offset": record.offset() },
            "event_id": letter.event_id,
            "event_type": letter.event_type,
            "user_id": letter.user_id,
            "reason": letter.reason,
            "handlers": letter.handlers,
            "redrives": letter.redrives,
            "to": to,
            "refusal": match outcome { Outcome::Refused(refusal) => Some(refusal.code()), _ => None },
            "error": why,
        });
        self.objects.put(line.as_object().unwrap_or(&Map::new()))
    }

    /// The end of the output, and how often each outcome came.
    fn end(mut self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        match &mut self.columns {
            Some(columns) => columns.flush()?,
            None => self.objects.end()?,
        }
        Ok(self.counts)
    }
}

fn summary(counts: &BTreeMap<&'static str, u64>, execute: bool) -> String {
    let count = |code| counts.get(code).copied().unwrap_or_default();
    let rest = format!("{} already sent, {} refused, {} failed", count("already_sent"), count("refused"), count("failed"));
    if execute {
        format!("{} sent, {rest}", count("sent"))
    } else {
        format!("dry run: {} would be sent, {rest}; --execute does it", count("would_send"))
    }
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn a_rate_is_letters_in_a_second() {
        assert_eq!((rate("100/s"), rate("0.5"), rate("20 /s")), (Ok(100.0), Ok(0.5), Ok(20.0)));
        for wrong in ["0", "-1/s", "inf", "100/m", ""] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
