//! `worker topics plan|apply|lint|export`: the catalogue's topics beside the brokers', and the catalogue itself.

mod apply;
mod export;
mod lint;
mod plan;
mod view;

use std::time::Duration;

use clap::Subcommand;

use self::{
    plan::{Gone, Plan, Risk, Wanted},
    view::Place,
};
use super::{Exit, Format, Globals, out};
use crate::{
    config::{Loaded, handlers::HandlerConfig},
    event::{Catalog, record::TopicPartition},
    kafka::{KafkaError, client::Clients, topics::TopicAdmin},
    roles::{self, RunError},
};

/// A person or a pipeline waits: brokers that are away are told soon.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show which topics are missing and which differ; exit 3 where a change is pending, 0 where none is
    Plan(Profile),
    /// Show the plan, then make its changes; risky ones only where allowed. Exit 1 where one was refused, 3 where one was held back
    Apply(ApplyArgs),
    /// Look for what is legal and yet wrong in catalogue and configuration; asks no broker. Exit 1 where something is
    Lint(lint::Args),
    /// Write the catalogue as an AsyncAPI document, or as a page for people
    Export(export::Args),
}

#[derive(Debug, clap::Args)]
struct Profile {
    /// Replication, retention and partitions as the catalogue's profile of that name has them
    #[arg(long, default_value = "local")]
    profile: String,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct ApplyArgs {
    #[command(flatten)]
    profile: Profile,
    /// A risk to take; repeat it for more
    #[arg(long, value_name = "RISK", value_enum)]
    allow: Vec<Risk>,
}

/// Runs it.
///
/// # Errors
/// Where the configuration cannot be used, there is no such profile, or no broker answers.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    match args.command {
        What::Lint(args) => lint::run(&args, globals),
        What::Export(args) => export::run(&args, globals),
        What::Plan(profile) => {
            let (plan, desk) = Desk::plan(globals, &profile).await?;
            let place = desk.place(&profile);
            out(&match profile.output {
                Format::Json => view::json(&plan, &place, false)?,
                Format::Table => view::table(&plan, &place, &[]) + &view::pending(&plan),
            })?;
            Ok(if plan.pending() > 0 { Exit::Pending } else { Exit::Ok })
        }
        What::Apply(ApplyArgs { profile, allow }) => {
            let (mut plan, desk) = Desk::plan(globals, &profile).await?;
            let place = desk.place(&profile);
            if profile.output == Format::Table {
                out(&view::table(&plan, &place, &allow))?;
            }
            apply::apply(&mut plan, &allow, &desk.admin).await?;
            out(&match profile.output {
                Format::Json => view::json(&plan, &place, true)?,
                Format::Table => view::done(&plan),
            })?;
            Ok(match (plan.refused(), plan.pending()) {
                (0, 0) => Exit::Ok,
                (0, _) => Exit::Pending,
                _ => Exit::Error,
            })
        }
    }
}

/// The brokers, and who asks them.
struct Desk {
    clients: Clients,
    admin: TopicAdmin,
}

impl Desk {
    /// Compares what is declared with what the brokers have.
    async fn plan(globals: &Globals, profile: &Profile) -> anyhow::Result<(Plan, Self)> {
        let loaded = globals.load_and_warn(None)?;
        let catalog = roles::catalog(&loaded)?;
        let wanted = wanted(&loaded, &catalog, &profile.profile)?;
        if loaded.config.kafka.is_embedded() {
            return Err(RunError::Usage(
                "kafka.brokers is \"embedded\": that broker makes every topic when it starts; name the brokers to plan for, such as --set kafka.brokers=localhost:9092".into(),
            )
            .into());
        }
        let clients = Clients::new(&loaded.config)?;
        clients.wait_for_brokers(Some(PATIENCE)).await?;
        let admin = TopicAdmin::new(&clients)?;
        let names: Vec<_> = wanted.iter().map(|topic| topic.spec.name.clone()).collect();
        let gone = gone(catalog.gone(), &admin).await?;
        Ok((Plan::new(wanted, admin.describe(&names).await?, gone), Self { clients, admin }))
    }

    fn place<'a>(&'a self, profile: &'a Profile) -> Place<'a> {
        Place { brokers: self.clients.brokers(), profile: &profile.profile }
    }
}

/// What this deployment needs: the catalogue's topics in `profile`, the DLQ, and what else it is configured to read.
fn wanted(loaded: &Loaded, catalog: &Catalog, profile: &str) -> Result<Vec<Wanted>, RunError> {
    let Some((specs, replication)) = catalog.topic_specs(profile).zip(catalog.replication(profile)) else {
        let known: Vec<_> = catalog.profiles().collect();
        return Err(RunError::Usage(format!("the catalogue has no profile `{profile}`; it has {}", known.join(", "))));
    };
    let config = &loaded.config;
    let forwarded = config.handlers.iter().filter_map(HandlerConfig::writes_to);
    let extra = config.kafka.topics.iter().flatten().chain(forwarded).map(|topic| catalog.topic(topic).unwrap_or(topic));
    let wanted = plan::wanted(&specs, replication, &config.dlq.topic, extra);
    match wanted.iter().find(|topic| catalog.gone().contains(&topic.spec.name)) {
        Some(topic) => Err(RunError::Usage(format!(
            "topics.yaml lists {} under `gone`, and this deployment needs it ({}); take it out of the one or the other",
            topic.spec.name, topic.because
        ))),
        None => Ok(wanted),
    }
}

/// Which of these topics are still there, with how many records.
async fn gone(names: &[String], admin: &TopicAdmin) -> Result<Vec<Gone>, KafkaError> {
    let mut gone = Vec::with_capacity(names.len());
    for (name, found) in names.iter().zip(admin.describe(names).await?) {
        let holds = match found {
            None => None,
            Some(found) => {
                let partitions: Vec<_> = (0..).map(|number| TopicPartition::new(name.as_str(), number)).take(found.partitions).collect();
                // A partition without a leader, or one that may not be read, does not keep the plan from being shown.
                let count = admin.log_bounds(&partitions).await.map(|bounds| bounds.into_iter().map(|(low, end)| end - low).sum::<i64>());
                Some(count.map_or_else(|_| "records nobody can count now".to_owned(), |count| format!("{count} records")))
            }
        };
        gone.push((name.clone(), holds));
    }
    Ok(gone)
}
