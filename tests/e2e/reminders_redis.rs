//! Reminders over a Redis that is killed again and again, and over one that comes back with nothing.

use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use serde_json::json;

use super::reminders::{LONG, Place, Redis, SECOND};
use crate::{stack_or_skip, support::stack::Stack};

#[tokio::test(flavor = "multi_thread")]
async fn every_reminder_fires_with_one_id_although_redis_and_workers_are_killed_and_a_rebuild_brings_back_what_an_empty_redis_lost() {
    const USERS: usize = 100;
    let place = Place::new(stack_or_skip!(Stack::private(&["kafka", "redis"]))).await;
    let mut workers = vec![place.consumer().start_ready().await, place.consumer().start_ready().await];
    let start = Utc::now() + TimeDelta::seconds(3);
    let soon = (0..USERS).map(|user| (format!("user-{user}"), start + TimeDelta::milliseconds(user as i64 * 150)));
    let later = (0..5).map(|user| (format!("later-{user}"), start + TimeDelta::hours(1)));
    join_all(soon.chain(later).map(async |(user, remind)| place.schedule(&user, remind).await)).await;
    for turn in 0..5 {
        tokio::time::sleep(2 * SECOND).await;
        place.stack.kill("redis");
        if turn % 2 == 1 {
            workers.remove(0).kill();
            workers.push(place.consumer().start());
        }
        place.stack.start("redis");
    }
    place.wait_for(USERS).await;
    for worker in &mut workers {
        worker.ready(LONG).await;
        place.pending(worker, 5.0).await;
    }

    let redis = Redis::new(place.stack.redis(), &place.name, &place.name).await;
    let _: () = redis.ask(&["FLUSHALL"]).await;
    place.stack.kill("redis");
    place.stack.start("redis");
    place.pending(&workers[0], 0.0).await;
    let rebuilt = place.rebuild(&["--execute"]).await;
    assert_eq!((&rebuilt["pending"], &rebuilt["fired"]), (&json!(5), &json!(USERS)), "{rebuilt}");
    place.pending(&workers[0], 5.0).await;
    for worker in &mut workers {
        assert_eq!(worker.terminate(LONG).await, Some(0));
    }
    let (fired, records) = place.fired().await;
    assert_eq!(fired.len(), USERS);
    assert!(fired.values().all(|ids| ids.len() == 1), "{fired:?}");
    eprintln!("{records} records of {USERS} reminders; Redis killed six times, workers twice");
}
