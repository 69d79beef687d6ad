//! The real binary: what it refuses, what it says, where it says it.

use std::{io::Write, process::Command};

use tempfile::NamedTempFile;

/// Exit code, stdout, stderr of `worker` with those arguments and variables alone.
fn worker(args: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    command.args(args).env_clear().envs(env.iter().copied()).stdin(std::process::Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn file(text: &str) -> NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_command_line_that_makes_no_sense_exits_2() {
    for args in [
        &[][..],
        &["--role", "sidecar"],
        &["--role", "consumer", "--input", "-"],
        &["--role", "producer", "--input", "-", "--serve"],
        &["--role", "consumer", "--exit-if-unreachable", "soon"],
        &["--role", "consumer", "config", "check"],
        &["config"],
        &["config", "print", "-o", "yaml"],
        &["completions", "csh"],
        &["healthcheck", "--timeout", "3"],
        &["nonsense"],
    ] {
        let (code, stdout, stderr) = worker(args, &[]);
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
        assert!(!stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_bad_configuration_exits_78_with_every_problem_on_stderr() {
    let bad = file("[kafka]\nbrokrs = \"a:1\"\n[engine]\ndrain_timeout = \"25\"\n");
    let path = bad.path().display().to_string();
    let env = [("WORKER_STORE__WHEN_DOWN", "wait"), ("WORKER_STORE__URL_FILE", "/nonexistent/url")];
    for command in [&["--role", "consumer"][..], &["config", "check"], &["config", "print"], &["healthcheck"]] {
        let args = [command, &["-c", &path, "--set", "engine.concurrency=0", "-X", "group.id=g"]].concat();
        let (code, stdout, stderr) = worker(&args, &env);
        assert_eq!((code, stdout.as_str()), (78, ""), "{stderr}");
        for problem in [
            format!("{path}:2: unknown key `kafka.brokrs`; did you mean `kafka.brokers`?"),
            format!("{path}:4: `engine.drain_timeout`: `25` is no duration; write it like \"25s\""),
            "env WORKER_STORE__WHEN_DOWN: `store.when_down`: `wait` is none of hold, bypass".to_owned(),
            "env WORKER_STORE__URL_FILE: cannot read the secret `store.url` from /nonexistent/url: No such file".to_owned(),
            "--set engine.concurrency: `engine.concurrency`: `0` is no whole number".to_owned(),
            "-X group.id: `kafka.properties.\"group.id\"`: the worker sets this itself: use kafka.group_id".to_owned(),
        ] {
            assert!(stderr.contains(&problem), "{problem}\nis not in\n{stderr}");
        }
        assert!(!stderr.contains('\x1b'), "no colours without a terminal: {stderr}");
    }
}

#[test]
fn a_consumer_without_a_handler_exits_78_and_shows_the_lines_to_add() {
    let (code, _, stderr) = worker(&["--role", "consumer"], &[]);
    assert_eq!(code, 78);
    assert!(stderr.contains("[[handlers]]") && stderr.contains("kind = \"http\""), "{stderr}");
    assert_eq!(worker(&["config", "check", "--role", "consumer"], &[]).0, 78);
    assert_eq!(worker(&["config", "check", "--role", "producer"], &[]).0, 0);
    assert_eq!(worker(&["config", "check", "--role", "standalone"], &[]).0, 0);
}

#[test]
fn check_says_ok_on_stdout_and_warnings_on_stderr() {
    let (code, stdout, stderr) =
        worker(&["config", "check", "--set", "publish.listen=0.0.0.0:3500"], &[("WORKER_PORT", "tcp://10.0.0.1:80")]);
    assert_eq!((code, stdout.as_str()), (0, "ok\n"));
    let expected = "warning: --set publish.listen: `publish.listen`: `0.0.0.0:3500` is open to other machines without publish.api_token";
    assert!(stderr.starts_with(expected), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn print_shows_each_value_with_its_origin_and_no_secret() {
    let overlay = file("app_id = \"shop\"\n[kafka.properties]\n\"sasl.password\" = \"hunter2\"\n\"security.protocol\" = \"sasl_ssl\"\n");
    let path = overlay.path().display().to_string();
    let env = [("WORKER_STORE__URL", "redis://app:hunter2@db:6379/1"), ("DAPR_API_TOKEN", "hunter2")];
    let args =
        ["config", "print", "--origin", "-c", &path, "--set", "dlq.alert_webhook=https://hooks/hunter2", "--http-addr", "127.0.0.1:1"];
    let (code, stdout, stderr) = worker(&args, &env);
    assert_eq!(code, 0, "{stderr}");
    assert!(!stdout.contains("hunter2") && !stderr.contains("hunter2"), "{stdout}{stderr}");
    let row = |key: &str| -> Vec<String> {
        let line =
            stdout.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap_or_else(|| panic!("no {key} in {stdout}"));
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    assert_eq!(row("app_id"), ["app_id", "\"shop\"", &format!("{path}:1")]);
    assert_eq!(row("kafka.group_id")[1..], ["\"shop\"".to_owned(), format!("{path}:1 (app_id)")]);
    assert_eq!(row("kafka.properties.\"sasl.password\"")[1..], ["\"***\"".to_owned(), format!("{path}:3")]);
    assert_eq!(row("store.url")[1..], ["\"redis://app:***@db:6379/1\"", "env WORKER_STORE__URL"]);
    assert_eq!(row("publish.api_token")[1..], ["\"***\"", "env DAPR_API_TOKEN"]);
    assert_eq!(row("dlq.alert_webhook")[1..], ["\"***\"", "--set dlq.alert_webhook"]);
    assert_eq!(row("http.listen")[1..], ["\"127.0.0.1:1\"", "--http-addr"]);
    assert_eq!(row("engine.concurrency")[1..], ["256", "default"]);

    let (_, json, _) = worker(&[&args[..], &["-o", "json"]].concat(), &env);
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    let url = rows.as_array().unwrap().iter().find(|row| row["key"] == "store.url").unwrap();
    assert_eq!(url["value"], "redis://app:***@db:6379/1");
    assert_eq!(url["origin"], "env WORKER_STORE__URL");
    assert!(!json.contains("hunter2"));
}

#[test]
fn the_schema_the_variables_and_the_completions_are_printed() {
    let (code, schema, _) = worker(&["config", "schema"], &[]);
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert_eq!((code, &schema["properties"]["store"]["properties"]["when_down"]["enum"][1]), (0, &"bypass".into()));
    let (code, variables, _) = worker(&["config", "env"], &[]);
    assert_eq!(code, 0);
    assert!(variables.lines().any(|line| line.starts_with("WORKER_STORE__URL[_FILE]")), "{variables}");
    assert!(variables.lines().any(|line| line.starts_with("WORKER_KAFKA__CONSUMER__<PROPERTY>")), "{variables}");
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = worker(&["completions", shell], &[]);
        assert!(code == 0 && script.contains("healthcheck"), "{shell}");
    }
    let (code, version, _) = worker(&["--version"], &[]);
    assert!(code == 0 && version.starts_with(concat!("worker ", env!("CARGO_PKG_VERSION"), " (")), "{version}");
}
