#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;

use proptest::{collection::vec, prelude::any, prop_assert, prop_assert_eq, proptest};

use super::{Gap, Head, Intake, Map, MapHead, MapLimits, Snapshot, Tracker};

const NEW: Intake = Intake::Take { attempts: 0, due_ms: None };

fn head(offset: i64, attempts: u32) -> Head {
    Head { offset, first_keyed: Some(offset), attempts, due_ms: None }
}

fn map(committed: i64, frontier: i64, heads: &[(i64, u32)]) -> Map {
    let heads = heads.iter().map(|(offset, attempts)| MapHead { offset: *offset, attempts: *attempts, due_ms: None }).collect();
    Map { committed, frontier, epoch: 1, heads }
}

fn commit(tracker: &Tracker, heads: &[Head]) -> Snapshot {
    tracker.snapshot(heads.iter().copied(), 2, MapLimits::default())
}

fn read(snapshot: &Snapshot) -> Map {
    Map::decode(snapshot.offset, &snapshot.metadata).unwrap().unwrap()
}

/// Takes `offsets` in, all of one user.
fn intake_all(tracker: &mut Tracker, offsets: impl IntoIterator<Item = i64>) -> Vec<Intake> {
    offsets.into_iter().map(|offset| tracker.intake(offset, Some(b"u"))).collect()
}

proptest! {
    /// The map says it exactly: after a restart each unsettled event is taken, and of the settled ones only those without a key.
    #[test]
    fn a_restart_takes_the_unsettled_and_skips_the_rest(
        records in vec((1..4_i64, 0..6_usize, 0..12_u8), 1..60),
        settled in vec(0..12_usize, 6),
        order in any::<u64>(),
        seen in any::<usize>(),
    ) {
        let mut offset = 99;
        let log: Vec<(i64, usize, bool)> = records.iter().map(|(gap, user, key)| { offset += gap; (offset, *user, *key > 0) }).collect();
        let seen = seen % (log.len() + 1);
        let mut tracker = Tracker::new(100, None);
        let mut lanes = vec![VecDeque::new(); 6];
        let key = |user: usize, keyed: bool| keyed.then(|| vec![user as u8]);
        for (offset, user, keyed) in &log[..seen] {
            prop_assert_eq!(tracker.intake(*offset, key(*user, *keyed).as_deref()), NEW);
            lanes[*user].push_back((*offset, *keyed));
        }
        let mut turns: Vec<usize> = settled.iter().enumerate().flat_map(|(user, count)| vec![user; *count]).collect();
        fastrand::Rng::with_seed(order).shuffle(&mut turns);
        for user in turns {
            if let Some((offset, _)) = lanes[user].pop_front() {
                tracker.settle(offset);
            }
        }
        let heads = lanes.iter().filter_map(|lane| {
            let first_keyed = lane.iter().find(|(_, keyed)| *keyed).map(|(offset, _)| *offset);
            lane.front().map(|(offset, _)| Head { offset: *offset, first_keyed, attempts: 0, due_ms: None })
        });
        let snapshot = tracker.snapshot(heads, 1, MapLimits::default());
        let unsettled = |offset| lanes.iter().flatten().any(|(held, _)| *held == offset);
        prop_assert!(log[..seen].iter().all(|(offset, ..)| *offset >= snapshot.offset || !unsettled(*offset)));

        let loaded = read(&snapshot);
        let mut next = Tracker::new(snapshot.offset, Some(loaded.clone()));
        for (offset, user, keyed) in log.iter().filter(|(offset, ..)| *offset >= snapshot.offset) {
            let taken = next.intake(*offset, key(*user, *keyed).as_deref()) != Intake::Skip;
            prop_assert_eq!(taken, unsettled(*offset) || !keyed || *offset > loaded.frontier, "{} of {:?}", offset, loaded);
        }
    }

    /// F07.
    #[test]
    fn windows_as_wide_as_the_log_are_followed(start in 0..1_i64 << 40, window in 1..1_i64 << 40) {
        let mut tracker = Tracker::new(start, None);
        tracker.intake(start, Some(b"slow"));
        tracker.intake(start + window, Some(b"fast"));
        tracker.settle(start + window);
        let snapshot = commit(&tracker, &[head(start, 3)]);
        let mut next = Tracker::new(snapshot.offset, Some(read(&snapshot)));
        prop_assert_eq!(next.intake(start, Some(b"slow")), Intake::Take { attempts: 3, due_ms: None });
        prop_assert_eq!(next.intake(start + window, Some(b"fast")), Intake::Skip);
        prop_assert_eq!(next.intake(start + window + 1, Some(b"fast")), NEW);
    }
}

/// F10, F11: the committed offset itself, and the one after it.
#[test]
fn without_a_map_the_committed_offset_is_not_settled() {
    for (loaded, first, second) in [
        (None, NEW, NEW),
        (Some(map(5, 4, &[])), NEW, NEW),
        (Some(map(5, 5, &[])), Intake::Skip, NEW),
        (Some(map(5, 6, &[(5, 0)])), NEW, NEW),
        (Some(map(5, 6, &[(6, 1)])), Intake::Skip, Intake::Take { attempts: 1, due_ms: None }),
        (Some(map(5, 4, &[(6, 1)])), NEW, Intake::Take { attempts: 1, due_ms: None }),
    ] {
        let mut tracker = Tracker::new(5, loaded);
        assert_eq!(intake_all(&mut tracker, [5, 6]), [first, second]);
    }
}

/// F01, F17: whatever order runs end in, the commit stops at the lowest that has not settled.
#[test]
fn the_commit_never_passes_an_unsettled_event() {
    let mut tracker = Tracker::new(0, None);
    for offset in 0..5 {
        tracker.intake(offset, Some(&[offset as u8]));
    }
    assert_eq!(commit(&tracker, &[0, 1, 2, 3, 4].map(|offset| head(offset, 0))).offset, 0);
    tracker.settle(4);
    tracker.settle(0);
    tracker.settle(2);
    let snapshot = commit(&tracker, &[head(3, 0), head(1, 0)]);
    assert_eq!(snapshot.offset, 1);
    assert_eq!(read(&snapshot), Map { epoch: 2, ..map(1, 4, &[(1, 0), (3, 0)]) });
    tracker.settle(1);
    tracker.settle(3);
    assert_eq!(read(&commit(&tracker, &[])), Map { epoch: 2, ..map(5, 4, &[]) });
}

/// F14.
#[test]
fn what_settles_during_a_commit_is_dirty_after_it() {
    let mut tracker = Tracker::new(0, None);
    intake_all(&mut tracker, [0, 1]);
    tracker.settle(0);
    let snapshot = commit(&tracker, &[head(1, 0)]);
    tracker.settle(1);
    tracker.acked(&snapshot);
    assert!(tracker.is_dirty());
    tracker.acked(&commit(&tracker, &[]));
    assert!(!tracker.is_dirty());
}

/// F15, F21: the first commit is due at once, and stays due until the broker has it.
#[test]
fn an_assignment_is_dirty_until_a_commit_is_stored() {
    let mut tracker = Tracker::new(0, None);
    let snapshot = commit(&tracker, &[]);
    assert!(tracker.is_dirty());
    assert_eq!(snapshot.offset, 0);
    tracker.acked(&snapshot);
    assert!(!tracker.is_dirty());
    intake_all(&mut tracker, [0]);
    assert!(!tracker.is_dirty(), "nothing to tell yet");
    tracker.touch();
    assert!(tracker.is_dirty());
}

/// F16.
#[test]
fn an_older_commit_is_stale_once_a_newer_one_is_stored() {
    let mut tracker = Tracker::new(0, None);
    intake_all(&mut tracker, [0, 1]);
    let older = commit(&tracker, &[head(0, 0)]);
    tracker.settle(0);
    let newer = commit(&tracker, &[head(1, 0)]);
    assert!(!tracker.is_stale(&older));
    tracker.acked(&newer);
    tracker.acked(&older);
    assert!(tracker.is_stale(&older) && !tracker.is_stale(&newer) && !tracker.is_dirty());
}

/// F24. Rule 2.
#[test]
fn until_the_scan_has_passed_the_frontier_the_loaded_map_is_committed() {
    let loaded = map(10, 20, &[(10, 1), (15, 0)]);
    let mut tracker = Tracker::new(10, Some(loaded.clone()));
    let frozen = Map { epoch: 2, ..loaded };
    assert_eq!(read(&commit(&tracker, &[])), frozen);
    tracker.acked(&commit(&tracker, &[]));
    for offset in 10..20 {
        tracker.intake(offset, Some(if offset == 15 { b"b" } else { b"a" }));
    }
    tracker.settle(10);
    tracker.touch();
    assert!(tracker.replaying() && !tracker.is_dirty());
    assert_eq!(read(&commit(&tracker, &[head(11, 0)])), frozen);
    assert_eq!(tracker.intake(20, Some(b"b")), NEW);
    assert!(!tracker.replaying() && tracker.is_dirty());
    assert_eq!(read(&commit(&tracker, &[head(15, 0)])), Map { epoch: 2, ..map(15, 20, &[(15, 0)]) });
}

/// F25. Rule 3.
#[test]
fn a_lane_that_drains_during_replay_is_still_taken() {
    let mut tracker = Tracker::new(10, Some(map(10, 20, &[(10, 0)])));
    assert_eq!(tracker.intake(10, Some(b"a")), NEW);
    tracker.settle(10);
    assert_eq!(tracker.intake(11, Some(b"b")), Intake::Skip);
    assert_eq!(tracker.intake(12, Some(b"a")), NEW);
}

/// F12. Rule 4.
#[test]
fn a_head_that_the_log_no_longer_has_ends_the_skipping() {
    let mut tracker = Tracker::new(10, Some(map(10, 30, &[(12, 0), (20, 4)])));
    assert_eq!(intake_all(&mut tracker, [10, 11]), [Intake::Skip; 2]);
    assert_eq!(tracker.take_gap(), None);
    assert_eq!(intake_all(&mut tracker, [13, 14]), [NEW; 2]);
    assert_eq!(tracker.take_gap(), Some(Gap { from: 12, to: 13, unsettled: 1 }));
    assert_eq!(tracker.take_gap(), None);
    assert_eq!((tracker.replaying(), tracker.frontier()), (false, 12));
    assert_eq!(intake_all(&mut tracker, 15..21).pop(), Some(Intake::Take { attempts: 4, due_ms: None }));
    assert_eq!(commit(&tracker, &[head(13, 0)]).offset, 13);
}

/// F13.
#[test]
fn a_start_below_the_log_is_told_and_passed() {
    for (loaded, unsettled) in
        [(None, 90), (Some(map(10, 40, &[])), 59), (Some(map(10, 40, &[(12, 0)])), 88), (Some(map(10, 200, &[(12, 0), (150, 0)])), 88)]
    {
        let mut tracker = Tracker::new(10, loaded);
        assert_eq!(tracker.intake(100, Some(b"a")), NEW);
        assert_eq!(tracker.take_gap(), Some(Gap { from: 10, to: 100, unsettled }));
        assert_eq!(commit(&tracker, &[head(100, 0)]).offset, 100);
        tracker.intake(105, Some(b"a"));
        assert_eq!(tracker.take_gap(), None, "a hole within the log is no loss");
    }
    let mut beyond = Tracker::new(50, Some(map(10, 200, &[(12, 0)])));
    assert_eq!(beyond.intake(50, Some(b"a")), NEW);
}

#[test]
fn a_recreated_log_starts_anew() {
    let mut tracker = Tracker::new(1_000, Some(map(1_000, 2_000, &[(1_500, 1)])));
    tracker.acked(&commit(&tracker, &[]));
    assert_eq!(tracker.intake(0, Some(b"a")), Intake::Rewound);
    assert!(tracker.is_dirty() && !tracker.replaying());
    assert_eq!(tracker.intake(1, Some(b"b")), NEW);
    // A run of the old log ends late.
    tracker.settle(1_000);
    tracker.settle(0);
    assert_eq!(read(&commit(&tracker, &[head(1, 0)])), Map { epoch: 2, ..map(1, 0, &[]) });
    assert_eq!(intake_all(&mut tracker, [2, 1]), [NEW, Intake::Rewound]);
}

#[test]
fn a_record_without_a_key_is_never_skipped() {
    let mut tracker = Tracker::new(10, Some(map(10, 20, &[(12, 0)])));
    assert_eq!(tracker.intake(10, None), NEW);
    assert_eq!(tracker.intake(11, Some(b"a")), Intake::Skip);
    // An empty key is a key.
    assert_eq!(tracker.intake(12, Some(b"")), NEW);
    assert_eq!(tracker.intake(13, Some(b"")), NEW);
    assert_eq!(tracker.intake(14, Some(b"a")), Intake::Skip);
}

/// F62: replay knows a lane by its key; a head without one says nothing about what waits behind it.
#[test]
fn a_lane_whose_head_has_no_key_is_known_by_the_first_that_has() {
    let mut tracker = Tracker::new(0, None);
    tracker.intake(0, None);
    intake_all(&mut tracker, [1, 2]);
    tracker.intake(3, Some(b"other"));
    tracker.settle(3);
    let snapshot = commit(&tracker, &[Head { offset: 0, first_keyed: Some(1), attempts: 2, due_ms: None }]);
    assert_eq!(read(&snapshot), Map { epoch: 2, ..map(0, 3, &[(0, 2), (1, 0)]) });
    let mut next = Tracker::new(0, Some(read(&snapshot)));
    assert_eq!(next.intake(0, None), Intake::Take { attempts: 2, due_ms: None });
    assert_eq!(intake_all(&mut next, [1, 2]), [NEW; 2]);
    assert_eq!(next.intake(3, Some(b"other")), Intake::Skip);
}

/// F49, F52: a lone failing event, with the store empty and the workers restarted again and again before they reach it.
#[test]
fn attempts_above_the_frontier_survive_restarts_that_do_not_reach_them() {
    let mut loaded = map(100, 99, &[(200, 3)]);
    loaded.heads[0].due_ms = Some(1_700_000_000_000);
    for offset in 100..200 {
        let mut tracker = Tracker::new(offset, Some(loaded));
        assert!(!tracker.replaying());
        assert_eq!(tracker.intake(offset, Some(b"other")), NEW);
        tracker.settle(offset);
        loaded = read(&commit(&tracker, &[]));
        assert_eq!((loaded.committed, loaded.frontier), (offset + 1, offset));
    }
    let mut tracker = Tracker::new(200, Some(loaded));
    assert_eq!(tracker.intake(200, Some(b"a")), Intake::Take { attempts: 3, due_ms: Some(1_700_000_000_000) });
    assert_eq!(read(&commit(&tracker, &[head(200, 4)])).heads[0].attempts, 4);
}

#[test]
fn a_restart_among_500_blocked_users_takes_their_events_only() {
    const RECORDS: i64 = 60_000;
    let user = |offset: i64| (offset * 7_919 % 5_000) as u32;
    let blocked = |offset: i64| user(offset) < 500;
    let mut tracker = Tracker::new(0, None);
    let mut heads = vec![None; 500];
    for offset in 0..RECORDS {
        tracker.intake(offset, Some(&user(offset).to_be_bytes()));
        if blocked(offset) {
            heads[user(offset) as usize].get_or_insert(head(offset, 1));
        } else {
            tracker.settle(offset);
        }
    }
    let snapshot = tracker.snapshot(heads.into_iter().flatten(), 1, MapLimits::default());
    let mut next = Tracker::new(snapshot.offset, Some(read(&snapshot)));
    let taken = (snapshot.offset..RECORDS).filter(|offset| next.intake(*offset, Some(&user(*offset).to_be_bytes())) != Intake::Skip);
    assert_eq!(taken.collect::<Vec<_>>(), (0..RECORDS).filter(|offset| blocked(*offset)).collect::<Vec<_>>());
}
