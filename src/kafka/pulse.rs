//! Whether the brokers are there, asked again and again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{
    KafkaError,
    client::{Clients, Logs},
    native,
    token::Supplied,
};

/// Whether the brokers answer, asked every 2 s by a thread of its own: false at most 6 s after they went away.
pub struct Pulse {
    up: Arc<AtomicBool>,
    stop: Option<mpsc::SyncSender<()>>,
}

/// Time between two questions.
const PULSE: Duration = Duration::from_secs(2);
/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(4);

impl Pulse {
    /// Starts asking; `also` runs after each answer with whether there was one.
    ///
    /// # Errors
    /// Where the client or its thread cannot be made.
    pub fn start(clients: &Clients, mut also: impl FnMut(&BaseConsumer<Logs>, bool) + Send + 'static) -> Result<Self, KafkaError> {
        let probe: Supplied<BaseConsumer<Logs>> = clients.create(&clients.admin(), Logs::quiet())?;
        let up = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = mpsc::sync_channel(1);
        let clients = clients.clone();
        let shared = Arc::clone(&up);
        thread::Builder::new()
            .name("kafka-pulse".to_owned())
            .spawn(move || {
                let brokers = clients.brokers();
                let mut first = true;
                loop {
                    let answer = native::ping(probe.client(), PATIENCE);
                    // Its logs and errors wait in the queue that a poll serves.
                    while probe.poll(Duration::ZERO).is_some() {}
                    let is_up = answer.is_ok();
                    let was_up = shared.swap(is_up, Ordering::Relaxed);
                    if let Err(error) = &answer
                        && (was_up || first)
                    {
                        tracing::warn!(kafka.brokers = %brokers, error = %clients.sort(error), "kafka does not answer, trying again");
                    } else if is_up && !was_up && !first {
                        tracing::info!(kafka.brokers = %brokers, "kafka answers again");
                    }
                    first = false;
                    also(&probe, is_up);
                    let wait = if is_up { PULSE } else { Duration::from_millis(500) };
                    if !matches!(stopped.recv_timeout(wait), Err(mpsc::RecvTimeoutError::Timeout)) {
                        return;
                    }
                }
            })
            .map_err(|error| KafkaError::Refused(format!("no thread: {error}")))?;
        Ok(Self { up, stop: Some(stop) })
    }

    /// Whether the last question was answered.
    pub fn brokers_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }
}

impl Drop for Pulse {
    /// The thread ends by itself after its current question.
    fn drop(&mut self) {
        self.stop.take();
    }
}
