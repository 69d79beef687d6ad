//! A handler in Rust. `cargo run --example custom_handler`, then publish to it:
//! `curl localhost:3500/events -d '{"event_type":"task.completed","user_id":"ada","task_id":1}'`
use std::{collections::HashMap, sync::Mutex};

use worker::{
    config::{Config, Role, Sources},
    handler::{Binding, Handler, Run},
    outcome::{Failure, Handled, HandlerResult},
    roles::{self, Options},
    shutdown::Shutdown,
};

/// Ten points for each completed task.
struct Points(Mutex<HashMap<String, u32>>);

impl Handler for Points {
    async fn handle(&self, run: Run) -> HandlerResult {
        let user = run.event.user_id();
        let mut points = self.0.lock().map_err(|_| Failure::transient("points are locked"))?;
        let total = points.entry(user.to_owned()).and_modify(|total| *total += 10).or_insert(10);
        println!("{user} has {total} points");
        Ok(Handled::Done)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let env = Sources::snapshot(std::env::vars_os());
    let loaded = Config::load(&Sources { env, role: Some(Role::Standalone), ..Sources::default() })?;
    let bindings = vec![Binding::new("points", &["task.completed"], Points(Mutex::default()))];
    let shutdown = Shutdown::new();
    tokio::select! {
        result = roles::run(Role::Standalone, loaded, Options { bindings, ..Options::default() }, shutdown.clone()) => Ok(result?),
        signals = shutdown.follow_signals() => Ok(signals?),
    }
}
