//! Finds out where a partition starts, off the polling thread: the group's commit, the log's ends, the configured start.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError as Native,
};

use super::{batch, client::Logs, commit, member::Membership, native, rebalance::Lookup};
use crate::{config::engine::StartAt, engine::ports::Committed, event::record::TopicPartition, progress::Map};

/// Time for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries of a question that got no answer.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// With nothing to ask, the thread looks up this often.
const IDLE: Duration = Duration::from_secs(3600);
/// Rounds that may wait for their turn or to be taken.
const WAITING: usize = 256;

/// Where one partition starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) partition: TopicPartition,
    pub(super) committed: Option<Committed>,
    /// The first offset that counts.
    pub(super) start: i64,
    /// The first offset that the log still has from there.
    pub(super) from: i64,
    /// The log's end.
    pub(super) end: i64,
}

/// The looking-up thread's two ends.
pub(super) struct Lookups {
    ask: mpsc::SyncSender<(Lookup, Vec<TopicPartition>)>,
    found: mpsc::Receiver<(Lookup, Vec<Found>)>,
}

impl Lookups {
    /// Starts the thread; it ends when this is dropped.
    pub(super) fn start(
        member: commit::Member<Membership>,
        fetcher: Arc<batch::Shared<Logs>>,
        start_at: StartAt,
    ) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (ask, asked) = mpsc::sync_channel(WAITING);
        let (answer, found) = mpsc::sync_channel(WAITING);
        let thread = thread::Builder::new().name("kafka-lookup".to_owned()).spawn(move || {
            serve(&asked, &answer, |partitions| {
                let member = member.read().unwrap_or_else(PoisonError::into_inner).clone()?;
                Some(look_up(&member, &fetcher, partitions, start_at))
            });
        })?;
        Ok((Self { ask, found }, thread))
    }

    /// Asks; `false` where too many questions wait.
    pub(super) fn ask(&self, lookup: Lookup, partitions: Vec<TopicPartition>) -> bool {
        self.ask.try_send((lookup, partitions)).is_ok()
    }

    /// The next answer.
    pub(super) fn next(&self) -> Option<(Lookup, Vec<Found>)> {
        self.found.try_recv().ok()
    }
}

/// Serves questions in turn; one that gets no answer goes to the end of the line. `find` answers `None` while there is no member that could
/// ask: the client is being replaced.
fn serve(
    asked: &mpsc::Receiver<(Lookup, Vec<TopicPartition>)>,
    answer: &mpsc::SyncSender<(Lookup, Vec<Found>)>,
    find: impl Fn(&[TopicPartition]) -> Option<Result<Vec<Found>, Native>>,
) {
    let mut waiting: VecDeque<(Lookup, Vec<TopicPartition>)> = VecDeque::new();
    let (mut told, mut again) = (None::<Instant>, false);
    loop {
        if waiting.is_empty() || again {
            match asked.recv_timeout(if waiting.is_empty() { IDLE } else { AGAIN_AFTER }) {
                Ok(question) => waiting.push_back(question),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
        let Some((lookup, partitions)) = waiting.pop_front() else { continue };
        match find(&partitions) {
            Some(Ok(found)) => {
                (told, again) = (None, false);
                if answer.try_send((lookup, found)).is_err() {
                    return;
                }
                continue;
            }
            Some(Err(error)) if told.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) => {
                told = Some(Instant::now());
                tracing::warn!(error = %error, "the group's offsets cannot be read, trying again");
            }
            Some(Err(_)) | None => {}
        }
        again = true;
        waiting.push_back((lookup, partitions));
    }
}

fn list_of(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}

/// Each partition's commit in one request; metadata that is no text reads as none (F23).
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[TopicPartition],
) -> Result<Vec<Option<Committed>>, Native> {
    let list = consumer.committed_offsets(list_of(partitions), PATIENCE)?;
    let metadata = native::metadata_of(&list);
    let mut commits = Vec::with_capacity(partitions.len());
    for (entry, metadata) in list.elements().iter().zip(metadata) {
        entry.error()?;
        commits.push(match entry.offset() {
            Offset::Offset(offset) => Some(Committed { offset, metadata: metadata.and_then(|bytes| String::from_utf8(bytes).ok()) }),
            _ => None,
        });
    }
    Ok(commits)
}

/// One end of each partition's log, one request per broker.
pub(super) fn log_ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    which: Offset,
    timeout: Duration,
) -> Result<Vec<i64>, Native> {
    let mut list = list_of(partitions);
    list.set_all_offsets(which)?;
    let list = consumer.offsets_for_times(list, timeout)?;
    let mut ends = Vec::with_capacity(partitions.len());
    for entry in list.elements() {
        entry.error()?;
        match entry.offset() {
            Offset::Offset(offset) => ends.push(offset),
            _ => return Err(Native::OffsetFetch(rdkafka::error::RDKafkaErrorCode::LeaderNotAvailable)),
        }
    }
    Ok(ends)
}

/// The first offset of each partition whose record is not older than `since` (milliseconds since 1970); `None`: there is none.
pub(super) fn first_since<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    since: i64,
    timeout: Duration,
) -> Result<Vec<Option<i64>>, Native> {
    let mut list = list_of(partitions);
    list.set_all_offsets(Offset::Offset(since.max(0)))?;
    let list = consumer.offsets_for_times(list, timeout)?;
    let found = list.elements().into_iter().map(|entry| {
        entry.error()?;
        Ok(match entry.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    });
    found.collect()
}

fn look_up(
    member: &BaseConsumer<Membership>,
    fetcher: &BaseConsumer<Logs>,
    partitions: &[TopicPartition],
    start_at: StartAt,
) -> Result<Vec<Found>, Native> {
    let commits = committed(member, partitions)?;
    let lows = log_ends(fetcher, partitions, Offset::Beginning, PATIENCE)?;
    let ends = log_ends(fetcher, partitions, Offset::End, PATIENCE)?;
    Ok(partitions
        .iter()
        .zip(commits)
        .zip(lows.into_iter().zip(ends))
        .map(|((partition, committed), (low, end))| decide(partition.clone(), committed, low, end, start_at))
        .collect())
}

/// Where to start between `low` and `end`.
fn decide(partition: TopicPartition, committed: Option<Committed>, low: i64, end: i64, start_at: StartAt) -> Found {
    match committed {
        // Retention was faster than we are: the engine counts from its commit and sees the jump.
        Some(committed) if committed.offset <= end => {
            let start = committed.offset;
            let committed = believable(&partition, committed, end);
            Found { partition, committed: Some(committed), start, from: start.max(low), end }
        }
        // The commit is about a log that is no more: the topic was made anew, or lost its end.
        Some(committed) => {
            tracing::warn!(
                kafka.partition = %partition,
                kafka.offset = committed.offset,
                kafka.log_end = end,
                "the committed offset lies beyond the log, reading all of it"
            );
            Found { partition, committed: None, start: low, from: low, end }
        }
        None => {
            let start = match start_at {
                StartAt::Earliest => low,
                StartAt::Latest => end,
            };
            Found { partition, committed: None, start, from: start, end }
        }
    }
}

/// The commit without its map, where that has settled what the log does not have: its end was lost (an unclean election, a disk), and the
/// records that will stand there are others.
fn believable(partition: &TopicPartition, committed: Committed, end: i64) -> Committed {
    let map = Map::decode(committed.offset, committed.metadata.as_deref().unwrap_or_default());
    if !map.is_ok_and(|map| map.is_some_and(|map| map.frontier >= end)) {
        return committed;
    }
    tracing::warn!(
        kafka.partition = %partition,
        kafka.log_end = end,
        "the log has lost records that were handled, reading all of it from the committed offset on"
    );
    Committed { metadata: None, ..committed }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::progress::MapLimits;

    /// The records that get the lost offsets are others: whoever takes them for settled loses them.
    #[test]
    fn a_map_of_a_log_that_has_lost_its_end_is_not_believed() {
        let map = Map { committed: 12, frontier: 19, epoch: 3, heads: Vec::new() };
        let committed = Committed { offset: 12, metadata: Some(map.encode(MapLimits::default()).text) };
        let kept = |end| decide(TopicPartition::new("t", 0), Some(committed.clone()), 10, end, StartAt::Latest);
        assert_eq!(kept(20).committed, Some(committed.clone()));
        let found = kept(19);
        assert_eq!((found.start, found.from), (12, 12));
        assert_eq!(found.committed, Some(Committed { offset: 12, metadata: None }));
    }

    fn start(committed: Option<i64>, start_at: StartAt) -> (bool, i64, i64) {
        let committed = committed.map(|offset| Committed { offset, metadata: None });
        let found = decide(TopicPartition::new("t", 0), committed, 10, 20, start_at);
        (found.committed.is_some(), found.start, found.from)
    }

    /// F11, F13, F21.
    #[test]
    fn a_partition_starts_at_its_commit_and_only_without_one_where_configured() {
        assert_eq!(start(Some(15), StartAt::Latest), (true, 15, 15));
        assert_eq!(start(Some(20), StartAt::Earliest), (true, 20, 20));
        assert_eq!(start(Some(3), StartAt::Earliest), (true, 3, 10), "retention took 3 to 9: the engine sees the gap");
        assert_eq!(start(Some(21), StartAt::Latest), (false, 10, 10), "a commit beyond the log is another log's");
        assert_eq!(start(None, StartAt::Earliest), (false, 10, 10));
        assert_eq!(start(None, StartAt::Latest), (false, 20, 20));
    }

    /// A question that finds no member, because the client is being replaced, waits for the next one: dropped, its partitions would be
    /// assigned and never read.
    #[test]
    fn a_question_outlives_the_member_that_it_came_for() {
        let (ask, asked) = mpsc::sync_channel(4);
        let (answer, found) = mpsc::sync_channel(4);
        let (place, missing) = (TopicPartition::new("t", 0), std::cell::Cell::new(2));
        ask.send((1, vec![place.clone()])).unwrap();
        let server = thread::spawn(move || {
            serve(&asked, &answer, |partitions| {
                missing.set(missing.get() - 1);
                (missing.get() < 0).then(|| Ok(vec![decide(partitions[0].clone(), None, 0, 5, StartAt::Earliest)]))
            });
        });
        let (lookup, partitions) = found.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!((lookup, &partitions[0].partition), (1, &place));
        drop(ask);
        server.join().unwrap();
    }
}
