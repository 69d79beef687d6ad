//! Order: within a lane, and between the owners of a partition.

use std::collections::{BTreeMap, BTreeSet};

use super::{Judgement, SOON, runs, story};
use crate::{
    app::Run,
    events::{handlers, kind},
    facts::{Facts, Place},
};

/// An event runs when everything before it in its lane is concluded, never sooner.
pub fn lanes(facts: &Facts, judgement: &mut Judgement) {
    let mut users: BTreeMap<(&str, &[u8]), BTreeSet<i32>> = BTreeMap::new();
    let mut lanes: BTreeMap<(&str, i32, &[u8]), Vec<Place>> = BTreeMap::new();
    for (place, source) in &facts.sources {
        users.entry((place.0, &source.key)).or_default().insert(place.1);
        lanes.entry((place.0, place.1, &source.key)).or_default().push(*place);
    }
    judgement.moved_users = users.values().filter(|partitions| partitions.len() > 1).count();
    // An event that stands in two partitions was run for either.
    let mut early: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for lane in lanes.values() {
        let (mut latest, mut seen) = ((0, *lane.first().unwrap()), BTreeSet::new());
        for place in lane {
            let ended = match facts.sources[place].event {
                Ok(n) if !seen.insert(n) => continue,
                Ok(n) => {
                    if first_start(facts, n).is_some_and(|start| start < latest.0) {
                        early.entry(n).or_default().push(format!("{} ran before {:?} was through", story(facts, n), latest.1));
                    }
                    facts.concluded(n)
                }
                Err(_) => facts.letters.get(place).and_then(|letters| letters.first()).map(|letter| letter.at),
            };
            latest = latest.max((ended.unwrap_or_default(), *place));
        }
    }
    for (n, words) in early {
        let lanes: BTreeSet<_> = facts.places[&n].iter().map(|place| place.1).collect();
        if words.len() >= lanes.len() {
            judgement.out_of_order.extend(words);
        }
    }
}

fn first_start(facts: &Facts, n: u64) -> Option<u64> {
    handlers(kind(n).0).iter().filter_map(|handler| runs(facts, n, handler).first()).map(|run| run.start).min()
}

/// Nobody starts anything under an epoch that another one followed, and each epoch goes through a lane once, in order, one at a time.
pub fn epochs(facts: &Facts, judgement: &mut Judgement) {
    type Runs<'a> = Vec<(&'a Run, &'a [Place])>;
    let mut of: BTreeMap<(&str, i32), Runs<'_>> = BTreeMap::new();
    for ((n, _), runs) in &facts.runs {
        // One that stands in two partitions tells nothing about either.
        let Some(places) = facts.places.get(n) else { continue };
        if places.iter().all(|place| place.1 == places[0].1) {
            of.entry((places[0].0, places[0].1)).or_default().extend(runs.iter().map(|run| (run, places.as_slice())));
        }
    }
    for ((topic, partition), mut runs) in of {
        runs.sort_by_key(|(run, _)| run.start);
        let (mut newest, mut lanes): (u64, BTreeMap<&[u8], (&Run, i64)>) = (0, BTreeMap::new());
        for (run, places) in runs {
            if run.epoch < newest {
                match facts.frozen(run.process, run.start.saturating_sub(SOON), run.start) {
                    true => judgement.late_starts += 1,
                    false => judgement.wrong.push(format!("a zombie's run in {topic}:{partition}, after epoch {newest}: {run:?}")),
                }
                continue;
            }
            newest = run.epoch;
            let key: &[u8] = &facts.sources[&places[0]].key;
            // Of two copies either may be meant: the first one that is not behind the lane.
            let reached = lanes.get(key).map_or(0, |(_, at)| *at);
            let offset = places.iter().map(|place| place.2).find(|offset| *offset >= reached).unwrap_or(places[0].2);
            if let Some((before, at)) = lanes.insert(key, (run, offset)) {
                let backwards = offset < at && before.epoch == run.epoch;
                let overlap = offset != at && before.end > run.start && !overtaken(facts, before);
                if backwards || overlap {
                    judgement.out_of_order.push(format!("{topic}:{partition}:{offset} {run:?} after {at} {before:?}"));
                }
            }
        }
    }
}

/// A run that its process could not stop in time, because it slept or had lost Redis.
fn overtaken(facts: &Facts, run: &Run) -> bool {
    facts.frozen(run.process, run.start, run.end) || facts.store_trouble(run.process, run.start.saturating_sub(12_000_000), run.end)
}
