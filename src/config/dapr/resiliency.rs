//! `Resiliency` policies of the brokers' inbound side, and the component's own back-off: schedules and time limits.

use std::time::Duration;

use serde_json::Value as Json;

use super::{
    Document, Translation,
    component::{Component, text},
};
use crate::config::units::show;

/// Dapr gives an exponential policy up after this time.
const MOST_ELAPSED: Duration = Duration::from_secs(15 * 60);
/// Most delays that a schedule may have.
const MOST_DELAYS: usize = 250;

/// Names of default policies that apply where a component has no target of its own, the nearest first; `{}` is Retry or Timeout.
const DEFAULTS: [&str; 4] =
    ["DefaultPubsubComponentInbound{}Policy", "DefaultComponentInbound{}Policy", "DefaultComponent{}Policy", "Default{}Policy"];

/// A back-off policy in either of its two homes.
struct Policy {
    exponential: bool,
    duration: Duration,
    initial: Duration,
    factor: f64,
    most: Duration,
    retries: Option<usize>,
}

impl Policy {
    /// Delays before each retry; `None`: it never ends.
    fn delays(&self) -> Option<Vec<Duration>> {
        let retries = self.retries.unwrap_or(usize::MAX);
        if !self.exponential {
            return self.retries.map(|retries| vec![self.duration; retries.min(MOST_DELAYS)]);
        }
        let (mut delays, mut delay, mut elapsed) = (Vec::new(), self.initial.min(self.most), Duration::ZERO);
        while delays.len() < retries.min(MOST_DELAYS) && elapsed + delay <= MOST_ELAPSED {
            elapsed += delay;
            delays.push(Duration::from_millis(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)));
            delay = delay.mul_f64(self.factor).min(self.most);
        }
        Some(delays)
    }
}

/// Translates what applies to these brokers; the rest is noted.
pub(super) fn translate(documents: &[&Document], brokers: &[String], out: &mut Translation) {
    for document in documents.iter().filter(|document| document.kind == "Resiliency") {
        let label = document.label();
        let (policies, targets) = (&document.spec["policies"], &document.spec["targets"]);
        for (kind, targets) in targets.as_object().into_iter().flatten() {
            for name in targets.as_object().into_iter().flatten().map(|(name, _)| name) {
                let from = format!("{label}.targets.{kind}.{name}");
                if kind != "components" {
                    out.ignore(&from, "the worker calls no other apps and has no actors");
                } else if !brokers.contains(name) {
                    out.ignore(&from, "is none of these brokers");
                }
            }
        }
        let target = brokers.first().map(|name| &targets["components"][name]);
        if let Some(target) = target.filter(|target| !target["outbound"].is_null()) {
            out.ignore(
                &format!("{label}.targets.components.{}.outbound", brokers[0]),
                format!("publishing waits for the acknowledgement by itself: {}", target["outbound"]),
            );
        }
        let inbound = target.map(|target| &target["inbound"]).unwrap_or(&Json::Null);
        retry(document, policies, inbound, out);
        timeout(document, policies, inbound, out);
        if !inbound["circuitBreaker"].is_null() {
            let from = format!("{label}.{}", text(&inbound["circuitBreaker"]));
            out.ignore(&from, "a failing event delays its own user alone; dlq.breaker_ratio stops a flood of dead letters");
        }
    }
}

/// The policy that applies: the target's, else the first default that is there.
fn policy<'a>(policies: &'a Json, inbound: &Json, table: &str, key: &str, word: &str) -> Option<(String, &'a Json)> {
    let named = inbound[key].as_str().map(str::to_owned);
    let defaults = DEFAULTS.iter().map(|name| name.replace("{}", word)).find(|name| !policies[table][name].is_null());
    let name = named.or(defaults)?;
    Some((name.clone(), &policies[table][name]))
}

fn retry(document: &Document, policies: &Json, inbound: &Json, out: &mut Translation) {
    let Some((name, retry)) = policy(policies, inbound, "retries", "retry", "Retry") else { return };
    let from = format!("{}.retries.{name}", document.label());
    if retry.is_null() {
        return out.decide(&from, "is not among the policies");
    }
    let field = |key: &str, other: Duration| {
        let found = Some(text(&retry[key])).filter(|text| !text.is_empty());
        found.map_or(Ok(other), |text| duration(&text).ok_or(format!("{key}: `{text}` is no duration")))
    };
    let policy = (|| {
        Ok::<_, String>(Policy {
            exponential: text(&retry["policy"]).eq_ignore_ascii_case("exponential"),
            duration: field("duration", Duration::from_secs(5))?,
            initial: field("initialInterval", Duration::from_millis(500))?,
            factor: 1.5,
            most: field("maxInterval", Duration::from_secs(60))?,
            retries: text(&retry["maxRetries"]).parse().ok(),
        })
    })();
    match policy {
        Ok(policy) => schedule(&policy, &from, out),
        Err(why) => out.decide(&from, why),
    }
    if !retry["matching"].is_null() {
        out.decide(&from, "matching: which answers are retried is fixed; see the table of answers in docs/dapr.md");
    }
}

fn schedule(policy: &Policy, from: &str, out: &mut Translation) {
    match policy.delays() {
        Some(delays) if delays.iter().all(|delay| !delay.is_zero()) => {
            let delays: Vec<String> = delays.into_iter().map(show).collect();
            out.set(&["retry", "default", "delays"], delays, from);
            out.decide(
                from,
                "holds for types without a schedule of their own ([retry.\"<type>\"]); after the last retry the event is dead-lettered",
            );
        }
        Some(_) => out.decide(from, "has no pause between retries, which would hammer what just failed: set [retry.default] delays"),
        None => out.decide(from, "never ends in Dapr; here a schedule ends and the event is dead-lettered: set [retry.default] delays"),
    }
}

fn timeout(document: &Document, policies: &Json, inbound: &Json, out: &mut Translation) {
    let Some((name, limit)) = policy(policies, inbound, "timeouts", "timeout", "Timeout") else { return };
    let from = format!("{}.timeouts.{name}", document.label());
    match duration(&text(limit)) {
        Some(limit) if out.root.get(&["handlers", "0"]).is_some() => out.set(&["handlers", "0", "timeout"], show(limit), &from),
        Some(limit) => out.decide(&from, format!("set timeout = \"{}\" of the handler", show(limit))),
        None => out.decide(&from, format!("`{}` is no duration", text(limit))),
    }
}

/// The component's own `backOff..` keys.
pub(super) fn back_off(component: &Component<'_>, out: &mut Translation) {
    let Some(item) = component.items().iter().find(|item| item.name.to_ascii_lowercase().starts_with("backoff")) else { return };
    let from = component.from(item);
    let time = |name: &str, other: Duration| component.text(name).and_then(duration).unwrap_or(other);
    let policy = Policy {
        exponential: component.text("backOffPolicy").is_some_and(|policy| policy.eq_ignore_ascii_case("exponential")),
        duration: time("backOffDuration", Duration::from_secs(5)),
        initial: time("backOffInitialInterval", Duration::from_millis(500)),
        factor: component
            .text("backOffMultiplier")
            .and_then(|text| text.parse().ok())
            .filter(|factor| (1.0..=100.0).contains(factor))
            .unwrap_or(1.5),
        most: time("backOffMaxInterval", Duration::from_secs(60)),
        retries: component.text("backOffMaxRetries").and_then(|text| text.parse().ok()),
    };
    schedule(&policy, &from, out);
}

/// A Go duration: `5s`, `1m30s`, `1.5h`, `500ms`; a bare number is seconds, as Dapr's policies read it.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}
