//! What the worker does by itself: one user's day, in short.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::json;

use super::{figures::Caused, mailbox::Mailbox, observed::Observed, stage::Stage, story::Mark, stream::Stream};

/// Whose day it is.
const USER: &str = "mia";
/// What her five events must cause, once each; `reminder.sent` and `notification.delivered` by the mail.
const CAUSED: [&str; 7] = [
    "notification.delivered",
    "points.awarded",
    "recurring.spawned",
    "recurring.triggered",
    "reminder.due",
    "reminder.sent",
    "security.alert",
];
/// What is put on record.
pub(super) const AUDITED: &str = "task.deleted";
/// From the reminder's scheduling to its time.
const AHEAD: TimeDelta = TimeDelta::milliseconds(800);
/// What is caused a second time would come within this.
const AFTERWARDS: Duration = Duration::from_millis(150);

/// A reminder, two logins, the second from another device, a completed task that recurs, and a deleted one.
pub(super) async fn day(stage: &mut Stage, stream: &mut Stream, mailbox: &Mailbox) -> anyhow::Result<Caused> {
    stage.story.act(4, "What no app has to do: reminders by mail, recurring tasks, points, suspicious logins, records of what was deleted");
    stage.follow(Some(USER));
    let time = |ahead: TimeDelta| (Utc::now() + ahead).to_rfc3339_opts(SecondsFormat::Millis, true);
    let task = json!({ "task_id": 7, "title": "Water the plants", "remind_at": time(AHEAD), "due_date": time(TimeDelta::hours(1)) });
    stream.publish_with("reminder.scheduled", USER, task).await?;
    for device in ["Mozilla/5.0 (X11; Linux x86_64) Firefox", "curl"] {
        stream.publish_with("user.logged_in", USER, json!({ "user_agent": device })).await?;
    }
    // Other tasks than the reminder's, which would be removed with its own.
    stream.publish_with("task.completed", USER, json!({ "task_id": 8, "recurring_pattern": "DAILY" })).await?;
    stream.publish_with(AUDITED, USER, json!({ "task_id": 9 })).await?;
    stage.until("what the worker does by itself", |seen| caused(seen, stream).len() == CAUSED.len()).await?;
    stage.watch(AFTERWARDS).await?;
    stage.follow(None);
    let mails = mailbox.mails_to(&format!("{USER}@example.com"));
    for mail in &mails {
        stage.story.event(Mark::Done, Instant::now(), USER, "mail", &format!("arrived at {}: {}", mail.to, mail.subject));
    }
    let seen = caused(&stage.observed, stream);
    let sent = stream.sent.iter().filter(|sent| sent.user == USER).count();
    stage
        .story
        .note(&format!("{USER} did {sent} things; the worker published {} events of its own about them.", seen.values().sum::<usize>()));
    Ok(Caused { user: USER.to_owned(), wanted: CAUSED.map(str::to_owned).to_vec(), seen, mails })
}

/// Handled events of the user that the tour did not publish, by type.
fn caused(seen: &Observed, stream: &Stream) -> BTreeMap<String, usize> {
    let mut types = BTreeMap::new();
    for ran in seen.runs.iter().filter(|ran| !ran.failed && ran.user == USER && !stream.has_sent(&ran.id)) {
        *types.entry(ran.event_type.to_string()).or_default() += 1;
    }
    types
}
