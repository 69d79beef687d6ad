//! Logs and metrics: one registry, names that dashboards rely on, labels from closed sets.

pub mod logs;

use std::{cell::RefCell, sync::Arc};

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Buckets of durations in seconds: a loopback call to a long run.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// Buckets of what takes people minutes to weeks, in seconds.
const DAYS: &[f64] = &[60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0, 1_209_600.0, 2_592_000.0];

/// This machine's name, or the pod's; `worker` where it has none.
pub fn host() -> String {
    let name = std::env::var("HOSTNAME").or_else(|_| std::fs::read_to_string("/etc/hostname")).unwrap_or_default();
    if name.trim().is_empty() { "worker".to_owned() } else { name.trim().to_owned() }
}

/// Every metric of a process. Made once by the role and passed down; there is no global one.
#[derive(Clone)]
#[expect(missing_docs, reason = "each field is the metric of its name with the prefix worker_, documented by its help text below")]
pub struct Metrics {
    registry: Registry,
    heads: Arc<[(String, String)]>,
    pub events_consumed: IntCounterVec,
    pub events_settled: IntCounterVec,
    pub handler_runs: IntCounterVec,
    pub handler_duration: HistogramVec,
    pub event_latency: HistogramVec,
    pub retries_scheduled: IntCounterVec,
    pub events_waiting_retry: IntGaugeVec,
    pub users_blocked: IntGaugeVec,
    pub dead_letters: IntCounterVec,
    pub dead_letter_failures: IntCounter,
    pub dlq_breaker_open: IntGauge,
    pub consumer_lag_records: IntGaugeVec,
    pub consumer_lag_seconds: GaugeVec,
    pub held_events: IntGaugeVec,
    pub held_bytes: IntGaugeVec,
    pub spilled_events: IntGaugeVec,
    pub commits: IntCounterVec,
    pub commit_map_chars: IntGaugeVec,
    pub commit_map_overflows: IntCounterVec,
    pub assigned_partitions: IntGauge,
    pub rebalances: IntCounter,
    pub store_up: IntGauge,
    pub store_errors: IntCounterVec,
    pub store_duration: HistogramVec,
    pub published: IntCounterVec,
    pub publish_duration: HistogramVec,
    pub schedule_ticks: IntCounterVec,
    pub schedule_lateness: HistogramVec,
    pub schedule_skipped: IntCounterVec,
    pub schedule_failures: IntCounterVec,
    pub reminders_pending: IntGauge,
    pub reminders_fired: IntCounterVec,
    pub reminder_lateness: Histogram,
    pub notifications: IntCounterVec,
    pub notifications_waiting: IntGaugeVec,
    pub sync_connections: IntGauge,
    pub sync_connects: IntCounterVec,
    pub sync_events: IntCounter,
    pub sync_slow_clients: IntCounter,
    pub conservation_error: IntGauge,
    pub lost_to_retention: IntCounterVec,
    pub foreign_commit_maps: IntCounter,
    pub keys_not_user_id: IntCounterVec,
    pub analytics_events: IntCounterVec,
    pub time_to_complete: Histogram,
    pub active_users: IntGaugeVec,
    pub security_alerts: IntCounterVec,
}

/// Registers families one by one; a name used twice is a mistake of this file, found by any test that makes [`Metrics`].
#[derive(Default)]
struct Families {
    registry: Registry,
    /// Each name with its help and type lines.
    heads: RefCell<Vec<(String, String)>>,
}

#[expect(clippy::expect_used, reason = "names and labels are constants of this file; a clash fails the first test")]
impl Families {
    fn add<M: prometheus::core::Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("a valid metric");
        for family in metric.collect() {
            let (name, help) = (family.name().to_owned(), family.help());
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            let head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
            self.heads.borrow_mut().push((name, head));
        }
        self.registry.register(Box::new(metric.clone())).expect("a name of its own");
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels))
    }
}

impl Metrics {
    /// Registers every family and sets `worker_build_info` for `role`.
    pub fn new(role: &str) -> Self {
        let f = Families::default();
        f.gauges("worker_build_info", "Always 1; the build is in the labels.", &["version", "revision", "role"])
            .with_label_values(&[env!("CARGO_PKG_VERSION"), option_env!("WORKER_REVISION").unwrap_or("unknown"), role])
            .set(1);
        Self {
            events_consumed: f.counters("worker_events_consumed_total", "Records taken from Kafka.", &["topic"]),
            events_settled: f.counters("worker_events_settled_total", "Events with a final outcome.", &["topic", "event_type", "outcome"]),
            handler_runs: f.counters("worker_handler_runs_total", "Handler runs by result.", &["handler", "event_type", "result"]),
            handler_duration: f.histograms("worker_handler_duration_seconds", "Time of one handler run.", &["handler", "event_type"]),
            event_latency: f.histograms("worker_event_latency_seconds", "From the record's timestamp to settled.", &["topic"]),
            retries_scheduled: f.counters("worker_retries_scheduled_total", "Retries put on the schedule.", &["handler", "event_type"]),
            events_waiting_retry: f.gauges("worker_events_waiting_retry", "Events in backoff now.", &["topic"]),
            users_blocked: f.gauges("worker_users_blocked", "Users whose events wait behind a failing one now.", &["topic"]),
            dead_letters: f.counters(
                "worker_dead_letters_total",
                "Events acknowledged by the DLQ topic.",
                &["topic", "event_type", "reason"],
            ),
            dead_letter_failures: f.counter("worker_dead_letter_failures_total", "DLQ publishes that failed and are tried again."),
            dlq_breaker_open: f.gauge("worker_dlq_breaker_open", "1 while dead-lettering is stopped because too many events die."),
            consumer_lag_records: f.gauges(
                "worker_consumer_lag_records",
                "Records between the low watermark and the log's end.",
                &["topic", "partition"],
            ),
            consumer_lag_seconds: f.float_gauges(
                "worker_consumer_lag_seconds",
                "Age of the oldest unsettled record.",
                &["topic", "partition"],
            ),
            held_events: f.gauges("worker_held_events", "Events taken and not settled.", &["topic"]),
            held_bytes: f.gauges("worker_held_bytes", "Bytes of the events taken and not settled.", &["topic"]),
            spilled_events: f.gauges("worker_spilled_events", "Events kept as stubs, to be read again at their turn.", &["topic"]),
            commits: f.counters("worker_commits_total", "Offset commits by result.", &["result"]),
            commit_map_chars: f.gauges(
                "worker_commit_map_chars",
                "Length of the last commit map, UTF-16 code units.",
                &["topic", "partition"],
            ),
            commit_map_overflows: f.counters(
                "worker_commit_map_overflows_total",
                "Commits whose map did not hold everything: what is left out is replayed after a restart, or retried early.",
                &["topic", "tier"],
            ),
            assigned_partitions: f.gauge("worker_assigned_partitions", "Partitions owned now."),
            rebalances: f.counter("worker_rebalances_total", "Assignments, revocations and losses."),
            store_up: f.gauge("worker_store_up", "1 while the store answers."),
            store_errors: f.counters("worker_store_errors_total", "Store calls that failed.", &["op"]),
            store_duration: f.histograms("worker_store_duration_seconds", "Time of one store exchange.", &["op"]),
            published: f.counters("worker_published_total", "Records published by result.", &["topic", "result"]),
            publish_duration: f.histograms("worker_publish_duration_seconds", "From accepted to acknowledged.", &["topic", "result"]),
            schedule_ticks: f.counters("worker_schedule_ticks_total", "Schedule ticks fired.", &["schedule"]),
            schedule_lateness: f.histograms("worker_schedule_lateness_seconds", "From due to fired.", &["schedule"]),
            schedule_skipped: f.counters(
                "worker_schedule_skipped_total",
                "Ticks that did not fire: missed, or due while another one ran (overlap).",
                &["schedule", "reason"],
            ),
            schedule_failures: f.counters("worker_schedule_failures_total", "Ticks given up after their last retry.", &["schedule"]),
            reminders_pending: f.gauge("worker_reminders_pending", "Tasks of the whole group with reminders to come."),
            reminders_fired: f.counters("worker_reminders_fired_total", "Reminders published as reminder.due.", &["reminder_type"]),
            reminder_lateness: f.histogram(
                "worker_reminder_lateness_seconds",
                "From a reminder's time to its acknowledgement by the brokers.",
                SECONDS,
            ),
            notifications: f.counters(
                "worker_notifications_total",
                "Messages to users by result: delivered, deferred, bounced, failed.",
                &["handler", "channel", "result"],
            ),
            notifications_waiting: f.gauges(
                "worker_notifications_waiting_users",
                "Users of the whole group with messages that go out later.",
                &["handler"],
            ),
            sync_connections: f.gauge("worker_sync_connections", "Clients that listen to their events now."),
            sync_connects: f.counters("worker_sync_connects_total", "Clients that came: new, resumed, reset, refused.", &["result"]),
            sync_events: f.counter("worker_sync_events_total", "Events given to clients as they came."),
            sync_slow_clients: f.counter("worker_sync_slow_clients_total", "Clients let go because events piled up for them."),
            conservation_error: f.gauge("worker_conservation_error", "Accepted records that are neither settled nor held: always 0."),
            lost_to_retention: f.counters(
                "worker_lost_to_retention_total",
                "Records that the log dropped before they were handled.",
                &["topic"],
            ),
            foreign_commit_maps: f
                .counter("worker_foreign_commit_maps_total", "Commit metadata that was not ours or was damaged, read as none."),
            keys_not_user_id: f.counters("worker_keys_not_user_id_total", "Records whose key is not their event's user_id.", &["topic"]),
            analytics_events: f.counters(
                "worker_analytics_events_total",
                "Events that an analytics handler counted, knew already, or could not count.",
                &["event_type", "result"],
            ),
            time_to_complete: f.histogram(
                "worker_time_to_complete_seconds",
                "From a task's creation to its completion, as an analytics handler counted it.",
                DAYS,
            ),
            active_users: f.gauges(
                "worker_active_users",
                "Users who logged in today, and in the last 30 days; the same on every replica.",
                &["handler", "window"],
            ),
            security_alerts: f.counters("worker_security_alerts_total", "Alerts that a security handler published.", &["rule"]),
            registry: f.registry,
            heads: f.heads.into_inner().into(),
        }
    }

    /// Prometheus text format. A family without a series yet is named with its help and type, so that dashboards find every name at once.
    ///
    /// # Errors
    /// Where a family cannot be encoded, which no family of this file can cause.
    pub fn render(&self) -> prometheus::Result<String> {
        let families = self.registry.gather();
        let mut text = TextEncoder::new().encode_to_string(&families)?;
        for (name, head) in &*self.heads {
            if !families.iter().any(|family| family.name() == name) {
                text.push_str(head);
            }
        }
        Ok(text)
    }
}
