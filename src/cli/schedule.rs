//! `worker schedule ls|next`: what fires when, by the configuration alone: no broker and no store is asked.

use anyhow::Context;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{Exit, Format, Globals, out, table};
use crate::{
    calendar::cron::Cron,
    config::{Config, schedules::ScheduleConfig},
    event::time,
    handlers::http::client::shown,
    roles::RunError,
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the schedules, each with its next tick
    Ls {
        /// How they are printed
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Show the next ticks: of all schedules, of one, or of a cron entry that is being tried out
    #[command(after_help = "Example: worker schedule next --cron '30 2 * * *' --timezone Europe/Berlin --from 2026-03-28T00:00:00Z")]
    Next(Next),
}

#[derive(Debug, clap::Args)]
struct Next {
    /// Only this schedule
    name: Option<String>,
    /// This entry instead of those of the configuration
    #[arg(long, conflicts_with = "name")]
    cron: Option<String>,
    /// The zone of --cron
    #[arg(long, requires = "cron", default_value = "UTC")]
    timezone: String,
    /// How many
    #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    count: u16,
    /// Ticks after this time (RFC 3339); default: now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<DateTime<Utc>>,
    /// How they are printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    time::parse(text).ok_or_else(|| "no time; write it like 2026-03-28T00:00:00Z".to_owned())
}

/// Runs it.
///
/// # Errors
/// A configuration that cannot be used, a schedule that there is not.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    match args.command {
        What::Ls { output } => ls(&globals.load_and_warn(None)?.config, output, Utc::now())?,
        What::Next(next) => {
            let (count, from) = (usize::from(next.count), next.from.unwrap_or_else(Utc::now));
            let chosen = chosen(&next, globals)?;
            let ticks = ticks(&chosen, from, count);
            out(&match next.output {
                Format::Table => next_table(&ticks),
                Format::Json => next_json(&ticks)?,
            })?;
        }
    }
    Ok(Exit::Ok)
}

/// Names and entries.
fn chosen(next: &Next, globals: &Globals) -> anyhow::Result<Vec<(String, Cron)>> {
    if let Some(text) = &next.cron {
        let cron = Cron::parse(text, &next.timezone).map_err(RunError::Usage)?;
        return Ok(vec![(cron.to_string(), cron)]);
    }
    let config = globals.load_and_warn(None)?.config;
    let wanted = |schedule: &&ScheduleConfig| next.name.as_ref().is_none_or(|name| *name == schedule.name);
    let chosen: Vec<_> = config.schedules.iter().filter(wanted).collect();
    if let (Some(name), []) = (&next.name, chosen.as_slice()) {
        let names: Vec<_> = config.schedules.iter().map(|schedule| schedule.name.as_str()).collect();
        return Err(RunError::Usage(format!("there is no schedule `{name}`; there is {}", listed(&names))).into());
    }
    chosen.into_iter().map(|schedule| Ok((schedule.name.clone(), cron(schedule)?))).collect()
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Checked when the configuration was loaded.
fn cron(schedule: &ScheduleConfig) -> anyhow::Result<Cron> {
    Cron::parse(&schedule.cron, &schedule.timezone).map_err(anyhow::Error::msg).with_context(|| format!("schedule `{}`", schedule.name))
}

/// The first ticks of them all, in order of time.
fn ticks(entries: &[(String, Cron)], from: DateTime<Utc>, count: usize) -> Vec<(&str, Tz, DateTime<Utc>)> {
    let mut ticks: Vec<_> = entries
        .iter()
        .flat_map(|(name, cron)| {
            let of_one = std::iter::successors(cron.next_after(from), |tick| cron.next_after(*tick)).take(count);
            of_one.map(|tick| (name.as_str(), cron.zone(), tick))
        })
        .collect();
    ticks.sort_by_key(|(_, _, tick)| *tick);
    ticks.truncate(count);
    ticks
}

fn next_table(ticks: &[(&str, Tz, DateTime<Utc>)]) -> String {
    let mut table = table(["tick", "where it fires", "zone", "schedule"]);
    for (name, zone, tick) in ticks {
        table.add_row([time::format(*tick), local(*tick, *zone), zone.name().to_owned(), (*name).to_owned()]);
    }
    format!("{table}\n")
}

fn next_json(ticks: &[(&str, Tz, DateTime<Utc>)]) -> anyhow::Result<String> {
    let object = |(name, zone, tick): &(&str, Tz, DateTime<Utc>)| json!({ "schedule": name, "tick_at": time::format(*tick), "local": local(*tick, *zone), "timezone": zone.name() });
    let ticks: Vec<Value> = ticks.iter().map(object).collect();
    Ok(serde_json::to_string_pretty(&ticks)? + "\n")
}

fn local(tick: DateTime<Utc>, zone: Tz) -> String {
    tick.with_timezone(&zone).format("%a %Y-%m-%d %H:%M:%S %Z").to_string()
}

fn ls(config: &Config, output: Format, now: DateTime<Utc>) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for schedule in &config.schedules {
        let cron = cron(schedule)?;
        let next = cron.next_after(now).map(time::format);
        rows.push((schedule, cron, next));
    }
    let text = match output {
        Format::Table => {
            let mut table = table(["schedule", "cron", "zone", "fires", "next"]);
            for (schedule, cron, next) in &rows {
                let next = next.clone().unwrap_or_else(|| "-".to_owned());
                table.add_row([schedule.name.clone(), cron.to_string(), cron.zone().name().to_owned(), fires(schedule), next]);
            }
            format!("{table}\n")
        }
        Format::Json => {
            let object = |(schedule, cron, next): &(&ScheduleConfig, Cron, Option<String>)| {
                let http = schedule.http.as_ref().map(|_| fires(schedule));
                json!({
                    "schedule": schedule.name, "cron": cron.to_string(), "timezone": cron.zone().name(), "event": schedule.event(), "http": http,
                    "next": next,
                })
            };
            serde_json::to_string_pretty(&rows.iter().map(object).collect::<Vec<_>>())? + "\n"
        }
    };
    Ok(out(&text)?)
}

/// The event, or the address without its secrets.
fn fires(schedule: &ScheduleConfig) -> String {
    match (schedule.event(), &schedule.http) {
        (Some(event), _) => event.to_owned(),
        (None, url) => url.as_deref().and_then(|url| url.parse().ok()).map(|url| shown(&url)).unwrap_or_default(),
    }
}
