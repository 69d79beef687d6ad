//! `worker events check`: whether changed schemas fit the events and the readers that are out there.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use comfy_table::{Cell, Color};
use serde_json::json;

use crate::{
    cli::{self, Exit, Format, Globals, out},
    event::{
        Catalog, EventType,
        catalog::{Origin, types_of},
        compat::{Finding, Mode, check},
    },
    roles::{self, RunError},
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to compare with: a git ref of the repository that catalog.dir is in, or a folder
    #[arg(long, value_name = "REF|DIR")]
    against: String,
    /// Which way the change has to fit; with -transitive all kept past versions count
    #[arg(long, value_enum, default_value_t = Ways::Full)]
    mode: Ways,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Ways {
    /// New readers take old events
    Backward,
    /// Old readers take new events
    Forward,
    /// Both
    Full,
    /// As backward, with every past version
    BackwardTransitive,
    /// As forward, with every past version
    ForwardTransitive,
    /// As full, with every past version
    FullTransitive,
}

impl Ways {
    fn mode(self) -> Mode {
        Mode {
            backward: !matches!(self, Self::Forward | Self::ForwardTransitive),
            forward: !matches!(self, Self::Backward | Self::BackwardTransitive),
            transitive: matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive),
        }
    }
}

/// Runs it: exit 3 where a change breaks something, or could not be checked.
///
/// # Errors
/// Where either state of the catalogue cannot be read.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let catalog = roles::catalog(&globals.load_and_warn(None)?)?;
    let old = types_of(&files(&args.against, catalog.origin())?).with_context(|| format!("the catalogue of {}", args.against))?;
    let new: Vec<Arc<EventType>> = catalog.types().cloned().collect();
    let mode = args.mode.mode();
    let found = check(&old, &new, mode);
    out(&match args.output {
        Format::Table => table(&found, mode, args, &catalog),
        Format::Json => {
            let document = json!({ "mode": mode.to_string(), "against": args.against, "compatible": found.is_empty(), "findings": found });
            serde_json::to_string_pretty(&document)? + "\n"
        }
    })?;
    Ok(if found.is_empty() { Exit::Ok } else { Exit::Pending })
}

/// The event files of the other state.
fn files(against: &str, origin: &Origin) -> anyhow::Result<Vec<(String, String)>> {
    if Path::new(against).is_dir() {
        return of_folder(&Path::new(against).join("events"));
    }
    let Origin::Folder(dir) = origin else {
        return Err(RunError::Usage(format!(
            "--against {against} is no folder, and the embedded catalogue is in no repository: set catalog.dir"
        ))
        .into());
    };
    of_git(dir, against)
}

fn of_folder(events: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let entries = std::fs::read_dir(events).with_context(|| format!("cannot read {}", events.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.retain(|path| is_yaml(path));
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path.display().to_string(), text))
    };
    paths.into_iter().map(read).collect()
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn of_git(dir: &Path, reference: &str) -> anyhow::Result<Vec<(String, String)>> {
    let commit =
        git(dir, &["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{reference}^{{commit}}")]).map_err(|error| {
            RunError::Usage(format!("--against {reference} is neither a folder nor a git ref of {} ({error})", dir.display()))
        })?;
    let commit = commit.trim();
    let listed = git(dir, &["ls-tree", "--name-only", "-z", commit, "./events/"])?;
    let mut files = Vec::new();
    for name in listed.split('\0').filter(|name| is_yaml(Path::new(name))) {
        files.push((format!("{reference}:{name}"), git(dir, &["show", &format!("{commit}:./{name}")])?));
    }
    if files.is_empty() {
        bail!("{reference} has no event types in {}", dir.join("events").display());
    }
    Ok(files)
}

fn git(dir: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git").arg("-C").arg(dir).args(args).output().context("git cannot be started")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        // Asked to be quiet, git only fails.
        bail!("git {}: {}", args[0], if said.trim().is_empty() { "no such commit" } else { said.trim() });
    }
    String::from_utf8(output.stdout).context("git's output is no UTF-8")
}

fn table(found: &[Finding], mode: Mode, args: &Args, catalog: &Catalog) -> String {
    let compared = format!("{} against {}, {mode}", catalog.origin(), args.against);
    if found.is_empty() {
        return format!("compatible: {compared}\n");
    }
    let mut table = cli::table(["type", "written by", "read by", "where", "what", "verdict"]);
    for one in found {
        let (verdict, colour) = if one.checked { ("breaks", Color::Red) } else { ("not checked", Color::Yellow) };
        table.add_row([
            Cell::new(&one.event_type),
            Cell::new(&one.written),
            Cell::new(format!("{} ({})", one.read, one.direction)),
            Cell::new(&one.path),
            Cell::new(&one.problem),
            cli::cell(verdict, colour),
        ]);
    }
    let breaks = found.iter().filter(|one| one.checked).count();
    format!("{table}\n{breaks} breaks, {} not checked: {compared}\n", found.len() - breaks)
}
