//! The Source in a group of Apache Kafka, by the classic protocol and by KIP-848.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use worker::{
    config::Config,
    engine::ports::{Commit, LogReader, Message, Publisher},
    kafka::{client::Clients, publisher::KafkaPublisher, reader::KafkaReader, topics::TopicAdmin},
};

use crate::{
    kafka_member::{Peer, SOON, State, config, eventually, fill, message, place},
    stack_or_skip,
    support::{stack::Stack, unique},
};

const CLASSIC: &[&str] = &[];
const NEXT_GENERATION: &[&str] = &["kafka.properties.\"group.protocol\"=\"consumer\""];
const EAGER: &[&str] = &["kafka.consumer.\"partition.assignment.strategy\"=\"range\""];

/// A topic and a group of this test's own.
struct Place {
    topic: String,
    config: Config,
    publisher: KafkaPublisher,
}

async fn place_for(stack: &Stack, name: &str, partitions: i32, sets: &[&str]) -> Place {
    let topic = unique(name);
    stack.kafka().create_topic(&topic, partitions, &[]).await;
    let config = config(stack.brokers(), &unique("group"), sets);
    let publisher = KafkaPublisher::new(&Clients::new(&config).unwrap()).unwrap();
    Place { topic, config, publisher }
}

fn commit(topic: &str, partition: i32, offset: i64, metadata: &str) -> Commit {
    Commit { partition: place(topic, partition), offset, metadata: metadata.to_owned() }
}

/// Two members share, one leaves, nothing is lost, repeated or out of order where everything is committed at each drain.
async fn members_share_and_hand_over(sets: &[&str]) {
    let stack = stack_or_skip!(Stack::shared());
    let Place { topic, config, publisher } = place_for(&stack, "share", 6, sets).await;
    let first = Peer::start(&config, &[&topic]);
    eventually("the whole topic", || first.owned().len() == 6).await;
    fill(&publisher, &topic, 0..6, 50).await;
    eventually("the first records", || first.total() == 300).await;
    let all: Vec<_> = (0..6).map(|partition| commit(&topic, partition, 50, "")).collect();
    first.source.offsets().commit(all).await.unwrap();

    let second = Peer::start(&config, &[&topic]);
    eventually("three each", || first.owned().len() == 3 && second.owned().len() == 3).await;
    second.with(|state| assert!(state.owned.values().all(|(start, ..)| *start == 50)));
    fill(&publisher, &topic, 0..6, 50).await;
    eventually("the second records", || first.total() + second.total() == 600).await;
    for peer in [&first, &second] {
        let theirs: Vec<_> = peer.owned().into_iter().map(|partition| commit(&topic, partition, 100, "")).collect();
        peer.source.offsets().commit(theirs).await.unwrap();
    }

    assert!(second.source.close(SOON).await);
    eventually("all to come back", || first.owned().len() == 6).await;
    fill(&publisher, &topic, 0..6, 50).await;
    eventually("the third records", || first.total() + second.total() == 900).await;
    for peer in [&first, &second] {
        peer.with(|state| {
            for (partition, seen) in &state.seen {
                assert!(seen.offsets.windows(2).all(|pair| pair[0] < pair[1]), "partition {partition}: {:?}", seen.offsets);
            }
        });
    }
    assert!(first.source.close(SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_classic_group_share_and_hand_over() {
    members_share_and_hand_over(CLASSIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_next_generation_group_share_and_hand_over() {
    members_share_and_hand_over(NEXT_GENERATION).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_an_eager_group_share_and_hand_over() {
    members_share_and_hand_over(EAGER).await;
}

/// F38: an engine that takes longer than the session to drain keeps its membership and what it keeps flows.
async fn others_flow_while_one_drains(sets: &[&str]) {
    let stack = stack_or_skip!(Stack::shared());
    let Place { topic, config, publisher } = place_for(&stack, "drain", 4, sets).await;
    let first = Peer::start_with(&config, &[&topic], State { give_back: true, hold_drains: true, ..State::default() });
    eventually("the whole topic", || first.owned().len() == 4).await;
    let second = Peer::start(&config, &[&topic]);
    eventually("the revocation", || first.with(|state| state.held.len() == 1)).await;
    let kept = first.owned();
    let started = std::time::Instant::now();
    let mut round = 0;
    // Longer than the shortest session of this broker and than several heartbeats.
    while started.elapsed() < Duration::from_secs(4) {
        round += 1;
        for partition in &kept {
            publisher.publish(message(&topic, *partition, "x")).await.unwrap();
        }
        eventually("a record while draining", || kept.iter().all(|partition| first.count(*partition) == round)).await;
    }
    assert!(second.owned().is_empty());
    let gone: Vec<i32> = (0..4).filter(|partition| !kept.contains(partition)).collect();
    let last: Vec<_> = gone.iter().map(|partition| commit(&topic, *partition, 0, "last words")).collect();
    first.source.offsets().commit(last.clone()).await.unwrap();
    first.with(|state| state.held.drain(..).for_each(|drained| drained.send(()).unwrap()));
    eventually("the move", || second.owned() == gone).await;
    assert_eq!(first.source.offsets().commit(last).await.unwrap_err().code(), "not_owner");
    second.with(|state| {
        for (_, committed, _) in state.owned.values() {
            assert_eq!(committed.as_ref().unwrap().metadata.as_deref(), Some("last words"));
        }
    });
    assert!(second.source.close(SOON).await);
    assert!(first.source.close(SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn others_flow_while_one_partition_of_a_classic_group_is_drained() {
    others_flow_while_one_drains(CLASSIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_flow_while_one_partition_of_a_next_generation_group_is_drained() {
    others_flow_while_one_drains(NEXT_GENERATION).await;
}

/// F05: the limit counts UTF-16 code units; the refusal is told as what it is.
#[tokio::test(flavor = "multi_thread")]
async fn commit_metadata_of_4096_code_units_passes_and_of_4097_is_refused_as_too_large() {
    let stack = stack_or_skip!(Stack::shared());
    let Place { topic, config, .. } = place_for(&stack, "metadata", 1, CLASSIC).await;
    let peer = Peer::start(&config, &[&topic]);
    eventually("the assignment", || peer.owned() == [0]).await;
    let sink = peer.source.offsets();
    for unit in ["a", "\u{1234}"] {
        sink.commit(vec![commit(&topic, 0, 0, &unit.repeat(4096))]).await.unwrap();
        let error = sink.commit(vec![commit(&topic, 0, 0, &unit.repeat(4097))]).await.unwrap_err();
        assert_eq!(error.code(), "metadata_too_large", "{error}");
    }
    let admin = TopicAdmin::new(&Clients::new(&config).unwrap()).unwrap();
    let read = admin.committed(&[place(&topic, 0)]).await.unwrap();
    assert_eq!(read[0].as_ref().unwrap().metadata.as_deref(), Some("\u{1234}".repeat(4096).as_str()));
    assert!(peer.source.close(SOON).await);
}

/// F23: another program's metadata may be no text; rdkafka's own reader panics on it.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_is_no_text_reads_as_none() {
    let stack = stack_or_skip!(Stack::shared());
    let Place { topic, config, publisher } = place_for(&stack, "bytes", 2, CLASSIC).await;
    fill(&publisher, &topic, 0..1, 5).await;
    let other: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", stack.brokers()).set("group.id", config.group_id()).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(&topic, 0).set_offset(Offset::Offset(3)).unwrap();
    // SAFETY: the list owns an allocation of librdkafka's for its metadata and frees it with the same allocator.
    #[expect(unsafe_code, reason = "rdkafka writes text only; this is another client's metadata")]
    unsafe {
        let entry = &mut *(*list.ptr()).elems;
        let bytes = [0xff_u8, 0xfe, b'x'];
        let memory = rdkafka_sys::rd_kafka_mem_malloc(std::ptr::null_mut(), bytes.len());
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.cast::<u8>(), bytes.len());
        entry.metadata = memory;
        entry.metadata_size = bytes.len();
    }
    other.commit(&list, CommitMode::Sync).unwrap();
    drop(other);
    let peer = Peer::start(&config, &[&topic]);
    eventually("the assignment", || peer.owned() == [0, 1]).await;
    peer.with(|state| {
        let (start, committed, _) = &state.owned[&0];
        assert_eq!((*start, committed.as_ref().unwrap().offset), (3, 3));
        // The broker may have replaced what is no text; then it is a text that is not ours.
        assert_ne!(committed.as_ref().unwrap().metadata.as_deref(), Some("x"));
        assert!(state.owned[&1].1.is_none());
    });
    assert!(peer.source.close(SOON).await);
}

/// F21, F32.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_are_read_from_their_first_record() {
    let stack = stack_or_skip!(Stack::shared());
    let sets = &["kafka.consumer.\"topic.metadata.refresh.interval.ms\"=\"1000\""];
    let Place { topic, config, publisher } = place_for(&stack, "grow", 2, sets).await;
    let peer = Peer::start(&config, &[&topic]);
    eventually("the assignment", || peer.owned() == [0, 1]).await;
    let admin = TopicAdmin::new(&Clients::new(&config).unwrap()).unwrap();
    let results = admin.add_partitions(&[(topic.clone(), 4)]).await.unwrap();
    assert!(results.iter().all(|(_, result)| result.is_ok()), "{results:?}");
    fill(&publisher, &topic, 2..4, 20).await;
    eventually("the new partitions", || peer.owned() == [0, 1, 2, 3] && peer.count(2) == 20 && peer.count(3) == 20).await;
    assert!(peer.source.close(SOON).await);
}

/// F12, F13: records that retention took while a stub or a commit pointed at them.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_below_the_log_starts_where_the_log_does_and_stubs_of_gone_records_are_left_out() {
    let stack = stack_or_skip!(Stack::shared());
    let Place { topic, config, publisher } = place_for(&stack, "gone", 1, CLASSIC).await;
    fill(&publisher, &topic, 0..1, 100).await;
    let clients = Clients::new(&config).unwrap();
    let peer = Peer::start(&config, &[&topic]);
    eventually("the records", || peer.count(0) == 100).await;
    peer.source.offsets().commit(vec![commit(&topic, 0, 10, "")]).await.unwrap();
    assert!(peer.source.close(SOON).await);

    let admin: rdkafka::admin::AdminClient<_> = ClientConfig::new().set("bootstrap.servers", stack.brokers()).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(&topic, 0).set_offset(Offset::Offset(40)).unwrap();
    admin.delete_records(&list, &rdkafka::admin::AdminOptions::new()).await.unwrap();

    let next = Peer::start(&config, &[&topic]);
    eventually("the rest", || next.count(0) == 60).await;
    next.with(|state| {
        assert_eq!(state.owned[&0].0, 10, "the engine counts from the commit");
        assert_eq!(state.seen[&0].offsets.first(), Some(&40));
    });
    let reader = KafkaReader::start(&clients).unwrap();
    let records = reader.read(&place(&topic, 0), &[5, 20, 39, 40, 41, 99]).await.unwrap();
    assert_eq!(records.iter().map(worker::event::record::Record::offset).collect::<Vec<_>>(), [40, 41, 99]);
    assert!(next.source.close(SOON).await);
}

/// A topic made anew counts from 0: what was committed for the old one says nothing about it.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_beyond_the_log_reads_all_of_it() {
    let stack = stack_or_skip!(Stack::shared());
    let Place { topic, config, publisher } = place_for(&stack, "anew", 1, CLASSIC).await;
    fill(&publisher, &topic, 0..1, 20).await;
    let peer = Peer::start(&config, &[&topic]);
    eventually("the records", || peer.count(0) == 20).await;
    peer.source.offsets().commit(vec![commit(&topic, 0, 500, "")]).await.unwrap();
    assert!(peer.source.close(SOON).await);
    let next = Peer::start(&config, &[&topic]);
    eventually("all of it again", || next.count(0) == 20).await;
    next.with(|state| assert_eq!((state.owned[&0].0, &state.owned[&0].1), (0, &None)));
    assert!(next.source.close(SOON).await);
}

/// F23, F47: aborted transactions are not shown, their markers are gaps.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_aborted_transactions_are_neither_read_nor_re_read() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let stack = stack_or_skip!(Stack::shared());
    let Place { topic, config, publisher } = place_for(&stack, "aborted", 1, CLASSIC).await;
    let transactional: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", stack.brokers()).set("transactional.id", unique("tx")).create().unwrap();
    let topic_of = topic.clone();
    tokio::task::spawn_blocking(move || {
        transactional.init_transactions(SOON).unwrap();
        for keep in [false, true, false] {
            transactional.begin_transaction().unwrap();
            transactional.send(BaseRecord::to(&topic_of).key("k").payload(if keep { "kept" } else { "aborted" })).unwrap();
            transactional.flush(SOON).unwrap();
            if keep { transactional.commit_transaction(SOON) } else { transactional.abort_transaction(SOON) }.unwrap();
        }
    })
    .await
    .unwrap();
    publisher.publish(message(&topic, 0, "after")).await.unwrap();
    let peer = Peer::start(&config, &[&topic]);
    eventually("both records", || peer.count(0) == 2).await;
    peer.with(|state| assert_eq!(state.seen[&0].values, [b"kept".to_vec(), b"after".to_vec()]));
    let reader = KafkaReader::start(&Clients::new(&config).unwrap()).unwrap();
    let records = reader.read(&place(&topic, 0), &[0, 1, 2, 3, 4, 5, 6]).await.unwrap();
    assert_eq!(records.len(), 2);
    assert!(peer.source.close(SOON).await);
}

/// The whole table of what a publish can be answered, as far as a healthy cluster gives it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_publish_says_what_can_be_done() {
    let stack = stack_or_skip!(Stack::shared());
    let Place { topic, publisher, .. } = place_for(&stack, "refused", 1, CLASSIC).await;
    let missing = publisher.publish(message(&unique("no-such-topic"), 0, "x")).await.unwrap_err();
    assert_eq!(missing.code(), "topic_missing", "{missing}");
    let large = publisher.publish(message(&topic, 0, vec![b'x'; 2_000_000])).await.unwrap_err();
    assert_eq!(large.code(), "too_large", "{large}");
    let nowhere = publisher.publish(message(&topic, 7, "x")).await.unwrap_err();
    assert_eq!(nowhere.code(), "refused", "{nowhere}");
    let acked = publisher.publish(Message { partition: None, ..message(&topic, 0, "x") }).await.unwrap();
    assert_eq!((acked.partition, acked.offset), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_described_and_changed_and_refusals_are_kafkas_own_words() {
    use worker::kafka::topics::TopicSpec;
    let stack = stack_or_skip!(Stack::shared());
    let config = config(stack.brokers(), &unique("group"), &[]);
    let admin = TopicAdmin::new(&Clients::new(&config).unwrap()).unwrap();
    let good = TopicSpec {
        name: unique("made"),
        partitions: 3,
        replication: 1,
        config: [("retention.ms".to_owned(), "3600000".to_owned()), ("max.message.bytes".to_owned(), "2000000".to_owned())].into(),
    };
    let results = admin
        .create(&[good.clone(), TopicSpec { name: unique("replicas"), partitions: 1, replication: 9, ..TopicSpec::default() }])
        .await
        .unwrap();
    assert!(results[1].1.as_ref().unwrap_err().to_string().contains("replication"), "{results:?}");
    let described = admin.describe(&[good.name.clone(), "no-such-topic".to_owned()]).await.unwrap();
    let topic = described[0].as_ref().unwrap();
    assert_eq!((topic.partitions, topic.replication, topic.leaderless), (3, 1, 0));
    assert_eq!(topic.config, good.config);
    assert!(topic.effective.contains_key("cleanup.policy"));
    assert!(described[1].is_none());
    let changed = [(good.name.clone(), [("retention.ms".to_owned(), "7200000".to_owned())].into())];
    let results = admin.set_config(&changed).await.unwrap();
    assert_eq!(results[0].1, Ok(()));
    let topic = admin.describe(std::slice::from_ref(&good.name)).await.unwrap().remove(0).unwrap();
    assert_eq!(topic.config["retention.ms"], "7200000");
    assert_eq!(topic.config["max.message.bytes"], "2000000", "what was not named stays");
    let wrong = [(good.name.clone(), [("retention.ms".to_owned(), "soon".to_owned())].into())];
    assert!(admin.set_config(&wrong).await.unwrap()[0].1.is_err());
    assert!(!admin.brokers().await.unwrap().is_empty());
    assert!(admin.list().await.unwrap().iter().any(|topic| topic.name == good.name));
}

/// F45, F47: members come and go while gates move at random.
async fn watch_for_silence(sets: &[&str]) {
    const PARTITIONS: i32 = 6;
    let stack = stack_or_skip!(Stack::shared());
    let Place { topic, config, publisher } = place_for(&stack, "silence", PARTITIONS, sets).await;
    let publisher: Arc<dyn Publisher> = Arc::new(publisher);
    let first = Peer::start(&config, &[&topic]);
    eventually("the whole topic", || first.owned().len() == 6).await;
    let mut random = fastrand::Rng::with_seed(11);
    let mut holds = 0;
    for _ in 0..6 {
        let second = Peer::start(&config, &[&topic]);
        let mut step = 0;
        while second.owned().len() < 3 || step < 100 {
            step += 1;
            let partition = random.i32(0..PARTITIONS);
            for peer in [&first, &second] {
                peer.with(|state| {
                    if let Some((_, _, gate)) = state.owned.get(&partition) {
                        holds += 1;
                        gate.set_budget(if random.bool() { 0 } else { 1 << 20 });
                    }
                });
            }
            publisher.publish(message(&topic, random.i32(0..PARTITIONS), "x")).await.unwrap();
        }
        assert!(second.source.close(SOON).await);
        eventually("all to come back", || first.owned().len() == 6).await;
    }
    first.with(|state| state.owned.values().for_each(|(_, _, gate)| gate.set_budget(1 << 20)));
    for partition in 0..PARTITIONS {
        publisher.publish(message(&topic, partition, "last")).await.unwrap();
    }
    eventually("the last record of each partition", || {
        first
            .with(|state| state.seen.len() == 6 && state.seen.values().all(|seen| seen.values.last().is_some_and(|value| value == b"last")))
    })
    .await;
    assert!(holds > 300, "{holds}");
    first.with(|state| {
        for (partition, seen) in &state.seen {
            for pair in seen.offsets.windows(2) {
                assert!(pair[1] == pair[0] + 1 || pair[1] == 0, "partition {partition}: {} after {}", pair[1], pair[0]);
            }
        }
    });
    assert!(first.source.close(SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_partition_of_a_classic_group_falls_silent() {
    watch_for_silence(CLASSIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_partition_of_a_next_generation_group_falls_silent() {
    watch_for_silence(NEXT_GENERATION).await;
}

/// A record that comes alone is handed over at once, not when a read is full or a timeout has passed.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_member_hands_a_record_over_within_milliseconds() {
    let stack = stack_or_skip!(Stack::shared());
    let sets = &["kafka.producer.\"linger.ms\"=\"0\""];
    let Place { topic, config, publisher } = place_for(&stack, "idle", 1, sets).await;
    let peer = Peer::start(&config, &[&topic]);
    eventually("the assignment", || peer.owned() == [0]).await;
    let mut times = Vec::new();
    for round in 1..=100 {
        publisher.publish(message(&topic, 0, "x")).await.unwrap();
        let acked = std::time::Instant::now();
        while peer.count(0) < round {
            assert!(acked.elapsed() < SOON);
            tokio::task::yield_now().await;
        }
        times.push(acked.elapsed());
    }
    times.sort_unstable();
    println!("acknowledged to handed over: p50 {:?}, p90 {:?}", times[50], times[90]);
    assert!(times[50] < Duration::from_millis(20), "p50 {:?}", times[50]);
    assert!(peer.source.close(SOON).await);
}
