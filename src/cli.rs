//! The command line: one file per subcommand, this file for what they share.
//!
//! A new subcommand is a file with `Args` and `run(args, globals) -> anyhow::Result<Exit>`, and three lines here: its `mod`, its
//! variant of [`Command`] and its arm in `Command::run`.

pub mod audit;
pub mod completions;
pub mod config;
pub mod demo;
pub mod dlq;
pub mod doctor;
pub mod events;
pub mod healthcheck;
pub mod import;
pub mod plan;
pub mod reminders;
pub mod schedule;
pub mod serve;
pub mod store;
pub mod topics;

mod columns;
mod moment;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::LazyLock,
};

use clap::{Parser, Subcommand, ValueEnum, builder::PossibleValue};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

use crate::{
    config::{Config, ConfigErrors, Flag, Loaded, Role, Sources},
    roles::RunError,
    shutdown::INTERRUPTED,
    telemetry::logs::LevelFilter,
};

/// `worker` and its arguments.
#[derive(Debug, Parser)]
#[command(
    name = "worker",
    version = VERSION.as_str(),
    about = "Publishes and consumes a team's events on Kafka or Redpanda: per-user order, retries on a schedule, dedupe, an acknowledged DLQ.",
    override_usage = "worker --role <ROLE> [OPTIONS]\n       worker <COMMAND> [OPTIONS]",
    after_help = AFTER_HELP,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(flatten)]
    serve: serve::Args,
    #[command(subcommand)]
    command: Option<Command>,
}

/// `0.1.0 (revision)`.
static VERSION: LazyLock<String> = LazyLock::new(|| format!("{} ({})", env!("CARGO_PKG_VERSION"), crate::REVISION));

const AFTER_HELP: &str = "\
Examples:
  worker demo                                             what it does, shown on an embedded broker
  worker --role standalone                                try it: nothing else to install
  worker --role consumer -c worker.toml                   a consumer pod
  worker --role producer -c worker.toml                   a producer pod: events over HTTP
  worker --role producer < events.ndjson                  publish a file, exit at its end
  worker --role consumer -X security.protocol=ssl --set kafka.brokers=broker:9093
  worker config print --role consumer --origin            every effective value and where it came from

Configuration: defaults, then --dapr-components, then each -c FILE, then the environment (WORKER_KAFKA__BROKERS), then --set and -X.

Exit codes:
  0 ok   1 error   2 usage   3 changes pending or incompatible   4 drain deadline exceeded   5 fatal Kafka error   78 bad configuration";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A guided tour on an embedded broker: publish, handle, retry, dedupe, dead-letter; exit 0 only if all went as it must
    Demo(demo::Args),
    /// Check, print or explain the configuration
    Config(config::Args),
    /// Publish one event, check files of them, or write their models for other languages
    Events(events::Args),
    /// Compare the catalogue's topics with the brokers', and make the brokers follow it
    Topics(topics::Args),
    /// Check that no audit record was changed or removed
    Audit(audit::Args),
    /// Look at dead letters, and send them back
    Dlq(dlq::Args),
    /// Show which schedules there are, and when they fire
    Schedule(schedule::Args),
    /// Read reminders from the log again, after the store lost them
    Reminders(reminders::Args),
    /// What a load needs: pods, partitions, memory, Redis
    Plan(plan::Args),
    /// Make the store forget, for handling events again on purpose
    Store(store::Args),
    /// Check brokers, topics, permissions, store, clocks and apps: each ok, or the fix
    Doctor(doctor::Args),
    /// Translate another program's configuration into this worker's
    Import(import::Args),
    /// Ask a running worker whether it is ready
    Healthcheck(healthcheck::Args),
    /// Print the completion script of a shell
    Completions(completions::Args),
}

impl Command {
    async fn run(self, globals: Globals) -> anyhow::Result<Exit> {
        match self {
            Self::Demo(args) => Box::pin(demo::run(args, &globals)).await,
            Self::Config(args) => config::run(args, &globals),
            Self::Events(args) => events::run(args, &globals).await,
            Self::Topics(args) => topics::run(args, &globals).await,
            Self::Audit(args) => audit::run(args, &globals).await,
            Self::Dlq(args) => dlq::run(args, &globals).await,
            Self::Schedule(args) => schedule::run(args, &globals).await,
            Self::Reminders(args) => reminders::run(args, &globals).await,
            Self::Plan(args) => plan::run(args, &globals),
            Self::Store(args) => store::run(args, &globals).await,
            Self::Doctor(args) => doctor::run(args, &globals).await,
            Self::Import(args) => import::run(args, &globals),
            Self::Healthcheck(args) => healthcheck::run(args, &globals).await,
            Self::Completions(args) => completions::run(args),
        }
    }
}

/// Arguments of every command.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub struct Globals {
    /// TOML file over the defaults; repeat it for overlays
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    pub files: Vec<PathBuf>,
    /// Folder of Dapr's component files, as a layer below the files; `worker import dapr` shows what becomes of them
    #[arg(long, value_name = "DIR", global = true)]
    pub dapr_components: Option<PathBuf>,
    /// Where the app of that folder listens; default: 127.0.0.1 and the port in APP_PORT
    #[arg(long, value_name = "URL", global = true, requires = "dapr_components")]
    pub dapr_app: Option<String>,
    /// librdkafka property, such as security.protocol=ssl
    #[arg(short = 'X', value_name = "PROP=VALUE", global = true)]
    pub properties: Vec<String>,
    /// Any key of the configuration; the value is TOML, or else text
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    pub sets: Vec<String>,
    /// Address of /metrics, /livez and /readyz: http.listen
    #[arg(long, value_name = "ADDR", global = true)]
    pub http_addr: Option<String>,
}

impl Globals {
    /// Loads the configuration from these arguments and the environment.
    ///
    /// # Errors
    /// One report of every problem.
    pub fn load(&self, role: Option<Role>) -> Result<Loaded, ConfigErrors> {
        let flag = |value: &String| Flag { flag: "--http-addr", key: "http.listen", value: value.clone() };
        Config::load(&Sources {
            dapr_components: self.dapr_components.clone(),
            dapr_app: self.dapr_app.clone(),
            files: self.files.clone(),
            texts: Vec::new(),
            env: Sources::snapshot(std::env::vars_os()),
            sets: self.sets.clone(),
            properties: self.properties.clone(),
            flags: self.http_addr.iter().map(flag).collect(),
            role,
        })
    }

    /// As [`Globals::load`], with the warnings told on stderr.
    ///
    /// # Errors
    /// One report of every problem.
    pub fn load_and_warn(&self, role: Option<Role>) -> Result<Loaded, ConfigErrors> {
        let loaded = self.load(role)?;
        for warning in &loaded.warnings {
            eprintln!("{} {warning}", paint(io::stderr().is_terminal(), YELLOW, "warning:"));
        }
        Ok(loaded)
    }
}

impl ValueEnum for Role {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Producer => "takes events over HTTP or from a file, and publishes them",
            Self::Consumer => "consumes events and runs their handlers",
            Self::Standalone => "both in one process, on an embedded broker and store unless configured otherwise",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

/// What the process answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went as asked.
    Ok = 0,
    /// An error.
    Error = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Changes are pending, or two things do not fit.
    Pending = 3,
    /// Runs were still going at the drain's deadline.
    DrainDeadline = 4,
    /// A Kafka client is beyond repair.
    KafkaFatal = 5,
    /// The configuration cannot be used.
    BadConfig = 78,
    /// Ended by hand: a second SIGINT.
    Interrupted = INTERRUPTED,
}

impl Exit {
    /// The exit code of an error that a command ended with.
    pub fn of(error: &anyhow::Error) -> Self {
        if error.is::<ConfigErrors>() {
            return Self::BadConfig;
        }
        match error.downcast_ref::<RunError>() {
            Some(RunError::Usage(_)) => Self::Usage,
            Some(RunError::Config(_)) => Self::BadConfig,
            Some(RunError::KafkaFatal(_)) => Self::KafkaFatal,
            Some(RunError::DrainDeadline { .. }) => Self::DrainDeadline,
            Some(RunError::Other(_)) | None => Self::Error,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Cli {
    /// What is logged where `RUST_LOG` does not say it: these commands tell what happens themselves.
    pub fn log_level(&self) -> LevelFilter {
        match self.command {
            Some(Command::Demo(_)) => LevelFilter::OFF,
            Some(Command::Topics(_) | Command::Doctor(_)) => LevelFilter::ERROR,
            _ => LevelFilter::INFO,
        }
    }

    /// Runs the command, tells its error on stderr and gives the exit code.
    pub async fn run(self) -> Exit {
        let result = match self.command {
            Some(command) if self.serve.is_empty() => command.run(self.globals).await,
            Some(_) => {
                Err(RunError::Usage("options of a role do not go with a subcommand; give them after it, where it has them".into()).into())
            }
            None => serve::run(self.serve, &self.globals).await,
        };
        result.unwrap_or_else(|error| {
            eprintln!("{} {error:#}", paint(io::stderr().is_terminal(), RED, "error:"));
            Exit::of(&error)
        })
    }
}

/// How data is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON document
    Json,
}

/// SGR codes for [`paint`].
pub const RED: &str = "1;31";
/// As [`RED`].
pub const YELLOW: &str = "1;33";
/// As [`RED`].
pub const GREEN: &str = "1;32";
/// As [`RED`].
pub const BOLD: &str = "1";
/// As [`RED`].
pub const DIM: &str = "2";

/// Whether nobody asked for none: <https://no-color.org>.
fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// An empty table of this program's look; on a terminal as wide as that, with colours.
pub fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table
}

/// A table's cell in that colour where `NO_COLOR` is not set.
pub fn cell(text: &str, colour: Color) -> Cell {
    let cell = Cell::new(text);
    if colours() { cell.fg(colour) } else { cell }
}

/// `text` in that colour where `is_terminal` and `NO_COLOR` is not set.
pub fn paint(is_terminal: bool, colour: &str, text: &str) -> String {
    if is_terminal && colours() { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Writes data to stdout. A reader that has seen enough (`| head`) is no error.
///
/// # Errors
/// Where stdout cannot be written for another reason.
pub fn out(text: &str) -> io::Result<()> {
    stream(text).map(drop)
}

/// As [`out`]; whether anybody goes on reading.
///
/// # Errors
/// As there.
pub fn stream(text: &str) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true),
    }
}
