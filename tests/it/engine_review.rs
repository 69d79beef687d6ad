//! What a hostile reading of the engine asked of it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use worker::{
    config::retry::{RetryConfig, RetryRule},
    engine::{
        WhenDown,
        ports::{Acquired, Check, DedupeStore, EventRecord, Lease, Member, Remembered, Renewed, StoreError},
    },
    event::record::{RecordParts, TopicPartition},
    outcome::{Failure, Handled},
    retry::Schedules,
    store::memory::{MemoryLimits, MemoryStore},
};

use crate::rig::{Rig, Setup, event};

/// A store in memory whose calls can be made to fail or to take their time.
struct Faulty {
    inner: Arc<MemoryStore>,
    /// Nothing is answered.
    down: AtomicBool,
    /// Ledger checks alone are not answered.
    checks_fail: AtomicBool,
    load_takes: Mutex<Duration>,
}

impl Faulty {
    fn new(inner: Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self { inner, down: AtomicBool::new(false), checks_fail: AtomicBool::new(false), load_takes: Mutex::new(Duration::ZERO) })
    }

    fn fresh() -> Arc<Self> {
        Self::new(Arc::new(MemoryStore::new(MemoryLimits::default())))
    }

    fn up(&self) -> Result<(), StoreError> {
        if self.down.load(Ordering::SeqCst) { Err(StoreError::Unavailable("away".into())) } else { Ok(()) }
    }
}

impl DedupeStore for Faulty {
    fn check<'a>(&'a self, lease: &'a Lease, check: Check) -> BoxFuture<'a, Result<Vec<bool>, StoreError>> {
        async move {
            self.up()?;
            if self.checks_fail.load(Ordering::SeqCst) {
                return Err(StoreError::Unavailable("slow".into()));
            }
            self.inner.check(lease, check).await
        }
        .boxed()
    }

    fn finish<'a>(&'a self, lease: &'a Lease, members: Vec<Member>) -> BoxFuture<'a, Result<usize, StoreError>> {
        async move {
            self.up()?;
            self.inner.finish(lease, members).await
        }
        .boxed()
    }

    fn save<'a>(&'a self, lease: &'a Lease, changes: Vec<(i64, Option<EventRecord>)>) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            self.up()?;
            self.inner.save(lease, changes).await
        }
        .boxed()
    }

    fn load<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Remembered, StoreError>> {
        async move {
            self.up()?;
            let takes = *self.load_takes.lock().unwrap();
            tokio::time::sleep(takes).await;
            self.inner.load(lease).await
        }
        .boxed()
    }

    fn acquire<'a>(
        &'a self,
        partition: &'a TopicPartition,
        owner: &'a Arc<str>,
        map_epoch: u64,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        async move {
            self.up()?;
            self.inner.acquire(partition, owner, map_epoch).await
        }
        .boxed()
    }

    fn renew<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(Vec<Renewed>, u64), StoreError>> {
        async move {
            self.up()?;
            self.inner.renew(leases).await
        }
        .boxed()
    }

    fn release<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            self.up()?;
            self.inner.release(leases).await
        }
        .boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { self.up() }.boxed()
    }

    fn lease_time(&self) -> Duration {
        self.inner.lease_time()
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn pass(span: u64) {
    tokio::time::sleep(seconds(span)).await;
}

fn events_of(user: &str, offsets: std::ops::Range<i64>) -> Vec<RecordParts> {
    offsets.map(|n| event(n, "task.created", user, &format!("id-{n}"))).collect()
}

fn steady(delays: &[u64]) -> Schedules {
    let rule = RetryRule { delays: Some(delays.iter().copied().map(Duration::from_secs).collect()), jitter: Some(0.0) };
    Schedules::new(&RetryConfig([("default".to_owned(), rule)].into()))
}

/// Section 4, "renewed only while assigned or running": a lease that was granted, but whose memory was still being read when the
/// partition went away, must not be renewed for ever.
#[tokio::test(start_paused = true)]
async fn a_partition_revoked_while_its_memory_is_read_is_free_for_its_next_owner() {
    let store = Faulty::fresh();
    *store.load_takes.lock().unwrap() = seconds(2);
    let mut rig = Rig::start(Setup { store: Arc::clone(&store) as _, ..Setup::handler(|_| Ok(Handled::Done)) });
    let partition = rig.assign("task-events", 0, None).await;
    pass(1).await;
    rig.revoke(&partition).await;
    *store.load_takes.lock().unwrap() = Duration::ZERO;
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    pass(120).await;
    assert_eq!(rig.effects().len(), 1, "two minutes later the lease is still nobody's");
}

/// Section 4: a worker cut off from Kafka alone must not hold a partition for ever. A commit that is never answered is as good as refused.
#[tokio::test(start_paused = true)]
async fn an_owner_whose_proof_of_membership_is_never_answered_gives_the_partition_up() {
    let memory = Arc::new(MemoryStore::new(MemoryLimits::default()));
    let mut rig = Rig::start(Setup { store: Arc::clone(&memory) as _, ..Setup::handler(|_| Ok(Handled::Done)) });
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it ran", |rig| rig.committed() == 1).await;
    rig.offsets.silent.store(true, Ordering::SeqCst);
    let other: Arc<str> = "another worker".into();
    for _ in 0..120 {
        if let Acquired::Granted { .. } = memory.acquire(&partition, &other, 0).await.unwrap() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("a minute later the worker that Kafka does not answer still holds the partition");
}

/// Section 3: "else a lone failing event loses its schedule with Redis". The map must not forget the attempts of a head that it was told
/// of, only because that head's turn has not come yet (the lease is another's, or the store is away).
#[tokio::test(start_paused = true)]
async fn attempts_in_the_commit_map_survive_an_owner_that_never_got_to_run() {
    let fail = Arc::new(AtomicBool::new(true));
    let script = |fail: &Arc<AtomicBool>| {
        let fail = Arc::clone(fail);
        move |_: &worker::handler::Run| if fail.load(Ordering::SeqCst) { Err(Failure::transient("no")) } else { Ok(Handled::Done) }
    };
    let log = events_of("user-1", 0..1);
    let with = |store: &Arc<Faulty>, fail: &Arc<AtomicBool>| Setup {
        store: Arc::clone(store) as _,
        schedules: Some(steady(&[1, 600, 600])),
        ..Setup::handler(script(fail))
    };

    let mut first = Rig::start(with(&Faulty::fresh(), &fail));
    let partition = first.assign("task-events", 0, None).await;
    first.deliver(&partition, log.clone()).await;
    first.until("it failed twice", |rig| rig.effects().len() == 2).await;
    pass(3).await;
    let commit = first.last_commit();
    first.stop().await.unwrap();

    // The next owner finds no store.
    let away = Faulty::fresh();
    away.down.store(true, Ordering::SeqCst);
    let mut second = Rig::start(with(&away, &fail));
    let partition = second.assign("task-events", 0, Some(commit)).await;
    second.deliver(&partition, log.clone()).await;
    pass(5).await;
    second.revoke(&partition).await;
    let commit = second.last_commit();
    drop(second);

    fail.store(false, Ordering::SeqCst);
    let mut third = Rig::start(with(&Faulty::fresh(), &fail));
    let partition = third.assign("task-events", 0, Some(commit)).await;
    third.deliver(&partition, log).await;
    third.until("it is committed", |rig| rig.committed() == 1).await;
    assert_eq!(third.effects().iter().map(|effect| effect.attempt).collect::<Vec<_>>(), [3]);
}

/// Section 4, "Redis down or slow: `bypass_after` opts into Kafka's assignment alone": also where only the heavier calls go unanswered.
#[tokio::test(start_paused = true)]
async fn a_store_that_renews_leases_but_answers_no_check_is_passed_by_as_configured() {
    let store = Faulty::fresh();
    store.checks_fail.store(true, Ordering::SeqCst);
    let mut setup = Setup { store: Arc::clone(&store) as _, ..Setup::handler(|_| Ok(Handled::Done)) };
    setup.options.when_down = WhenDown::BypassAfter(seconds(5));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    pass(60).await;
    assert_eq!(rig.effects().len(), 1, "a minute without one check answered");
}

/// The same where the ledger comes back while it is passed by: it is found out and asked again.
#[tokio::test(start_paused = true)]
async fn a_ledger_that_answers_again_is_no_longer_passed_by() {
    let store = Faulty::fresh();
    store.checks_fail.store(true, Ordering::SeqCst);
    let mut setup = Setup { store: Arc::clone(&store) as _, ..Setup::handler(|_| Ok(Handled::Done)) };
    setup.options.when_down = WhenDown::BypassAfter(seconds(5));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it ran without the ledger", |rig| rig.committed() == 1).await;
    store.checks_fail.store(false, Ordering::SeqCst);
    pass(2).await;
    rig.deliver(&partition, events_of("user-1", 1..2)).await;
    rig.until("it ran with the ledger", |rig| rig.committed() == 2).await;
    pass(2).await;
    let again = vec![event(2, "task.created", "user-1", "id-1")];
    rig.deliver(&partition, again).await;
    rig.until("its repetition is a duplicate", |rig| rig.committed() == 3).await;
    assert_eq!(rig.effects().len(), 2);
    assert_eq!(rig.metrics.store_up.get(), 1);
}

// === the log, read again ===

/// The invariant: what the log still has is never settled as lost. A broker that takes its time is no retention.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_broker_does_not_make_records_of_the_log_look_gone() {
    use crate::kafka_member::{config, fill, place};
    use worker::{
        engine::ports::LogReader,
        kafka::{client::Clients, publisher::KafkaPublisher, reader::KafkaReader},
    };
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("events", 1, 1).unwrap();
    let config = config(&cluster.bootstrap_servers(), "group", &[]);
    let clients = Clients::new(&config).unwrap();
    fill(&KafkaPublisher::new(&clients).unwrap(), "events", 0..1, 20).await;
    let reader = KafkaReader::start(&clients).unwrap();
    assert_eq!(reader.read(&place("events", 0), &[1, 2, 3]).await.unwrap().len(), 3);
    cluster.broker_round_trip_time(1, Duration::from_millis(2300)).unwrap();
    let read = reader.read(&place("events", 0), &[5, 7, 9]).await;
    // An error is asked again; an answer without them settles them as lost to retention.
    assert!(read.as_ref().is_err() || read.as_ref().is_ok_and(|records| records.len() == 3), "{read:?}");
}
