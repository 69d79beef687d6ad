//! What a hostile reading of the engine asked of it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::FutureExt;
use worker::{
    engine::{
        OnOverflow, WhenDown,
        ports::{Acquired, CommitError, DedupeStore, LogReader, PublishError},
    },
    outcome::{Failure, Handled, HandlerResult},
    store::memory::{MemoryLimits, MemoryStore},
};

use crate::{
    faulty::{Faulty, Log, events_of, pass, seconds, steady},
    rig::{Rig, Setup, event},
};

// === leases ===

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

/// Section 4, "Redis down: hold (no dispatch, polling goes on, readiness false, nothing lost)": also where it comes back empty, after
/// more than a lease. Nobody else had the partition.
#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_empty_after_a_long_outage_is_worked_with_again() {
    let memory = Arc::new(MemoryStore::new(MemoryLimits::default()));
    let store = Faulty::new(Arc::clone(&memory));
    let mut rig = Rig::start(Setup { store: Arc::clone(&store) as _, ..Setup::handler(|_| Ok(Handled::Done)) });
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it ran", |rig| rig.committed() == 1).await;
    store.down.store(true, Ordering::SeqCst);
    rig.deliver(&partition, events_of("user-1", 1..2)).await;
    pass(30).await;
    memory.flush();
    store.down.store(false, Ordering::SeqCst);
    pass(50).await;
    assert_eq!(rig.effects().len(), 2, "handled within 50 s of the store's return");
    pass(60).await;
    assert!(!rig.ended(), "a flushed cache does not end every worker");
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

/// F71: nothing is dead-lettered by an owner whose lease has run out.
#[tokio::test(start_paused = true)]
async fn nothing_is_dead_lettered_while_the_lease_has_run_out() {
    let store = Faulty::fresh();
    let setup = Setup { store: Arc::clone(&store) as _, ..Setup::default() }.and_async("test", |_| {
        async {
            tokio::time::sleep(Duration::from_secs(15)).await;
            HandlerResult::Err(Failure::permanent("no"))
        }
        .boxed()
    });
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it runs", |rig| rig.effects().len() == 1).await;
    store.renewals_fail.store(true, Ordering::SeqCst);
    pass(25).await;
    assert_eq!(rig.dead().len(), 0, "the lease ended 15 s ago");
    store.renewals_fail.store(false, Ordering::SeqCst);
    rig.until("it is dead-lettered under a lease", |rig| rig.dead().len() == 1).await;
}

/// The same, where events ran without the store meanwhile: its return must not stop what its absence did not.
#[tokio::test(start_paused = true)]
async fn the_return_of_an_empty_store_does_not_stop_a_worker_that_passed_it_by() {
    let memory = Arc::new(MemoryStore::new(MemoryLimits::default()));
    let store = Faulty::new(Arc::clone(&memory));
    let mut setup = Setup { store: Arc::clone(&store) as _, ..Setup::handler(|_| Ok(Handled::Done)) };
    setup.options.when_down = WhenDown::BypassAfter(seconds(5));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it ran", |rig| rig.committed() == 1).await;
    store.down.store(true, Ordering::SeqCst);
    rig.deliver(&partition, events_of("user-1", 1..2)).await;
    rig.until("the next ran without the store", |rig| rig.committed() == 2).await;
    pass(20).await;
    memory.flush();
    store.down.store(false, Ordering::SeqCst);
    pass(5).await;
    rig.deliver_if_open(&partition, events_of("user-1", 2..3)).await;
    pass(30).await;
    assert_eq!(rig.effects().len(), 3);
}

/// Section 4, handlers get the epoch as a fencing token: one that turns back is refused by whoever remembers the highest.
#[tokio::test(start_paused = true)]
async fn the_fencing_token_never_turns_back_where_events_run_without_the_store() {
    let epochs = Arc::new(Mutex::new(Vec::new()));
    let with = |store: &Arc<Faulty>| {
        let seen = Arc::clone(&epochs);
        let mut setup = Setup {
            store: Arc::clone(store) as _,
            ..Setup::handler(move |run| {
                seen.lock().unwrap().push(run.epoch);
                Ok(Handled::Done)
            })
        };
        setup.options.when_down = WhenDown::BypassAfter(seconds(5));
        setup
    };
    let mut first = Rig::start(with(&Faulty::fresh()));
    let partition = first.assign("task-events", 0, None).await;
    first.deliver(&partition, events_of("user-1", 0..1)).await;
    first.until("it ran", |rig| rig.committed() == 1).await;
    first.revoke(&partition).await;
    let commit = first.last_commit();
    let away = Faulty::fresh();
    away.down.store(true, Ordering::SeqCst);
    let mut second = Rig::start(with(&away));
    let partition = second.assign("task-events", 1, Some(commit)).await;
    second.deliver(&partition, events_of("user-1", 1..2)).await;
    second.until("it ran", |rig| rig.committed() == 2).await;
    let epochs = epochs.lock().unwrap().clone();
    assert!(epochs.is_sorted(), "{epochs:?}");
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

/// F68: a bad deploy must not empty the topic into the DLQ, however long the DLQ takes to acknowledge.
#[tokio::test(start_paused = true)]
async fn the_breaker_counts_dead_letters_that_are_under_way() {
    let mut rig = Rig::start(Setup::handler(|_| Err(Failure::permanent("bad deploy"))));
    *rig.published.takes.lock().unwrap() = seconds(1);
    let partition = rig.assign("task-events", 0, None).await;
    let records = (0..3000).map(|n| event(n, "task.created", &format!("user-{n}"), &format!("id-{n}"))).collect();
    rig.deliver(&partition, records).await;
    pass(5).await;
    let dead = rig.dead().len();
    assert!(dead <= 200, "{dead} of 3000 events are in the DLQ after five seconds");
}

/// F68: lanes that an open breaker holds are no poison users: their age must not be a way around the breaker.
#[tokio::test(start_paused = true)]
async fn lanes_that_the_breaker_holds_do_not_overflow_past_it() {
    let mut setup = Setup::handler(|_| Err(Failure::permanent("bad deploy")));
    setup.options.max_hold_age = seconds(60);
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    let round =
        |from: i64| (from..from + 2000).map(|n| event(n, "task.created", &format!("user-{}", n % 2000), &format!("id-{n}"))).collect();
    rig.deliver(&partition, round(0)).await;
    pass(70).await;
    let before = rig.dead().len();
    rig.deliver(&partition, round(2000)).await;
    pass(10).await;
    let more = rig.dead().len() - before;
    assert!(more <= 20, "one a second are probes; {more} dead letters in ten seconds ({before} before)");
}

// === overflow ===

/// A user may be over its limit while its head's run is under way; a run that then succeeds is a success.
#[tokio::test(start_paused = true)]
async fn an_event_that_was_handled_is_not_dead_lettered_because_its_user_overflowed_meanwhile() {
    let mut setup = Setup::default().and_async("test", |run| {
        let attempt = run.attempt;
        async move {
            if attempt == 1 {
                return Err(Failure::transient("no"));
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
            Ok(Handled::Done)
        }
        .boxed()
    });
    setup.options.max_held_events = 3;
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("its second run is under way", |rig| rig.effects().len() == 2).await;
    rig.deliver(&partition, events_of("user-1", 1..7)).await;
    rig.until("all is committed", |rig| rig.committed() == 7).await;
    let dead: Vec<String> = rig.dead().into_iter().map(|mut headers| headers.remove("x-dlq-source-offset").unwrap()).collect();
    assert!(!dead.contains(&"0".to_owned()), "offset 0 was handled and dead-lettered: {dead:?}");
}

/// The metric says what the record says.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_counted_under_the_reason_that_it_was_written_with() {
    let mut setup = Setup::handler(|run| if run.event.record().offset() == 0 { Err(Failure::transient("no")) } else { Ok(Handled::Done) });
    setup.options.max_held_events = 3;
    setup.schedules = Some(steady(&[1]));
    let mut rig = Rig::start(setup);
    *rig.published.failing.lock().unwrap() = Some(PublishError::Unreachable("away".into()));
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("its dead letter is being written", |rig| *rig.published.attempts.lock().unwrap() > 2).await;
    rig.deliver(&partition, events_of("user-1", 1..7)).await;
    pass(5).await;
    *rig.published.failing.lock().unwrap() = None;
    rig.until("all is committed", |rig| rig.committed() == 7).await;
    for reason in ["exhausted", "user_overflow"] {
        let written = rig.dead().iter().filter(|headers| headers["x-dlq-reason"] == reason).count() as u64;
        let counted = rig.metrics.dead_letters.with_label_values(&["task-events", "task.created", reason]).get();
        assert_eq!(counted, written, "{reason}");
    }
}

/// `pause_partition`: held until the overflowing lane has moved, whatever others do.
#[tokio::test(start_paused = true)]
async fn a_paused_partition_stays_paused_while_other_users_settle() {
    let mut setup = Setup::default().and_async("test", |run| {
        let slow = run.event.user_id() == "slow";
        async move {
            if slow {
                tokio::time::sleep(Duration::from_secs(5)).await;
                Ok(Handled::Done)
            } else {
                Err(Failure::transient("no"))
            }
        }
        .boxed()
    });
    setup.options.max_held_events = 3;
    setup.options.on_overflow = OnOverflow::PausePartition;
    setup.schedules = Some(steady(&[600]));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it failed", |rig| rig.effects().len() == 1).await;
    let mut more = events_of("slow", 1..2);
    more.extend(events_of("user-1", 2..8));
    rig.deliver(&partition, more).await;
    rig.until("it is paused", |rig| !rig.gate_open(&partition)).await;
    pass(20).await;
    assert_eq!(rig.settled("task-events", "task.created", "done"), 1, "the other user's event is settled");
    assert!(!rig.gate_open(&partition), "the overflowing user has not moved");
}

// === what a restart remembers ===

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

/// Section 4: records are written "at drain for half-finished events": what one handler has finished does not run again, also where the
/// other one waits for a permit of its retry.
#[tokio::test(start_paused = true)]
async fn a_handler_that_finished_before_a_drain_does_not_run_again_after_it() {
    let slow = |run: &worker::handler::Run| run.event.user_id() == "user-0" && run.attempt == 2;
    let answer = |attempt| if attempt == 1 { Err(Failure::transient("no")) } else { Ok(Handled::Done) };
    let mut setup =
        Setup::default().and_async("first", move |run| std::future::ready(answer(run.attempt)).boxed()).and_async("second", move |run| {
            let (slow, attempt) = (slow(run), run.attempt);
            async move {
                if slow {
                    tokio::time::sleep(Duration::from_secs(15)).await;
                }
                answer(attempt)
            }
            .boxed()
        });
    setup.options.concurrency = 2;
    setup.schedules = Some(steady(&[1, 60]));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    let records = vec![event(0, "task.created", "user-0", "id-0"), event(1, "task.created", "user-1", "id-1")];
    rig.deliver(&partition, records.clone()).await;
    let runs = |rig: &Rig, handler| rig.effects().iter().filter(|effect| effect.offset == 1 && effect.handler == handler).count();
    rig.until("the first handler is done with both", |rig| runs(rig, "first") == 2).await;
    pass(1).await;
    assert_eq!(runs(&rig, "second"), 1, "its retry waits for a permit");
    rig.revoke(&partition).await;
    let commit = rig.last_commit();
    assert_eq!(commit.offset, 1);
    let partition = rig.assign("task-events", 1, Some(commit)).await;
    rig.deliver(&partition, records[1..].to_vec()).await;
    rig.until("all is committed", |rig| rig.committed() == 2).await;
    assert_eq!((runs(&rig, "first"), runs(&rig, "second")), (2, 2));
}

/// Section 4: "a field goes when an acknowledged commit covers it": also one that an earlier owner could not remove.
#[tokio::test(start_paused = true)]
async fn records_that_a_commit_covers_are_removed_even_where_the_first_try_failed() {
    let store = Faulty::fresh();
    store.removals_fail.store(true, Ordering::SeqCst);
    let flaky = |run: &worker::handler::Run| if run.attempt == 1 { Err(Failure::transient("no")) } else { Ok(Handled::Done) };
    let mut rig = Rig::start(Setup { store: Arc::clone(&store) as _, schedules: Some(steady(&[1])), ..Setup::handler(flaky) });
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it is committed", |rig| rig.committed() == 1).await;
    pass(2).await;
    store.removals_fail.store(false, Ordering::SeqCst);
    rig.deliver(&partition, events_of("user-1", 1..2)).await;
    rig.until("the next is committed", |rig| rig.committed() == 2).await;
    pass(5).await;
    let commit = rig.last_commit();
    rig.revoke(&partition).await;
    let partition = rig.assign("task-events", 2, Some(commit)).await;
    rig.deliver(&partition, events_of("user-1", 2..3)).await;
    rig.until("one more is committed", |rig| rig.committed() == 3).await;
    pass(5).await;
    let mut removed = store.removed.lock().unwrap().clone();
    removed.sort_unstable();
    assert_eq!(removed, [0, 1, 2], "its hash never expires while others are written to it");
}

// === drain ===

/// F40: a final commit that meets passing trouble is tried again within the drain's time.
#[tokio::test(start_paused = true)]
async fn a_final_commit_that_meets_passing_trouble_is_tried_again() {
    let mut rig = Rig::start(Setup::handler(|_| Ok(Handled::Done)));
    let partition = rig.assign("task-events", 0, None).await;
    pass(2).await;
    *rig.offsets.failing.lock().unwrap() = Some(CommitError::Retriable("coordinator is moving".into()));
    rig.deliver(&partition, events_of("user-1", 0..5)).await;
    rig.until("all ran", |rig| rig.effects().len() == 5).await;
    let offsets = Arc::clone(&rig.offsets);
    tokio::spawn(async move {
        pass(2).await;
        *offsets.failing.lock().unwrap() = None;
    });
    rig.revoke(&partition).await;
    assert_eq!(rig.committed(), 5, "25 s were there to drain");
}

// === the way of an event ===

/// A backlog that settles without a run moves at the reader's pace, not at the commit ticks'.
#[tokio::test(start_paused = true)]
async fn a_spilled_backlog_that_nobody_handles_does_not_wait_for_ticks() {
    let mut setup = Setup::default()
        .and("test", &["task.created"], |run| if run.attempt == 1 { Err(Failure::transient("no")) } else { Ok(Handled::Done) });
    setup.options.lane_events = 4;
    setup.schedules = Some(steady(&[1]));
    let mut records = events_of("user-1", 0..1);
    records.extend((1..1000).map(|n| event(n, "task.completed", "user-1", &format!("id-{n}"))));
    setup.reader = Some(Log::new(&records));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, records).await;
    rig.until("the head is through", |rig| rig.effects().len() == 2).await;
    let before = tokio::time::Instant::now();
    rig.until("all is committed", |rig| rig.committed() == 1000).await;
    assert!(before.elapsed() < seconds(10), "{:?} for 999 events that nobody handles", before.elapsed());
}

/// Section 5: a lane keeps 256 KiB hot, also when its backlog is read again.
#[tokio::test(start_paused = true)]
async fn a_backlog_read_again_keeps_to_the_lanes_bytes() {
    let mut setup = Setup::handler(|run| {
        if matches!(run.event.record().offset(), 0 | 5) && run.attempt == 1 { Err(Failure::transient("no")) } else { Ok(Handled::Done) }
    });
    setup.schedules = Some(steady(&[30]));
    let mut records = events_of("user-1", 0..60);
    for record in &mut records {
        record.headers = vec![("pad".into(), Some(vec![0; 100_000]))];
    }
    setup.reader = Some(Log::new(&records));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, records).await;
    rig.until("offset 5 failed", |rig| rig.effects().iter().any(|effect| effect.offset == 5)).await;
    let held = rig.held_bytes(&partition);
    assert!(held < 512 * 1024, "{held} bytes of one user are held");
}

/// F74: the conservation of records is no false alarm where the log turns back in the middle of a batch.
#[tokio::test(start_paused = true)]
async fn a_log_that_turns_back_within_a_batch_is_no_conservation_error() {
    let mut rig = Rig::start(Setup::handler(|_| Ok(Handled::Done)));
    let partition = rig.assign("task-events", 0, None).await;
    let mut records = events_of("user-1", 10..12);
    records.extend(events_of("user-1", 0..1));
    rig.deliver(&partition, records).await;
    rig.until("it is committed", |rig| rig.committed() == 1).await;
    pass(3).await;
    assert_eq!(rig.metrics.conservation_error.get(), 0);
}

/// Section 5: "fatal librdkafka errors end the process": a producer beyond repair never writes another dead letter.
#[tokio::test(start_paused = true)]
async fn a_producer_beyond_repair_ends_the_engine() {
    let mut rig = Rig::start(Setup::handler(|_| Err(Failure::permanent("no"))));
    *rig.published.failing.lock().unwrap() = Some(PublishError::Fatal("out of order sequence number".into()));
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    pass(120).await;
    assert!(rig.ended(), "two minutes later it still tries: {} times", rig.published.attempts.lock().unwrap());
}

/// Section 2: never earlier than 0.9 of the delay, and the server's Retry-After overrides it: per handler, also after a handover.
#[tokio::test(start_paused = true)]
async fn after_a_handover_each_handler_runs_at_its_own_due_time() {
    let later = |seconds| Err(Failure::Transient { error: "busy".into(), after: Some(Duration::from_secs(seconds)) });
    let mut setup = Setup::default().and("patient", &["*"], move |run| if run.attempt == 1 { later(600) } else { Ok(Handled::Done) }).and(
        "hasty",
        &["*"],
        move |run| if run.attempt == 1 { later(20) } else { Ok(Handled::Done) },
    );
    setup.schedules = Some(steady(&[600]));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    let records = events_of("user-1", 0..1);
    rig.deliver(&partition, records.clone()).await;
    rig.until("both failed", |rig| rig.effects().len() == 2).await;
    pass(5).await;
    rig.revoke(&partition).await;
    let partition = rig.assign("task-events", 0, Some(rig.last_commit())).await;
    rig.deliver(&partition, records).await;
    rig.until("it is committed", |rig| rig.committed() == 1).await;
    let at = rig.effects().iter().find(|effect| effect.handler == "patient" && effect.attempt == 2).unwrap().at;
    assert!(at >= seconds(540), "asked for 600 s, ran after {at:?}");
}

// === the log, read again ===

/// The invariant: what the log still has is never settled as lost. A broker that takes its time is no retention.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_broker_does_not_make_records_of_the_log_look_gone() {
    use crate::kafka_member::{config, fill, place};
    use worker::kafka::{client::Clients, publisher::KafkaPublisher, reader::KafkaReader};
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
