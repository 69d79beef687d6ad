//! Events taken over HTTP and answered when the broker has them.

use crate::{
    load,
    meter::Measured,
    program::{Killed, Program, free_port},
    row::{Bench, Goal, Row},
    usage::Processes,
};

const TOPIC: &str = "bench-published";

/// Each with clients that wait for every answer; the floor with the linger that suits it best.
pub const ROWS: &[Row] = &[
    Row {
        name: "publish-64",
        about: "64 connections to an axum server: typed parse, produce, wait for the acknowledgement",
        floor: None,
        goals: &[],
        part: None,
        measure: |bench| floor(bench, 64, "2ms"),
    },
    Row {
        name: "worker-publish-64",
        about: "64 connections to the worker's program, role producer",
        floor: Some("publish-64"),
        goals: &[Goal::Share(0.85)],
        part: None,
        measure: |bench| worker(bench, 64),
    },
    Row {
        name: "publish-256",
        about: "as `publish-64`, 256 connections",
        floor: None,
        goals: &[],
        part: None,
        measure: |bench| floor(bench, 256, "5ms"),
    },
    Row {
        name: "worker-publish-256",
        about: "as `worker-publish-64`, 256 connections",
        floor: Some("publish-256"),
        goals: &[],
        part: None,
        measure: |bench| worker(bench, 256),
    },
];

fn floor(bench: &Bench, connections: usize, linger: &str) -> anyhow::Result<Measured> {
    bench.stack.create(TOPIC)?;
    let (process, port, _lines) = Killed::side(&["publish", "--topic", TOPIC, "--delay", linger])?;
    load::run(port, "/events", connections, &processes(bench, process.0.id()))
}

fn worker(bench: &Bench, connections: usize) -> anyhow::Result<Measured> {
    bench.stack.create(TOPIC)?;
    let (port, grpc) = (free_port()?, free_port()?);
    let config = format!("[publish]\nlisten = \"127.0.0.1:{port}\"\ngrpc_listen = \"127.0.0.1:{grpc}\"\n");
    let program = Program::start(bench, "producer", &config)?;
    program.ready()?;
    load::run(port, &format!("/events?topic={TOPIC}"), connections, &processes(bench, program.id()))
}

/// The server is measured; this process is the clients.
fn processes(bench: &Bench, server: u32) -> Processes {
    Processes { own: Some(server), app: Some(std::process::id()), ..bench.stack.processes() }
}
