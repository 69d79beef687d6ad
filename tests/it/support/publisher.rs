//! A publisher that does what a test says.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use worker::engine::ports::{Acked, Message, PublishError, Publisher};

/// Keeps what is published, in order, and acknowledges it on partition 0 of its topic when the test lets it.
pub struct FakePublisher {
    state: Mutex<State>,
    /// One permit per acknowledgement.
    acks: Semaphore,
}

#[derive(Default)]
struct State {
    queued: Vec<Message>,
    answers: VecDeque<Option<PublishError>>,
    ends: HashMap<Arc<str>, i64>,
}

impl FakePublisher {
    /// Acknowledges at once.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), acks: Semaphore::new(Semaphore::MAX_PERMITS) })
    }

    /// Acknowledges only as often as [`FakePublisher::acknowledge`] says.
    pub fn holding() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), acks: Semaphore::new(0) })
    }

    /// Lets `count` publishes be acknowledged.
    pub fn acknowledge(&self, count: usize) {
        self.acks.add_permits(count);
    }

    /// The next publishes end so, in order; `None` is an acknowledgement, as is everything after.
    pub fn answer(&self, answers: impl IntoIterator<Item = Option<PublishError>>) {
        self.state.lock().unwrap().answers.extend(answers);
    }

    /// Everything that was queued, in order.
    pub fn queued(&self) -> Vec<Message> {
        self.state.lock().unwrap().queued.clone()
    }
}

impl Publisher for FakePublisher {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<Acked, PublishError>> {
        Box::pin(async move {
            let offset = {
                let mut state = self.state.lock().unwrap();
                let answer = state.answers.pop_front().flatten();
                // A full queue and a record that is too long are found out at once, as librdkafka does.
                if let Some(error @ (PublishError::QueueFull | PublishError::TooLarge)) = answer {
                    return Err(error);
                }
                let end = state.ends.entry(Arc::clone(&message.topic)).or_default();
                let offset = *end;
                *end += 1;
                state.queued.push(message);
                answer.map_or(Ok(offset), Err)
            };
            self.acks.acquire().await.unwrap().forget();
            offset.map(|offset| Acked { partition: 0, offset })
        })
    }
}
