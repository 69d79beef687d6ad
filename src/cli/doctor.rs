//! `worker doctor`: everything that a worker of this configuration needs, looked at from here: ok, or the fix. It changes nothing.

mod apps;
mod brokers;
mod finding;
mod mail;
mod store;
mod topics;

use self::finding::{Finding, Level};
use super::{Exit, Format, Globals, out};
use crate::{
    config::{Loaded, Role},
    event::Catalog,
    roles,
};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Nothing is changed: no event is published or posted, no mail sent, no group joined. Exit 0 where nothing failed, else 1."
)]
pub struct Args {
    /// Check it for this role, which moves some defaults
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Looks at everything, then prints it.
///
/// # Errors
/// Where the configuration cannot be used.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let loaded = globals.load_and_warn(args.role)?;
    let catalog = roles::catalog(&loaded)?;
    let findings = examine(&loaded, &catalog).await;
    out(&match args.output {
        Format::Table => finding::table(&findings),
        Format::Json => finding::json(&findings)?,
    })?;
    Ok(if findings.iter().any(|found| found.level == Level::Fail) { Exit::Error } else { Exit::Ok })
}

/// Every part, side by side; told in this order.
async fn examine(loaded: &Loaded, catalog: &Catalog) -> Vec<Finding> {
    let config = &loaded.config;
    let kafka = async {
        let ((mut findings, reached), (told, apps)) = tokio::join!(brokers::examine(config), apps::examine(config));
        if let Some(admin) = reached {
            findings.extend(topics::examine(config, catalog, &told, &admin).await);
        }
        (findings, apps)
    };
    let ((mut findings, apps), store, mail) = tokio::join!(kafka, store::examine(config), mail::examine(config));
    findings.extend(store);
    findings.extend(apps);
    findings.extend(mail);
    findings.push(apps::publish_listener(config));
    findings
}
