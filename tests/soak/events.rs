//! The events of a soak: their users, types and shapes, and what the app makes of each; all of it follows from the seed and a number.

use serde_json::{Value, json};

/// Topics with their partitions at the start.
pub const TOPICS: [(&str, i32); 3] = [("task-events", 12), ("reminders", 3), ("user-events", 5)];
pub const USERS: u64 = 200;

/// What becomes of an event in the end, for one handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// 200 at once, or after this many milliseconds.
    Done(u64),
    /// So many failures of that kind first.
    Fails(usize, Failure),
    /// 200 with `{"status":"DROP"}`.
    Dropped,
    /// 422.
    Permanent,
    /// 500 whenever it comes.
    Exhausted,
}

/// How a run fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// 500.
    Error,
    /// 503 with `Retry-After: 1`.
    Busy,
    /// 200 with `{"status":"RETRY"}`.
    Retry,
    /// No answer in time.
    Timeout,
}

/// A record that no handler may see, as some other program would write it.
pub struct Poison {
    pub topic: &'static str,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// Type, and topic, of the n-th event.
pub fn kind(n: u64) -> (&'static str, &'static str) {
    match n % 6 {
        0 => ("task.created", "task-events"),
        1 | 5 => ("task.completed", "task-events"),
        2 => ("reminder.due", "reminders"),
        3 => ("task.updated", "task-events"),
        _ => ("user.logged_in", "user-events"),
    }
}

/// Who handles a type.
pub fn handlers(event_type: &str) -> &'static [&'static str] {
    if event_type == "task.completed" { &["app", "points"] } else { &["app"] }
}

/// Delays of each type's schedule in the soak's configuration, in milliseconds.
pub fn delays(event_type: &str) -> &'static [u64] {
    match event_type {
        "task.completed" => &[300, 2_000],
        "reminder.due" => &[500, 1_000, 4_000],
        "task.updated" => &[200],
        _ => &[200, 500, 1_000],
    }
}

/// The n-th event as a producer sends it.
pub fn line(seed: u64, n: u64) -> String {
    let (event_type, _) = kind(n);
    let user = user(seed, n);
    let at = "2026-01-05T10:00:00Z";
    let data = match event_type {
        "task.created" => json!({"task_id": n, "user_id": user, "title": format!("Task {n}"), "n": n}),
        "task.completed" => json!({"task_id": n, "user_id": user, "completed_at": at, "n": n}),
        "task.updated" => json!({"task_id": n, "user_id": user, "title": format!("Task {n} — größer"), "n": n}),
        "reminder.due" => json!({"task_id": n, "user_id": user, "n": n}),
        _ => json!({"user_id": user, "login_method": "email", "ip_address": "203.0.113.7", "user_agent": "curl/8.5", "n": n}),
    };
    json!({"event_id": id(seed, n), "event_type": event_type, "event_version": "1.0", "timestamp": at, "source": "soak", "data": data})
        .to_string()
}

/// The n-th event's id.
pub fn id(seed: u64, n: u64) -> String {
    uuid::Uuid::from_u64_pair(seed, n).to_string()
}

/// The number of a stored event; `None`: another program wrote it.
pub fn number(value: &[u8]) -> Option<u64> {
    let value: Value = serde_json::from_slice(value).ok()?;
    value["data"]["n"].as_u64().filter(|_| value["source"] == "soak")
}

fn user(seed: u64, n: u64) -> String {
    // A few users have most of the events.
    let spread = if n.is_multiple_of(3) { USERS / 20 } else { USERS };
    format!("user-{}", dice(seed, n, "user") % spread)
}

/// What the app makes of the n-th event, when that handler is asked.
pub fn fate(seed: u64, n: u64, handler: &str) -> Fate {
    let most = delays(kind(n).0).len();
    let roll = dice(seed, n, handler);
    let failures = 1 + (roll >> 32) as usize % most;
    match roll % 1000 {
        0..15 => Fate::Permanent,
        15..22 => Fate::Exhausted,
        22..27 => Fate::Dropped,
        27..45 => Fate::Fails(failures, Failure::Error),
        45..55 => Fate::Fails(failures, Failure::Busy),
        55..65 => Fate::Fails(failures, Failure::Retry),
        65..70 => Fate::Fails(1, Failure::Timeout),
        70..150 => Fate::Done(20 + (roll >> 32) % 400),
        _ => Fate::Done(0),
    }
}

/// Whether a producer sends the n-th event a second time on purpose.
pub fn twice(seed: u64, n: u64) -> bool {
    dice(seed, n, "twice").is_multiple_of(60)
}

/// What other programs wrote meanwhile.
pub fn poison(seed: u64, n: u64) -> Option<Poison> {
    let roll = dice(seed, n, "poison");
    if !roll.is_multiple_of(150) {
        return None;
    }
    let user = user(seed, n);
    let value = match (roll >> 32) % 4 {
        0 => format!("{{\"event_type\": {n}"),
        1 => format!("{{\"event_type\":\"task.completed\",\"task_id\":{n}}}"),
        2 => format!("{{\"event_type\":\"task.exploded\",\"user_id\":\"{user}\",\"task_id\":{n}}}"),
        _ => format!("{{\"event_type\":\"task.created\",\"user_id\":\"{user}\",\"data\":{{\"task_id\":{n},\"title\":\"\"}}}}"),
    };
    Some(Poison { topic: TOPICS[(roll >> 40) as usize % 3].0, key: user.into_bytes(), value: value.into_bytes() })
}

/// Why a foreign record must be dead.
pub fn poison_reason(value: &[u8]) -> &'static str {
    match serde_json::from_slice::<Value>(value) {
        Err(_) => "undecodable",
        Ok(value) if value["event_type"] == "task.exploded" => "unknown_type",
        Ok(value) if value["event_type"] == "task.created" => "schema",
        Ok(_) => "missing_user_id",
    }
}

fn dice(seed: u64, n: u64, what: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(format!("{n} {what}").as_bytes(), seed)
}
