//! Answers that were given under a lease which another owner has had since: they say nothing under the next one.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use worker::{
    engine::{
        member::member,
        ports::{Acquired, DedupeStore},
    },
    event::record::TopicPartition,
    outcome::{Failure, Handled, HandlerResult},
    store::memory::{MemoryLimits, MemoryStore},
};

use crate::{
    faulty::{Faulty, events_of, pass, seconds, steady},
    rig::{Rig, Setup},
};

struct World {
    memory: Arc<MemoryStore>,
    store: Arc<Faulty>,
    rig: Rig,
    partition: TopicPartition,
}

async fn start(answer: impl Fn(u32) -> HandlerResult + Send + Sync + 'static) -> World {
    let memory = Arc::new(MemoryStore::new(MemoryLimits::default()));
    let store = Faulty::new(Arc::clone(&memory));
    let setup = Setup { store: Arc::clone(&store) as _, schedules: Some(steady(&[5])), ..Setup::handler(move |run| answer(run.attempt)) };
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    pass(2).await;
    World { memory, store, rig, partition }
}

impl World {
    /// Another worker gets the lease, is through with the event of offset 0, and gives the lease back.
    async fn another_handles_it(&self) {
        self.store.renewals_fail.store(true, Ordering::SeqCst);
        let other: Arc<str> = "another worker".into();
        let lease = loop {
            if let Acquired::Granted { lease, .. } = self.memory.acquire(&self.partition, &other, 0).await.unwrap() {
                break lease;
            }
            pass(1).await;
        };
        self.memory.finish(&lease, vec![member("task-events", "user-1", "id-0", 0, None)]).await.unwrap();
        self.memory.release(&[lease]).await.unwrap();
        self.store.renewals_fail.store(false, Ordering::SeqCst);
        *self.store.checks_answer_after.lock().unwrap() = Duration::ZERO;
        *self.store.saves_answer_after.lock().unwrap() = Duration::ZERO;
    }
}

/// Section 4: "a ledger answer of an older epoch is asked again".
#[tokio::test(start_paused = true)]
async fn an_event_that_another_owner_handled_meanwhile_does_not_run_on_an_older_leases_answer() {
    let world = start(|_| Ok(Handled::Done)).await;
    *world.store.checks_answer_after.lock().unwrap() = seconds(60);
    world.rig.deliver(&world.partition, events_of("user-1", 0..1)).await;
    world.another_handles_it().await;
    world.rig.until("it is settled", |rig| rig.committed() == 1).await;
    assert_eq!(world.rig.effects(), []);
    assert_eq!(world.rig.settled("task-events", "task.created", "duplicate"), 1);
}

/// A failure written down under the older lease: neither its retry nor its letter is due before the ledger was asked.
#[tokio::test(start_paused = true)]
async fn an_event_that_another_owner_handled_meanwhile_is_not_dead_lettered_on_an_older_leases_answer() {
    let world = start(|_| Err(Failure::permanent("no"))).await;
    *world.store.saves_answer_after.lock().unwrap() = seconds(60);
    world.rig.deliver(&world.partition, events_of("user-1", 0..1)).await;
    world.rig.until("it ran", |rig| rig.effects().len() == 1).await;
    world.another_handles_it().await;
    world.rig.until("it is settled", |rig| rig.committed() == 1).await;
    assert_eq!(world.rig.dead().len(), 0);
    assert_eq!(world.rig.settled("task-events", "task.created", "duplicate"), 1);
}

/// A verdict that is refused when a drain's final commit has settled its event already, and a newer lease is held: nothing is left to write.
#[tokio::test(start_paused = true)]
async fn a_verdict_that_is_refused_after_the_final_commit_does_not_end_the_process() {
    let mut world = start(|_| Ok(Handled::Done)).await;
    *world.store.verdicts_take.lock().unwrap() = seconds(200);
    world.rig.deliver(&world.partition, events_of("user-1", 0..1)).await;
    world.rig.until("it ran", |rig| rig.effects().len() == 1).await;
    pass(1).await;
    *world.store.verdicts_take.lock().unwrap() = Duration::ZERO;
    world.another_handles_it().await;
    pass(20).await;
    let partition = world.partition.clone();
    world.rig.revoke(&partition).await;
    assert_eq!(world.rig.committed(), 1, "the commit settles what is finished");
    pass(300).await;
    assert!(!world.rig.ended());
    let partition = world.rig.assign("task-events", 1, Some(world.rig.last_commit())).await;
    world.rig.deliver(&partition, events_of("user-1", 1..2)).await;
    world.rig.until("its next owner goes on", |rig| rig.committed() == 2).await;
}
