//! The `notify` handler: a real mail server, a webhook whose receiver is Python, a real Kafka and Redis.

use std::{collections::BTreeMap, process::Command, time::Duration};

use serde_json::{Value, json};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        free_address,
        kafka::Kafka,
        mail::{self, MailServer},
        python,
        stack::Stack,
        unique,
        worker::{Launch, Worker},
    },
};

const LONG: Duration = Duration::from_secs(60);

/// What the handler is bound to and what it publishes; all on one topic of the test's own.
const TYPES: [&str; 8] = [
    "task.created",
    "reminder.due",
    "reminder.sent",
    "reminder.failed",
    "notification.delivered",
    "notification.failed",
    "notification.bounced",
    "notification.due",
];

/// A topic and a dead-letter topic of the test's own, and a worker's file around a `[handlers.notify]`.
struct Place {
    stack: Stack,
    kafka: Kafka,
    name: String,
    topic: String,
    dlq: String,
    catalog: tempfile::TempDir,
}

impl Place {
    async fn new(what: &str) -> Option<Self> {
        let stack = Stack::shared()?;
        let (kafka, name) = (stack.kafka(), unique(what));
        let [topic, dlq] = [format!("{name}-events"), format!("{name}-dlq")];
        kafka.create_topic(&topic, 1, &[]).await;
        kafka.create_topic(&dlq, 1, &[]).await;
        let catalog = super::schedules::catalog(&topic, &TYPES);
        Some(Self { stack, kafka, name, topic, dlq, catalog })
    }

    fn launch(&self, notify: &str) -> Launch {
        let toml = format!(
            "catalog.dir = {:?}\nkafka.topics = [{:?}]\ndlq.topic = {:?}\n\
             [retry.default]\ndelays = [\"100ms\", \"200ms\", \"400ms\"]\n[retry.\"reminder.due\"]\ndelays = [\"100ms\", \"200ms\", \"400ms\"]\n\
             [[handlers]]\nname = \"tell\"\nkind = \"notify\"\n[handlers.notify]\n{notify}\n",
            self.catalog.path(),
            self.topic,
            self.dlq,
        );
        Launch::role("consumer", &self.stack, &self.name, &toml)
    }

    async fn produce(&self, events: &[Value]) {
        for event in events {
            self.kafka.produce(&self.topic, event["user_id"].as_str().unwrap(), event.to_string().as_bytes(), &[]).await;
        }
    }

    /// What the worker published of each user's events, types with channels.
    async fn results(&self) -> BTreeMap<String, Vec<String>> {
        let mut results: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in self.kafka.read_all(&self.topic).await {
            let event = record.json();
            if let (Some(channel), Some(kind)) = (event["data"]["channel"].as_str(), event["event_type"].as_str()) {
                assert_eq!(record.key_text(), event["data"]["user_id"], "keyed by its user");
                results.entry(record.key_text().to_owned()).or_default().push(format!("{kind} {channel}"));
            }
        }
        results
    }

    async fn settled(&self, worker: &mut Worker) {
        self.kafka.wait_until_committed(&self.name, &self.topic, LONG).await;
        assert_eq!(worker.terminate(LONG).await, Some(0));
        self.kafka.delete_topic(&self.topic).await;
    }
}

fn due(user: &str, address: &str) -> Value {
    json!({ "event_id": format!("due-{user}"), "event_type": "reminder.due", "user_id": user, "task_id": 7, "timestamp": "2026-03-28T08:00:00Z",
            "data": { "email": address, "title": "Grüße\r\nBcc: all@example.com", "due_date": "2026-03-29T07:00:00Z", "timezone": "Europe/Berlin" } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_goes_out_once_although_the_server_was_busy_and_an_address_that_does_not_work_bounces() {
    let place = stack_or_skip!(Place::new("mail").await);
    let Some(server) = MailServer::start(&[]).await else { return };
    let notify = format!("smtp = \"smtp://{}?tls=none\"\nfrom = \"Todo <todo@example.com>\"", server.address());
    let mut worker = place.launch(&notify).start_ready().await;
    place
        .produce(&[
            due("ada", "ok@example.com"),
            due("bob", "busy-2@example.com"),
            due("cyd", "gone@example.com"),
            due("dan", "policy@example.com"),
            due("eve", "busy-9@example.com"),
            json!({ "event_id": "created-fay", "event_type": "task.created", "user_id": "fay", "task_id": 8, "data": { "title": "no address at all" } }),
        ])
        .await;
    let dead = worker.wait_for_metric("worker_dead_letters_total", &[], LONG, |dead| dead >= 4.0).await;
    assert_eq!(dead, 4.0);
    server.wait_for("mail", 2).await;
    place.kafka.wait_until_committed(&place.name, &place.topic, LONG).await;

    let mails = server.told("mail");
    assert_eq!(mails.iter().map(|mail| &mail["to"][0]).collect::<Vec<_>>(), ["ok@example.com", "busy-2@example.com"]);
    let mail = mails[0]["mail"].as_str().unwrap();
    let (head, _) = mail.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("\nBcc:"), "one header stays one: {head}");
    assert!(mail.contains("Auto-Submitted: auto-generated") && mail.contains("Message-ID: <") && mail.contains("@example.com>"), "{mail}");
    assert!(head.contains("\nSubject: Reminder: =?utf-8?"), "{mail}");

    let asked = |address: &str| server.told("rcpt").iter().filter(|told| told["rcpt"] == address).count();
    assert_eq!(
        (asked("busy-2@example.com"), asked("gone@example.com"), asked("busy-9@example.com")),
        (3, 1, 4),
        "4xx by the schedule, 5xx never again"
    );
    let results = place.results().await;
    let of = |user: &str| {
        results
            .get(user)
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
            .filter(|result| !result.starts_with("reminder.failed"))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(of("ada"), ["notification.delivered email", "reminder.sent email"]);
    assert_eq!(of("bob"), ["notification.delivered email", "reminder.sent email"]);
    assert_eq!(of("cyd"), ["notification.bounced email"]);
    assert_eq!(of("dan"), ["notification.failed email"]);
    assert_eq!(of("eve"), ["notification.failed email"], "given up after the last retry, told once");
    assert_eq!(of("fay"), ["notification.failed email"]);

    let letters = place.kafka.read_all(&place.dlq).await;
    let reasons: BTreeMap<_, _> = letters
        .iter()
        .map(|letter| {
            (
                letter.key_text().to_owned(),
                (letter.header("x-dlq-reason").unwrap().to_owned(), letter.header("x-dlq-error").unwrap().to_owned()),
            )
        })
        .collect();
    assert_eq!(reasons["cyd"], ("permanent".to_owned(), "the mail server answered 550: 5.1.1 <<recipient>> no such user".to_owned()));
    assert_eq!((reasons["dan"].0.as_str(), reasons["eve"].0.as_str(), reasons["fay"].0.as_str()), ("permanent", "exhausted", "permanent"));
    assert!(!worker.log().contains("@example.com\"") && !worker.log().contains("gone@"), "no address in a log");
    assert_eq!(worker.metrics().await.sum("worker_notifications_total", &[("result", "delivered"), ("channel", "email")]), 2.0);
    place.settled(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_encrypted_and_the_sender_known_and_what_is_wrong_with_either_is_no_fault_of_the_message() {
    let place = stack_or_skip!(Place::new("tls-mail").await);
    let folder = tempfile::tempdir().unwrap();
    let (certificate, ca) = mail::certificate(folder.path());
    // Nobody is there at first: the connection is refused until it is.
    let address = free_address();
    let port = address.rsplit_once(':').unwrap().1;
    let notify =
        format!("smtp = \"smtp://todo:p%40ss@localhost:{port}\"\nfrom = \"todo@example.com\"\nto = \"{{{{ user_id }}}}@example.com\"");
    let patient = |worker: Launch| {
        worker
            .arg("--set")
            .arg("retry.default.delays=[\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\",\"1s\"]")
            .env("SSL_CERT_FILE", ca.to_str().unwrap())
    };
    let mut worker = patient(place.launch(&notify)).start_ready().await;
    let created = |user: &str| json!({ "event_id": user, "event_type": "task.created", "user_id": user, "task_id": 8, "data": { "title": "Buy milk" } });
    place.produce(&[created("ok-1")]).await;
    let retries = [("event_type", "task.created")];
    worker.wait_for_metric("worker_retries_scheduled_total", &retries, LONG, |retries| retries >= 1.0).await;
    let arguments = ["--certificate", certificate.to_str().unwrap(), "--login", "todo:p@ss"];
    let Some(server) = MailServer::start_at(&address, &arguments).await else { return };
    server.wait_for("mail", 1).await;
    let asked = server.told("rcpt");
    assert!(asked.iter().all(|told| told["tls"] == true && told["user"] == "todo"), "{asked:?}");
    assert_eq!(worker.terminate(LONG).await, Some(0));

    // A wrong password is put right by a restart: the event has waited.
    let wrong = notify.replace("p%40ss", "hunter2");
    let mut worker = patient(place.launch(&wrong)).start_ready().await;
    place.produce(&[created("ok-2")]).await;
    worker.wait_for_metric("worker_retries_scheduled_total", &retries, LONG, |retries| retries >= 1.0).await;
    assert_eq!(worker.terminate(LONG).await, Some(0));
    assert!(!worker.log().contains("hunter2"), "{}", worker.log());
    let mut worker = patient(place.launch(&notify)).start_ready().await;
    assert_eq!(server.wait_for("mail", 2).await[1]["to"][0], "ok-2@example.com");
    assert!(server.told("login").iter().any(|told| told["login"] == false));
    assert_eq!(place.kafka.read_all(&place.dlq).await.len(), 0);
    place.settled(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_signed_so_that_python_believes_it_and_the_directory_says_who_a_user_is() {
    let place = stack_or_skip!(Place::new("webhook").await);
    let Some(python) = python::venv(&["aiosmtpd==1.4.6"]) else { return };
    let users = App::start(|asked| match asked.path.as_str() {
        "/users/ada" => Answer::json(r#"{"email": "ada@example.com", "timezone": "Asia/Tokyo", "locale": "de-AT"}"#),
        "/users/bob" if asked.earlier == 0 => Answer::status(503),
        "/users/bob" => Answer::json(r#"{"email": null}"#),
        _ => Answer::status(404),
    })
    .await;
    let hook = App::start(|_| Answer::status(204)).await;
    let templates = tempfile::tempdir().unwrap();
    std::fs::write(
        templates.path().join("reminder.due.de.txt"),
        "Subject: Erinnerung: {{ data.title }}\n\nUm {{ data.due_date | local }}\n",
    )
    .unwrap();
    let notify = format!(
        "webhook = {:?}\nwebhook_secret = \"new secret\"\nwebhook_old_secret = \"old secret\"\ndirectory = {:?}\ntemplates = {:?}\n",
        hook.url("/hook?key=hunter2"),
        users.url("/users/{user_id}"),
        templates.path(),
    );
    let mut worker = place.launch(&notify).start_ready().await;
    let reminder = |user: &str| {
        json!({ "event_id": format!("due-{user}"), "event_type": "reminder.due", "user_id": user, "task_id": 7,
        "data": { "title": "Milch", "due_date": "2026-03-28T08:00:00Z" } })
    };
    place.produce(&[reminder("ada"), reminder("bob"), reminder("nobody")]).await;
    worker.wait_for_metric("worker_dead_letters_total", &[], LONG, |dead| dead >= 1.0).await;
    let calls = hook.wait_for(2, LONG).await;
    let call = calls.iter().find(|call| call.json()["user_id"] == "ada").unwrap();
    let body = call.json();
    assert_eq!((&body["subject"], &body["text"]), (&json!("Erinnerung: Milch"), &json!("Um Sat 28 Mar 2026, 17:00 JST\n")));
    assert_eq!(
        (&body["to"], &body["event_id"], &body["event_type"]),
        (&json!("ada@example.com"), &json!("due-ada"), &json!("reminder.due"))
    );
    assert_eq!(call.headers["idempotency-key"], body["id"]);

    for secret in ["new secret", "old secret"] {
        let verify = "import hmac, sys, time; s, secret, body = sys.argv[1:]; parts = [p.split('=') for p in s.split(',')]; t = dict(parts)['t']; \
                      mine = hmac.new(secret.encode(), (t + '.').encode() + body.encode(), 'sha256').hexdigest(); \
                      assert any(k == 'v1' and hmac.compare_digest(v, mine) for k, v in parts); assert abs(time.time() - int(t)) < 300";
        let said = Command::new(&python)
            .args(["-c", verify, &call.headers["x-worker-signature"], secret])
            .arg(std::str::from_utf8(&call.body).unwrap())
            .output()
            .unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
    assert_eq!(place.results().await["ada"], ["notification.delivered webhook", "reminder.sent webhook"]);
    let letters = place.kafka.read_all(&place.dlq).await;
    assert_eq!(letters[0].header("x-dlq-error"), Some("the directory does not know the user"));
    assert!(!worker.log().contains("hunter2"));
    place.settled(&mut worker).await;
}

/// A window of hours around now by UTC, for whoever reads a clock on a wall.
fn hours(from: i64, to: i64) -> String {
    let at = |minutes: i64| (chrono::Utc::now() + chrono::TimeDelta::minutes(minutes)).format("%H:%M");
    format!("{}-{}", at(from), at(to))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_off_comes_back_in_one_mail_although_workers_are_killed_and_what_is_urgent_does_not_wait() {
    let place = stack_or_skip!(Place::new("digest").await);
    let Some(server) = MailServer::start(&[]).await else { return };
    let mail =
        format!("smtp = \"smtp://{}?tls=none\"\nfrom = \"todo@example.com\"\nto = \"{{{{ user_id }}}}@example.com\"\n", server.address());
    // One goes out, the others wait for the user's turn, which comes in three seconds.
    let limited = || place.launch(&format!("{mail}rate = 1\nrate_window = \"3s\"\nurgent = [\"reminder.due\"]"));
    let created = |user: &str, n: usize| {
        json!({ "event_id": format!("{user}-{n}"), "event_type": "task.created", "user_id": user, "task_id": n,
        "timestamp": format!("2026-03-28T08:00:0{n}Z"), "data": { "title": format!("Task {n}") } })
    };
    let mut worker = limited().start_ready().await;
    let mut events: Vec<_> = ["ok-ada", "ok-bob"].iter().flat_map(|user| (0..4).map(|n| created(user, n))).collect();
    events.push(json!({ "event_id": "due-ada", "event_type": "reminder.due", "user_id": "ok-ada", "task_id": 9, "data": {} }));
    place.produce(&events).await;
    let deferred = [("result", "deferred")];
    worker.wait_for_metric("worker_notifications_total", &deferred, LONG, |deferred| deferred >= 6.0).await;
    server.wait_for("mail", 3).await;
    worker.kill();
    let mut worker = limited().start_ready().await;
    let mails = server.wait_for("mail", 5).await;
    place.kafka.wait_until_committed(&place.name, &place.topic, LONG).await;

    let subject = |mail: &Value| {
        let text = mail["mail"].as_str().unwrap().to_owned();
        text.lines().find_map(|line| line.strip_prefix("Subject: ").map(str::to_owned)).unwrap()
    };
    let subjects = |address: &str| server.told("mail").iter().filter(|mail| mail["to"][0] == address).map(subject).collect::<Vec<_>>();
    assert_eq!(subjects("ok-bob@example.com"), ["New task: Task 0", "3 notifications"]);
    let of_ada = subjects("ok-ada@example.com");
    assert!(of_ada.contains(&"Reminder".to_owned()) && of_ada.contains(&"3 notifications".to_owned()), "{of_ada:?}");
    let digest = mails.iter().find(|mail| subject(mail) == "3 notifications").unwrap()["mail"].as_str().unwrap();
    let order: Vec<_> = ["Task 1", "Task 2", "Task 3"].iter().map(|title| digest.find(title).unwrap()).collect();
    assert!(order.is_sorted(), "{digest}");
    let results = place.results().await;
    assert_eq!(results["ok-bob"].iter().filter(|result| *result == "notification.delivered email").count(), 4, "one for each event");
    assert_eq!(worker.terminate(LONG).await, Some(0));

    // At night everything waits; by another clock than the user's it is day. A single one comes as it would have come at once.
    let quiet = |hours: &str| place.launch(&format!("{mail}quiet = {hours:?}"));
    let mut worker = quiet(&hours(-60, 60)).start_ready().await;
    let zoned = |user: &str, zone: &str| {
        let mut event = created(user, 5);
        event["data"]["timezone"] = zone.into();
        event
    };
    let count = server.told("mail").len();
    place.produce(&[zoned("ok-cyd", "UTC"), zoned("ok-dan", "Asia/Tokyo")]).await;
    worker.wait_for_metric("worker_notifications_total", &deferred, LONG, |deferred| deferred >= 1.0).await;
    assert_eq!(server.wait_for("mail", count + 1).await[count]["to"][0], "ok-dan@example.com");
    place.kafka.wait_until_committed(&place.name, &place.topic, LONG).await;
    assert_eq!(place.results().await.get("ok-cyd"), None, "nothing is said of what waits");
    place.settled(&mut worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_off_and_cannot_be_sent_is_a_dead_letter_with_all_that_it_says() {
    let place = stack_or_skip!(Place::new("late").await);
    let Some(server) = MailServer::start(&[]).await else { return };
    let notify = format!("smtp = \"smtp://{}?tls=none\"\nfrom = \"todo@example.com\"\ndigest = \"1s\"", server.address());
    let mut worker = place.launch(&notify).start_ready().await;
    place.produce(&[due("ada", "gone@example.com")]).await;
    worker.wait_for_metric("worker_dead_letters_total", &[("event_type", "notification.due")], LONG, |dead| dead >= 1.0).await;
    place.kafka.wait_until_committed(&place.name, &place.topic, LONG).await;
    let letters = place.kafka.read_all(&place.dlq).await;
    let item = &letters[0].json()["data"]["items"][0];
    assert_eq!(
        (&item["event_id"], &item["event_type"], &item["to"]),
        (&json!("due-ada"), &json!("reminder.due"), &json!("gone@example.com"))
    );
    assert_eq!(letters[0].key_text(), "ada");
    assert_eq!(place.results().await["ada"], ["notification.bounced email", "reminder.failed email"]);
    place.settled(&mut worker).await;
}
