//! How an engine ends while everything around it moves.

use std::{sync::Arc, time::Duration};

use futures_util::future::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, timeout},
};
use worker::{
    engine::{
        Drained,
        ports::{Assignment, Gate, SourceEvent, weight},
    },
    event::record::{RecordBatch, TopicPartition},
    outcome::Handled,
};

use crate::{
    faulty::seconds,
    rig::{Rig, Setup, event},
};

const PARTITIONS: i32 = 6;

/// A group that never comes to rest: partitions are given, taken and lost, ten times a second each, each with an event of its own.
async fn storm(source: mpsc::Sender<SourceEvent>, answers: mpsc::UnboundedSender<oneshot::Receiver<()>>) {
    let mut rng = fastrand::Rng::with_seed(48);
    let mut inboxes = Vec::new();
    for n in 0.. {
        let partition = TopicPartition::new("task-events", rng.i32(0..PARTITIONS));
        let told = match rng.u8(0..3) {
            0 => {
                let (drained, answer) = oneshot::channel();
                let _nobody_counts = answers.send(answer);
                SourceEvent::Revoked { partitions: vec![partition], drained }
            }
            1 => SourceEvent::Lost(vec![partition]),
            _ => {
                let (sender, inbox) = mpsc::channel::<Box<dyn RecordBatch>>(4);
                let gate = Arc::new(Gate::default());
                let record = event(n, "task.created", &format!("user-{n}"), &format!("id-{n}"));
                gate.add(weight(&record));
                sender.try_send(Box::new(vec![record])).unwrap();
                inboxes.push(sender);
                SourceEvent::Assigned(vec![Assignment { partition, start: n, log_start: n, committed: None, inbox, gate }])
            }
        };
        if source.send(told).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(0..30))).await;
    }
}

/// F48: a shutdown ends within its time, whatever the group does meanwhile, and whoever waits for a drain is answered.
#[tokio::test(start_paused = true)]
async fn a_shutdown_in_a_storm_of_rebalances_ends_in_time() {
    for (takes, expected) in [(3, Some(Drained::Clean)), (3600, None)] {
        let setup = Setup { timeout: seconds(7200), ..Setup::default() }.and_async("test", move |_| {
            async move {
                tokio::time::sleep(seconds(takes)).await;
                Ok(Handled::Done)
            }
            .boxed()
        });
        let rig = Rig::start(setup);
        let (answers, mut asked) = mpsc::unbounded_channel();
        let mut storms = JoinSet::new();
        for _ in 0..3 {
            storms.spawn(storm(rig.source.clone(), answers.clone()));
        }
        drop(answers);
        tokio::time::sleep(seconds(20)).await;
        let begun = Instant::now();
        let metrics = rig.metrics.clone();
        let ended = timeout(seconds(60), rig.stop()).await.expect("a minute later it still runs").unwrap();
        assert!(begun.elapsed() < seconds(32), "drain_timeout is 25 s: {:?}", begun.elapsed());
        assert!(expected.is_none_or(|expected| ended == expected), "{ended:?}");
        storms.join_all().await;
        while let Some(answer) = asked.recv().await {
            // Answered, or dropped with the engine: nobody waits any more.
            let _either = timeout(seconds(1), answer).await.expect("somebody still waits for a drain");
        }
        assert_eq!(metrics.conservation_error.get(), 0);
    }
}
