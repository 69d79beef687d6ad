//! `worker completions <SHELL>`.

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::{Cli, Exit, out};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: worker completions bash > /etc/bash_completion.d/worker")]
pub struct Args {
    /// The shell
    shell: Kind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
///
/// # Errors
/// Where stdout cannot be written.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let shell = match args.shell {
        Kind::Bash => Shell::Bash,
        Kind::Zsh => Shell::Zsh,
        Kind::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "worker", &mut script);
    out(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
