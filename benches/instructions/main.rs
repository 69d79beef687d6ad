//! Instructions per event of what needs no network, counted by valgrind: the same on a busy machine and on an idle one. `make instructions`
//! compares with `benches/instructions/budget.toml`; `make instructions RECORD=1` writes it anew, on purpose.
//!
//! Each case runs twice, with N and with 2 N rounds; what the second needs more is what N rounds cost. Start-up and set-up drop out.

mod budget;
mod cases;
mod engine;

use std::{path::Path, process::Command};

use anyhow::Context as _;
use clap::{Parser, ValueEnum as _};

use self::{budget::Budget, cases::Case};

/// Counts instructions and compares them with the budget.
#[derive(Debug, Parser)]
struct Args {
    /// Write what is counted as the new budget
    #[arg(long)]
    record: bool,
    /// Only these
    #[arg(long, value_delimiter = ',', value_enum)]
    cases: Vec<Case>,
    /// Run this case in this process: what is counted, and what a profiler wants
    #[arg(long, value_enum)]
    run: Option<Case>,
    /// Rounds of it
    #[arg(long, default_value_t = 4000, requires = "run")]
    rounds: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(case) = args.run {
        return case.run(args.rounds);
    }
    let cases: Vec<Case> =
        Case::value_variants().iter().copied().filter(|case| args.cases.is_empty() || args.cases.contains(case)).collect();
    let mut counted = Vec::new();
    for case in cases {
        let rounds = case.rounds();
        let (once, twice) = (count(case, rounds)?, count(case, 2 * rounds)?);
        counted.push((case.name(), twice.saturating_sub(once) / rounds));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/budget.toml");
    if args.record {
        return Budget::of(counted).write(&path);
    }
    Budget::read(&path)?.compare(&counted)
}

/// Instructions of a whole run.
fn count(case: Case, rounds: u64) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--run", &case.name(), "--rounds", &rounds.to_string()])
        // The C library picks its memory functions by the CPU's features: always the plain ones.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-ERMS,-FSRM,-RTM,-BMI2")
        .output()
        .context("valgrind does not run; install it (apt-get install valgrind)")?;
    let words = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "case {}: {}\n{words}", case.name(), output.status);
    let collected = words.lines().find_map(|line| line.split_once("Collected : ")).context("valgrind told no count")?.1;
    Ok(collected.trim().parse()?)
}
