//! Kind `points`: points for completed tasks, more for days in a row, and who has most.

mod rules;

use std::sync::Arc;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use chrono_tz::Tz;
use futures_util::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};

use self::rules::{Award, Bonus, Part, Player};
use super::{
    outlet::{Derived, Outlet},
    stats::Page,
};
use crate::{
    calendar,
    config::{
        condition::{Condition, Subject},
        points::PointsConfig,
    },
    engine::ports::StoreError,
    event::{Event, time},
    handler::{Handler, Run},
    outcome::{Failure, Handled, HandlerResult},
    store::accounts::{Accounts, Change, Turn},
};

/// What a day must not be further behind or ahead of its record's time, to count for a streak: else somebody could make one up.
const LATE: TimeDelta = TimeDelta::days(7);
const EARLY: TimeDelta = TimeDelta::days(1);

/// Awards points and publishes `points.awarded`, derived from the event that they are for.
///
/// An award is posted to the user's account once per event; whoever handles the event again finds the award that was made and publishes
/// the same one. Accounts are kept for ever, answers for `store.retention`.
pub struct PointsHandler {
    name: Arc<str>,
    config: PointsConfig,
    rules: Vec<Condition>,
    zone: Tz,
    accounts: Accounts,
    outlet: Outlet,
}

impl PointsHandler {
    /// `zone`: of users whose events name none.
    ///
    /// # Errors
    /// Where a rule is no CEL expression.
    pub fn new(name: &str, config: PointsConfig, zone: Tz, accounts: Accounts, outlet: Outlet) -> Result<Self, String> {
        let rules = config.rules.iter().map(|rule| Condition::compile(&rule.condition)).collect::<Result<_, _>>()?;
        Ok(Self { name: name.into(), config, rules, zone, accounts, outlet })
    }

    /// What the event earns apart from its day.
    fn parts(&self, event: &Event, data: &Value) -> Vec<Part> {
        let mut parts = vec![Part { reason: event.event_type().replace('.', "_"), points: self.config.points }];
        if !self.rules.is_empty() {
            let subject = Subject::new(&json!({
                "id": event.id(), "type": &**event.event_type(), "user_id": event.user_id(), "time": time::format(event.time()), "data": data,
            }));
            let holds = |rule: &Condition| rule.holds(&subject).unwrap_or_default();
            let held = self.config.rules.iter().zip(&self.rules).filter(|(_, condition)| holds(condition));
            parts.extend(held.map(|(rule, _)| Part { reason: rule.reason.clone(), points: rule.points }));
        }
        parts.retain(|part| part.points > 0);
        parts
    }

    /// The user's day that it counts for; `None`: none.
    fn day(&self, event: &Event, data: &Value) -> Result<Option<i32>, String> {
        let text = |name: &str| data.get(name).and_then(Value::as_str);
        let zone = text("timezone").map_or(Ok(self.zone), calendar::zone).map_err(|why| format!("data.timezone: {why}"))?;
        let at = text("completed_at").and_then(time::parse).unwrap_or_else(|| event.time());
        Ok(day_of(at, time::of_record(event.record().timestamp()), zone))
    }
}

/// Days since the beginning of our era, in that zone.
fn day_of(at: DateTime<Utc>, written: DateTime<Utc>, zone: Tz) -> Option<i32> {
    (written - LATE <= at && at <= written + EARLY).then(|| at.with_timezone(&zone).date_naive().num_days_from_ce())
}

impl Handler for PointsHandler {
    async fn handle(&self, run: Run) -> HandlerResult {
        let event = &run.event;
        let data = event.data();
        let (parts, day) = (self.parts(event, &data), self.day(event, &data).map_err(Failure::permanent)?);
        let bonus = Bonus { per_day: self.config.streak_bonus, most_days: self.config.streak_days };
        let turn = Turn { book: &self.name, subject: event.user_id(), event: event.id() };
        let award: Award = self
            .accounts
            .once(turn, |player: &mut Player| {
                let answer = player.award(parts.clone(), day, bonus);
                Change { answer, keep: None, score: Some(player.total()) }
            })
            .await
            .map_err(|error| Failure::transient(error.to_string()))?;
        if award.points == 0 {
            return Ok(Handled::Dropped("no rule awards points for it".to_owned()));
        }
        let reason = award.parts.first().map(|part| part.reason.as_str()).unwrap_or_default();
        let mut told = json!({ "points": award.points, "reason": reason, "total": award.total, "parts": award.parts });
        if let Some(streak) = award.streak_days {
            told["streak_days"] = streak.into();
        }
        if let Some(task) = data.get("task_id").filter(|task| !task.is_null()) {
            told["task_id"] = task.clone();
        }
        self.outlet.derive(event, Derived { step: "points.awarded", event_type: "points.awarded", data: told }).await?;
        Ok(Handled::Done)
    }
}

impl Page for PointsHandler {
    fn read(&self) -> BoxFuture<'_, Result<Value, StoreError>> {
        async {
            let top = self.accounts.top(&self.name, self.config.top).await?;
            let board: Vec<_> = top.iter().map(|(user, points)| json!({ "user_id": user, "points": points })).collect();
            Ok(json!({ "kind": "points", "leaderboard": board }))
        }
        .boxed()
    }
}
