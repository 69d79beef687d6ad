//! Each rule of the engine switched off: the simulation has to notice, or it proves nothing about that rule.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::run::{Switches, play};

/// Seeds after which a mutation counts as unnoticed.
const MOST_SEEDS: u64 = 3_000;

type Mutation = (&'static str, fn(&mut Switches));

/// Every rule, with the words of the design.
const MUTATIONS: &[Mutation] = &[
    ("1: offset and heads come from one snapshot", |s| s.engine.one_snapshot = false),
    ("2: the loaded map is committed until the scan has passed its frontier", |s| s.engine.progress.freeze = false),
    ("3: a replay-blocked user stays blocked", |s| s.engine.progress.stay_blocked = false),
    ("4: a vanished head ends the skipping", |s| s.engine.progress.vanished_heads = false),
    ("5: overflow pulls the frontier back", |s| s.engine.progress.pull_back = false),
    ("nothing runs without the lease", |s| s.engine.lease_before_run = false),
    ("a woken zombie starts nothing", |s| s.engine.last_check = false),
    ("the ledger is asked before every run", |s| s.engine.ask_before_retries = false),
    ("the mark is written before dispatch", |s| s.engine.mark = false),
    ("starts are counted after an unclean takeover", |s| s.engine.count_starts = false),
    ("a failure is recorded before its backoff and its letter", |s| s.engine.save_before_next = false),
    ("a recorded dead is published without another run", |s| s.engine.recorded_dead_stays = false),
    ("a handler that is gone: to the dlq", |s| s.engine.handler_gone = false),
    ("the ledger knows before the tracker settles", |s| s.engine.ledger_before_settle = false),
    ("a verdict is sent only under a valid lease", |s| s.engine.verdict_under_lease = false),
    ("the ledger knows an event once all its handlers are through", |s| s.engine.all_handlers = false),
    ("redrives are a part of the member", |s| s.engine.redrives_in_member = false),
    ("a run that outlives its assignment keeps the lease", |s| s.engine.runs_keep_lease = false),
    ("a waiter is given proof, or the partition", |s| s.engine.prove_to_waiter = false),
    ("a dead letter is acknowledged before its event settles", |s| s.engine.letter_before_settle = false),
    ("a user's events run one at a time", |s| s.engine.one_at_a_time = false),
    ("an assignment is an owner of its own", |s| s.engine.owner_per_assignment = false),
    ("suspects run alone", |s| s.engine.suspects_alone = false),
    ("the store fences what an older owner writes", |s| s.store.fence = false),
    ("a lease that was not released is had only after its end", |s| s.store.wait_for_end = false),
    ("a lease that has ended and is still ours is taken again", |s| s.store.take_again = false),
    ("every live generation of the ledger is read", |s| s.store.read_generations = false),
    ("the ledger is read from the primary, at the event's turn", |s| s.store.read_primary = false),
    ("what is remembered is read once the lease is held", |s| s.store.load_under_lease = false),
    ("a record without a key is never skipped", |s| s.engine.progress.keyless_taken = false),
];

/// The first seed that notices, and what it says.
fn noticed(mutate: fn(&mut Switches)) -> Option<(u64, String)> {
    let mut switches = Switches::all();
    mutate(&mut switches);
    let (next, found) = (AtomicU64::new(1), AtomicBool::new(false));
    let first = Mutex::new(None::<(u64, String)>);
    std::thread::scope(|scope| {
        for _ in 0..crate::processors() {
            scope.spawn(|| {
                while !found.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > MOST_SEEDS {
                        return;
                    }
                    let _watch = crate::Watch::start(seed);
                    if let Some(violation) = play(seed, switches, false).violations.into_iter().next() {
                        assert_eq!(play(seed, Switches::all(), false).violations, Vec::<String>::new(), "seed {seed} with every rule");
                        found.store(true, Ordering::Relaxed);
                        let mut first = first.lock().unwrap();
                        if first.as_ref().is_none_or(|(before, _)| seed < *before) {
                            *first = Some((seed, violation));
                        }
                    }
                }
            });
        }
    });
    first.into_inner().unwrap()
}

#[test]
fn every_rule_that_is_switched_off_is_missed() {
    let only = std::env::var("WORKER_SIM_MUTATION").unwrap_or_default();
    let mut unnoticed = Vec::new();
    for (name, mutate) in MUTATIONS.iter().filter(|(name, _)| name.contains(&only)) {
        match noticed(*mutate) {
            Some((seed, violation)) => println!("{name:<70} seed {seed:>4}: {violation}"),
            None => {
                println!("{name:<70} not noticed in {MOST_SEEDS} seeds");
                unnoticed.push(*name);
            }
        }
    }
    assert_eq!(unnoticed, Vec::<&str>::new());
}
