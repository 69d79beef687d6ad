//! One test per kind of configuration that is refused: the whole report, so that it is also the record of what users read.

use super::load;
use crate::config::Role;

/// The problems of a file, without the report's first line.
fn problems(file: &str) -> Vec<String> {
    let report = load().file(file).report();
    report.lines().skip(1).map(|line| line.trim_start().to_owned()).collect()
}

#[track_caller]
fn rejects(file: &str, problem: &str) {
    assert_eq!(problems(file), [problem]);
}

#[test]
fn every_problem_is_in_one_report_with_its_origin() {
    let file = "[kafka]\nbrokrs = \"a:1\"\n[engine]\ndrain_timeout = \"25\"\nconcurrency = 0\n[[handlers]]\nname = \"a\"\nkind = \"htp\"\n\
                [[handlers]]\nname = \"b\"\nkind = \"http\"\n[dlq]\ntopic = \"a b\"";
    let report = load()
        .file(file)
        .env("WORKER_STORE__WHEN_DOWN", "wait")
        .env("WORKER_STORE__ULR", "x")
        .env("WORKER_PUBLISH__API_TOKEN_FILE", "/nonexistent/token")
        .set("store.retention=for ever")
        .set("nonsense")
        .property("security.protocol")
        .role(Role::Consumer)
        .report();
    let expected = "12 problems in the configuration
  --set: write it as --set path=value, for example --set kafka.brokers=localhost:9092
  --set store.retention: `store.retention`: `for ever` is no duration; write it like \"30s\" or \"1h 30m\"
  -X: write it as -X property=value, for example -X security.protocol=ssl
  F:2: unknown key `kafka.brokrs`; did you mean `kafka.brokers`?
  F:4: `engine.drain_timeout`: `25` is no duration; write it like \"25s\"
  F:5: `engine.concurrency`: `0` is no whole number from 1 to 65536
  F:8: `handlers[0].kind`: `htp` is none of log, http, forward, recurrence, reminder, notify, points, audit, analytics, security; did you mean \"http\"?
  F:11: `handlers[1].kind`: an http handler needs url, or discover for an app with Dapr's routes
  F:13: `dlq.topic`: `a b` is no topic name: letters, digits, `.`, `_` and `-` only
  env WORKER_PUBLISH__API_TOKEN_FILE: cannot read the secret `publish.api_token` from /nonexistent/token: No such file or directory (os error 2)
  env WORKER_STORE__ULR: unknown key `store.ulr`; did you mean `store.url` (WORKER_STORE__URL)?
  env WORKER_STORE__WHEN_DOWN: `store.when_down`: `wait` is none of hold, bypass";
    let sorted = |report: &str| -> Vec<String> {
        let mut lines: Vec<_> = report.lines().skip(1).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&report), sorted(expected));
    assert!(report.starts_with("12 problems in the configuration\n"));
}

#[test]
fn a_file_that_is_not_toml_is_told_with_its_lines_and_without_their_text() {
    let report = load().file("app_id = \"a\"\n[store]\nurl = hunter2\n[kafka\n").report();
    assert!(report.contains("F:3: not TOML: ") && report.contains("F:4: not TOML: "), "{report}");
    assert!(!report.contains("hunter2"), "{report}");
}

#[test]
fn a_missing_file_is_told_together_with_the_rest() {
    let mut load = load().env("WORKER_STORE__ULR", "x");
    load.sources.files.push("/nonexistent/worker.toml".into());
    let report = load.report();
    assert!(report.contains("/nonexistent/worker.toml: cannot be read: No such file"), "{report}");
    assert!(report.contains("WORKER_STORE__ULR"), "{report}");
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_one() {
    rejects("[kafak]\nbrokers = \"a\"", "F:1: unknown key `kafak`; did you mean `kafka`?");
    rejects("brokers = \"a\"", "F:1: unknown key `brokers`; did you mean `kafka.brokers`?");
    rejects("\n[zzz]", "F:2: unknown key `zzz`");
    rejects("[engine]\n\"drain timeout\" = \"1s\"", "F:2: unknown key `engine.\"drain timeout\"`; did you mean `engine.drain_timeout`?");
    rejects("[retry.\"a.b\"]\ndelay = [\"1s\"]", "F:2: unknown key `retry.\"a.b\".delay`; did you mean `retry.\"a.b\".delays`?");
    rejects(
        "[[handlers]]\nname = \"a\"\nkind = \"log\"\nevent = [\"a.b\"]",
        "F:4: unknown key `handlers[0].event`; did you mean `handlers[0].events`?",
    );
    rejects("app_id_file = \"x\"", "F:1: unknown key `app_id_file`; did you mean `app_id`?");
}

#[test]
fn a_value_of_the_wrong_kind_is_told_with_the_right_one() {
    rejects("app_id = 5", "F:1: `app_id`: must be text, in quotes");
    rejects("kafka = 5", "F:1: `kafka`: must be a table");
    rejects("handlers = 5", "F:1: `handlers`: must be a list of tables");
    rejects("handlers = [5]", "F:1: `handlers[0]`: must be a table");
    rejects("[kafka]\ntopics = \"a\"", "F:2: `kafka.topics`: must be a list of texts, like [\"a\", \"b\"]");
    rejects("[kafka.properties]\n\"a.b\" = [1]", "F:2: `kafka.properties.\"a.b\"`: must be one value, as text");
    rejects("[catalog]\nvalidate = \"yes\"", "F:2: `catalog.validate`: `yes` is neither true nor false");
    rejects("[commit_map]\nmax_chars = 20000", "F:2: `commit_map.max_chars`: `20000` is no whole number from 64 to 10000");
    rejects("[engine]\nmax_held_events = 1.5", "F:2: `engine.max_held_events`: `1.5` is no whole number from 1 up");
    rejects("[engine]\nmemory = \"lots\"", "F:2: `engine.memory`: `lots` is no size; write it like \"256MiB\"");
    rejects("[engine]\ndrain_timeout = 25", "F:2: `engine.drain_timeout`: `25` is no duration; write it like \"25s\"");
    rejects("[retry]\n\"a.b\" = \"1s\"", "F:2: `retry.\"a.b\"`: must be a table with delays and jitter");
    rejects("[engine]\nconcurrency = 99999999999999999999", "F:2: the number 99999999999999999999 is too large");
    rejects("[store]\nurl = 5", "F:2: `store.url`: must be text, in quotes");
}

#[test]
fn retry_rules_are_checked() {
    rejects(
        "[retry.\"a.b\"]\ndelays = [\"1s\", \"soon\"]",
        "F:2: `retry.\"a.b\".delays`: `soon` is no duration; write it like \"30s\" or \"1h 30m\"",
    );
    rejects(
        "[retry.\"a.b\"]\ndelays = [\"0s\"]",
        "F:2: `retry.\"a.b\".delays`: a delay of 0s would hammer what just failed; [] means no retry",
    );
    rejects("[retry.\"a.b\"]\ndelays = [\"8d\"]", "F:2: `retry.\"a.b\".delays`: 8days is longer than 7days");
    rejects("[retry.\"a.b\"]\njitter = 0.2", "F:2: `retry.\"a.b\".jitter`: `0.2` is no number from 0 to 0.1");
    rejects(
        "[retry.\"a*\"]\njitter = 0.0",
        "F:2: `retry.\"a*\"`: `a*` is no type pattern; a star stands for whole segments at the end, as in \"task.*\"",
    );
}

#[test]
fn an_audit_handler_is_checked() {
    let handler = |rest: &str| format!("[[handlers]]\nname = \"a\"\nkind = \"audit\"\n[handlers.audit]\n{rest}");
    load().file(&handler("content = \"digest\"")).ok();
    rejects(&handler("dir = \"\""), "F:5: `handlers[0].audit.dir`: is empty; leave the key out for the folder `audit`");
    rejects(&handler("max_size = \"1B\""), "F:5: `handlers[0].audit.max_size`: is less than 1KiB, which no two records fit into");
    rejects(&handler("topic = \"a b\""), "F:5: `handlers[0].audit.topic`: `a b` is no topic name: letters, digits, `.`, `_` and `-` only");
    rejects(&handler("topic = \"dlq\""), "F:5: `handlers[0].audit.topic`: `dlq` is dlq.topic: dead letters alone belong there");
    rejects(
        &handler("topic = \"log\"\n[kafka]\ntopics = [\"log\"]"),
        "F:5: `handlers[0].audit.topic`: `log` is among kafka.topics: its records are no events, and would be dead letters",
    );
    rejects(&handler("content = \"all\""), "F:5: `handlers[0].audit.content`: `all` is none of full, digest");
    rejects(
        "[[handlers]]\nname = \"a\"\nkind = \"log\"\n[handlers.audit]\ndir = \"b\"",
        "F:5: `handlers[0].audit`: is a table of kind = \"audit\" alone",
    );
}

#[test]
fn an_analytics_handler_is_checked() {
    let handler = |rest: &str| format!("[[handlers]]\nname = \"a\"\nkind = \"analytics\"\n{rest}");
    load().file(&handler("timezone = \"Europe/Berlin\"")).ok();
    rejects(
        &handler("[handlers.analytics]\nkeep = \"7d\"\nlate = \"1d\""),
        "F:5: `handlers[0].analytics.keep`: 7days is less than the 30d of monthly active users",
    );
    rejects(
        &handler("[handlers.analytics]\nlate = \"100d\""),
        "F:5: `handlers[0].analytics.late`: is longer than keep, after which there is no day to add to",
    );
    rejects(&handler("timezone = \"Mars\""), "F:4: `handlers[0].timezone`: `Mars` is no time zone; write it like \"Europe/Berlin\"");
    rejects(
        "[[handlers]]\nname = \"a\"\nkind = \"log\"\n[handlers.analytics]\nkeep = \"90d\"",
        "F:5: `handlers[0].analytics`: is a table of kind = \"analytics\" alone",
    );
}

#[test]
fn a_security_handler_is_checked() {
    let handler = |rest: &str| format!("[[handlers]]\nname = \"a\"\nkind = \"security\"\n[handlers.security]\nkey = \"k\"\n{rest}");
    assert_eq!(load().file(&handler("")).warnings(), [""; 0]);
    let open = load().file("[[handlers]]\nname = \"a\"\nkind = \"security\"").warnings();
    assert!(open[0].contains("`handlers[0].security.key`: without it, whoever knows app_id can find out"), "{open:?}");
    rejects(
        &handler("rules = [\"new_devices\"]"),
        "F:6: `handlers[0].security.rules`: `new_devices` is none of new_device, new_network, user_failures, address_failures, address_users, user_logins",
    );
    rejects(
        &handler("rules = []"),
        "F:6: `handlers[0].security.rules`: has no rule, so nothing would be suspicious; leave the key out for all of them",
    );
    rejects(&handler("window = \"0s\""), "F:6: `handlers[0].security.window`: must be above zero");
    rejects(&handler("user_failures = 1"), "F:6: `handlers[0].security.user_failures`: `1` is no whole number from 2 to 1000");
    rejects(
        "[[handlers]]\nname = \"a\"\nkind = \"security\"\nevents = [\"user.*\"]\nsecurity.key = \"k\"",
        "F:4: `handlers[0].events`: a security handler reacts to user.logged_in alone; leave the key out",
    );
    rejects(
        "[[handlers]]\nname = \"a\"\nkind = \"log\"\n[handlers.security]\nwindow = \"1m\"",
        "F:5: `handlers[0].security`: is a table of kind = \"security\" alone",
    );
}

#[test]
fn a_points_handler_is_checked() {
    let handler = |rest: &str| format!("[[handlers]]\nname = \"a\"\nkind = \"points\"\n{rest}");
    load().file(&handler("")).ok();
    rejects(
        &handler("events = [\"task.completed\", \"points.*\"]"),
        "F:4: `handlers[0].events`: `points.*` covers points.awarded, which the handler publishes itself: it would go round in circles",
    );
    rejects(
        &handler("events = []"),
        "F:4: `handlers[0].events`: matches no type, so the handler would never run; leave the key out for those that the kind is for",
    );
    rejects(
        &handler("timezone = \"Europe/Belrin\""),
        "F:4: `handlers[0].timezone`: `Europe/Belrin` is no time zone; did you mean \"Europe/Berlin\"?",
    );
    rejects(
        &handler("[handlers.points]\npoints = 0\nstreak_bonus = 0"),
        "F:5: `handlers[0].points`: awards nothing: give it points, a streak_bonus, or rules",
    );
    rejects(
        &handler("[handlers.points]\nstreak = 3"),
        "F:5: unknown key `handlers[0].points.streak`; did you mean `handlers[0].points.streak_days`?",
    );
    rejects(&handler("[handlers.points]\nstreak_days = 0"), "F:5: `handlers[0].points.streak_days`: `0` is no whole number from 1 to 365");
    let rule = |rest: &str| handler(&format!("[[handlers.points.rules]]\n{rest}"));
    rejects(
        &rule("match = \"event.\"\npoints = 5\nreason = \"a\""),
        "F:5: `handlers[0].points.rules[0].match`: `event.` is no CEL expression: Syntax error: no viable alternative at input '.' (line 1, column 7)",
    );
    rejects(
        &rule("points = 5\nreason = \"\""),
        "F:6: `handlers[0].points.rules[0].reason`: is empty; a word such as high_priority tells users what the points are for",
    );
    rejects(&rule("reason = \"a\""), "F:4: `handlers[0].points.rules[0]`: `points` is missing (how many)");
    rejects(
        "[[handlers]]\nname = \"a\"\nkind = \"log\"\n[handlers.points]\ntop = 1",
        "F:5: `handlers[0].points`: is a table of kind = \"points\" alone",
    );
}

#[test]
fn handlers_are_checked() {
    let handler = |rest: &str| format!("[[handlers]]\nname = \"a\"\n{rest}");
    rejects(&handler("kind = \"http\""), "F:3: `handlers[0].kind`: an http handler needs url, or discover for an app with Dapr's routes");
    rejects(
        &handler("kind = \"http\"\nurl = \"http://h\"\ndiscover = \"http://h\""),
        "F:5: `handlers[0].discover`: goes instead of url, not with it; keep one",
    );
    rejects(
        &handler("kind = \"http\"\nurl = \"h:8000\""),
        "F:4: `handlers[0].url`: `h:8000` is no URL: no scheme; write it like \"http://host..\"",
    );
    rejects(&handler("kind = \"log\"\nurl = \"http://h\""), "F:4: `handlers[0].url`: is a key of kind = \"http\" alone");
    rejects(
        &handler("kind = \"log\"\nevents = []"),
        "F:4: `handlers[0].events`: matches no type, so the handler would never run; leave the key out for every type",
    );
    rejects(
        &handler("kind = \"log\"\nevents = [\"*.created\"]"),
        "F:4: `handlers[0].events`: `*.created` is no type pattern; a star stands for whole segments at the end",
    );
    rejects(&handler("kind = \"forward\""), "F:3: `handlers[0].kind`: a forward handler needs to, the topic that gets a copy");
    rejects(&handler("kind = \"log\"\nto = \"a\""), "F:4: `handlers[0].to`: is a key of kind = \"forward\" alone");
    rejects(
        &handler("kind = \"forward\"\nto = \"a b\""),
        "F:4: `handlers[0].to`: `a b` is no topic name: letters, digits, `.`, `_` and `-` only",
    );
    rejects(&handler("kind = \"forward\"\nto = \"dlq\""), "F:4: `handlers[0].to`: `dlq` is dlq.topic: dead letters alone belong there");
    rejects(&handler("kind = \"forward\"\nto = \"a\"\nurl = \"http://h\""), "F:5: `handlers[0].url`: is a key of kind = \"http\" alone");
    rejects(
        &handler("kind = \"recurrence\"\nevents = [\"task.*\"]"),
        "F:4: `handlers[0].events`: a recurrence handler reacts to task.completed alone; leave the key out",
    );
    rejects(
        &handler("kind = \"recurrence\"\ntimezone = \"Europe/Belrin\""),
        "F:4: `handlers[0].timezone`: `Europe/Belrin` is no time zone; did you mean \"Europe/Berlin\"?",
    );
    rejects(
        &handler("kind = \"log\"\ntimezone = \"Europe/Berlin\""),
        "F:4: `handlers[0].timezone`: is a key of kind = \"recurrence\", \"points\" and \"analytics\" alone",
    );
    rejects(
        &handler("kind = \"log\"\nrepeat_from = \"completion\""),
        "F:4: `handlers[0].repeat_from`: is a key of kind = \"recurrence\" alone",
    );
    rejects(
        &handler("kind = \"reminder\"\nevents = [\"reminder.*\"]"),
        "F:4: `handlers[0].events`: a reminder handler knows its own types; leave the key out",
    );
    rejects(
        &handler("kind = \"reminder\"\n[handlers.reminder]\nremember = \"0s\""),
        "F:5: `handlers[0].reminder.remember`: must be above zero",
    );
    rejects(
        &handler("kind = \"log\"\n[handlers.reminder]\nremember = \"1h\""),
        "F:5: `handlers[0].reminder`: is a table of kind = \"reminder\" alone",
    );
    rejects(
        &handler("kind = \"reminder\"\n[[handlers]]\nname = \"b\"\nkind = \"reminder\""),
        "F:6: `handlers[1].kind`: `a` is the reminder handler already, and a group has one",
    );
    let notify = |keys: &str| handler(&format!("kind = \"notify\"\n[handlers.notify]\n{keys}"));
    rejects(
        &handler("kind = \"notify\""),
        "F:3: `handlers[0].kind`: a notify handler needs [handlers.notify] below it, with smtp and from, or webhook",
    );
    rejects(
        &handler("kind = \"log\"\n[handlers.notify]\nwebhook = \"http://h\""),
        "F:5: `handlers[0].notify`: is a table of kind = \"notify\" alone",
    );
    rejects(&notify("timezone = \"UTC\""), "F:5: `handlers[0].notify`: needs smtp and from, or webhook");
    rejects(
        &notify("smtp = \"smtp://h\"\nfrom = \"a@b.c\"\nwebhook = \"http://h\""),
        "F:7: `handlers[0].notify.webhook`: goes instead of smtp, not with it; keep one, and make a second handler for the other",
    );
    rejects(
        &notify("smtp = \"smtp://h\""),
        "F:5: `handlers[0].notify.smtp`: needs from beside it, the sender, like \"Todo <todo@example.com>\"",
    );
    rejects(
        &notify("smtp = \"smtp://h?tls=no\"\nfrom = \"a@b.c\""),
        "F:5: `handlers[0].notify.smtp`: after the `?` only tls=required, tls=opportunistic or tls=none can stand",
    );
    rejects(
        &notify("smtp = \"mail.example.com\"\nfrom = \"a@b.c\""),
        "F:5: `handlers[0].notify.smtp`: `mail.example.com` is no URL: no scheme; write it like \"smtp://host..\"",
    );
    rejects(
        &notify("smtp = \"smtp://h\"\nfrom = \"nobody\""),
        "F:6: `handlers[0].notify.from`: `nobody` is no address; write it like \"Todo <todo@example.com>\"",
    );
    rejects(&notify("webhook = \"hunter2\""), "F:5: `handlers[0].notify.webhook`: is no URL; write it like \"https://host/path\"");
    rejects(&notify("webhook = \"http://h\"\nfrom = \"a@b.c\""), "F:6: `handlers[0].notify.from`: is a key of smtp alone");
    rejects(
        &notify("smtp = \"smtp://h\"\nfrom = \"a@b.c\"\nwebhook_secret = \"s\""),
        "F:7: `handlers[0].notify.webhook_secret`: is a key of webhook alone",
    );
    rejects(
        &notify("webhook = \"http://h\"\nwebhook_old_secret = \"s\""),
        "F:6: `handlers[0].notify.webhook_old_secret`: goes beside webhook_secret, the one that stays",
    );
    rejects(
        &notify("webhook = \"http://h\"\ndirectory = \"http://users\""),
        "F:6: `handlers[0].notify.directory`: needs {user_id} where the user's id belongs, like \"http://users:8000/users/{user_id}\"",
    );
    rejects(
        &notify("webhook = \"http://h\"\ntimezone = \"Europe/Belrin\""),
        "F:6: `handlers[0].notify.timezone`: `Europe/Belrin` is no time zone; did you mean \"Europe/Berlin\"?",
    );
    let hook = |key: &str| notify(&format!("webhook = \"http://h\"\n{key}"));
    rejects(&hook("quiet = \"22-7\""), "F:6: `handlers[0].notify.quiet`: `22-7` are no hours; write them like \"22:00-07:00\"");
    rejects(&hook("rate = 1\nrate_window = \"0s\""), "F:7: `handlers[0].notify.rate_window`: must be above zero");
    rejects(&hook("digest = \"8d\""), "F:6: `handlers[0].notify.digest`: 8days is more than 7d, the time that is kept free for what waits");
    rejects(
        &hook("urgent = [\"sec*\"]"),
        "F:6: `handlers[0].notify.urgent`: `sec*` is no type pattern; a star stands for whole segments at the end, as in \"task.*\"",
    );
    for (pattern, own) in [("notification.*", "notification.due"), ("reminder.*", "reminder.sent")] {
        rejects(
            &handler(&format!("kind = \"notify\"\nevents = [{pattern:?}]\n[handlers.notify]\nwebhook = \"http://h\"")),
            &format!(
                "F:4: `handlers[0].events`: `{pattern}` covers {own}, which this kind publishes: it would tell users of itself without end"
            ),
        );
    }
    rejects(&handler("kind = \"log\"\ntimeout = \"0s\""), "F:4: `handlers[0].timeout`: 0s is not between 1ms and 1h");
    rejects(&handler("kind = \"log\"\nconcurrency = 0"), "F:4: `handlers[0].concurrency`: `0` is no whole number from 1 to 65536");
    rejects(
        "[[handlers]]\nkind = \"log\"",
        "F:1: `handlers[0]`: `name` is missing (unique: a metric label, and part of every retry and dead letter)",
    );
    rejects(
        &handler("events = [\"*\"]"),
        "F:1: `handlers[0]`: `kind` is missing (what it does: log, http and forward hand events on, the others are jobs of the product's own)",
    );
    rejects(
        "[[handlers]]\nname = \"a b\"\nkind = \"log\"",
        "F:2: `handlers[0].name`: `a b` is no name: 1 to 64 letters, digits, `.`, `_` and `-`",
    );
}

#[test]
fn two_handlers_of_one_name_are_told_with_both_places() {
    rejects(
        "[[handlers]]\nname = \"a\"\nkind = \"log\"\n[[handlers]]\nname = \"a\"\nkind = \"log\"",
        "F:5: `handlers[1].name`: `a` is taken by `handlers[0].name` (F:2); names must be unique",
    );
}

#[test]
fn a_consumer_without_handlers_is_shown_the_lines_to_add() {
    let report = load().role(Role::Consumer).report();
    assert!(report.contains("`handlers`: a consumer needs at least one handler"), "{report}");
    assert!(report.contains("\n    [[handlers]]\n    name = \"todo-api\"\n    kind = \"http\"\n    url = "), "{report}");
    assert!(load().role(Role::Producer).run().is_ok());
    assert!(load().run().is_ok(), "a command without a role needs no handlers");
    let lines: Vec<_> = report.lines().skip(2).map(str::trim).collect();
    load().role(Role::Consumer).file(&lines.join("\n")).ok();
}

#[test]
fn properties_that_the_worker_sets_are_refused_with_the_reason() {
    let owned = |name: &str, value: &str, why: &str| {
        let load = load().property(&format!("{name}={value}"));
        let report = load.report().replace('"', "");
        assert_eq!(
            report,
            format!("1 problem in the configuration\n  -X {name}: `kafka.properties.{name}`: the worker sets this itself: {why}")
        );
    };
    owned("bootstrap.servers", "a:1", "use kafka.brokers");
    owned("metadata.broker.list", "a:1", "use kafka.brokers");
    owned("group.id", "g", "use kafka.group_id");
    owned("auto.offset.reset", "latest", "use engine.start_at");
    let commit = "it commits an offset once everything before it is settled; see engine.commit_interval";
    owned("enable.auto.commit", "true", commit);
    owned("enable.auto.offset.store", "true", commit);
    owned("acks", "1", "all, because a yes must mean that the event is stored");
    owned("enable.idempotence", "false", "true, because a repeated send must not be a second event");
    owned("transactional.id", "t", "it uses no transactions");
    owned("isolation.level", "read_uncommitted", "read_committed, because events of aborted transactions must not run");
    owned("allow.auto.create.topics", "true", "false, because topics are created by `worker topics apply`");
    load().property("acks=all").property("enable.auto.commit=false").property("enable.idempotence=true").ok();
    rejects(
        "[kafka.producer]\npartitioner = \"random\"",
        "F:2: `kafka.producer.partitioner`: the worker sets this itself: use kafka.partitioner",
    );
}

#[test]
fn a_declared_route_is_checked() {
    let route = |keys: &str| format!("[[handlers]]\nname = \"a\"\nkind = \"http\"\ndiscover = \"http://h\"\n[[handlers.routes]]\n{keys}");
    load().file(&route("topic = \"t\"\npath = \"/a\"\n[[handlers.routes.rules]]\nmatch = \"event.type == 'a'\"\npath = \"/b\"")).ok();
    rejects(&route("path = \"/a\""), "F:5: `handlers[0].routes[0]`: `topic` is missing (what is read)");
    rejects(&route("topic = \"t\""), "F:6: `handlers[0].routes[0].topic`: the route leads nowhere: give it a path, or rules");
    rejects(
        &route("topic = \"dlq\"\npath = \"/a\""),
        "F:6: `handlers[0].routes[0].topic`: `dlq` is dlq.topic: what fails there would go round in circles",
    );
    rejects(
        &route("topic = \"t\"\npath = \"/a\"\ndead_letter_topic = \"t\""),
        "F:8: `handlers[0].routes[0].dead_letter_topic`: is the route's own topic: what fails would go round in circles",
    );
    rejects(
        &route("topic = \"t\"\npath = \"/a\"\n[[handlers.routes]]\ntopic = \"t\"\npath = \"/b\""),
        "F:9: `handlers[0].routes[1].topic`: `t` is taken by `handlers[0].routes[0].topic` (F:6); names must be unique",
    );
    let found = problems(&route("topic = \"t\"\n[[handlers.routes.rules]]\nmatch = \"event.type ==\"\npath = \"/b\""));
    assert!(
        found.len() == 1 && found[0].starts_with("F:8: `handlers[0].routes[0].rules[0].match`: `event.type ==` is no CEL"),
        "{found:?}"
    );
    for (keys, key) in [("api_token = \"t\"", "api_token"), ("routes = [{ topic = \"t\", path = \"/a\" }]", "routes")] {
        rejects(
            &format!("[[handlers]]\nname = \"a\"\nkind = \"http\"\nurl = \"http://h\"\n{keys}"),
            &format!("F:5: `handlers[0].{key}`: is a key of discover alone"),
        );
    }
}

#[test]
fn kip_848_leaves_the_session_to_the_broker() {
    for name in ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"] {
        rejects(
            &format!("[kafka.properties]\n\"group.protocol\" = \"consumer\"\n[kafka.consumer]\n\"{name}\" = \"6000\""),
            &format!("F:4: `kafka.consumer.\"{name}\"`: does not go with group.protocol = \"consumer\": there the broker sets it"),
        );
        load().property("group.protocol=classic").property(&format!("{name}=3000")).ok();
    }
    rejects(
        "[kafka.consumer]\n\"group.protocol\" = \"new\"",
        "F:2: `kafka.consumer.\"group.protocol\"`: `new` is neither classic nor consumer",
    );
}

#[test]
fn group_timings_that_cannot_work_are_refused() {
    rejects(
        "[kafka.consumer]\n\"heartbeat.interval.ms\" = 10000",
        "F:2: `kafka.consumer.\"heartbeat.interval.ms\"`: 10s is not below session.timeout.ms (10s): the group would lose the worker all the time",
    );
    rejects(
        "[kafka.consumer]\n\"session.timeout.ms\" = \"10s\"",
        "F:2: `kafka.consumer.\"session.timeout.ms\"`: `10s` is no number of milliseconds",
    );
    rejects(
        "[engine]\ndrain_timeout = \"5m\"",
        "F:2: `engine.drain_timeout`: 5m is not below max.poll.interval.ms (5m): the group would throw the worker out while it drains",
    );
}

#[test]
fn brokers_and_topics_are_checked() {
    rejects(
        "[kafka]\nbrokers = \"http://a:9092\"",
        "F:2: `kafka.brokers`: `http://a:9092` is no broker: only a security protocol can stand before ://; write it like \"broker-1:9092,broker-2:9092\"",
    );
    rejects(
        "[kafka]\ntopics = []",
        "F:2: `kafka.topics`: names no topic; leave the key out to read every catalogue topic that a handler needs",
    );
    rejects("[kafka]\ntopics = [\"^a\"]", "F:2: `kafka.topics`: `^a`: topics are listed by name, not by pattern");
    rejects("[kafka]\ntopics = [\"dlq\"]", "F:2: `kafka.topics`: `dlq` is dlq.topic: what fails there would go round in circles");
    rejects("app_id = \"\"", "F:1: `app_id`: must not be empty: it is the default consumer group and every event's source");
    rejects("[kafka]\ngroup_id = \" \"", "F:2: `kafka.group_id`: must not be empty");
}

#[test]
fn the_store_is_checked_without_showing_its_password() {
    rejects(
        "[store]\nurl = \"http://u:hunter2@h\"",
        "F:2: `store.url`: `http://u:***@h` is no URL: the scheme is none of redis, rediss, valkey, valkeys, redis+sentinel, rediss+sentinel, \
         redis-sentinel, redis+cluster, rediss+cluster, redis-cluster; write it like \"redis://host..\", or \"memory\"",
    );
    rejects(
        "[store]\nprefix = \"a{b}\"",
        "F:2: `store.prefix`: must be text without white space and braces, which Redis Cluster reads as a hash tag",
    );
    rejects("[store]\nretention = \"0s\"", "F:2: `store.retention`: must be above zero: it is how long a duplicate is recognised");
}

#[test]
fn a_secret_given_twice_or_from_an_empty_file_is_refused() {
    rejects("[store]\nurl = \"memory\"\nurl_file = \"/dev/null\"", "F:3: `store.url` is given twice: here by file, and by F:2; keep one");
    rejects("[store]\nurl_file = \"/dev/null\"", "F:2: cannot read the secret `store.url` from /dev/null: the file is empty");
    rejects("[store]\nurl_file = 5", "F:2: the file of `store.url` must be the path of a file, as text");
}

#[test]
fn limits_of_the_engine_are_sane() {
    rejects("[engine]\nmemory = \"1000\"", "F:2: `engine.memory`: must be 1MiB or more");
    rejects("[engine]\ncommit_interval = \"0s\"", "F:2: `engine.commit_interval`: 0s is not between 1ms and 10m");
    rejects("[engine]\nmax_hold_age = \"0s\"", "F:2: `engine.max_hold_age`: must be above zero");
    rejects(
        "[dlq]\nbreaker_ratio = 0",
        "F:2: `dlq.breaker_ratio`: must be above 0: the breaker would never let an event die; 1 switches it off",
    );
    rejects("[dlq]\nbreaker_ratio = 2", "F:2: `dlq.breaker_ratio`: `2` is no number from 0 to 1");
    rejects("[catalog]\ndir = \"\"", "F:2: `catalog.dir`: must name a folder");
}

#[test]
fn listeners_are_addresses_that_can_be_bound_together() {
    rejects("[http]\nlisten = \":9464\"", "F:2: `http.listen`: `:9464` is no address: the host is missing; write it like \"0.0.0.0:9464\"");
    let shared = "[http]\nlisten = \"0.0.0.0:3500\"";
    rejects(shared, "default: `publish.listen`: `127.0.0.1:3500` is taken by `http.listen` (F:2)");
    let handler = "\n[[handlers]]\nname = \"a\"\nkind = \"log\"";
    load().file(&format!("{shared}{handler}")).role(Role::Consumer).ok();
    rejects(
        "[publish]\npubsubs = [\"a/b\"]",
        "F:2: `publish.pubsubs`: a name is empty, or has white space or a slash: no request could ever say it",
    );
}

#[test]
fn lists_of_tables_do_not_come_from_the_environment() {
    let report = load().env("WORKER_HANDLERS__0__URL", "http://h").report();
    assert!(report.contains("`handlers` is a list of tables: give it in a file, or by --set 'handlers=[{..}]'"), "{report}");
}

#[test]
fn what_is_allowed_and_probably_not_meant_is_a_warning() {
    let warns = |file: &str, warning: &str| assert_eq!(load().file(file).warnings(), [warning]);
    warns(
        "[publish]\nlisten = \"0.0.0.0:3500\"",
        "F:2: `publish.listen`: `0.0.0.0:3500` is open to other machines without publish.api_token: anyone there can publish",
    );
    warns("[store]\nbypass_after = \"1m\"", "F:2: `store.bypass_after`: has no effect with store.when_down = \"hold\"");
    warns(
        "[engine]\nmax_hold_age = \"30m\"",
        "default: `retry.\"task.completed\".delays`: 35m 30s in all is longer than engine.max_hold_age (30m): the user's backlog overflows before the last retry",
    );
    warns("[engine]\nmemory = \"2MiB\"", "F:2: `engine.memory`: below 16MiB: partitions will be held most of the time");
    warns(
        "[kafka.properties]\n\"sasl.username\" = \"u\"",
        "F:2: `kafka.properties.\"sasl.username\"`: has no effect without \"security.protocol\" = \"sasl_ssl\"",
    );
    warns(
        "[kafka.consumer]\n\"session.timeout.ms\" = 5000",
        "F:2: `kafka.consumer.\"session.timeout.ms\"`: 5s is below what a broker accepts by default (group.min.session.timeout.ms, 6s)",
    );
    warns(
        "[[handlers]]\nname = \"a\"\nkind = \"log\"\nconcurrency = 1000",
        "F:4: `handlers[0].concurrency`: more than engine.concurrency (256), which stays the limit",
    );
    let lonely = load().set("kafka.brokers=embedded").role(Role::Producer).warnings();
    assert_eq!(lonely.len(), 1, "{lonely:?}");
}

#[test]
fn schedules_are_checked() {
    let schedule = |rest: &str| format!("[[schedules]]\nname = \"a\"\n{rest}");
    let hourly = |rest: &str| schedule(&format!("cron = \"@hourly\"\n{rest}"));
    rejects(&schedule(""), "F:1: `schedules[0]`: `cron` is missing (5 or 6 fields, @hourly, @every 1h, each also after CRON_TZ=Area/City)");
    rejects(
        &schedule("cron = \"* * *\""),
        "F:3: `schedules[0].cron`: `* * *` has 3 fields; cron has 5, or 6 with seconds first, or a name such as @hourly",
    );
    rejects(&schedule("cron = \"0 0 31 4 *\""), "F:3: `schedules[0].cron`: `0 0 31 4 *` is never due: no date fits it");
    rejects(
        &hourly("timezone = \"Europe/Belrin\""),
        "F:4: `schedules[0].timezone`: `Europe/Belrin` is no time zone; did you mean \"Europe/Berlin\"?",
    );
    rejects(&hourly("event = \"a.b\"\nhttp = \"http://h\""), "F:5: `schedules[0].http`: goes instead of event, not with it; keep one");
    rejects(
        &hourly("event = \"tick\"\nuser_id = \" \""),
        "F:5: `schedules[0].user_id`: must not be empty; leave the key out for schedule:<name>",
    );
    rejects(&hourly("event = \"a..b\""), "F:4: `schedules[0].event`: `a..b` is no event type; write it like \"task.created\"");
    rejects(&hourly("http = \"h:80\""), "F:4: `schedules[0].http`: `h:80` is no URL: no scheme; write it like \"http://host..\"");
    rejects(&hourly("route = \"/x\""), "F:4: `schedules[0].route`: is a key of schedules with http alone");
    rejects(&hourly("overlap = \"allow\""), "F:4: `schedules[0].overlap`: is a key of schedules with http alone");
    rejects(&hourly("http = \"http://h\"\nuser_id = \"u\""), "F:5: `schedules[0].user_id`: is a key of schedules that publish an event");
    rejects(
        &hourly("http = \"http://h/a\"\nroute = \"/x\""),
        "F:5: `schedules[0].route`: goes with an http that has no path, the app's address; keep one of the two paths",
    );
    rejects(&hourly("http = \"http://h\"\nroute = \"x y\""), "F:5: `schedules[0].route`: `x y` is no path; write it like \"/tick\"");
    rejects(
        &hourly("http = \"http://h\"\ncatch_up = \"all\""),
        "F:5: `schedules[0].catch_up`: \"all\" fires many ticks at once: with http it needs overlap = \"allow\"",
    );
    load().file(&hourly("http = \"http://h\"\ncatch_up = \"all\"\noverlap = \"allow\"")).ok();
    rejects(&hourly("http = \"http://h\"\ntimeout = \"2h\""), "F:5: `schedules[0].timeout`: 2h is not between 1ms and 1h");
    rejects(&hourly("overlap = \"wait\""), "F:4: `schedules[0].overlap`: `wait` is none of skip, allow");
    rejects(&hourly("catch_up = \"none\""), "F:4: `schedules[0].catch_up`: `none` is none of skip, once, all");
    rejects(&hourly("jitter = \"1h\""), "F:4: `schedules[0].jitter`: 1h is not below the 1h between two ticks");
    rejects(
        &format!("{}\n{}", hourly(""), hourly("")),
        "F:6: `schedules[1].name`: `a` is taken by `schedules[0].name` (F:2); names must be unique",
    );
    load().file(&schedule("cron = \"CRON_TZ=Asia/Tokyo 30 2 * * *\"\nhttp = \"http://h:80\"\nroute = \"/x\"\njitter = \"5m\"")).ok();
}

#[test]
fn tokens_of_oidc_need_an_endpoint_and_credentials_of_one_kind() {
    let oidc = |more: &str| {
        format!(
            "[kafka.properties]\n\"security.protocol\" = \"sasl_ssl\"\n\"sasl.mechanism\" = \"OAUTHBEARER\"\n\"sasl.oauthbearer.method\" = \"oidc\"\n\
             \"sasl.oauthbearer.token.endpoint.url\" = \"https://idp/token\"\n\"sasl.oauthbearer.client.id\" = \"id\"\n\
             \"sasl.oauthbearer.client.secret\" = \"s\"\n{more}"
        )
    };
    assert!(load().file(&oidc("")).warnings().is_empty());
    rejects(
        &oidc("\"sasl.oauthbearer.grant.type\" = \"urn:ietf:params:oauth:grant-type:jwt-bearer\""),
        "F:8: `kafka.properties.\"sasl.oauthbearer.grant.type\"`: only client_credentials is offered",
    );
    rejects(
        &oidc("\"sasl.oauthbearer.assertion.file\" = \"/key\""),
        "F:8: `kafka.properties.\"sasl.oauthbearer.assertion.file\"`: is not offered: tokens are asked for with sasl.oauthbearer.client.id and \
         sasl.oauthbearer.client.secret",
    );
    rejects(
        &oidc("\"sasl.oauthbearer.extensions\" = \"logicalCluster=lkc-1,pool\""),
        "F:8: `kafka.properties.\"sasl.oauthbearer.extensions\"`: `pool` is no extension; write it like \
         \"logicalCluster=lkc-1,identityPoolId=pool-1\"",
    );
    rejects(
        &oidc("\"https.ca.location\" = \"/ca.pem\"\n\"https.ca.pem\" = \"-----\""),
        "F:9: `kafka.properties.\"https.ca.pem\"`: and https.ca.location exclude each other",
    );
    rejects(
        &oidc("[kafka.producer]\n\"sasl.oauthbearer.scope\" = \"write\""),
        "F:9: `kafka.producer.\"sasl.oauthbearer.scope\"`: stands in [kafka.properties]: every client logs in with the same token",
    );
    let half = "[kafka.properties]\n\"security.protocol\" = \"sasl_ssl\"\n\"sasl.mechanism\" = \"OAUTHBEARER\"\n";
    rejects(
        half,
        "F:3: `kafka.properties.\"sasl.mechanism\"`: OAUTHBEARER needs tokens: set \"sasl.oauthbearer.method\" = \"oidc\", \
         \"sasl.oauthbearer.token.endpoint.url\", \"sasl.oauthbearer.client.id\" and \"sasl.oauthbearer.client.secret\"",
    );
    rejects(
        &format!("{half}\"sasl.oauthbearer.method\" = \"oicd\""),
        "F:4: `kafka.properties.\"sasl.oauthbearer.method\"`: `oicd` is neither oidc nor default",
    );
    let missing = problems(
        "[kafka.properties]\n\"security.protocol\" = \"sasl_ssl\"\n\"sasl.mechanism\" = \"PLAIN\"\n\"sasl.oauthbearer.method\" = \"oidc\"",
    );
    let mut keys: Vec<_> = missing.iter().map(|problem| problem.split('`').nth(1).unwrap()).collect();
    keys.sort_unstable();
    let names = ["sasl.mechanism", "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.token.endpoint.url"];
    assert_eq!(keys, names.map(|name| format!("kafka.properties.\"{name}\"")));
}

#[test]
fn a_secret_that_would_go_over_the_network_unencrypted_is_a_warning() {
    let warned = |endpoint: &str| {
        let file = format!(
            "[kafka.properties]\n\"security.protocol\" = \"sasl_ssl\"\n\"sasl.mechanism\" = \"OAUTHBEARER\"\n\"sasl.oauthbearer.method\" = \"oidc\"\n\
             \"sasl.oauthbearer.token.endpoint.url\" = \"{endpoint}\"\n\"sasl.oauthbearer.client.id\" = \"id\"\n\
             \"sasl.oauthbearer.client.secret\" = \"s\""
        );
        load().file(&file).warnings().iter().any(|warning| warning.contains("unencrypted"))
    };
    assert!(warned("http://idp.example/token"));
    assert!(!warned("http://127.0.0.1:8080/token") && !warned("https://idp.example/token"));
}

#[test]
fn a_feed_for_clients_needs_a_secret_and_origins_without_a_path() {
    let sync = |keys: &str| format!("[sync]\nlisten = \"127.0.0.1:0\"\n{keys}");
    let secret = "secret = \"0123456789abcdef0123456789abcdef\"\n";
    rejects(
        &sync(""),
        "default: `sync.secret`: is needed where sync.listen is set: whoever signs the users' tokens has it; make one with `openssl rand -base64 32`",
    );
    rejects(&sync("secret = \"short\""), "F:3: `sync.secret`: has 5 bytes; tokens signed with less than 32 can be guessed");
    rejects(
        &sync(&format!("{secret}origins = [\"https://app.example.com/\"]")),
        "F:4: `sync.origins`: `https://app.example.com/` is no origin; write it like \"https://app.example.com\", without a path, or \"*\"",
    );
    rejects(&sync(&format!("{secret}topic = \"dlq\"")), "F:4: `sync.topic`: `dlq` is dlq.topic: dead letters are not for users");
    rejects(
        &sync(&format!("{secret}topic = \"a b\"")),
        "F:4: `sync.topic`: `a b` is no topic name: letters, digits, `.`, `_` and `-` only",
    );
    rejects(
        &format!("[sync]\nlisten = \"nowhere\"\n{secret}"),
        "F:2: `sync.listen`: `nowhere` is no address: the port is missing; write it like \"0.0.0.0:9464\"",
    );
    rejects(
        &format!("[sync]\nlisten = \"0.0.0.0:9464\"\n{secret}"),
        "F:2: `sync.listen`: `0.0.0.0:9464` is taken by `http.listen` (default)",
    );
}
