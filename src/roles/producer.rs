//! The producer role: events over HTTP to Kafka until told to stop, or an input to its end.

use std::{io, sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Input, Options, RunError,
    ingest::{Told, ingest},
    input::{self, Opened},
};
use crate::{
    config::{Config, Role},
    event::Catalog,
    health::{Health, Part, Reporter},
    http::{self, Requests, auth, ops, publish},
    kafka::{client::Clients, embedded::Embedded, publisher::KafkaPublisher},
    publish::Publishing,
    shutdown::Shutdown,
    telemetry::Metrics,
};

/// How long an input waits for acknowledgements: nobody waits for an answer, and stopping half-way costs a person's time.
const INPUT_DELIVERY_TIMEOUT: &str = "300000";
/// The catalogue's profile that the embedded cluster is made by.
const EMBEDDED_PROFILE: &str = "local";
/// Time for the last scrape of the ops listener at the end.
const LAST_SCRAPE: Duration = Duration::from_secs(1);

/// Runs the producer role: publishes an input where there is one, else listens until `shutdown`.
///
/// # Errors
/// A port in use, lines that are not stored, a fatal producer, or requests in flight past `engine.drain_timeout`.
pub async fn run(config: &Config, catalog: Arc<Catalog>, options: Options, shutdown: Shutdown) -> Result<(), RunError> {
    let input = input::choose(options.input.clone(), options.serve, &io::stdin()).map_err(anyhow::Error::from)?;
    let (config, _embedded) = embedded(config, &catalog)?;
    match input {
        Some(input) => read(&config, catalog, &input, &options, &shutdown).await,
        None => serve(&config, catalog, &options, &shutdown).await,
    }
}

/// With `kafka.brokers = "embedded"`, the in-process cluster with the catalogue's topics, and a configuration that points to it.
fn embedded(config: &Config, catalog: &Catalog) -> Result<(Config, Option<Embedded>), RunError> {
    let mut config = config.clone();
    if !config.kafka.is_embedded() {
        return Ok((config, None));
    }
    let topics = catalog.topic_specs(EMBEDDED_PROFILE).unwrap_or_default();
    let topics: Vec<_> = topics.iter().map(|topic| (&*topic.name, topic.partitions)).collect();
    let cluster = Embedded::start(&topics).map_err(anyhow::Error::from)?;
    config.kafka.brokers = cluster.brokers().to_owned();
    tracing::warn!(kafka.brokers = config.kafka.brokers, "the brokers are embedded in this process: what is published ends with it");
    Ok((config, Some(cluster)))
}

/// The service: listeners, Kafka, and the way out of both.
async fn serve(config: &Config, catalog: Arc<Catalog>, options: &Options, shutdown: &Shutdown) -> Result<(), RunError> {
    let metrics = Metrics::new(Role::Producer.name());
    let health = Health::new();
    let brokers = health.part(Part::Brokers);
    let clients = Clients::new(config).map_err(anyhow::Error::from)?;
    let ops = http::bind("http.listen", &config.http.listen).await.map_err(anyhow::Error::from)?;
    let api = http::bind("publish.listen", &config.publish.listen).await.map_err(anyhow::Error::from)?;
    let publisher = Arc::new(KafkaPublisher::new(&clients).map_err(anyhow::Error::from)?);
    let publishing = Arc::new(Publishing::new(config, Arc::clone(&catalog), publisher.clone(), metrics.clone()));
    announce(config, &catalog, &ops, &api);

    let last = CancellationToken::new();
    let mut background = JoinSet::new();
    background.spawn(http::serve(ops, ops::router(health.clone(), metrics), last.clone()));
    background.spawn(watch(Arc::clone(&publisher), brokers.clone(), clients.brokers().to_owned(), last.clone()));
    let work = async {
        wait_for_brokers(&clients, options.exit_if_unreachable, shutdown).await?;
        let requests = Requests::default();
        let router = auth::guard(publish::router(Arc::clone(&publishing), brokers), config.publish.api_token.expose());
        drain(http::serve(api, requests.count(router), shutdown.token()), &requests, &health, config.engine.drain_timeout, shutdown)
            .await?;
        match publisher.close(config.engine.drain_timeout).await {
            0 => Ok(()),
            running => Err(RunError::DrainDeadline { running, after: config.engine.drain_timeout }),
        }
    };
    let result = tokio::select! {
        result = work => result,
        error = publishing.fatal() => Err(RunError::KafkaFatal(error)),
        Some(ended) = background.join_next() => Err(anyhow::anyhow!("a listener ended: {ended:?}").into()),
    };
    last.cancel();
    let _slow_scraper = timeout(LAST_SCRAPE, async { while background.join_next().await.is_some() {} }).await;
    result
}

/// Says at start what this process is, and what is risky about it.
fn announce(config: &Config, catalog: &Catalog, ops: &TcpListener, api: &TcpListener) {
    let address = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(
        kafka.brokers = config.kafka.brokers,
        catalog = %catalog.origin(),
        http.listen = address(ops),
        publish.listen = address(api),
        "producer started"
    );
    warn_without_token(config, api);
}

/// Anyone who reaches the address may publish: a warning where that is more than this machine.
fn warn_without_token(config: &Config, api: &TcpListener) {
    let open = api.local_addr().is_ok_and(|address| !address.ip().is_loopback());
    if open && config.publish.api_token.is_empty() {
        tracing::warn!(
            publish.listen = config.publish.listen,
            "anyone who reaches this address can publish: set publish.api_token (or DAPR_API_TOKEN), or listen on 127.0.0.1"
        );
    }
}

/// Mirrors the client's view of the brokers into the health page until `stop`.
async fn watch(publisher: Arc<KafkaPublisher>, brokers: Reporter, addresses: String, stop: CancellationToken) -> io::Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match publisher.brokers_up() {
            true => brokers.ok(),
            false => brokers.fail(format!("no Kafka broker answers at {addresses}")),
        }
    }
    Ok(())
}

/// With `--exit-if-unreachable`, an error where no broker answers in time; else nothing is waited for: requests are told what is the case.
async fn wait_for_brokers(clients: &Clients, limit: Option<Duration>, shutdown: &Shutdown) -> Result<(), RunError> {
    if limit.is_some() {
        tokio::select! {
            answer = clients.wait_for_brokers(limit) => answer.map_err(anyhow::Error::from)?,
            () = shutdown.draining() => {}
        }
    }
    Ok(())
}

/// Runs the listener until `shutdown`, then gives the requests in flight `limit` to finish; not ready from the signal on.
async fn drain(
    server: impl Future<Output = io::Result<()>>,
    requests: &Requests,
    health: &Health,
    limit: Duration,
    shutdown: &Shutdown,
) -> Result<(), RunError> {
    let deadline = async {
        shutdown.draining().await;
        health.drain();
        tokio::time::sleep(limit).await;
    };
    tokio::select! {
        served = server => Ok(served.map_err(anyhow::Error::from)?),
        () = deadline => Err(RunError::DrainDeadline { running: requests.open(), after: limit }),
    }
}

/// Publishes an input to its end and tells what became of it.
async fn read(config: &Config, catalog: Arc<Catalog>, input: &Input, options: &Options, shutdown: &Shutdown) -> Result<(), RunError> {
    let opened = match input {
        Input::Stdin => Opened::stdin().map_err(|error| anyhow::anyhow!("standard input: {error}"))?,
        Input::File(path) => Opened::file(path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?,
    };
    let config = patient(config);
    let clients = Clients::new(&config).map_err(anyhow::Error::from)?;
    tokio::select! {
        answer = clients.wait_for_brokers(options.exit_if_unreachable) => answer.map_err(anyhow::Error::from)?,
        () = shutdown.draining() => return Err(anyhow::anyhow!("stopped by a signal before anything was read").into()),
    }
    let publisher = Arc::new(KafkaPublisher::new(&clients).map_err(anyhow::Error::from)?);
    let publishing = Publishing::new(&config, catalog, publisher, Metrics::new(Role::Producer.name()));
    let bar = progress(opened.size);
    let lines = opened.lines().map_err(anyhow::Error::from)?;
    let limit = config.engine.drain_timeout;
    let topic = options.topic.as_deref();
    let mut tell = |told: Told<'_>| tell(&bar, &told, clients.brokers());
    let summary = tokio::select! {
        summary = ingest(&publishing, topic, lines, shutdown, &mut tell) => summary,
        () = async { shutdown.draining().await; tokio::time::sleep(limit).await } => {
            return Err(RunError::DrainDeadline { running: publishing.in_flight(), after: limit });
        }
    };
    bar.finish_and_clear();
    eprintln!("{summary}");
    if summary.is_success(options.partial_ok) {
        return Ok(());
    }
    let lost = summary.rejected + summary.not_stored;
    Err(anyhow::anyhow!("{lost} of {} lines were not published", summary.read).into())
}

/// The same configuration with a longer delivery timeout, unless it sets one.
fn patient(config: &Config) -> Config {
    let mut config = config.clone();
    let names = ["delivery.timeout.ms", "message.timeout.ms"];
    if !names.iter().any(|&name| config.kafka.properties.contains_key(name) || config.kafka.producer.contains_key(name)) {
        config.kafka.producer.0.insert(names[0].to_owned(), INPUT_DELIVERY_TIMEOUT.to_owned());
    }
    config
}

/// A bar of bytes where the size is known, else a count; nothing where stderr is no terminal.
fn progress(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{bar:40} {bytes}/{total_bytes}  {msg}  {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn tell(bar: &ProgressBar, told: &Told<'_>, brokers: &str) {
    match told {
        Told::Rejected(line, reason, error) => bar.suspend(|| eprintln!("line {line}: {reason}: {error}")),
        Told::Stalled(waiting) => bar.suspend(|| eprintln!("waiting for {brokers} to acknowledge {waiting} events")),
        Told::Progress(bytes, events) => {
            bar.set_position(*bytes);
            bar.set_message(format!("{events} events"));
        }
    }
}
