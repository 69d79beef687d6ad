//! The recorded counts, and whether new ones keep to them.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// More than this part above the budget fails.
const TOLERANCE: f64 = 0.03;

const HEAD: &str = "\
# Instructions per event (per record, per commit, ..) of the hot path, as `make instructions` counts them. CI fails where one is more than
# 3 % above; `make instructions RECORD=1` writes this file anew: say in the commit why the path became longer.
";

/// What each case may cost.
#[derive(Debug, Serialize, Deserialize)]
pub struct Budget {
    /// The compiler that it was recorded with: another one makes other code.
    rustc: String,
    instructions: BTreeMap<String, u64>,
}

impl Budget {
    /// Of what was counted now.
    pub fn of(counted: Vec<(String, u64)>) -> Self {
        Self { rustc: rustc(), instructions: counted.into_iter().collect() }
    }

    /// From its file.
    ///
    /// # Errors
    /// Where there is none.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("{}: no budget; `make instructions RECORD=1` writes one", path.display()))?;
        Ok(toml::from_str(&text)?)
    }

    /// To its file.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        fs::write(path, format!("{HEAD}{}", toml::to_string(self)?))?;
        for (case, count) in &self.instructions {
            println!("{case:<16} {count:>9}");
        }
        Ok(())
    }

    /// Tells each count beside its budget.
    ///
    /// # Errors
    /// Where one is above, with what to do.
    pub fn compare(&self, counted: &[(String, u64)]) -> anyhow::Result<()> {
        let mut above = Vec::new();
        println!("{:<16} {:>9} {:>9}", "case", "budget", "counted");
        for (case, count) in counted {
            let Some(&budget) = self.instructions.get(case) else {
                println!("{case:<16} {:>9} {count:>9}  new", "");
                above.push(case.clone());
                continue;
            };
            #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
            let more = *count as f64 / budget as f64 - 1.0;
            let verdict = if more > TOLERANCE {
                "above"
            } else if more < -TOLERANCE {
                "below: record it, so that it stays"
            } else {
                ""
            };
            println!("{case:<16} {budget:>9} {count:>9}  {:+.1} %  {verdict}", more * 100.0);
            if more > TOLERANCE {
                above.push(case.clone());
            }
        }
        if above.is_empty() {
            return Ok(());
        }
        let compiler = match rustc() {
            now if now == self.rustc => String::new(),
            now => format!(" (the budget is of {}, this is {now})", self.rustc),
        };
        anyhow::bail!(
            "more instructions than benches/instructions/budget.toml allows: {}{compiler}. Make it cheaper, or record the new counts on purpose: make instructions RECORD=1",
            above.join(", ")
        )
    }
}

/// The compiler's version, as it says it.
fn rustc() -> String {
    let output = std::process::Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned())).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}
