//! A day of a todo app through the worker's own jobs: schedules tick, changes are forwarded, done tasks come again, mail arrives; each effect once.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        eventually,
        kafka::Record,
        mail::MailServer,
        stack::Stack,
        unique,
        worker::{Launch, Worker},
    },
};

const USERS: usize = 12;
/// What becomes of a reminder.
const REMINDERS: [&str; 5] = ["reminder.scheduled", "reminder.cancelled", "reminder.due", "reminder.sent", "notification.delivered"];
const MINUTE: Duration = Duration::from_secs(60);

/// The day as one user has it: a task that recurs, a change to it, and its completion.
fn day(user: usize) -> Vec<Value> {
    let event = |step: &str, data: Value| {
        json!({ "event_id": format!("{step}-{user}"), "event_type": format!("task.{step}"), "user_id": format!("user-{user}"), "task_id": user + 1,
                "timestamp": "2026-03-28T12:00:00Z", "data": data })
    };
    let due = "2026-03-28T08:00:00Z";
    vec![
        event("created", json!({ "title": "Water the plants", "recurring_pattern": "DAILY", "due_date": due })),
        event("updated", json!({ "priority": "high" })),
        event("completed", json!({ "recurring_pattern": "DAILY", "due_date": due, "timezone": "Europe/Berlin" })),
    ]
}

/// A handler that tells each user of a reminder.
fn notifying(mail: &MailServer) -> String {
    let keys =
        format!("smtp = \"smtp://{}?tls=none\"\nfrom = \"todo@example.com\"\nto = \"{{{{ user_id }}}}@example.com\"\n", mail.address());
    format!("[[handlers]]\nname = \"mail\"\nkind = \"notify\"\nevents = [\"reminder.due\"]\n[handlers.notify]\n{keys}")
}

/// How many users have mail.
fn told(mail: &MailServer) -> usize {
    mail.told("mail").iter().map(|mail| mail["to"][0].to_string()).collect::<BTreeSet<_>>().len()
}

/// Each user has one mail; what a crash repeated has the same `Message-ID`.
fn each_user_was_told_once(mail: &MailServer) {
    let mails = mail.told("mail");
    let id = |text: &str| text.lines().find(|line| line.starts_with("Message-ID: ")).unwrap().to_owned();
    let ids: BTreeSet<_> = mails.iter().map(|mail| (mail["to"][0].to_string(), id(mail["mail"].as_str().unwrap()))).collect();
    let users: BTreeSet<_> = ids.iter().map(|(to, _)| to.clone()).collect();
    assert_eq!((users.len(), ids.len()), (USERS, USERS), "{ids:?}");
    assert!(mails.iter().all(|mail| mail["mail"].as_str().unwrap().contains("Subject: Reminder: Call the bank")), "{mails:?}");
}

/// What else each user does, now: another task done, one deleted, one to be reminded of, a login as always, and one that is not like them.
fn evening(user: usize) -> Vec<Value> {
    let event = |step: &str, kind: &str, data: Value| {
        let task = match kind {
            "reminder.scheduled" => json!(200 + user),
            "user.logged_in" => Value::Null,
            _ => json!(100 + user),
        };
        json!({ "event_id": format!("evening-{step}-{user}"), "event_type": kind, "user_id": format!("user-{user}"), "task_id": task,
                "timestamp": chrono::Utc::now().to_rfc3339(), "data": data })
    };
    let login =
        |network: &str, agent: &str| json!({ "login_method": "email", "ip_address": format!("{network}.{user}.7"), "user_agent": agent });
    let soon = chrono::Utc::now() + chrono::TimeDelta::seconds(8);
    vec![
        event(
            "reminder",
            "reminder.scheduled",
            json!({ "title": "Call the bank", "remind_at": soon, "due_date": soon + chrono::TimeDelta::hours(1) }),
        ),
        event("completed", "task.completed", json!({})),
        event("deleted", "task.deleted", json!({ "reason": "user_requested" })),
        event("home", "user.logged_in", login("203.0", "Mozilla/5.0")),
        event("elsewhere", "user.logged_in", login("198.51", "curl/8.5")),
    ]
}

/// Points and figures moved, deletions are on record, odd logins were told: each once.
async fn check_figures_and_records(worker: &Worker, audit: &Path, tasks: &[Record]) {
    let (status, stats) = worker.get("/stats").await.unwrap();
    assert_eq!(status, 200, "{stats}");
    let stats: Value = serde_json::from_str::<Value>(&stats).unwrap()["handlers"].take();
    let board = stats["points"]["leaderboard"].as_array().unwrap();
    assert!(board.len() == USERS && board.iter().all(|row| row["points"] == 20), "two tasks done, by each: {board:?}");
    let figures = |name: &str| stats["figures"]["events"][name].clone();
    assert_eq!([figures("task.completed"), figures("user.logged_in")], [USERS, 2 * USERS].map(Value::from));
    assert_eq!(stats["figures"]["active_users"], json!({ "day": USERS, "month": USERS }));
    let verified = Command::new(env!("CARGO_BIN_EXE_worker")).args(["audit", "verify", "-o", "json"]).arg(audit).output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let lines: String = std::fs::read_dir(audit).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    let on_record = |user: &usize| lines.contains(&format!("\"id\":\"evening-deleted-{user}\""));
    assert!((0..USERS).all(|user| on_record(&user)));
    let alerts: BTreeSet<_> = tasks
        .iter()
        .map(Record::json)
        .filter(|event| event["event_type"] == "security.alert")
        .map(|event| event["event_id"].to_string())
        .collect();
    assert_eq!(alerts.len(), 2 * USERS, "a new device and a new network, for each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_has_each_of_its_effects_once() {
    live(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_has_each_of_its_effects_once_although_workers_are_killed() {
    live(true).await;
}

async fn live(kills: bool) {
    let stack = stack_or_skip!(Stack::shared());
    let (name, kafka) = (unique("day"), stack.kafka());
    let [tasks, updates] = ["day-tasks", "day-updates"].map(unique);
    for topic in [&tasks, &updates] {
        kafka.create_topic(topic, 3, &[]).await;
    }
    let here = ["task.created", "task.updated", "task.completed", "task.deleted", "recurring.triggered", "recurring.spawned"];
    let catalog =
        super::schedules::catalog(&tasks, &[&here[..], &["user.logged_in", "points.awarded", "security.alert"], &REMINDERS[..]].concat());
    let audit = tempfile::tempdir().unwrap();
    let mail = MailServer::start(&[]).await;
    let app = App::start(|_| Answer::status(200)).await;
    let toml = format!(
        "catalog.dir = {:?}\nkafka.topics = [{tasks:?}]\n\
         [[handlers]]\nname = \"sync\"\nkind = \"forward\"\nevents = [\"task.*\"]\nto = {updates:?}\n\
         [[handlers]]\nname = \"next\"\nkind = \"recurrence\"\n\
         [[handlers]]\nname = \"reminders\"\nkind = \"reminder\"\n\
         [[handlers]]\nname = \"backend\"\nkind = \"http\"\nevents = [\"recurring.spawned\"]\nbody = \"event\"\nurl = {:?}\n\
         [[handlers]]\nname = \"points\"\nkind = \"points\"\npoints.top = 50\n\
         [[handlers]]\nname = \"figures\"\nkind = \"analytics\"\n\
         [[handlers]]\nname = \"audit\"\nkind = \"audit\"\naudit.dir = {:?}\n\
         [[handlers]]\nname = \"watch\"\nkind = \"security\"\nsecurity.key = \"of this test\"\n{}",
        catalog.path(),
        app.url("/spawned"),
        audit.path(),
        mail.as_ref().map(notifying).unwrap_or_default(),
    );
    let consumer = || Launch::role("consumer", &stack, &name, &toml);
    let producer = Launch::role("producer", &stack, &name, &toml).start_ready().await;
    let (mut first, mut second) = (consumer().start_ready().await, consumer().start_ready().await);
    let lines: String =
        (0..USERS).flat_map(|user| day(user).into_iter().chain(evening(user))).map(|event| event.to_string() + "\n").collect();
    let request = reqwest::Client::new().post(producer.publish_url("/events")).header("content-type", "application/x-ndjson").body(lines);
    assert_eq!(request.send().await.unwrap().status(), 202);

    if kills {
        app.wait_for(USERS / 3, MINUTE).await;
        first.kill();
        first = consumer().start_ready().await;
        app.wait_for(USERS / 2, MINUTE).await;
        if let Some(mail) = &mail {
            mail.wait_for("mail", USERS / 4).await;
        }
        second.kill();
        second = consumer().start_ready().await;
    }
    app.wait_for(USERS, 2 * MINUTE).await;
    if let Some(mail) = &mail {
        // Nothing is pending before the first reminder is stored, either.
        eventually("a mail for each user", 2 * MINUTE, async || Some(()).filter(|()| told(mail) == USERS)).await;
    }
    first.wait_for_metric("worker_reminders_pending", &[], 2 * MINUTE, |pending| pending == 0.0).await;
    kafka.wait_until_committed(&name, &tasks, 2 * MINUTE).await;
    check_figures_and_records(&first, audit.path(), &kafka.read_all(&tasks).await).await;
    for worker in [&mut first, &mut second] {
        assert_eq!(worker.terminate(MINUTE).await, Some(0));
    }

    let spawned: BTreeMap<String, BTreeSet<(String, String)>> = app.deliveries().iter().fold(BTreeMap::new(), |mut seen, delivery| {
        let event = delivery.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let of_user: &mut BTreeSet<_> = seen.entry(text(&event["data"]["user_id"])).or_default();
        of_user.insert((text(&event["data"]["task_id"]), text(&event["data"]["due_date"])));
        seen
    });
    assert_eq!(spawned.len(), USERS);
    assert!(spawned.values().all(|tasks| tasks.len() == 1), "one next task for each: {spawned:?}");
    assert!(
        spawned.values().flatten().all(|(_, due)| due == "2026-03-29T07:00:00Z"),
        "nine o'clock, on the day of the change: {spawned:?}"
    );
    mail.iter().for_each(each_user_was_told_once);
    let copies: BTreeSet<_> = kafka.read_all(&updates).await.iter().map(|record| record.json()["event_id"].to_string()).collect();
    assert_eq!(copies.len(), USERS * 5, "every change of a task reached the clients' topic");
    for topic in [&tasks, &updates] {
        kafka.delete_topic(topic).await;
    }
}

/// Tasks are made with a reminder each; those of every third user are done before its time.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_reminder_is_reminded_once_although_workers_are_killed_and_not_of_what_is_done() {
    let stack = stack_or_skip!(Stack::shared());
    let (name, kafka, tasks) = (unique("reminded"), stack.kafka(), unique("reminded-tasks"));
    kafka.create_topic(&tasks, 3, &[]).await;
    let types =
        ["task.created", "task.completed", "task.updated", "task.deleted", "reminder.scheduled", "reminder.cancelled", "reminder.due"];
    let catalog = super::schedules::catalog(&tasks, &types);
    let app = App::start(|_| Answer::status(200)).await;
    let toml = format!(
        "catalog.dir = {:?}\nkafka.topics = [{tasks:?}]\n[[handlers]]\nname = \"reminders\"\nkind = \"reminder\"\n\
         [[handlers]]\nname = \"remind\"\nkind = \"http\"\nevents = [\"reminder.due\"]\nbody = \"event\"\nurl = {:?}\n",
        catalog.path(),
        app.url("/remind"),
    );
    let consumer = || Launch::role("consumer", &stack, &name, &toml);
    let producer = Launch::role("producer", &stack, &name, &toml).start_ready().await;
    let (mut first, mut second) = (consumer().start_ready().await, consumer().start_ready().await);
    let now = chrono::Utc::now();
    let after = |ms: i64| now + chrono::TimeDelta::milliseconds(ms);
    let day = |user: usize| {
        let due = after(10_000 + 500 * i64::try_from(user).unwrap());
        let event = |name: &str, at: i64, data: Value| {
            json!({ "event_id": format!("{name}-{user}"), "event_type": name, "user_id": format!("user-{user}"), "task_id": user + 1,
                    "timestamp": after(at), "data": data })
        };
        let mut day = vec![
            event("task.created", 0, json!({ "title": "Call the bank", "due_date": due })),
            event("reminder.scheduled", 0, json!({ "due_date": due, "title": "Call the bank" })),
        ];
        if user.is_multiple_of(3) {
            day.push(event("task.completed", 1, json!({})));
        }
        day
    };
    let lines: String = (0..USERS).flat_map(day).map(|event| event.to_string() + "\n").collect();
    let request = reqwest::Client::new().post(producer.publish_url("/events")).header("content-type", "application/x-ndjson").body(lines);
    assert_eq!(request.send().await.unwrap().status(), 202);

    let reminded = USERS - USERS.div_ceil(3);
    app.wait_for(2, MINUTE).await;
    first.kill();
    let mut third = consumer().start_ready().await;
    app.wait_for(reminded / 2, MINUTE).await;
    second.kill();
    app.wait_for(reminded, 2 * MINUTE).await;
    third.wait_for_metric("worker_reminders_pending", &[], MINUTE, |pending| pending == 0.0).await;
    kafka.wait_until_committed(&name, &tasks, 2 * MINUTE).await;
    assert_eq!(third.terminate(MINUTE).await, Some(0));

    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for delivery in app.deliveries() {
        let event = delivery.json();
        assert_eq!(event["data"]["title"], "Call the bank");
        told.entry(event["data"]["user_id"].as_str().unwrap().to_owned())
            .or_default()
            .insert(event["event_id"].as_str().unwrap().to_owned());
    }
    assert!(told.len() == reminded && told.values().all(|ids| ids.len() == 1), "{told:?}");
    assert!((0..USERS).step_by(3).all(|user| !told.contains_key(&format!("user-{user}"))), "{told:?}");
    kafka.delete_topic(&tasks).await;
}
