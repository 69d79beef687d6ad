//! The Source on the embedded broker.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use worker::{
    engine::ports::{Commit, Publisher},
    kafka::{client::Clients, embedded::Embedded, publisher::KafkaPublisher},
};

use crate::kafka_member::{Peer, SOON, State, config, eventually, fill, message, place};

/// A name of this test's own.
pub fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

/// The embedded broker ends every round of a rebalance a second before the session would end, however soon all have joined.
const QUICK: &[&str] = &["kafka.consumer.\"session.timeout.ms\"=\"2000\"", "kafka.consumer.\"heartbeat.interval.ms\"=\"300\""];

fn commit(topic: &str, partition: i32, offset: i64, metadata: &str) -> Commit {
    Commit { partition: place(topic, partition), offset, metadata: metadata.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_arrives_once_and_in_order_and_a_new_member_goes_on_at_the_commit() {
    let broker = Embedded::start(&[("events", 3)]).unwrap();
    let config = config(broker.brokers(), &unique("group"), &[]);
    let publisher = KafkaPublisher::new(&Clients::new(&config).unwrap()).unwrap();
    fill(&publisher, "events", 0..3, 500).await;

    let peer = Peer::start(&config, &["events"]);
    eventually("all records", || peer.total() == 1500).await;
    assert!(peer.source.joined());
    assert!(peer.source.brokers_up());
    peer.with(|state| {
        for seen in state.seen.values() {
            assert_eq!(seen.offsets, (0..500).collect::<Vec<_>>());
        }
        assert!(state.owned.values().all(|(start, committed, gate)| *start == 0 && committed.is_none() && gate.held() == 0));
    });
    let offsets = peer.source.offsets();
    offsets.commit(vec![commit("events", 0, 100, "one"), commit("events", 1, 500, ""), commit("events", 2, 7, "three")]).await.unwrap();
    assert!(peer.source.close(SOON).await);
    eventually("inboxes closed", || peer.with(|state| state.told.iter().filter(|told| told.starts_with("closed")).count() == 3)).await;
    assert_eq!(offsets.commit(vec![commit("events", 0, 101, "")]).await.unwrap_err().code(), "not_owner");

    let next = Peer::start(&config, &["events"]);
    eventually("the rest", || next.total() == 400 + 493).await;
    next.with(|state| {
        assert_eq!(state.seen[&0].offsets, (100..500).collect::<Vec<_>>());
        assert_eq!(state.seen[&2].offsets.first(), Some(&7));
        let (start, committed, _) = &state.owned[&0];
        assert_eq!((*start, committed.as_ref().unwrap().metadata.as_deref()), (100, Some("one")));
        let (start, committed, gate) = &state.owned[&1];
        assert_eq!((*start, committed.as_ref().unwrap().offset), (500, 500));
        assert_eq!(gate.log_end(), Some(500));
    });
    assert!(next.source.close(SOON).await);
}

/// F06, F91: what is held is neither read nor dropped, and the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_over_its_budget_is_not_read_until_it_gave_back_and_the_others_flow() {
    let broker = Embedded::start(&[("events", 2)]).unwrap();
    let config = config(broker.brokers(), &unique("group"), &[]);
    let publisher = KafkaPublisher::new(&Clients::new(&config).unwrap()).unwrap();
    let peer = Peer::start_with(&config, &["events"], State { budget: Some(20_000), ..State::default() });
    eventually("the assignment", || peer.owned().len() == 2).await;
    let value = vec![b'x'; 96];
    let publish = |partition: i32, count: usize| {
        let all: Vec<_> = (0..count).map(|_| publisher.publish(message("events", partition, value.clone()))).collect();
        futures_util::future::join_all(all)
    };
    publish(0, 5000).await;
    eventually("the first partition to be full", || peer.with(|state| state.owned[&0].2.held() >= 16_000)).await;
    // Held: of 1.3 MB at most what one hand-over was over the mark arrives.
    publish(1, 100).await;
    eventually("the second partition", || peer.count(1) == 100).await;
    let held = peer.with(|state| state.owned[&0].2.held());
    assert!(held < 16_000 + 512 * 300, "{held} bytes handed over");
    // Give back, over and over, until all came.
    eventually("the rest", || {
        peer.with(|state| {
            let gate = &state.owned[&0].2;
            gate.subtract(gate.held());
        });
        peer.count(0) == 5000
    })
    .await;
    peer.with(|state| assert_eq!(state.seen[&0].offsets, (0..5000).collect::<Vec<_>>()));
    assert!(peer.source.close(SOON).await);
}

/// F32, F38: the engine may take its time with what goes, what stays keeps flowing.
#[tokio::test(flavor = "multi_thread")]
async fn while_a_revoked_partition_is_drained_the_others_keep_flowing() {
    let broker = Embedded::start(&[("events", 4)]).unwrap();
    let config = config(broker.brokers(), &unique("group"), QUICK);
    let publisher = KafkaPublisher::new(&Clients::new(&config).unwrap()).unwrap();
    let first = Peer::start_with(&config, &["events"], State { give_back: true, hold_drains: true, ..State::default() });
    eventually("the assignment", || first.owned().len() == 4).await;
    let second = Peer::start(&config, &["events"]);
    eventually("the revocation", || first.with(|state| state.held.len() == 1)).await;
    let kept = first.owned();
    assert_eq!(kept.len(), 2);
    let gone: Vec<i32> = (0..4).filter(|partition| !kept.contains(partition)).collect();
    for round in 1..=20 {
        for partition in &kept {
            publisher.publish(message("events", *partition, "x")).await.unwrap();
        }
        eventually("a record while draining", || kept.iter().all(|partition| first.count(*partition) == round)).await;
    }
    assert!(second.owned().is_empty(), "not given on before it was drained");
    // Drained: the last commit, then the answer.
    let last: Vec<_> = gone.iter().map(|partition| commit("events", *partition, 0, "last words")).collect();
    // A coordinator in the middle of a rebalance may ask for patience.
    while let Err(error) = first.source.offsets().commit(last.clone()).await {
        assert_eq!(error.code(), "retriable", "{error}");
    }
    first.with(|state| state.held.drain(..).for_each(|drained| drained.send(()).unwrap()));
    eventually("the partitions to move", || second.owned() == gone).await;
    second.with(|state| {
        assert!(state.owned.values().all(|(_, committed, _)| committed.as_ref().unwrap().metadata.as_deref() == Some("last words")));
    });
    assert_eq!(first.source.offsets().commit(last).await.unwrap_err().code(), "not_owner");
    assert!(second.source.close(SOON).await);
    assert!(first.source.close(SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_keeps_the_member_unready_and_is_read_once_it_exists() {
    let broker = Embedded::start(&[("events", 1)]).unwrap();
    let config = config(broker.brokers(), &unique("group"), &[]);
    let peer = Peer::start(&config, &["events", "late"]);
    eventually("the topic that exists", || peer.owned() == [0]).await;
    assert_eq!(peer.source.missing_topics(), ["late"]);
    assert!(!peer.source.joined());
    broker.create_topic("late", 3).unwrap();
    eventually("the new topic", || peer.owned() == [0, 1, 2]).await;
    eventually("to be ready", || peer.source.joined()).await;
    assert!(peer.source.close(SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_go_away_are_noticed_and_so_is_their_return() {
    let broker = Embedded::start(&[("events", 1)]).unwrap();
    let config = config(broker.brokers(), &unique("group"), &[]);
    let peer = Peer::start(&config, &["events"]);
    let publisher = KafkaPublisher::new(&Clients::new(&config).unwrap()).unwrap();
    eventually("the assignment", || peer.owned() == [0]).await;
    eventually("the producer", || publisher.brokers_up()).await;
    let gone = Instant::now();
    broker.set_up(false).unwrap();
    eventually("the brokers to be away", || !peer.source.brokers_up() && !publisher.brokers_up()).await;
    assert!(gone.elapsed() < Duration::from_secs(10), "noticed after {:?}", gone.elapsed());
    assert!(peer.source.last_poll_age() < Duration::from_secs(1));
    broker.set_up(true).unwrap();
    eventually("the brokers to be back", || peer.source.brokers_up() && publisher.brokers_up()).await;
    publisher.publish(message("events", 0, "after")).await.unwrap();
    eventually("a record after it", || peer.count(0) == 1).await;
    assert!(peer.source.close(SOON).await);
}

/// F31, F33, F45: a partition whose gate moves at random while members come and go never falls silent and never repeats within an assignment.
#[tokio::test(flavor = "multi_thread")]
async fn no_partition_falls_silent_over_hundreds_of_holds_and_many_rebalances() {
    const PARTITIONS: i32 = 6;
    let broker = Embedded::start(&[("events", PARTITIONS)]).unwrap();
    let config = config(broker.brokers(), &unique("group"), QUICK);
    let publisher = KafkaPublisher::new(&Clients::new(&config).unwrap()).unwrap();
    let first = Peer::start(&config, &["events"]);
    eventually("the assignment", || first.owned().len() == 6).await;
    let mut random = fastrand::Rng::with_seed(7);
    let holds = AtomicUsize::new(0);
    let mut written = [0_usize; PARTITIONS as usize];
    for _ in 0..4 {
        let second = Peer::start(&config, &["events"]);
        let mut step = 0;
        // Through the rebalance and a while beyond: hold and let go at random while records come.
        while second.owned().len() < 3 || step < 60 {
            step += 1;
            let partition = random.i32(0..PARTITIONS);
            for peer in [&first, &second] {
                peer.with(|state| {
                    if let Some((_, _, gate)) = state.owned.get(&partition) {
                        holds.fetch_add(1, Ordering::Relaxed);
                        gate.set_budget(if random.bool() { 0 } else { 1 << 20 });
                    }
                });
            }
            let to = random.i32(0..PARTITIONS);
            publisher.publish(message("events", to, "x")).await.unwrap();
            written[usize::try_from(to).unwrap()] += 1;
            tokio::task::yield_now().await;
        }
        assert!(second.source.close(SOON).await);
        eventually("all partitions to come back", || first.owned().len() == 6).await;
    }
    first.with(|state| state.owned.values().for_each(|(_, _, gate)| gate.set_budget(1 << 20)));
    for partition in 0..PARTITIONS {
        publisher.publish(message("events", partition, "last")).await.unwrap();
    }
    eventually("the last record of each partition", || {
        first
            .with(|state| state.seen.len() == 6 && state.seen.values().all(|seen| seen.values.last().is_some_and(|value| value == b"last")))
    })
    .await;
    assert!(holds.load(Ordering::Relaxed) > 200);
    first.with(|state| {
        for (partition, seen) in &state.seen {
            let last = seen.offsets.iter().copied().max().unwrap();
            assert_eq!(usize::try_from(last).unwrap(), written[usize::try_from(*partition).unwrap()]);
            // Nothing was committed: each assignment starts at 0, and within one the offsets have no gap.
            for pair in seen.offsets.windows(2) {
                assert!(pair[1] == pair[0] + 1 || pair[1] == 0, "partition {partition}: {} after {}", pair[1], pair[0]);
            }
        }
    });
    assert!(first.source.close(SOON).await);
}

/// Time from a publish to the record's arrival, in an otherwise idle process.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_member_hands_a_record_over_within_milliseconds() {
    let broker = Embedded::start(&[("events", 1)]).unwrap();
    let config = config(broker.brokers(), &unique("group"), &["kafka.producer.\"linger.ms\"=\"0\""]);
    let publisher = KafkaPublisher::new(&Clients::new(&config).unwrap()).unwrap();
    let peer = Peer::start(&config, &["events"]);
    eventually("the assignment", || peer.owned() == [0]).await;
    let mut times = Vec::new();
    for round in 1..=50 {
        publisher.publish(message("events", 0, "x")).await.unwrap();
        let acked = Instant::now();
        while peer.count(0) < round {
            assert!(acked.elapsed() < SOON);
            tokio::task::yield_now().await;
        }
        times.push(acked.elapsed());
    }
    times.sort_unstable();
    println!("acknowledged to handed over: p50 {:?}, p90 {:?}", times[25], times[45]);
    // The broker itself answers a waiting fetch up to 100 ms late; what is ruled out is a batch that waits to be full.
    assert!(times[25] < Duration::from_millis(150), "p50 {:?}", times[25]);
    assert!(peer.source.close(SOON).await);
}
