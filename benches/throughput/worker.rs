//! The worker itself: the whole consumer role, with a handler in process that does nothing.

use std::sync::Arc;

use worker::{
    config::{Config, Role, Sources},
    handler::{Binding, Handler, Run},
    outcome::{Handled, HandlerResult},
    roles::{self, Options},
    shutdown::Shutdown,
};

use crate::{
    meter::Meter,
    stack::{Stack, unique},
};

/// Counts.
struct Noop(Arc<Meter>);

impl Handler for Noop {
    async fn handle(&self, _run: Run) -> HandlerResult {
        self.0.add(1);
        Ok(Handled::Done)
    }
}

/// Runs the role until the last event was handled. `store`: `store.url`.
///
/// # Errors
/// Where the role ends by itself.
pub fn consume(stack: &Stack, topic: &str, store: &str, meter: &Arc<Meter>) -> anyhow::Result<()> {
    let group = unique("worker");
    let sets = vec![
        format!("kafka.brokers=\"{}\"", stack.brokers),
        format!("kafka.group_id=\"{group}\""),
        format!("kafka.topics=[\"{topic}\"]"),
        format!("store.url=\"{store}\""),
        String::from("http.listen=\"127.0.0.1:0\""),
    ];
    // Without a role: the only handler is in process, which the configuration knows nothing of.
    let loaded = Config::load(&Sources { sets, ..Sources::default() })?;
    let bindings = vec![Binding::new("noop", &["*"], Noop(Arc::clone(meter)))];
    let shutdown = Shutdown::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let role = roles::run(Role::Consumer, loaded, Options { bindings, ..Options::default() }, shutdown.clone());
        let stop = async {
            meter.done().await;
            shutdown.drain();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = role => anyhow::Ok(result?),
            () = stop => Ok(()),
        }
    })
}
