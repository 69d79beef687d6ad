//! `worker topics export` as the official AsyncAPI parser reads it: a package of npm, kept in `$XDG_CACHE_HOME/worker-stack`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

/// The parser's package; another version is another folder.
const PARSER: &str = "@asyncapi/parser@3.6.3";

/// Reads documents from the files that it is given; for each its worst diagnostics, channels and messages.
const SCRIPT: &str = r#"
const { Parser } = require("@asyncapi/parser");
const fs = require("fs");
(async () => {
  const parser = new Parser(), found = [];
  for (const file of process.argv.slice(2)) {
    const { document, diagnostics } = await parser.parse(fs.readFileSync(file, "utf8"));
    found.push({
      problems: diagnostics.filter((one) => one.severity <= 1).map((one) => `${one.path.join(".")}: ${one.message}`),
      channels: document ? document.channels().all().map((one) => one.address()) : [],
      messages: document ? document.messages().all().map((one) => one.name()) : [],
    });
  }
  console.log(JSON.stringify(found));
})();
"#;

/// The folder that has the parser; `None`, with a printed reason, where it cannot be had; a panic with `CI=true`.
fn parser() -> Option<PathBuf> {
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let kept = cache.map(|cache| cache.join("worker-stack").join(PARSER.rsplit('/').next().unwrap()));
    let got = kept.ok_or_else(|| "no folder to keep it in".to_owned()).and_then(|kept| install(&kept).map(|()| kept));
    match got {
        Ok(kept) => Some(kept),
        Err(reason) => {
            let reason = format!("{PARSER} cannot be had ({reason}); install node and npm");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
            eprintln!("skipped: {reason}");
            None
        }
    }
}

fn install(kept: &Path) -> Result<(), String> {
    run(Command::new("node").arg("--version"))?;
    if kept.exists() {
        return Ok(());
    }
    let parent = kept.parent().unwrap();
    fs::create_dir_all(parent).map_err(|error| error.to_string())?;
    let work = tempfile::tempdir_in(parent).map_err(|error| error.to_string())?;
    run(Command::new("npm").args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(work.path()).arg(PARSER))?;
    // Complete or not there at all; another clone may have been faster.
    match fs::rename(work.keep(), kept) {
        Err(error) if !kept.exists() => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(String::from_utf8_lossy(&output.stdout).into_owned()) } else { Err(format!("{command:?}: {told}")) }
}

fn export(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    run(command.args(["topics", "export"]).args(args).env_clear()).unwrap()
}

#[test]
fn the_official_parser_reads_the_export_without_a_warning() {
    let Some(parser) = parser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let production =
        export(&["-o", "json", "--profile", "production", "--set", "handlers=[{name=\"app\",kind=\"log\",events=[\"task.*\"]}]"]);
    let mut broken: Value = serde_json::from_str(&production).unwrap();
    assert_eq!(broken["operations"]["consume.task-events"]["bindings"]["kafka"]["groupId"]["enum"], json!(["todo-worker"]));
    assert_eq!(broken["channels"]["task-events"]["bindings"]["kafka"]["replicas"], 3);
    broken["channels"]["dlq"]["messages"]["dlq.failed"]["$ref"] = "#/components/messages/nowhere".into();
    let files = [file("a.yaml", &export(&[])), file("b.json", &production), file("c.json", &broken.to_string())];
    let script = file("check.js", SCRIPT);
    let found = run(Command::new("node").arg(script).args(files).env("NODE_PATH", parser.join("node_modules"))).unwrap();
    let found: Vec<Value> = serde_json::from_str(&found).unwrap();
    for document in &found[..2] {
        assert_eq!(document["problems"], json!([]));
        let names = |key: &str| {
            let mut names: Vec<_> = document[key].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            names.sort_unstable();
            names.dedup();
            names.len()
        };
        assert_eq!((names("channels"), names("messages")), (6, 20));
    }
    assert_ne!(found[2]["problems"], json!([]), "it finds what is wrong");
}
