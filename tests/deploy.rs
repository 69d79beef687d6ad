//! What `docker/` names exists: every file, port, argument, variable, secret and metric. No container engine is needed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::Parser;
use serde::Deserialize;
use serde_json::Value;
use worker::{
    cli::Cli,
    config::{Config, Role, Sources},
};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every document of a YAML file, its `<<` merged.
fn yaml(path: &str) -> Vec<Value> {
    let text = text(path);
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(|document| {
        let mut document = serde_yaml_ng::Value::deserialize(document).unwrap();
        document.apply_merge().unwrap();
        serde_json::to_value(document).unwrap()
    });
    documents.collect()
}

/// The strings of a list.
fn list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// A container as a manifest describes it: its arguments, its variables with secret files moved to `files`.
struct Container {
    name: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    config: PathBuf,
    ports: Vec<u16>,
}

impl Container {
    /// Its command line is one of ours and its configuration loads; the ports that it shows are those it listens on.
    fn check(&self) {
        let line = [&["worker".to_owned()], self.args.as_slice()].concat();
        Cli::try_parse_from(&line).unwrap_or_else(|error| panic!("{}: {line:?}: {error}", self.name));
        let Some(at) = self.args.iter().position(|arg| arg == "--role") else { return };
        let role = Role::ALL.into_iter().find(|role| role.name() == self.args[at + 1]).unwrap();
        let sources = Sources { files: vec![self.config.clone()], env: self.env.clone(), role: Some(role), ..Sources::default() };
        let loaded = Config::load(&sources).unwrap_or_else(|errors| panic!("{}: {errors}", self.name));
        assert!(loaded.warnings.is_empty(), "{}: {:?}", self.name, loaded.warnings);
        let config = loaded.config;
        let open = [
            (config.http.listen, true),
            (config.sync.listen, role == Role::Consumer),
            (config.publish.listen, role == Role::Producer),
            (config.publish.grpc_listen, role == Role::Producer),
        ];
        let open: Vec<u16> = open
            .iter()
            .filter(|(address, used)| *used && !address.is_empty())
            .map(|(address, _)| address.strip_prefix("0.0.0.0:").unwrap().parse().unwrap())
            .collect();
        for port in &self.ports {
            assert!(open.contains(port), "{} shows port {port} and listens on {open:?}", self.name);
        }
    }
}

fn compose_containers() -> Vec<Container> {
    let compose = &yaml("docker/compose.yaml")[0];
    let ours = compose["services"].as_object().unwrap().iter().filter(|(_, service)| service["image"] == "worker");
    let container = |(name, service): (&String, &Value)| {
        let env =
            service["environment"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), default_of(value.as_str().unwrap())));
        Container {
            name: name.clone(),
            args: list(&service["command"]),
            env: env.collect(),
            config: root("docker/worker.toml"),
            ports: list(&service["ports"]).iter().map(|port| port.rsplit(':').next().unwrap().parse().unwrap()).collect(),
        }
    };
    ours.map(container).collect()
}

/// `${NAME:-default}` as Compose reads it with nothing set.
fn default_of(value: &str) -> String {
    value.strip_prefix("${").and_then(|rest| rest.trim_end_matches('}').split_once(":-")).map_or(value, |(_, default)| default).to_owned()
}

/// The container of each Deployment, its ConfigMap and Secret written into `folder` as they would be mounted.
fn pod_containers(folder: &Path) -> Vec<(Value, Container)> {
    let common = yaml("docker/k8s/common.yaml");
    let data =
        |kind: &str, field: &str| common.iter().find(|document| document["kind"] == kind).unwrap()[field].as_object().unwrap().clone();
    for (name, value) in data("Secret", "stringData").into_iter().chain(data("ConfigMap", "data")) {
        let mounted = value.as_str().unwrap().replace("/run/secrets/worker", folder.to_str().unwrap());
        fs::write(folder.join(name), mounted).unwrap();
    }
    let deployments = ["consumer", "producer"].into_iter().flat_map(|role| yaml(&format!("docker/k8s/{role}.yaml")));
    let deployments = deployments.filter(|document| document["kind"] == "Deployment").map(|deployment| {
        let pod = &deployment["spec"]["template"]["spec"];
        let spec = &pod["containers"][0];
        let env = spec["env"].as_array().unwrap().iter().map(|variable| {
            let value = variable["value"].as_str().unwrap().replace("/run/secrets/worker", folder.to_str().unwrap());
            (variable["name"].as_str().unwrap().to_owned(), value)
        });
        let ports = spec["ports"].as_array().unwrap().iter().map(|port| u16::try_from(port["containerPort"].as_u64().unwrap()).unwrap());
        let container = Container {
            name: deployment["metadata"]["name"].as_str().unwrap().to_owned(),
            args: list(&spec["args"]),
            env: env.collect(),
            config: folder.join("worker.toml"),
            ports: ports.collect(),
        };
        (deployment.clone(), container)
    });
    deployments.collect()
}

#[test]
fn every_container_starts_with_a_command_line_and_a_configuration_that_load() {
    let compose = compose_containers();
    assert_eq!(compose.len(), 3, "producer, consumer, topics");
    compose.iter().for_each(Container::check);
    let folder = tempfile::tempdir().unwrap();
    let pods = pod_containers(folder.path());
    assert_eq!(pods.len(), 2);
    pods.iter().for_each(|(_, container)| container.check());
}

#[test]
fn a_pod_ends_after_the_drain_never_drops_to_zero_and_may_do_nothing_more_than_it_must() {
    let folder = tempfile::tempdir().unwrap();
    for (deployment, container) in pod_containers(folder.path()) {
        let spec = &deployment["spec"];
        let pod = &spec["template"]["spec"];
        let sources = Sources { files: vec![container.config.clone()], env: container.env.clone(), ..Sources::default() };
        let drain = Config::load(&sources).unwrap().config.engine.drain_timeout.as_secs();
        assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > drain + 5);
        assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        let spec = &pod["containers"][0];
        assert_eq!(spec["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(
            (&spec["livenessProbe"]["httpGet"]["path"], &spec["readinessProbe"]["httpGet"]["path"]),
            (&"/livez".into(), &"/readyz".into())
        );
        assert_eq!(deployment["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"], "9464");
    }
}

#[test]
fn every_service_leads_to_pods_and_to_a_port_that_they_show() {
    let documents: Vec<_> = ["consumer", "producer"].into_iter().flat_map(|role| yaml(&format!("docker/k8s/{role}.yaml"))).collect();
    let of_kind = |kind: &'static str| documents.iter().filter(move |document| document["kind"] == kind);
    let mut led = BTreeSet::new();
    for service in of_kind("Service") {
        let name = &service["metadata"]["name"];
        let pods = of_kind("Deployment").find(|pods| pods["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]);
        let template = &pods.unwrap_or_else(|| panic!("{name}: no pods"))["spec"]["template"];
        let shown = template["spec"]["containers"][0]["ports"].as_array().unwrap();
        for port in service["spec"]["ports"].as_array().unwrap() {
            assert!(shown.iter().any(|shown| shown["name"] == port["targetPort"]), "{name}: {port}");
            led.insert(port["targetPort"].to_string());
        }
    }
    assert!(["ops", "publish", "grpc", "sync"].iter().all(|port| led.contains(&format!("{port:?}"))), "{led:?}");
}

#[test]
fn every_image_has_a_tag_and_every_file_that_is_copied_or_mounted_exists() {
    for service in yaml("docker/compose.yaml")[0]["services"].as_object().unwrap().values() {
        let image = service["image"].as_str().unwrap();
        assert!(
            image == "worker" || image.rsplit_once(':').is_some_and(|(_, tag)| tag.starts_with(|c: char| c.is_ascii_digit() || c == 'v')),
            "{image}"
        );
        for mount in list(&service["volumes"]).iter().filter(|mount| mount.starts_with('.')) {
            let path = root("docker").join(mount.split(':').next().unwrap());
            assert!(path.exists(), "{}", path.display());
        }
    }
    let ignore = text(".dockerignore");
    for line in text("docker/Dockerfile").lines().filter(|line| line.starts_with("COPY") && !line.contains("--from")) {
        for source in line.split_whitespace().skip(1).take(line.split_whitespace().count() - 2) {
            assert!(root(source).exists(), "COPY {source}");
            assert!(ignore.contains(&format!("!{}\n", source.trim_start_matches("./"))), ".dockerignore leaves {source} out");
        }
    }
}

#[test]
fn the_image_and_the_tests_stack_run_the_same_kafka() {
    let stack = text("tests/stack");
    let version = stack.lines().find_map(|line| line.strip_prefix("KAFKA_VERSION=")).unwrap();
    assert_eq!(yaml("docker/compose.yaml")[0]["services"]["kafka"]["image"], format!("apache/kafka:{version}"));
}

#[test]
fn every_metric_of_the_dashboard_and_the_alerts_is_one_of_ours() {
    let ours: BTreeSet<_> = text("src/telemetry.rs").split('"').filter(|word| word.starts_with("worker_")).map(str::to_owned).collect();
    for path in ["docker/grafana/dashboards/worker.json", "docker/prometheus/alerts.yml"] {
        let text = text(path);
        let named: BTreeSet<_> =
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("worker_")).collect();
        assert!(named.len() > 8, "{path}: {named:?}");
        for name in named {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
            assert!(ours.contains(family), "{path}: {name} is no metric of the worker");
        }
    }
}
