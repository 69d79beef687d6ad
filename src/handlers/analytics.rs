//! Kind `analytics`: what happens per day, how much of it gets done and how soon, and how many users there are.

mod figures;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use futures_util::future::{BoxFuture, FutureExt};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use self::figures::{COMPLETE_COUNT, COMPLETE_MS, Calendar, Day, POINTS, event_figure, summary};
use super::stats::Page;
use crate::{
    config::analytics::AnalyticsConfig,
    engine::ports::StoreError,
    event::{Event, time},
    handler::{Handler, Run},
    outcome::{Failure, Handled, HandlerResult},
    store::tally::{Count, TallyStore},
    telemetry::Metrics,
};

/// How long a task's creation is remembered for its completion.
const CREATED: Duration = Duration::from_secs(90 * 24 * 3600);
/// How old the numbers of users on `/metrics` may be.
const FRESH: Duration = Duration::from_secs(15);

/// Counts events by type and the day that they happened on, each once however often it comes.
pub struct AnalyticsHandler {
    name: String,
    config: AnalyticsConfig,
    calendar: Calendar,
    tally: Arc<dyn TallyStore>,
    metrics: Metrics,
    refreshed: Mutex<Option<Instant>>,
}

impl AnalyticsHandler {
    /// `zone`: whose days.
    pub fn new(name: &str, config: AnalyticsConfig, zone: Tz, tally: Arc<dyn TallyStore>, metrics: Metrics) -> Self {
        let calendar = Calendar { zone, late: config.late };
        Self { name: name.to_owned(), config, calendar, tally, metrics, refreshed: Mutex::default() }
    }

    /// Counts it; `false`: it was counted before.
    async fn count(&self, event: &Event, day: &str) -> Result<bool, StoreError> {
        let kind: &str = event.event_type();
        let data = event.data();
        let mut adds = vec![(event_figure(kind), 1)];
        let task = task(event, &data);
        let mut took = None;
        match kind {
            "task.created" => {
                if let Some(task) = task {
                    let at = moment(&data, "created_at").unwrap_or_else(|| event.time());
                    self.tally.note(&self.name, task, at.timestamp_millis(), CREATED).await?;
                }
            }
            "task.completed" => {
                took = self.took(event, &data, task).await?;
                adds.extend(took.into_iter().flat_map(|took| [(COMPLETE_MS.to_owned(), took), (COMPLETE_COUNT.to_owned(), 1)]));
            }
            "points.awarded" => adds.extend(data["points"].as_i64().map(|points| (POINTS.to_owned(), points))),
            _ => {}
        }
        let id = [event.user_id().as_bytes(), event.id().as_bytes()].join(&0);
        let remember = self.config.late + 2 * figures::DAY;
        let count = Count { book: &self.name, day, event: xxh3_128(&id), adds, remember, keep: self.config.keep };
        let counted = self.tally.count(count).await?;
        if counted {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of a human life fit")]
            took.into_iter().for_each(|took| self.metrics.time_to_complete.observe(took as f64 / 1000.0));
        }
        // Only now: a run that ends before is repeated, and must find it.
        if let (Some(task), "task.completed") = (task, kind) {
            self.tally.forget(&self.name, task).await?;
        }
        Ok(counted)
    }

    /// Milliseconds from creation to completion: by the event itself, by the task's creation as it was seen, or by the time worked on it.
    async fn took(&self, event: &Event, data: &Value, task: Option<u128>) -> Result<Option<i64>, StoreError> {
        let completed = moment(data, "completed_at").unwrap_or_else(|| event.time()).timestamp_millis();
        let created = match (moment(data, "created_at"), task) {
            (Some(at), _) => Some(at.timestamp_millis()),
            (None, Some(task)) => self.tally.noted(&self.name, task).await?,
            (None, None) => None,
        };
        #[expect(clippy::cast_possible_truncation, reason = "a float that is no time becomes the nearest one")]
        let worked = || data["duration_seconds"].as_f64().map(|seconds| (seconds * 1000.0) as i64);
        Ok(created.map(|created| completed - created).or_else(worked).filter(|took| *took >= 0))
    }

    async fn users(&self) -> Result<(u64, u64), StoreError> {
        let month = self.calendar.last_days(Utc::now());
        let today = self.tally.users(&self.name, &month[..1]).await?;
        Ok((today, self.tally.users(&self.name, &month).await?))
    }
}

impl Handler for AnalyticsHandler {
    async fn handle(&self, run: Run) -> HandlerResult {
        let event = &run.event;
        let away = |error: StoreError| Failure::transient(error.to_string());
        let result = |result: &str| self.metrics.analytics_events.with_label_values(&[event.event_type(), result]).inc();
        let day = self.calendar.day(event.time(), Utc::now());
        if let (Day::Open(day) | Day::Closed(day), "user.logged_in") = (&day, &**event.event_type())
            && event.data()["success"] != false
        {
            self.tally.user(&self.name, day, xxh3_128(event.user_id().as_bytes()), self.config.keep).await.map_err(away)?;
        }
        match day {
            Day::Open(day) => {
                let counted = self.count(event, &day).await.map_err(away)?;
                result(if counted { "counted" } else { "repeated" });
                Ok(Handled::Done)
            }
            Day::Closed(_) => {
                result("late");
                Ok(Handled::Dropped("it comes too late for its day's figures".to_owned()))
            }
            Day::Ahead => {
                result("ahead");
                Ok(Handled::Dropped("it says that it happens in the future".to_owned()))
            }
        }
    }
}

impl Page for AnalyticsHandler {
    fn read(&self) -> BoxFuture<'_, Result<Value, StoreError>> {
        async {
            let days = self.calendar.last_days(Utc::now());
            let rows = self.tally.rows(&self.name, &days).await?;
            let users = self.tally.users(&self.name, &days).await?;
            Ok(summary(self.calendar.zone, days.iter().zip(&rows), users))
        }
        .boxed()
    }

    fn refresh(&self) -> BoxFuture<'_, ()> {
        async {
            {
                let mut refreshed = self.refreshed.lock().unwrap_or_else(PoisonError::into_inner);
                if refreshed.is_some_and(|at| at.elapsed() < FRESH) {
                    return;
                }
                *refreshed = Some(Instant::now());
            }
            // A store that is away is told elsewhere; the numbers stay as they were.
            if let Ok((day, month)) = self.users().await {
                for (window, users) in [("day", day), ("month", month)] {
                    self.metrics
                        .active_users
                        .with_label_values(&[self.name.as_str(), window])
                        .set(i64::try_from(users).unwrap_or(i64::MAX));
                }
            }
        }
        .boxed()
    }
}

/// The user's task.
fn task(event: &Event, data: &Value) -> Option<u128> {
    let task = data.get("task_id").filter(|task| !task.is_null())?.to_string();
    Some(xxh3_128(&[event.user_id().as_bytes(), task.as_bytes()].join(&0)))
}

fn moment(data: &Value, name: &str) -> Option<DateTime<Utc>> {
    data.get(name).and_then(Value::as_str).and_then(time::parse)
}
