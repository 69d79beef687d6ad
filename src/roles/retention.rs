//! A topic that keeps records for longer than duplicates are recognised is said once, at start.

use std::{convert::Infallible, time::Duration};

use crate::kafka::{KafkaError, client::Clients, topics::TopicAdmin};

/// Between two questions about topics that are not there yet, or while no broker answers.
const AGAIN: Duration = Duration::from_secs(30);

/// Says it of each of `topics`, once it is there; then waits for ever.
pub(super) async fn warn(clients: &Clients, mut topics: Vec<String>, remembered: Duration) -> Infallible {
    while !topics.is_empty() {
        if let Err(error) = look(clients, &mut topics, remembered).await {
            tracing::debug!(%error, "how long topics keep their records cannot be asked for");
        }
        if !topics.is_empty() {
            tokio::time::sleep(AGAIN).await;
        }
    }
    std::future::pending().await
}

/// Looks at those that are there, and takes them off the list.
async fn look(clients: &Clients, topics: &mut Vec<String>, remembered: Duration) -> Result<(), KafkaError> {
    for topic in TopicAdmin::new(clients)?.describe(topics).await?.into_iter().flatten() {
        topics.retain(|wanted| *wanted != topic.name);
        if let Some(error) = &topic.hidden {
            tracing::debug!(kafka.topic = topic.name, %error, "how long the topic keeps its records is hidden");
        } else if let Some(why) = topic.outlives(remembered) {
            tracing::warn!(kafka.topic = topic.name, "the topic {why}; raise store.retention, or lower the topic's retention.ms");
        }
    }
    Ok(())
}
