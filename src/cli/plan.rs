//! `worker plan`: what a load needs, before anything is deployed. Asks nobody.

use std::time::Duration;

use clap::value_parser;

use super::{Exit, Format, Globals, out, table};
use crate::{
    capacity::{Load, Needs, Pod},
    config::units::{parse_duration, parse_size},
    roles::RunError,
};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: worker plan --rate 1000 --failing 0.001 --hold 35m --handler 20ms\nWhere the figures come from: docs/capacity.md"
)]
pub struct Args {
    /// Events per second, at the peak
    #[arg(long, value_name = "EVENTS")]
    rate: f64,
    /// Part of the events that fail, such as 0.001
    #[arg(long, default_value_t = 0.001)]
    failing: f64,
    /// How long a failing event is tried: the delays of its schedule together
    #[arg(long, default_value = "36s", value_parser = parse_duration)]
    hold: Duration,
    /// How long a handler takes for one event
    #[arg(long, default_value = "10ms", value_parser = parse_duration)]
    handler: Duration,
    /// Handlers run in this process instead of behind HTTP
    #[arg(long)]
    in_process: bool,
    /// Users that the events come from
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u64).range(1..))]
    users: u64,
    /// Size of an event: key, value and headers
    #[arg(long, default_value = "400B", value_parser = parse_size)]
    event: u64,
    /// CPUs of a pod
    #[arg(long, default_value_t = 1.0)]
    cpus: f64,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Runs it. Retention, concurrency and lane length are the configuration's.
///
/// # Errors
/// A configuration that cannot be used, a figure that makes no sense.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let sensible = |name: &str, value: f64, most: f64| {
        let told = format!("--{name}: {value} makes no sense; give a number above 0, at most {most}");
        if value > 0.0 && value <= most { Ok(value) } else { Err(RunError::Usage(told)) }
    };
    let (rate, cpus) = (sensible("rate", args.rate, 1e9)?, sensible("cpus", args.cpus, 1e4)?);
    let failing = if args.failing == 0.0 { 0.0 } else { sensible("failing", args.failing, 1.0)? };
    let config = globals.load_and_warn(None)?.config;
    #[expect(clippy::cast_precision_loss, reason = "figures of a plan")]
    let (event_bytes, users, concurrency, lane_events) =
        (args.event as f64, args.users as f64, config.engine.concurrency as f64, config.engine.lane_events as f64);
    let load = Load {
        rate,
        event_bytes,
        users,
        failing,
        hold: args.hold,
        retention: config.store.retention,
        handler: args.handler,
        http: !args.in_process,
    };
    let needs = load.plan(Pod { cpus, concurrency, lane_events });
    out(&match args.output {
        Format::Table => shown(&needs),
        Format::Json => serde_json::to_string_pretty(&needs)? + "\n",
    })?;
    Ok(Exit::Ok)
}

fn shown(needs: &Needs) -> String {
    let mut table = table(["what", "needed", "because of"]);
    let mut row = |what: &str, needed: String, why: &str| {
        table.add_row([what, &needed, why]);
    };
    row("consumer pods", needs.pods.to_string(), needs.pods_by);
    row("partitions", needs.partitions.to_string(), if needs.partitions_by == "pods" { "pods, twice" } else { "commit map" });
    row("Redis memory", size(needs.redis_bytes), "store.retention, and half of it again");
    row("Redis CPU", format!("{:.1} %", needs.redis_cpu * 100.0), "one thread; above 50 % it is the limit");
    row("blocked users", needs.blocked_users.to_string(), "failing events, as long as they are tried");
    row("held events", needs.held_events.to_string(), "those, and what comes behind them");
    row("held bytes", size(needs.held_bytes), "engine.memory times the pods must be more");
    row("memory of a pod", size(needs.pod_bytes), "its share, and itself");
    row("commit map", format!("{} characters", needs.commit_map_chars), "of 3800");
    format!("{table}\n")
}

fn size(bytes: u64) -> String {
    let mib = bytes.div_ceil(1 << 20);
    if mib < 4096 { format!("{mib} MiB") } else { format!("{} GiB", mib.div_ceil(1024)) }
}
