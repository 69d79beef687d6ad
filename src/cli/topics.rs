//! `worker topics plan|apply`: the catalogue's topics beside the brokers'. It creates what is missing and changes nothing.

mod plan;
mod view;

use std::time::Duration;

use clap::Subcommand;

use self::plan::{Plan, Wanted};
use super::{Exit, Format, Globals, out};
use crate::{
    config::Loaded,
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
    /// Show which topics are missing and which differ; exit 3 where one is missing, 0 where none is
    Plan(Profile),
    /// Show the plan, then create the missing topics; those that differ are left as they are. Exit 1 where one was refused
    Apply(Profile),
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

/// Runs it.
///
/// # Errors
/// Where the configuration cannot be used, there is no such profile, or no broker answers.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let loaded = globals.load_and_warn(None)?;
    let (profile, apply) = match &args.command {
        What::Plan(profile) => (profile, false),
        What::Apply(profile) => (profile, true),
    };
    let wanted = wanted(&loaded, &profile.profile)?;
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
    let plan = Plan::new(wanted, admin.describe(&names).await?);
    let results = if apply { create(&admin, &plan).await? } else { Vec::new() };
    let text = match profile.output {
        Format::Json => view::json(&plan, apply.then_some(&results), clients.brokers(), &profile.profile)?,
        Format::Table => view::table(&plan, apply.then_some(&results), clients.brokers(), &profile.profile),
    };
    out(&text)?;
    Ok(match (apply, plan.missing().next()) {
        (false, Some(_)) => Exit::Pending,
        (true, _) if results.iter().any(|(_, result)| result.is_err()) => Exit::Error,
        _ => Exit::Ok,
    })
}

/// What this deployment needs: the catalogue's topics in `profile`, the DLQ, and what else it is configured to read.
fn wanted(loaded: &Loaded, profile: &str) -> anyhow::Result<Vec<Wanted>> {
    let catalog = roles::catalog(loaded)?;
    let Some(specs) = catalog.topic_specs(profile) else {
        let known: Vec<_> = catalog.profiles().collect();
        return Err(RunError::Usage(format!("the catalogue has no profile `{profile}`; it has {}", known.join(", "))).into());
    };
    let config = &loaded.config;
    let extra = config.kafka.topics.iter().flatten().map(|topic| catalog.topic(topic).unwrap_or(topic));
    Ok(plan::wanted(&specs, &config.dlq.topic, extra))
}

/// Creates what is missing; Kafka's answer for each. That somebody else was faster is no refusal.
async fn create(admin: &TopicAdmin, plan: &Plan) -> Result<Vec<(String, Result<(), String>)>, KafkaError> {
    let specs: Vec<_> = plan.missing().map(|wanted| wanted.spec.clone()).collect();
    let results = admin.create(&specs).await?;
    let (mut refused, mut answers) = (Vec::new(), Vec::new());
    for (topic, result) in results {
        if result.is_err() {
            refused.push(topic.clone());
        }
        answers.push((topic, result.map_err(|error| error.to_string())));
    }
    if !refused.is_empty() {
        let there = admin.describe(&refused).await?;
        let there: Vec<_> = there.into_iter().flatten().map(|topic| topic.name).collect();
        answers.iter_mut().filter(|(topic, _)| there.contains(topic)).for_each(|(_, result)| *result = Ok(()));
    }
    Ok(answers)
}
