//! `worker events send`: one event from flags, validated, published, acknowledged.

use std::time::Duration;

use chrono::{SubsecRound, Utc};
use serde_json::{Map, Value, json};

use crate::{
    cli::{Exit, Globals, out},
    config::http::PublishValidate,
    engine::ports::Message,
    event::prepare::{Options, prepare},
    roles::{self, RunError, brokers::Brokers},
};

/// A person waits at a terminal: brokers that are away are told soon.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The event's type, such as task.completed
    #[arg(long = "type", value_name = "TYPE")]
    event_type: String,
    /// Whose event it is: the record's key
    #[arg(long)]
    user: String,
    /// The task that it is about, a number or a UUID
    #[arg(long)]
    task: Option<String>,
    /// Its data, as a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    data: String,
    /// Its id, for a repeat on purpose; new where none is given
    #[arg(long)]
    id: Option<String>,
    /// Publish to this topic instead of the catalogue's first for the type
    #[arg(long)]
    topic: Option<String>,
    /// Print what would be published, and publish nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs it.
///
/// # Errors
/// Where the event is refused by the catalogue or the brokers.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let loaded = globals.load_and_warn(None)?;
    let catalog = roles::catalog(&loaded)?;
    let config = &loaded.config;
    let text = serde_json::to_vec(&event(&args)?)?;
    let options = Options {
        topic: args.topic.as_deref(),
        validate: config.publish.validate == PublishValidate::Catalog,
        user_optional: false,
        now: Utc::now().trunc_subsecs(3),
        source: &config.app_id,
    };
    let prepared = prepare(&catalog, &text, &options)?;
    if args.dry_run {
        out(&format!("{}\n", std::str::from_utf8(&prepared.value)?))?;
        return Ok(Exit::Ok);
    }
    let brokers = Brokers::connect(config, &catalog, &[]).map_err(anyhow::Error::from)?;
    brokers.clients().wait_for_brokers(Some(PATIENCE)).await?;
    let message = Message {
        topic: prepared.topic.clone(),
        key: prepared.user_id.map(|user| user.into_string().into()),
        value: Some(prepared.value),
        headers: Vec::new(),
        partition: None,
    };
    let acked = brokers.publisher().publish(message).await?;
    let answer = json!({ "event_id": prepared.event_id, "topic": prepared.topic, "partition": acked.partition, "offset": acked.offset });
    out(&format!("{answer}\n"))?;
    Ok(Exit::Ok)
}

fn event(args: &Args) -> Result<Value, RunError> {
    let data: Map<String, Value> =
        serde_json::from_str(&args.data).map_err(|error| RunError::Usage(format!("--data is no JSON object: {error}")))?;
    let mut event = json!({ "event_type": args.event_type, "user_id": args.user, "data": data });
    if let Some(id) = &args.id {
        event["event_id"] = id.as_str().into();
    }
    if let Some(task) = &args.task {
        // A number where it is one: that is what the catalogue tells from a UUID.
        event["task_id"] = task.parse::<i64>().map_or_else(|_| task.as_str().into(), Value::from);
    }
    Ok(event)
}
