//! The producer role: events over HTTP to Kafka until told to stop, or an input to its end.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Input, Options, RunError,
    brokers::Brokers,
    ingest::{Told, ingest},
    input::{self, Opened},
};
use crate::{
    config::{Config, Role},
    event::Catalog,
    health::{Health, Part, Reporter},
    http::{self, Requests, auth, ops, publish},
    publish::Publishing,
    shutdown::Shutdown,
    telemetry::Metrics,
};

/// How long an input waits for acknowledgements: nobody waits for an answer, and stopping half-way costs a person's time.
const INPUT_DELIVERY_TIMEOUT: &str = "300000";
/// Between two looks at the brokers' state.
const WATCH: Duration = Duration::from_millis(250);
/// Time for the last scrape of the ops listener at the end.
const LAST_SCRAPE: Duration = Duration::from_secs(1);

/// Runs the producer role: publishes an input where there is one, else listens until `shutdown`.
///
/// # Errors
/// A port in use, lines that are not stored, a fatal producer, or requests in flight past `engine.drain_timeout`.
pub async fn run(config: &Config, catalog: Arc<Catalog>, options: Options, shutdown: Shutdown) -> Result<(), RunError> {
    let input = input::choose(options.input.clone(), options.serve, &io::stdin()).map_err(anyhow::Error::from)?;
    match input {
        Some(input) => read(config, catalog, &input, &options, &shutdown).await,
        None => serve(config, catalog, &options, &shutdown).await,
    }
}

/// The service: listeners, Kafka, and the way out of both.
async fn serve(config: &Config, catalog: Arc<Catalog>, options: &Options, shutdown: &Shutdown) -> Result<(), RunError> {
    let metrics = Metrics::new(Role::Producer.name());
    let health = Health::new();
    // Before anyone can ask: not ready until a broker has answered.
    health.part(Part::Brokers);
    let ops = http::bind("http.listen", &config.http.listen).await.map_err(anyhow::Error::from)?;
    let api = http::bind("publish.listen", &config.publish.listen).await.map_err(anyhow::Error::from)?;
    let brokers = connect(config, &catalog)?;
    announce(brokers.config(), &catalog, &ops, &api);
    let publishing = Arc::new(Publishing::new(config, catalog, brokers.publisher(), metrics.clone()));

    let last = CancellationToken::new();
    let mut background = JoinSet::new();
    background.spawn(http::serve(ops, ops::router(health.clone(), metrics), last.clone()));
    let work = async {
        if let limit @ Some(_) = options.exit_if_unreachable {
            wait_for_brokers(&brokers, limit, shutdown).await?;
        }
        listen(api, config, publishing, &brokers, &health, shutdown).await?;
        match brokers.close(config.engine.drain_timeout).await {
            0 => Ok(()),
            running => Err(RunError::DrainDeadline { running, after: config.engine.drain_timeout }),
        }
    };
    let result = tokio::select! {
        result = work => result,
        Some(ended) = background.join_next() => Err(anyhow::anyhow!("the http listener ended: {ended:?}").into()),
    };
    last.cancel();
    let _slow_scraper = timeout(LAST_SCRAPE, async { while background.join_next().await.is_some() {} }).await;
    result
}

/// Serves the publish API until `shutdown`, then gives the requests in flight `engine.drain_timeout` to finish; not ready from the signal on.
/// Mirrors the brokers' state into `health` meanwhile.
///
/// # Errors
/// A producer beyond repair, or requests past the deadline.
pub(super) async fn listen(
    api: TcpListener,
    config: &Config,
    publishing: Arc<Publishing>,
    brokers: &Brokers,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<(), RunError> {
    let part = health.part(Part::Brokers);
    let limit = config.engine.drain_timeout;
    let requests = Requests::default();
    let router = auth::guard(publish::router(Arc::clone(&publishing), part.clone()), config.publish.api_token.expose());
    let deadline = async {
        shutdown.draining().await;
        health.drain();
        tokio::time::sleep(limit).await;
    };
    let result = tokio::select! {
        served = http::serve(api, requests.count(router), shutdown.token()) => Ok(served.map_err(anyhow::Error::from)?),
        () = deadline => Err(RunError::DrainDeadline { running: requests.open(), after: limit }),
        error = publishing.fatal() => Err(RunError::KafkaFatal(error)),
        never = watch(brokers, &part) => match never {},
    };
    // An idle listener ends before the deadline's branch is looked at.
    health.drain();
    result
}

/// Handles to the brokers. No consumer of this process reads what is written.
fn connect(config: &Config, catalog: &Catalog) -> Result<Brokers, RunError> {
    let brokers = Brokers::connect(config, catalog, &[]).map_err(anyhow::Error::from)?;
    if brokers.embedded() {
        tracing::warn!("the brokers are embedded in this process: what is published ends with it");
    }
    Ok(brokers)
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

/// Mirrors the client's view of the brokers into the health page, for ever.
async fn watch(brokers: &Brokers, part: &Reporter) -> Infallible {
    let mut ticks = tokio::time::interval(WATCH);
    loop {
        ticks.tick().await;
        match brokers.up() {
            true => part.ok(),
            false => part.fail(format!("no Kafka broker answers at {}", brokers.clients().brokers())),
        }
    }
}

/// Waits until a broker answers, or a signal; `None`: for ever.
async fn wait_for_brokers(brokers: &Brokers, limit: Option<Duration>, shutdown: &Shutdown) -> Result<(), RunError> {
    tokio::select! {
        answer = brokers.clients().wait_for_brokers(limit) => Ok(answer.map_err(anyhow::Error::from)?),
        () = shutdown.draining() => Ok(()),
    }
}

/// Publishes an input to its end and tells what became of it.
async fn read(config: &Config, catalog: Arc<Catalog>, input: &Input, options: &Options, shutdown: &Shutdown) -> Result<(), RunError> {
    let opened = match input {
        Input::Stdin => Opened::stdin().map_err(|error| anyhow::anyhow!("standard input: {error}"))?,
        Input::File(path) => Opened::file(path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?,
    };
    let config = patient(config);
    let brokers = connect(&config, &catalog)?;
    wait_for_brokers(&brokers, options.exit_if_unreachable, shutdown).await?;
    let publishing = Publishing::new(&config, catalog, brokers.publisher(), Metrics::new(Role::Producer.name()));
    let bar = progress(opened.size);
    let lines = opened.lines().map_err(anyhow::Error::from)?;
    let limit = config.engine.drain_timeout;
    let topic = options.topic.as_deref();
    let mut tell = |told: Told<'_>| tell(&bar, &told, brokers.clients().brokers());
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
