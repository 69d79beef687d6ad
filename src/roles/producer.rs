//! The producer role: events over HTTP to Kafka until told to stop, or an input to its end.

use std::{io, sync::Arc};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    Input, Options, RunError,
    brokers::Brokers,
    ingest::{Told, ingest},
    input::{self, Opened},
    intake::Intake,
    schedules,
    service::Service,
};
use crate::{
    config::{Config, Role},
    event::Catalog,
    health::Part,
    publish::Publishing,
    shutdown::Shutdown,
    telemetry::Metrics,
};

/// How long an input waits for acknowledgements: nobody waits for an answer, and stopping half-way costs a person's time.
const INPUT_DELIVERY_TIMEOUT: &str = "300000";

/// Runs the producer role: publishes an input where there is one, else listens until `shutdown`.
///
/// # Errors
/// A port in use, lines that are not stored, a fatal producer, or requests in flight past `engine.drain_timeout`.
pub async fn run(config: &Config, catalog: Arc<Catalog>, options: Options, shutdown: Shutdown) -> Result<(), RunError> {
    let input = input::choose(options.input.clone(), options.serve, &io::stdin()).map_err(anyhow::Error::from)?;
    match input {
        Some(input) => read(config, catalog, &input, &options, &shutdown).await,
        // Boxed: it holds the brokers and both listeners.
        None => Box::pin(serve(config, catalog, &options, &shutdown)).await,
    }
}

/// The service: listeners, Kafka, and the way out of both.
async fn serve(config: &Config, catalog: Arc<Catalog>, options: &Options, shutdown: &Shutdown) -> Result<(), RunError> {
    let service = Service::bind(config, Role::Producer).await?;
    let intake = Intake::bind(config).await?;
    let brokers = Brokers::connect(config, &catalog, &[]).map_err(anyhow::Error::from)?;
    tracing::info!(
        kafka.brokers = brokers.clients().brokers(),
        catalog = %catalog.origin(),
        http.listen = service.address(),
        publish.listen = intake.http_address(),
        publish.grpc_listen = intake.grpc_address(),
        "producer started"
    );
    intake.warn_if_open(config);
    // On the health page before anyone can ask: not ready until a broker has answered.
    let (part, health, metrics) = (service.health.part(Part::Brokers), service.health.clone(), service.metrics.clone());
    let work = async {
        brokers.wait(options.exit_if_unreachable, shutdown).await?;
        let ticks = schedules::run(&brokers, Arc::clone(&catalog), &health, &metrics, shutdown);
        let intake = intake.serve(&brokers, catalog, &health, metrics.clone(), shutdown);
        tokio::select! {
            never = brokers.watch(&part) => match never {},
            result = async { tokio::try_join!(intake, ticks) } => drop(result?),
        }
        brokers.flush(config.engine.drain_timeout).await
    };
    service.run(shutdown, work).await
}

/// Publishes an input to its end and tells what became of it.
async fn read(config: &Config, catalog: Arc<Catalog>, input: &Input, options: &Options, shutdown: &Shutdown) -> Result<(), RunError> {
    let opened = match input {
        Input::Stdin => Opened::stdin().map_err(|error| anyhow::anyhow!("standard input: {error}"))?,
        Input::File(path) => Opened::file(path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?,
    };
    let brokers = Brokers::connect(&patient(config), &catalog, &[]).map_err(anyhow::Error::from)?;
    let (config, clients) = (brokers.config(), brokers.clients());
    tokio::select! {
        answer = clients.wait_for_brokers(options.exit_if_unreachable) => answer.map_err(anyhow::Error::from)?,
        () = shutdown.draining() => return Err(anyhow::anyhow!("stopped by a signal before anything was read").into()),
    }
    let publishing = Publishing::new(config, catalog, brokers.publisher(), Metrics::new(Role::Producer.name()));
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
