//! `worker config check|print|schema|env`.

use clap::Subcommand;

use super::{Exit, Format, Globals, out};
use crate::config::{Config, Role, Setting, Sources, env, keys, schema};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say ok, or report every problem with its origin (exit 78)
    Check {
        /// Check it for this role, which moves some defaults
        #[arg(long, value_enum)]
        role: Option<Role>,
    },
    /// Print every effective value, secrets masked
    Print {
        /// Show it for this role, which moves some defaults
        #[arg(long, value_enum)]
        role: Option<Role>,
        /// Say where each value came from
        #[arg(long)]
        origin: bool,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Print the JSON Schema of a configuration file
    Schema,
    /// List every key with its environment variable, default and meaning
    Env {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
}

/// Runs it.
///
/// # Errors
/// Where the configuration cannot be used, or stdout cannot be written.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    match args.command {
        What::Check { role } => {
            globals.load_and_warn(role)?;
            out("ok\n")?;
        }
        What::Print { role, origin, output } => {
            let loaded = globals.load_and_warn(role)?;
            out(&print(loaded.origins.settings(), origin, output)?)?;
        }
        What::Schema => out(&(serde_json::to_string_pretty(&schema::schema())? + "\n"))?,
        What::Env { output } => out(&variables(output)?)?,
    }
    Ok(Exit::Ok)
}

fn print(settings: &[Setting], with_origin: bool, format: Format) -> anyhow::Result<String> {
    if format == Format::Json {
        let mut rows = serde_json::to_value(settings)?;
        for row in rows.as_array_mut().into_iter().flatten().filter_map(|row| row.as_object_mut()).filter(|_| !with_origin) {
            row.remove("origin");
        }
        return Ok(serde_json::to_string_pretty(&rows)? + "\n");
    }
    let rows = settings.iter().map(|setting| {
        let mut row = vec![setting.key.clone(), setting.value.to_string()];
        row.extend(with_origin.then(|| setting.origin.clone()));
        row
    });
    Ok(columns(&rows.collect::<Vec<_>>()))
}

/// Every key that the environment can set. Lists of tables have none, which their row would only hide.
fn variables(format: Format) -> anyhow::Result<String> {
    let defaults = Config::load(&Sources::default())?;
    let settings = defaults.origins.settings();
    let default = |path: &str| settings.iter().find(|setting| setting.key == path).map(|setting| &setting.value);
    let rows = keys::leaves().into_iter().filter(|(path, _)| !path.contains("[]"));
    let rows = rows.map(|(path, key)| (env::name(&path), default(&path), path, key));
    if format == Format::Json {
        let rows = rows.map(|(variable, default, path, key)| {
            serde_json::json!({ "env": variable, "key": path, "default": default, "secret": key.kind.is_secret(), "doc": key.doc })
        });
        return Ok(serde_json::to_string_pretty(&rows.collect::<Vec<_>>())? + "\n");
    }
    let rows = rows.map(|(variable, default, _, key)| {
        let variable = if key.kind.is_secret() { format!("{variable}[_FILE]") } else { variable };
        vec![variable, default.map(ToString::to_string).unwrap_or_default(), key.doc.to_owned()]
    });
    Ok(columns(&rows.collect::<Vec<_>>()))
}

/// Rows in aligned columns, without borders or wrapping: for people and for grep.
fn columns(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for (column, cell) in rows.iter().flat_map(|row| row.iter().enumerate()) {
        widths.resize(widths.len().max(column + 1), 0);
        // One long list must not push the last column out of sight.
        widths[column] = widths[column].max(cell.chars().count().min(44));
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
