//! The brokers: each configured and each advertised address, and whether Kafka answers there.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{net::TcpStream, time::timeout};

use super::finding::{Finding, Level};
use crate::{
    config::Config,
    kafka::{KafkaError, client::Clients, topics::TopicAdmin},
};

/// Time for one connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Time for Kafka's first answer, with TLS and SASL.
const ANSWER: Duration = Duration::from_secs(8);

/// The findings, and an admin client where the brokers answer.
pub(super) async fn examine(config: &Config) -> (Vec<Finding>, Option<TopicAdmin>) {
    if config.kafka.is_embedded() {
        return (vec![Finding::ok("kafka", "embedded: a broker in the worker's own process, with its topics, which ends with it")], None);
    }
    let clients = match Clients::new(config) {
        Ok(clients) => clients,
        Err(error) => return (vec![unreachable(&error, false)], None),
    };
    let configured = config.kafka.brokers.split(',').map(str::trim).filter(|address| !address.is_empty());
    let mut findings = join_all(configured.map(|address| connect(address, "kafka.brokers"))).await;
    match ask(&clients).await {
        Ok((admin, found, advertised)) => {
            findings.extend(found);
            findings.extend(join_all(advertised.iter().map(|address| connect(address, "advertised listener"))).await);
            (findings, Some(admin))
        }
        Err(error) => {
            let open = findings.iter().any(|found| found.level == Level::Ok);
            findings.push(unreachable(&error, open));
            (findings, None)
        }
    }
}

async fn ask(clients: &Clients) -> Result<(TopicAdmin, Vec<Finding>, Vec<String>), KafkaError> {
    clients.wait_for_brokers(Some(ANSWER)).await?;
    let admin = TopicAdmin::new(clients)?;
    let took = admin.ping().await?;
    let brokers = admin.brokers().await?;
    let cluster = admin.cluster_id().await?.unwrap_or_else(|| "unnamed".to_owned());
    let found = format!("cluster {cluster} answers in {} ms; {} brokers (Kafka tells clients no version)", took.as_millis(), brokers.len());
    let clock = "Kafka tells clients no time, so its clock is not checked; record timestamps and retention are told on it";
    let advertised = brokers.into_iter().map(|broker| broker.address).collect();
    Ok((admin, vec![Finding::ok("kafka", found), Finding::ok("kafka clock", clock)], advertised))
}

/// `open`: something accepts connections at one of the addresses.
fn unreachable(error: &KafkaError, open: bool) -> Finding {
    let fix = match error {
        KafkaError::Config(_) => "correct that property of [kafka.properties]",
        KafkaError::Unreachable { .. } if open => {
            "the port is open, so mind what that listener wants in [kafka.properties]: security.protocol, ssl.*, sasl.*; RUST_LOG=debug shows its refusals"
        }
        KafkaError::Unreachable { .. } => "start Kafka, or correct kafka.brokers",
        KafkaError::Forbidden(_) => "give this client's user the right, or correct sasl.* in [kafka.properties]",
        KafkaError::NoToken(_) => "correct sasl.oauthbearer.* in [kafka.properties], or see why the provider gives no token",
        KafkaError::Refused(_) => "see the brokers' log",
    };
    Finding::fail("kafka", error.to_string(), fix)
}

/// Whether anything listens at `host:port`.
pub(super) async fn connect(address: &str, what: &str) -> Finding {
    let part = format!("{what} {address}");
    match dial(address).await {
        Ok(()) => Finding::ok(part, "accepts connections"),
        Err(error) if what == "advertised listener" => Finding::fail(
            part,
            error,
            "clients are sent there after the first contact: set the broker's advertised.listeners to what this machine reaches",
        ),
        Err(error) => Finding::fail(part, error, "start it, or correct the address"),
    }
}

/// Opens a connection and closes it.
pub(super) async fn dial(address: &str) -> Result<(), String> {
    match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("no connection: {error}")),
        Err(_) => Err(format!("no connection within {} s", CONNECT.as_secs())),
    }
}
