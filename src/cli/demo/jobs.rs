//! What the worker does by itself: one user's day, in short.

use std::{collections::BTreeMap, time::Duration};

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::json;

use super::{figures::Caused, observed::Observed, stage::Stage, stream::Stream};

/// Whose day it is.
const USER: &str = "mia";
/// What her four events must cause, once each.
const CAUSED: [&str; 5] = ["points.awarded", "recurring.spawned", "recurring.triggered", "reminder.due", "security.alert"];
/// From the reminder's scheduling to its time.
const AHEAD: TimeDelta = TimeDelta::milliseconds(800);
/// What is caused a second time would come within this.
const AFTERWARDS: Duration = Duration::from_millis(150);

/// A reminder, two logins, the second from another device, and a completed task that recurs.
pub(super) async fn day(stage: &mut Stage, stream: &mut Stream) -> anyhow::Result<Caused> {
    stage.story.act(4, "What no app has to do: reminders, recurring tasks, points, suspicious logins");
    stage.follow(Some(USER));
    let time = |ahead: TimeDelta| (Utc::now() + ahead).to_rfc3339_opts(SecondsFormat::Millis, true);
    let task = json!({ "task_id": 7, "remind_at": time(AHEAD), "due_date": time(TimeDelta::hours(1)) });
    stream.publish_with("reminder.scheduled", USER, task).await?;
    for device in ["Mozilla/5.0 (X11; Linux x86_64) Firefox", "curl"] {
        stream.publish_with("user.logged_in", USER, json!({ "user_agent": device })).await?;
    }
    // Another task than the reminder's, which would be removed with its own.
    stream.publish_with("task.completed", USER, json!({ "task_id": 8, "recurring_pattern": "DAILY" })).await?;
    stage.until("what the worker does by itself", |seen| caused(seen, stream).len() == CAUSED.len()).await?;
    stage.watch(AFTERWARDS).await?;
    stage.follow(None);
    let seen = caused(&stage.observed, stream);
    let sent = stream.sent.iter().filter(|sent| sent.user == USER).count();
    stage
        .story
        .note(&format!("{USER} did {sent} things; the worker published {} events of its own about them.", seen.values().sum::<usize>()));
    Ok(Caused { user: USER.to_owned(), wanted: CAUSED.map(str::to_owned).to_vec(), seen })
}

/// Handled events of the user that the tour did not publish, by type.
fn caused(seen: &Observed, stream: &Stream) -> BTreeMap<String, usize> {
    let mut types = BTreeMap::new();
    for ran in seen.runs.iter().filter(|ran| !ran.failed && ran.user == USER && !stream.has_sent(&ran.id)) {
        *types.entry(ran.event_type.to_string()).or_default() += 1;
    }
    types
}
