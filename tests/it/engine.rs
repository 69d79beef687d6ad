//! The engine's promises on a log in memory, in virtual time.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use worker::{
    engine::{Drained, ports::PublishError},
    event::record::RecordParts,
    outcome::{Failure, Handled},
};

use crate::rig::{Rig, Setup, event};

#[tokio::test(start_paused = true)]
async fn events_are_handled_once_and_committed() {
    let mut rig = Rig::start(Setup::handler(|_| Ok(Handled::Done)));
    let partition = rig.assign("task-events", 0, None).await;
    let records = (0..100).map(|n| event(n, "task.created", &format!("user-{}", n % 7), &format!("id-{n}"))).collect();
    rig.deliver(&partition, records).await;
    rig.until("all is committed", |rig| rig.committed() == 100).await;
    let effects = rig.effects();
    assert_eq!(effects.len(), 100);
    for user in 0..7 {
        let offsets: Vec<i64> = effects.iter().filter(|effect| effect.user == format!("user-{user}")).map(|effect| effect.offset).collect();
        assert!(offsets.is_sorted(), "one user's events run in order");
    }
    assert_eq!(rig.metrics.conservation_error.get(), 0);
    assert_eq!(rig.stop().await.unwrap(), Drained::Clean);
}

/// The real schedules of events.md section 4, to the jitter.
#[tokio::test(start_paused = true)]
async fn each_type_is_retried_on_its_own_schedule_and_then_dead_lettered() {
    let cases: [(&str, &[u64]); 4] = [
        ("task.completed", &[30, 300, 1800]),
        ("reminder.due", &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512]),
        ("task.updated", &[1, 2, 4, 8, 16]),
        ("task.created", &[1, 5, 30]),
    ];
    for (event_type, delays) in cases {
        let mut rig = Rig::start(Setup::handler(|_| Err(Failure::transient("app is away"))));
        let partition = rig.assign("task-events", 0, None).await;
        rig.deliver(&partition, vec![event(0, event_type, "user-1", "id-1")]).await;
        rig.until("it is dead-lettered and committed", |rig| rig.committed() == 1).await;
        let effects = rig.effects();
        assert_eq!(effects.len(), delays.len() + 1, "{event_type}: k delays, k + 1 runs");
        for (pair, &delay) in effects.windows(2).zip(delays) {
            let waited = (pair[1].at - pair[0].at).as_secs_f64();
            let nominal = delay as f64;
            assert!(waited >= 0.9 * nominal && waited <= 1.1 * nominal + 0.2, "{event_type}: waited {waited} s for {nominal} s");
        }
        let attempts: Vec<u32> = effects.iter().map(|effect| effect.attempt).collect();
        assert_eq!(attempts, (1..=delays.len() as u32 + 1).collect::<Vec<_>>());
        let dead = rig.dead();
        assert_eq!(dead.len(), 1);
        assert_eq!(dead[0]["x-dlq-reason"], "exhausted");
        assert_eq!(dead[0]["x-dlq-retry-count"], delays.len().to_string());
        assert_eq!(dead[0]["x-dlq-attempts"], (delays.len() + 1).to_string());
        assert_eq!(rig.settled("task-events", event_type, "dead"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_user_delays_nobody_else() {
    let mut rig = Rig::start(Setup::handler(|run| {
        if run.event.user_id() == "user-7" && run.attempt < 3 { Err(Failure::transient("not yet")) } else { Ok(Handled::Done) }
    }));
    let partition = rig.assign("task-events", 0, None).await;
    let records = (0..50).map(|n| event(n, "task.created", &format!("user-{}", n % 10), &format!("id-{n}"))).collect();
    rig.deliver(&partition, records).await;
    rig.until("all is committed", |rig| rig.committed() == 50).await;
    for effect in rig.effects() {
        if effect.user == "user-7" {
            continue;
        }
        assert!(effect.at < Duration::from_millis(200), "{} ran only after {:?}", effect.user, effect.at);
    }
    let seventh: Vec<(i64, u32)> = rig.effects().into_iter().filter(|e| e.user == "user-7").map(|e| (e.offset, e.attempt)).collect();
    assert_eq!(seventh, [7, 17, 27, 37, 47].into_iter().flat_map(|offset| [(offset, 1), (offset, 2), (offset, 3)]).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_repeated_id_is_settled_as_a_duplicate() {
    let mut rig = Rig::start(Setup::handler(|_| Ok(Handled::Done)));
    let partition = rig.assign("task-events", 0, None).await;
    let records = vec![
        event(0, "task.created", "user-1", "same"),
        event(1, "task.created", "user-1", "same"),
        event(2, "task.created", "user-2", "same"),
    ];
    rig.deliver(&partition, records).await;
    rig.until("all is committed", |rig| rig.committed() == 3).await;
    assert_eq!(rig.effects().len(), 2, "another user's equal id is no duplicate");
    assert_eq!(rig.settled("task-events", "task.created", "duplicate"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_goes_to_the_dlq_at_once_with_key_value_and_headers_untouched() {
    let mut rig = Rig::start(Setup::handler(|_| Err(Failure::permanent("400 bad title"))));
    let partition = rig.assign("task-events", 0, None).await;
    let mut record = event(0, "task.created", "user-1", "id-1");
    record.headers = vec![("tenant".into(), Some(b"a".to_vec())), ("x-dlq-reason".into(), Some(b"stale".to_vec())), ("empty".into(), None)];
    rig.deliver(&partition, vec![record.clone()]).await;
    rig.until("it is committed", |rig| rig.committed() == 1).await;
    assert_eq!(rig.effects().len(), 1);
    let log = rig.published.log.lock().unwrap();
    let letter = &log[0];
    assert_eq!(letter.key.as_deref(), record.key.as_deref());
    assert_eq!(letter.value.as_deref(), record.value.as_deref());
    assert_eq!(letter.headers[0], ("tenant".to_owned(), Some("a".into())));
    assert_eq!(letter.headers[1], ("empty".to_owned(), None));
    let ours: HashMap<_, _> = letter.headers.iter().map(|(name, value)| (name.as_str(), value.clone().unwrap_or_default())).collect();
    for (name, value) in [
        ("x-dlq-reason", "permanent"),
        ("x-dlq-error", "400 bad title"),
        ("x-dlq-retry-count", "0"),
        ("x-dlq-attempts", "1"),
        ("x-dlq-event-id", "id-1"),
        ("x-dlq-event-type", "task.created"),
        ("x-dlq-user-id", "user-1"),
        ("x-dlq-handler", "test"),
        ("x-dlq-source-topic", "task-events"),
        ("x-dlq-source-partition", "0"),
        ("x-dlq-source-offset", "0"),
        ("x-dlq-source-timestamp", "1767225600000"),
        ("x-dlq-consumer-group", "group"),
        ("x-dlq-worker", "worker-1"),
        ("x-dlq-schedule", "1s,5s,30s"),
        ("x-dlq-redrives", "0"),
    ] {
        assert_eq!(ours[name], value, "{name}");
    }
    assert!(ours.contains_key("x-dlq-failed-at") && ours.contains_key("x-dlq-first-failed-at") && ours.contains_key("x-dlq-error-class"));
    assert_eq!(letter.headers.iter().filter(|(name, _)| name == "x-dlq-reason").count(), 1, "headers of an earlier pass are replaced");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_an_event_goes_to_the_dlq_at_its_turn_with_its_reason() {
    let mut rig = Rig::start(Setup::handler(|_| Ok(Handled::Done)));
    let partition = rig.assign("task-events", 0, None).await;
    let raw = |offset, value: Option<&str>| RecordParts {
        offset,
        timestamp: Some(1),
        key: Some(b"user-1".to_vec()),
        value: value.map(|value| value.as_bytes().to_vec()),
        headers: Vec::new(),
    };
    rig.deliver(
        &partition,
        vec![
            event(0, "task.created", "user-1", "id-0"),
            raw(1, Some("{not json")),
            raw(2, None),
            raw(3, Some(r#"{"event_type":"task.completed","task_id":1}"#)),
            raw(4, Some(r#"{"event_type":"task.exploded","user_id":"user-1"}"#)),
            raw(5, Some(r#"{"event_type":"task.created","user_id":"user-1","task_id":1,"data":{"title":""}}"#)),
            event(6, "task.created", "user-1", "id-6"),
        ],
    )
    .await;
    rig.until("all is committed", |rig| rig.committed() == 7).await;
    let reasons: Vec<String> = rig.dead().into_iter().map(|mut headers| headers.remove("x-dlq-reason").unwrap()).collect();
    assert_eq!(reasons, ["undecodable", "undecodable", "missing_user_id", "unknown_type", "schema"]);
    assert_eq!(rig.effects().iter().map(|effect| effect.offset).collect::<Vec<_>>(), [0, 6]);
}

/// `catalog.unknown_type = "skip"`: settled without a run or a letter, and counted.
#[tokio::test(start_paused = true)]
async fn a_type_that_the_catalogue_lacks_is_dropped_and_counted_where_it_is_to_be_skipped() {
    let mut setup = Setup::handler(|_| Ok(Handled::Done));
    setup.options.skip_unknown = true;
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, vec![event(0, "task.exploded", "user-1", "id-0"), event(1, "task.created", "user-1", "id-1")]).await;
    rig.until("all is committed", |rig| rig.committed() == 2).await;
    assert_eq!((rig.dead().len(), rig.effects().iter().map(|effect| effect.offset).collect::<Vec<_>>()), (0, vec![1]));
    let settled = |kind: &str, outcome: &str| rig.metrics.events_settled.with_label_values(&["task-events", kind, outcome]).get();
    assert_eq!((settled("unknown", "dropped"), settled("task.created", "done")), (1, 1));
}

/// F02, F56: a dead letter that is not acknowledged is written again, the handler does not run again, the offset stays.
#[tokio::test(start_paused = true)]
async fn a_failed_dead_letter_publish_keeps_the_offset_and_runs_no_handler_again() {
    let mut rig = Rig::start(Setup::handler(|_| Err(Failure::permanent("no"))));
    *rig.published.failing.lock().unwrap() = Some(PublishError::TopicMissing("dlq".into()));
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, vec![event(0, "task.created", "user-1", "id-1"), event(1, "task.created", "user-2", "id-2")]).await;
    rig.until("it was tried several times", |rig| *rig.published.attempts.lock().unwrap() > 6).await;
    assert_eq!(rig.committed(), 0);
    assert_eq!(rig.effects().len(), 2);
    assert!(rig.metrics.dead_letter_failures.get() > 6);
    *rig.published.failing.lock().unwrap() = None;
    rig.until("it is committed", |rig| rig.committed() == 2).await;
    assert_eq!((rig.effects().len(), rig.dead().len()), (2, 2));
}

/// F69: a letter too big for its topic is a stub with a pointer, never a drop.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_too_big_for_its_topic_becomes_a_stub_that_points_to_the_original() {
    let mut rig = Rig::start(Setup::handler(|_| Err(Failure::permanent("no"))));
    *rig.published.failing.lock().unwrap() = Some(PublishError::TooLarge);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, vec![event(0, "task.created", "user-1", "id-1")]).await;
    rig.until("it is committed", |rig| rig.committed() == 1).await;
    let dead = rig.dead();
    assert_eq!(dead[0]["x-dlq-reason"], "oversize");
    assert_eq!(dead[0]["x-dlq-original-reason"], "permanent");
    assert_eq!((dead[0]["x-dlq-source-topic"].as_str(), dead[0]["x-dlq-source-offset"].as_str()), ("task-events", "0"));
}

#[tokio::test(start_paused = true)]
async fn of_two_handlers_only_the_unfinished_one_runs_again() {
    let mut rig = Rig::start(
        Setup::handler(|_| Ok(Handled::Done))
            .and("flaky", &["task.*"], |run| if run.attempt < 3 { Err(Failure::transient("no")) } else { Ok(Handled::Done) }),
    );
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, vec![event(0, "task.created", "user-1", "id-1")]).await;
    rig.until("it is committed", |rig| rig.committed() == 1).await;
    let runs = |name| rig.effects().iter().filter(|effect| effect.handler == name).count();
    assert_eq!((runs("test"), runs("flaky")), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn panics_and_timeouts_are_transient_failures() {
    let setup = Setup { timeout: Duration::from_secs(5), ..Setup::default() }.and_async("test", |run| {
        let attempt = run.attempt;
        Box::pin(async move {
            match attempt {
                1 => panic!("boom"),
                2 => std::future::pending().await,
                _ => Ok(Handled::Done),
            }
        })
    });
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, vec![event(0, "task.created", "user-1", "id-1")]).await;
    rig.until("it is committed", |rig| rig.committed() == 1).await;
    let result = |result| rig.metrics.handler_runs.with_label_values(&["test", "task.created", result]).get();
    assert_eq!((result("panic"), result("timeout"), result("ok")), (1, 1, 1));
}

/// The server's Retry-After overrides the schedule's delay, clamped to the schedule's longest.
#[tokio::test(start_paused = true)]
async fn a_requested_delay_is_obeyed_up_to_the_schedules_longest() {
    let mut rig = Rig::start(Setup::handler(|run| match run.attempt {
        1 => Err(Failure::Transient { error: "busy".into(), after: Some(Duration::from_secs(20)) }),
        2 => Err(Failure::Transient { error: "busy".into(), after: Some(Duration::from_secs(100_000)) }),
        _ => Ok(Handled::Done),
    }));
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, vec![event(0, "task.created", "user-1", "id-1")]).await;
    rig.until("it is committed", |rig| rig.committed() == 1).await;
    let at: Vec<f64> = rig.effects().iter().map(|effect| effect.at.as_secs_f64()).collect();
    assert!((19.9..23.0).contains(&(at[1] - at[0])), "{at:?}");
    assert!((27.0..33.5).contains(&(at[2] - at[1])), "{at:?}");
}

/// The map travels: only the blocked user's events come again, and its schedule goes on where it was.
#[tokio::test(start_paused = true)]
async fn a_restart_continues_the_schedule_and_repeats_nothing_settled() {
    let fail = Arc::new(AtomicBool::new(true));
    let script = |fail: Arc<AtomicBool>| {
        move |run: &worker::handler::Run| {
            if run.event.user_id() == "user-3" && fail.load(Ordering::SeqCst) { Err(Failure::transient("no")) } else { Ok(Handled::Done) }
        }
    };
    let log: Vec<RecordParts> = (0..100).map(|n| event(n, "task.completed", &format!("user-{}", n % 10), &format!("id-{n}"))).collect();
    let mut first = Rig::start(Setup::handler(script(Arc::clone(&fail))));
    let partition = first.assign("task-events", 0, None).await;
    first.deliver(&partition, log.clone()).await;
    first
        .until("the second failure is committed", |rig| rig.effects().iter().any(|effect| effect.attempt == 2) && rig.committed() == 3)
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let commit = first.last_commit();
    let second_run = first.effects().iter().find(|effect| effect.attempt == 2).unwrap().at;
    let began = first.start;
    assert_eq!(first.stop().await.unwrap(), Drained::Clean);

    // Another process, another (empty) store: only the commit map remembers.
    fail.store(false, Ordering::SeqCst);
    let mut second = Rig::start(Setup::handler(script(fail)));
    let partition = second.assign("task-events", commit.offset, Some(commit)).await;
    second.deliver(&partition, log[3..].to_vec()).await;
    second.until("all is committed", |rig| rig.committed() == 100).await;
    let effects = second.effects();
    assert_eq!(effects.len(), 10, "user-3's ten events and nothing else: {effects:?}");
    assert_eq!((effects[0].offset, effects[0].attempt), (3, 3));
    let waited = (second.start + effects[0].at - (began + second_run)).as_secs_f64();
    assert!((269.0..332.0).contains(&waited), "the 300 s delay goes on through the restart: {waited}");
}

/// F88: a drain does not wait for backoffs, and leaves what is in backoff to the commit map.
#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_runs_but_not_for_backoffs() {
    let started = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&started);
    let setup = Setup::default().and_async("test", move |run| {
        seen.fetch_add(1, Ordering::SeqCst);
        let slow = run.event.user_id() == "slow";
        Box::pin(async move {
            if slow {
                tokio::time::sleep(Duration::from_secs(10)).await;
                Ok(Handled::Done)
            } else {
                Err(Failure::transient("later"))
            }
        })
    });
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, vec![event(0, "task.completed", "slow", "id-0"), event(1, "task.completed", "failing", "id-1")]).await;
    rig.until("both ran", |_| started.load(Ordering::SeqCst) == 2).await;
    let (offsets, before) = (Arc::clone(&rig.offsets), tokio::time::Instant::now());
    assert_eq!(rig.stop().await.unwrap(), Drained::Clean);
    let took = before.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(12), "{took:?}");
    assert_eq!(offsets.log.lock().unwrap().last().unwrap().offset, 1, "the slow event is settled, the failing one is not");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_outlives_the_shutdown_is_reported_and_its_event_stays_uncommitted() {
    let setup = Setup { timeout: Duration::from_secs(3600), ..Setup::default() }.and_async("test", |_| Box::pin(std::future::pending()));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, vec![event(0, "task.created", "user-1", "id-0")]).await;
    rig.until("it runs", |rig| rig.effects().len() == 1).await;
    let offsets = Arc::clone(&rig.offsets);
    assert_eq!(rig.stop().await.unwrap(), Drained::DeadlineExceeded { runs: 1 });
    assert_eq!(offsets.log.lock().unwrap().last().unwrap().offset, 0);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_is_committed_before_it_is_given_up() {
    let mut rig = Rig::start(Setup::handler(|_| Ok(Handled::Done)));
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, (0..10).map(|n| event(n, "task.created", "user-1", &format!("id-{n}"))).collect()).await;
    rig.until("all ran", |rig| rig.effects().len() == 10).await;
    rig.revoke(&partition).await;
    assert_eq!(rig.committed(), 10);
    // The next owner has the lease at once.
    let partition = rig.assign("task-events", 10, Some(rig.last_commit())).await;
    let before = tokio::time::Instant::now();
    rig.deliver(&partition, vec![event(10, "task.created", "user-1", "id-10")]).await;
    rig.until("it ran", |rig| rig.effects().len() == 11).await;
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn retries_of_one_user_wait_while_hundreds_of_others_retry_too() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&order);
    let mut rig = Rig::start(Setup::handler(move |run| {
        log.lock().unwrap().push((run.event.user_id().to_owned(), run.event.record().offset(), run.attempt));
        if run.attempt <= 2 { Err(Failure::transient("no")) } else { Ok(Handled::Done) }
    }));
    let partition = rig.assign("task-events", 0, None).await;
    let records = (0..2000).map(|n| event(n, "task.created", &format!("user-{}", n % 500), &format!("id-{n}"))).collect();
    rig.deliver(&partition, records).await;
    rig.until("all is committed", |rig| rig.committed() == 2000).await;
    let mut last: HashMap<String, (i64, u32)> = HashMap::new();
    for (user, offset, attempt) in order.lock().unwrap().iter() {
        let before = last.insert(user.clone(), (*offset, *attempt));
        assert!(before.is_none_or(|before| before < (*offset, *attempt)), "{user}: {before:?} then {offset}, {attempt}");
    }
    assert_eq!(rig.metrics.conservation_error.get(), 0);
}
