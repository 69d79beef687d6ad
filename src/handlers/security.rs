//! Kind `security`: logins that are not like the user's others, or too many at once.

mod rules;
mod traces;

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use self::{
    rules::{Address, Alert, Limits, Login, User},
    traces::Traces,
};
use super::outlet::{Derived, Outlet};
use crate::{
    config::security::SecurityConfig,
    event::{Event, time},
    handler::{Handler, Run},
    outcome::{Failure, Handled, HandlerResult},
    store::accounts::{Accounts, Change, Turn},
    telemetry::Metrics,
};

/// Looks at each login in the light of the user's and the address' recent ones, and publishes a `security.alert` for each rule that it breaks.
///
/// What is known of a user or an address is bounded, is changed once per login, and holds no address: networks, addresses and devices are
/// hashes under the configured key. A login that is handled again finds the alerts that it raised.
pub struct SecurityHandler {
    name: Arc<str>,
    limits: Limits,
    traces: Traces,
    remember: Duration,
    accounts: Accounts,
    outlet: Outlet,
    metrics: Metrics,
}

impl SecurityHandler {
    /// `fallback`: the key of hashes where none is configured.
    pub fn new(name: &str, config: &SecurityConfig, fallback: &str, accounts: Accounts, outlet: Outlet, metrics: Metrics) -> Self {
        let key = if config.key.is_empty() { fallback } else { config.key.expose() };
        let (limits, traces, remember) = (Limits::of(config), Traces::new(key), config.remember);
        Self { name: name.into(), limits, traces, remember, accounts, outlet, metrics }
    }

    fn login(&self, event: &Event, data: &Value) -> Login {
        let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
        let address = text("ip_address");
        // A time ahead of its record would empty every window.
        let at = event.time().min(time::of_record(event.record().timestamp())).timestamp_millis();
        Login {
            at,
            failed: data.get("success") == Some(&Value::Bool(false)),
            user: self.traces.of("user", event.user_id()),
            device: self.traces.device(text("user_agent")),
            network: self.traces.network(address),
            address: self.traces.address(address),
        }
    }
}

impl Handler for SecurityHandler {
    async fn handle(&self, run: Run) -> HandlerResult {
        let event = &run.event;
        let login = self.login(event, &event.data());
        let away = |error: crate::engine::ports::StoreError| Failure::transient(error.to_string());
        let turn = |subject| Turn { book: &self.name, subject, event: event.id() };
        let user = format!("user:{}", login.user);
        let of_user = self.accounts.once(turn(&user), |user: &mut User| {
            let answer = user.take(&login, &self.limits);
            Change { answer, keep: Some(self.remember), score: None }
        });
        let mut alerts: Vec<Alert> = of_user.await.map_err(away)?;
        // Another user's equal event id is another login.
        let (address, id) = (format!("address:{}", login.address), format!("{}:{}", login.user, event.id()));
        let of_address = self.accounts.once(Turn { event: &id, ..turn(&address) }, |address: &mut Address| {
            let answer = address.take(&login, &self.limits);
            Change { answer, keep: Some(2 * self.limits.window), score: None }
        });
        alerts.extend(of_address.await.map_err(away)?);
        for alert in alerts {
            let step = format!("security.alert {}", alert.rule);
            let data = serde_json::json!({ "rule": alert.rule, "severity": alert.severity, "evidence": alert.evidence });
            self.outlet.derive(event, Derived { step: &step, event_type: "security.alert", data }).await?;
            self.metrics.security_alerts.with_label_values(&[alert.rule.as_str()]).inc();
        }
        Ok(Handled::Done)
    }
}
