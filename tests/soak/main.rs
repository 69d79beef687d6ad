//! A soak: consumers and a producer as processes, a real Kafka and Redis behind proxies, faults from a seed, and an oracle at the end.
//!
//! `make soak DURATION=30m SEED=7`, or `tests/stack run cargo test --test soak`: a minute, of one seed. Each run says its plan, then
//! what came of it; what the processes said and every run of the app stand in the folder that it names.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod app;
mod backlog;
mod chaos;
mod crew;
mod events;
mod facts;
mod load;
mod oracle;
mod plan;
mod report;
#[path = "../e2e/support/mod.rs"]
mod support;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use app::App;
use chaos::{History, Incident};
use crew::{Crew, GROUP, LONG};
use events::TOPICS;
use facts::Facts;
use load::Sent;
use plan::{Mood, Plan, WORKERS};
use support::{eventually_every, unique};

/// Events per second, where nothing else is asked for.
const RATE: u64 = 40;
/// Time for all to come right once nothing goes wrong any more: long enough for the longest session, lease and schedule.
const HEALING: Duration = Duration::from_secs(240);
/// One after another: each takes the machine for itself.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn asked<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).map(|value| value.parse().ok().unwrap_or_else(|| panic!("{name}: {value}")))
}

fn duration(default: Duration) -> Duration {
    asked::<String>("WORKER_SOAK_DURATION").map_or(default, |text| humantime::parse_duration(&text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_no_event_is_lost_and_each_users_come_in_order() {
    let plan = Plan::new(asked("WORKER_SOAK_SEED").unwrap_or(1), duration(Duration::from_secs(60)), Mood::Wild);
    soak(plan).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of make soak"]
async fn where_no_worker_crashes_and_redis_forgets_nothing_no_event_is_handled_twice() {
    let plan = Plan::new(asked("WORKER_SOAK_SEED").unwrap_or(1), duration(Duration::from_secs(60)), Mood::Mild);
    soak(plan).await;
}

async fn soak(plan: Plan) {
    let _alone = ALONE.lock().await;
    let folder = folder(&plan);
    let app = Arc::new(App::start(plan.seed, &folder).await);
    let crew = Arc::new(stack_or_skip!(Crew::gather(Arc::clone(&app), &folder).await));
    println!("{plan}evidence in {}", folder.display());
    std::fs::write(folder.join("plan"), plan.to_string()).unwrap();
    let kafka = crew.stack.kafka();
    for (topic, partitions) in TOPICS {
        kafka.create_topic(topic, partitions, &[]).await;
    }
    chaos::make_dlq(&kafka).await;
    for place in 0..=WORKERS {
        crew.start(place).await;
    }
    crew.ready().await;

    let (history, sent) = (Arc::<History>::default(), Arc::<Sent>::default());
    let watching = {
        tokio::spawn({
            let crew = Arc::clone(&crew);
            async move { crew.watch().await }
        })
    };
    let rate = asked("WORKER_SOAK_RATE").unwrap_or(RATE);
    let producing = tokio::spawn(load::produce(Arc::clone(&crew), Arc::clone(&sent), plan.seed, rate));
    chaos::unleash(&crew, &history, &plan).await;
    sent.stop();
    let events = producing.await.unwrap();
    let begun = Instant::now();
    let pending = settle(&crew).await;
    let healed = begun.elapsed();
    watching.abort();
    for place in 0..=WORKERS {
        crew.roll(place, false).await;
    }

    let mut letters = history.letters.lock().unwrap().clone();
    letters.extend(kafka.read_all("dlq").await);
    let mut logs = Vec::new();
    for (topic, _) in TOPICS {
        logs.push((topic, kafka.read_all(topic).await));
    }
    let incidents = history.incidents.lock().unwrap().clone();
    evidence(&folder, &crew, &incidents);
    let facts = Facts::new(logs, &letters, app.runs(), sent.accepted.lock().unwrap().clone(), crew.lives(), incidents);
    let mut judgement = oracle::judge(plan.seed, &facts);
    judgement.wrong.extend(pending);
    let watched = crew.watched();
    judgement.wrong.extend(watched.conservation_errors.iter().map(|line| format!("conservation_error: {line}")));
    judgement.wrong.extend(panics(&folder));
    if plan.mood == Mood::Mild {
        let repeated = judgement.repeated.iter().chain(&judgement.repeated_letters);
        let lines: Vec<_> = repeated.map(|(cause, count)| format!("{count} handled twice: {cause}")).collect();
        judgement.wrong.extend(lines);
    }
    let refused = *sent.refused.lock().unwrap();
    let report = report::table(&plan, &facts, &judgement, &watched, events, refused, healed);
    println!("{report}");
    std::fs::write(folder.join("report"), &report).unwrap();
    let violations: Vec<_> = judgement.violations().map(String::as_str).collect();
    std::fs::write(folder.join("violations"), violations.join("\n")).unwrap();
    let shown = violations[..violations.len().min(10)].join("\n");
    assert!(violations.is_empty(), "seed {}: {} promises broken:\n{shown}", plan.seed, violations.len());
}

/// Waits until the group's commits stand at the end of every topic; what keeps them from it, if they never do.
async fn settle(crew: &Crew) -> Option<String> {
    crew.mend_lines();
    crew.ready().await;
    let follower = crew.stack.kafka().follower(GROUP);
    let end = Instant::now() + HEALING;
    let done = eventually_every(Duration::from_secs(1), "commits at the end of every topic", HEALING + LONG, || {
        let follower = follower.clone();
        async move {
            let at_end = tokio::task::spawn_blocking(move || follower.at_end(&TOPICS.map(|(topic, _)| topic))).await.unwrap();
            at_end.map(|_| true).or_else(|| (Instant::now() > end).then_some(false))
        }
    })
    .await;
    (!done).then(|| format!("not everything was committed {HEALING:?} after the last fault"))
}

/// What was done when, and which process was whose, for whoever reads the logs.
fn evidence(folder: &Path, crew: &Crew, incidents: &[Incident]) {
    let faults: String = incidents.iter().map(|incident| format!("{} {} {}\n", incident.from, incident.to, incident.fault)).collect();
    std::fs::write(folder.join("faults"), faults).unwrap();
    let lives: String = crew.lives().iter().enumerate().map(|(process, life)| format!("{process} {life:?}\n")).collect();
    std::fs::write(folder.join("processes"), lives).unwrap();
}

/// What a process must never say.
fn panics(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.filter(|path| std::fs::read_to_string(path).unwrap().contains("panicked at"))
        .map(|path| format!("a panic in {}", path.display()))
        .collect()
}

/// A folder of this run's own, kept.
fn folder(plan: &Plan) -> PathBuf {
    let name = unique(&format!("soak-{}-{:?}", plan.seed, plan.mood).to_lowercase());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
