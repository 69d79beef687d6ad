//! One seed from its first event to its verdict.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use worker::engine::Rules;

use crate::{
    broker::{self, Log},
    plan::{END_MS, Fault, HEAL_MS, Plan},
    store::StoreRules,
    worker::{Desk, MOST_FAILURES, note_metrics, supervise},
    world::{World, sleep_ms},
};

/// The rules in force.
#[derive(Debug, Clone, Copy)]
pub struct Switches {
    pub engine: Rules,
    pub store: StoreRules,
}

impl Switches {
    /// All of them.
    pub fn all() -> Self {
        Self { engine: Rules::ALL, store: StoreRules::default() }
    }
}

/// What became of one seed.
#[derive(Debug, Default)]
pub struct Verdict {
    pub violations: Vec<String>,
    pub history: Vec<String>,
    pub faults: BTreeMap<&'static str, u64>,
    pub duplicates: BTreeMap<&'static str, u64>,
    pub reasons: BTreeMap<String, u64>,
    pub seen: BTreeMap<&'static str, u64>,
    pub events: usize,
    pub runs: u64,
    pub virtual_ms: u64,
}

/// Plays a seed; `record`: with its history.
pub fn play(seed: u64, rules: Switches, record: bool) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(seed, rules, record))
}

async fn simulate(seed: u64, rules: Switches, record: bool) -> Verdict {
    let world = Arc::new(World::new(seed, Plan::new(seed), record));
    world.store().rules = rules.store;
    world.note("plan", || format!("{:?}", Plan { events: Vec::new(), ..world.plan.clone() }));
    let desks: Vec<Arc<Desk>> = (0..world.plan.workers).map(|_| Arc::new(Desk::new(rules.engine))).collect();
    for (slot, desk) in desks.iter().enumerate() {
        tokio::spawn(supervise(Arc::clone(&world), slot, Arc::clone(desk)));
    }
    tokio::spawn(produce(Arc::clone(&world)));
    tokio::spawn(go_wrong(Arc::clone(&world), desks.clone()));
    let last = world.plan.events.last().map_or(0, |event| event.at_ms);
    let healed = if world.plan.faults.is_empty() { last } else { HEAL_MS };
    let lags = world.plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::Failover(_)));
    let mut quiet = 0;
    loop {
        if lags && world.now() < HEAL_MS {
            let now = world.now();
            world.store().snapshot(now);
        }
        sleep_ms(250).await;
        broker::coordinate(&world);
        for desk in &desks {
            if let Some((process, _)) = desk.process().filter(|(process, _)| process.metrics.conservation_error.get() != 0) {
                world.violated(format!("{}: records are neither settled nor held", process.name));
            }
        }
        quiet = if world.now() > healed + 500 && world.broker().committed() { quiet + 1 } else { 0 };
        let broken = !world.facts().violations.is_empty();
        if broken || quiet > 12 || world.now() > end(&world) {
            break;
        }
    }
    judge(&world);
    desks.iter().filter_map(|desk| desk.process()).for_each(|(process, _)| note_metrics(&process));
    let recognised = world.facts().recognised();
    if recognised > 0 {
        world.saw("copy recognised");
    }
    let mut facts = std::mem::take(&mut *world.facts());
    Verdict {
        violations: std::mem::take(&mut facts.violations),
        history: world.history(),
        events: facts.events.len(),
        runs: facts.events.iter().map(|event| u64::from(event.runs)).sum(),
        faults: facts.faults,
        duplicates: facts.duplicates,
        reasons: facts.reasons,
        seen: facts.seen,
        virtual_ms: world.now(),
    }
}

/// When everything must be over. Each process that an event kills costs the others a session's wait, whenever that happens; an engine
/// that never finds out what kills it has no right to more.
fn end(world: &World) -> u64 {
    let killed = world.facts().faults.get("poison").copied().unwrap_or_default();
    END_MS + killed.min(40) * 15_000
}

/// At the end: nothing is lost, nothing hangs.
fn judge(world: &World) {
    if !world.facts().violations.is_empty() {
        return;
    }
    if !world.broker().committed() {
        world.violated("not everything is committed, long after the last fault");
    }
    let open: Vec<_> = {
        let facts = world.facts();
        (0..facts.events.len())
            .filter(|index| !facts.concluded(*index))
            .map(|index| (facts.events[index].partition, facts.events[index].offset))
            .collect()
    };
    if !open.is_empty() {
        world.violated(format!("lost: {open:?}"));
    }
    let crashes: u64 = world.facts().faults.values().sum();
    let judged = world.facts().judge_attempts(crashes, MOST_FAILURES);
    if let Err(broken) = judged {
        world.violated(broken);
    }
}

async fn produce(world: Arc<World>) {
    let events = world.plan.events.clone();
    let mut before = None;
    for (number, spec) in events.iter().enumerate() {
        sleep_ms(spec.at_ms.saturating_sub(world.now())).await;
        before = Some(broker::produce(&world, number, spec, before));
    }
}

async fn go_wrong(world: Arc<World>, desks: Vec<Arc<Desk>>) {
    for (at, fault) in world.plan.faults.clone() {
        sleep_ms(at.saturating_sub(world.now())).await;
        world.note("FAULT", || format!("{fault:?}"));
        let name = inflict(&world, &desks, fault);
        world.facts().fault(name);
    }
}

fn inflict(world: &Arc<World>, desks: &[Arc<Desk>], fault: Fault) -> &'static str {
    let now = world.now();
    let process = |slot: usize| desks[slot].process();
    match fault {
        Fault::Kill(slot) => {
            process(slot).inspect(|(process, _)| process.die());
            "kill"
        }
        Fault::KillAtCall(slot, calls) => {
            process(slot).inspect(|(process, _)| process.light_fuse(calls));
            "kill"
        }
        Fault::Freeze(slot, length) => {
            if let Some((process, _)) = process(slot) {
                process.freeze(true);
                let world = Arc::clone(world);
                tokio::spawn(async move {
                    sleep_ms(length).await;
                    world.note(&process.name, || "goes on".to_owned());
                    process.freeze(false);
                });
            }
            "freeze"
        }
        Fault::Roll(slot, version) => {
            desks[slot].version.store(version as u64, Ordering::Relaxed);
            if let Some((process, shutdown)) = process(slot) {
                process.stopping.store(true, Ordering::Relaxed);
                shutdown.cancel();
            }
            "roll"
        }
        Fault::Cut(slot, length) => {
            process(slot).inspect(|(process, _)| process.cut_until.store(now + length, Ordering::Relaxed));
            "cut"
        }
        Fault::Rebalance => {
            world.broker().rotation += 1;
            "rebalance"
        }
        other => inflict_outside(world, other, now),
    }
}

fn inflict_outside(world: &World, fault: Fault, now: u64) -> &'static str {
    let until = |length: u64| (now + length).min(HEAL_MS);
    let mut weather = world.weather();
    match fault {
        Fault::StoreDown(length) => {
            weather.store_down = until(length);
            "store down"
        }
        Fault::StoreSlow(length) => {
            weather.store_slow = until(length);
            "store slow"
        }
        Fault::StoreMute(length) => {
            weather.store_mute = until(length);
            "store mute"
        }
        Fault::StoreLate(length) => {
            weather.store_late = until(length);
            "store late"
        }
        Fault::Flush => {
            world.store().flush();
            "flush"
        }
        Fault::Failover(length) => {
            world.store().fail_over(now.saturating_sub(length));
            "failover"
        }
        Fault::ShardLost(shard) => {
            world.store().lose_shard(shard);
            "shard lost"
        }
        Fault::StoreClock(jump) => {
            world.store().skew_ms += jump;
            "store clock"
        }
        Fault::CommitsFail(length) => {
            weather.commits_fail = until(length);
            "commits fail"
        }
        Fault::CommitsMute(length) => {
            weather.commits_mute = until(length);
            "commits mute"
        }
        Fault::DlqDown(length) => {
            weather.dlq_down = until(length);
            "dlq down"
        }
        Fault::DlqMute(length) => {
            weather.dlq_mute = until(length);
            "dlq mute"
        }
        Fault::ReaderFails(length) => {
            weather.reader_fails = until(length);
            "reader fails"
        }
        Fault::Retention(partition, records) => {
            shorten(world, partition, records);
            "retention"
        }
        Fault::Compact(partition) => {
            let taken = world.rng().i64(0..40);
            // The last record of a log is never compacted.
            lose(world, partition, |offset, end| offset == taken && offset + 1 < end);
            "compaction"
        }
        Fault::Grow => {
            world.facts().grown = true;
            world.broker().logs.push(Log::default());
            "partition added"
        }
        Fault::MetadataLimit(limit) => {
            world.broker().metadata_limit = limit;
            "metadata limit"
        }
        _ => "nothing",
    }
}

fn shorten(world: &World, partition: i32, records: u64) {
    let start = {
        let mut broker = world.broker();
        let log = &mut broker.logs[partition as usize];
        let start = log.records.keys().nth(records as usize).copied().unwrap_or(log.end);
        log.start = start;
        start
    };
    lose(world, partition, |offset, _| offset < start);
}

fn lose(world: &World, partition: i32, gone: impl Fn(i64, i64) -> bool) {
    let mut broker = world.broker();
    let log = &mut broker.logs[partition as usize];
    let end = log.end;
    let lost: Vec<i64> = log.records.keys().copied().filter(|offset| gone(*offset, end)).collect();
    for offset in &lost {
        log.records.remove(offset);
    }
    drop(broker);
    let mut facts = world.facts();
    for offset in lost {
        if let Some(index) = facts.at((partition, offset)).filter(|index| !facts.concluded(*index)) {
            facts.events[index].gone = true;
        }
    }
}
