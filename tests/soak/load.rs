//! The load: events at a steady rate through the producer's `POST /events`, asked again until they are stored; and what others write.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;

use crate::{
    crew::Crew,
    events::{line, poison, twice},
};

/// Between two requests.
const BEAT: Duration = Duration::from_millis(100);
/// Most events of one request.
const BATCH: usize = 500;
/// An event that is sent twice comes again so many events later.
const LATER: u64 = 50;

/// An event that the producer said it had stored.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub event_id: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// What was sent, and what was answered.
#[derive(Default)]
pub struct Sent {
    pub accepted: Mutex<Vec<Accepted>>,
    /// Requests that were answered with something else than 202, or not at all.
    pub refused: Mutex<usize>,
    stop: AtomicBool,
}

impl Sent {
    /// No new events from now on; what is queued is still sent.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends until stopped, and returns how many different events there were.
pub async fn produce(crew: Arc<Crew>, sent: Arc<Sent>, seed: u64, rate: u64) -> u64 {
    let client = reqwest::Client::new();
    let kafka = crew.stack.kafka();
    let mut beat = tokio::time::interval(BEAT);
    let mut queue = VecDeque::new();
    let (mut n, mut beats, mut foreign) = (0, 0, tokio::task::JoinSet::new());
    loop {
        beat.tick().await;
        let stopped = sent.stop.load(Ordering::Relaxed);
        // Late beats come at once, one after another: the rate holds over any outage.
        beats += u64::from(!stopped);
        while n < beats * rate / 10 {
            queue.push_back(line(seed, n));
            if n >= LATER && twice(seed, n - LATER) {
                queue.push_back(line(seed, n - LATER));
            }
            if let Some(poison) = poison(seed, n) {
                let kafka = kafka.clone();
                // Whether it is written shows in the log.
                foreign.spawn(async move { kafka.try_produce_raw(poison.topic, Some(&poison.key), Some(&poison.value), &[]).await });
            }
            n += 1;
        }
        send(&client, &crew, &sent, &mut queue).await;
        if stopped && queue.is_empty() {
            break;
        }
    }
    drop(foreign.join_all().await);
    n
}

/// One request. What was not stored stays in the queue, in order; what may have been stored is sent again, with its id.
async fn send(client: &reqwest::Client, crew: &Crew, sent: &Sent, queue: &mut VecDeque<String>) {
    let batch: Vec<_> = queue.iter().take(BATCH).cloned().collect();
    let Some(url) = crew.publish_url().await.filter(|_| !batch.is_empty()) else { return };
    let request = client.post(url).header("content-type", "application/x-ndjson").body(batch.join("\n"));
    let answer = match request.timeout(Duration::from_secs(45)).send().await {
        Ok(response) => {
            let status = response.status().as_u16();
            (status, serde_json::from_str(&response.text().await.unwrap_or_default()).unwrap_or_default())
        }
        Err(_) => (0, Value::Null),
    };
    if answer.0 != 202 {
        *sent.refused.lock().unwrap() += 1;
    }
    let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let stored: Vec<_> = answer.1["events"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|event| Accepted {
            event_id: text(event, "event_id"),
            topic: text(event, "topic"),
            partition: event["partition"].as_i64().unwrap() as i32,
            offset: event["offset"].as_i64().unwrap(),
        })
        .collect();
    assert!(answer.0 != 202 || stored.len() == batch.len(), "202 for {} of {}: {}", stored.len(), batch.len(), answer.1);
    // Each answered event stands for one line of the request; a copy may stand there too.
    for event in &stored {
        let at = queue.iter().take(BATCH).position(|line| line.contains(&event.event_id)).unwrap();
        queue.remove(at);
    }
    sent.accepted.lock().unwrap().extend(stored);
}
