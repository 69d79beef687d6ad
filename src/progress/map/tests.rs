#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::{
    collection::vec,
    option,
    prelude::{Strategy, any},
    prop_assert, prop_assert_eq, prop_assume, prop_oneof, proptest,
};

use super::{Map, MapError, MapHead, MapLimits, Tier};

const ROOMY: MapLimits = MapLimits { max_chars: 10_000, base64url: false };

fn head(offset: i64, attempts: u32, due_ms: Option<u64>) -> MapHead {
    MapHead { offset, attempts, due_ms }
}

fn decode(map: &Map, text: &str) -> Map {
    Map::decode(map.committed, text).unwrap().unwrap()
}

fn chars(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Maps as a tracker makes them: windows up to 2^40 (F07), heads above the frontier only where they have failed.
fn maps(most_heads: usize) -> impl Strategy<Value = Map> {
    let gap = prop_oneof![8 => 1..3_000_i64, 1 => 1..1_i64 << 40];
    let failure = option::of((1..256_u32, option::of(0..60_000_u64)));
    let heads = vec((gap.clone(), failure), 0..most_heads);
    (0..1_i64 << 60, any::<u64>(), heads, option::of(gap), any::<bool>()).prop_map(|(committed, epoch, steps, beyond, at_head)| {
        let mut offset = committed - 1;
        let mut heads: Vec<MapHead> = Vec::new();
        for (gap, failure) in steps {
            offset += if heads.is_empty() && at_head { 1 } else { gap };
            let (attempts, due) = failure.unwrap_or_default();
            heads.push(head(offset, attempts, due.map(|due| 1_700_000_000_000 + due)));
        }
        let frontier = match beyond {
            Some(gap) => offset + gap,
            None => heads.get(heads.len() / 2).map_or(committed - 1, |middle| middle.offset),
        };
        heads.retain(|head| head.offset <= frontier || head.attempts > 0);
        Map { committed, frontier, epoch, heads }
    })
}

proptest! {
    /// F07, F08.
    #[test]
    fn a_map_with_room_comes_back_as_it_was(map in maps(60), base64url in any::<bool>()) {
        let encoded = map.encode(MapLimits { base64url, ..ROOMY });
        prop_assert_eq!(encoded.tier, Tier::Full);
        prop_assert_eq!(decode(&map, &encoded.text), map);
    }

    /// F05.
    #[test]
    fn a_map_fits_every_limit_and_never_settles_more(map in maps(80), max_chars in 0..400_usize, base64url in any::<bool>()) {
        let encoded = map.encode(MapLimits { max_chars, base64url });
        prop_assert!(chars(&encoded.text) <= max_chars);
        let Some(back) = Map::decode(map.committed, &encoded.text).unwrap() else {
            prop_assert_eq!(encoded.tier, Tier::Nothing);
            return Ok(());
        };
        prop_assert_eq!(back.epoch, map.epoch);
        prop_assert!(back.frontier <= map.frontier && back.frontier >= map.committed - 1);
        prop_assert!(encoded.tier == Tier::Partial || back.frontier == map.frontier);
        let below = |heads: &[MapHead]| heads.iter().map(|head| head.offset).filter(|offset| *offset <= back.frontier).collect::<Vec<_>>();
        prop_assert_eq!(below(&back.heads), below(&map.heads));
        let attempts = |map: &Map| map.heads.iter().filter(|head| head.attempts > 0).map(|head| (head.offset, head.attempts)).collect::<Vec<_>>();
        prop_assert!(encoded.tier > Tier::Attempts || attempts(&back) == attempts(&map));
    }

    /// F58: a due time is never earlier than it was, and at most 1/65 534 of the span later.
    #[test]
    fn due_times_are_never_early(dues in vec(any::<u64>(), 1..20), coarse in 0..64_u32) {
        let dues: Vec<u64> = dues.into_iter().map(|due| due >> coarse).collect();
        let heads = (0..).zip(&dues).map(|(offset, due)| head(offset, 1, Some(*due))).collect();
        let map = Map { committed: 0, frontier: 100, epoch: 1, heads };
        let back = decode(&map, &map.encode(ROOMY).text);
        let span = dues.iter().max().unwrap() - dues.iter().min().unwrap();
        for (due, back) in dues.iter().zip(back.heads.iter().map(|head| head.due_ms.unwrap())) {
            prop_assert!(back >= *due && back - due <= span / 65_534 + 1);
        }
    }

    /// F09, F23.
    #[test]
    fn text_of_others_is_never_a_map(text in prop_oneof![".*", "[Ww].*", "[Ww][A-Za-z0-9_-]{0,40}", "W[\u{3400}-\u{b3ff}]{0,40}"]) {
        prop_assume!(!text.is_empty());
        prop_assert!(Map::decode(0, &text).is_err());
    }

    #[test]
    fn a_damaged_map_is_no_map(map in maps(20), base64url in any::<bool>(), at in any::<usize>(), to in any::<char>(), cut in any::<bool>()) {
        let text: Vec<char> = map.encode(MapLimits { base64url, ..ROOMY }).text.chars().collect();
        let at = at % text.len();
        let mut other = text.clone();
        if cut { other.truncate(at.max(1)) } else { other[at] = to };
        let other: String = other.into_iter().collect();
        let back = Map::decode(map.committed, &other);
        // The bits that fill up the last character mean nothing.
        prop_assert!(back.is_err() || back == Ok(Some(map)));
    }

    #[test]
    fn a_map_moved_to_another_offset_is_no_map(map in maps(20), by in 1..1_i64 << 40) {
        let text = map.encode(ROOMY).text;
        prop_assert_eq!(Map::decode(map.committed + by, &text), Err(MapError::Damaged));
    }
}

/// F08.
#[test]
fn the_smallest_maps_come_back() {
    let map = |frontier, heads| Map { committed: 7, frontier, epoch: 0, heads };
    for map in
        [map(6, vec![]), map(7, vec![]), map(6, vec![head(7, 3, Some(5))]), map(9, vec![head(7, 0, None)]), map(7, vec![head(8, 1, None)])]
    {
        assert_eq!(decode(&map, &map.encode(ROOMY).text), map);
    }
    let edge = Map { committed: 0, frontier: i64::MAX - 1, epoch: u64::MAX, heads: vec![head(0, 0, None), head(i64::MAX - 1, 255, None)] };
    assert_eq!(decode(&edge, &edge.encode(ROOMY).text), edge);
}

/// What a group has committed must stay readable by every later version: these texts must never change.
#[test]
fn version_1_is_read_for_ever() {
    let due = |ms: u64| Some(1_700_000_000_000 + ms);
    let full = vec![head(1_000, 2, due(30_000)), head(1_001, 0, None), head(1_300, 7, None), head(70_000, 1, due(0))];
    let attempts: Vec<MapHead> = full.iter().map(|head| MapHead { due_ms: None, ..*head }).collect();
    let heads: Vec<MapHead> = full[..3].iter().map(|head| MapHead { attempts: 0, due_ms: None, ..*head }).collect();
    let map = |frontier, heads| Map { committed: 1_000, frontier, epoch: 1_700_000_123_456, heads };
    let golden = [
        (
            map(66_000, full),
            Tier::Full,
            "W澀琰䚓鏻閏寬㬁蒕돞䁀咀䐧嶀㽜㰏돿郘瘀吀㶢妶㠀",
            "wdwEAwJSd_7wx6fsDgNCV_7wxAQQBAnUwAtcEB___ubEIAQAAmiS2wQ",
        ),
        (map(66_000, attempts), Tier::Attempts, "W澀瑰䚓鏻閏寬㨈㔂㕫甁ꬶ䒀䁩喟氀", "wdwEBwJSd_7wx6fsDBAECAtcEB7mxCAGNKGfc"),
        (map(66_000, heads.clone()), Tier::Heads, "W澀環䚓鏻閏寬㨆㐁要嬦剛搀", "wdwECwJSd_7wx6fsDAwABqwKcmPLb"),
        (map(1_200, heads[..2].to_vec()), Tier::Partial, "W澀瓰䚓鏻閎堄㠀㔓餘ꊀ", "wdwEDwJSd_7wxyQECAAETyjG6"),
    ];
    for (map, tier, wide, ascii) in golden {
        for (base64url, text) in [(false, wide), (true, ascii)] {
            let alphabet = MapLimits { base64url, ..ROOMY }.alphabet();
            assert_eq!(alphabet.write(&map.to_bytes(tier)), text);
            assert_eq!(decode(&map, text), map);
        }
    }
}

#[test]
fn a_later_versions_map_is_told_apart() {
    for (text, error) in
        [("wdwIA", MapError::Version(2)), ("wdwEA", MapError::Damaged), ("wAAAA", MapError::Foreign), ("w", MapError::Foreign)]
    {
        assert_eq!(Map::decode(0, text), Err(error), "{text}");
    }
    assert_eq!(Map::decode(0, ""), Ok(None));
}

/// F09.
#[test]
fn what_other_programs_write_is_foreign() {
    for text in ["AQAAAYvPz8g=", "NONE", "{\"host\":\"a\"}", "consumer-1", "👍", "W", "w", "W\u{3400}", " ", "\0"] {
        assert_eq!(Map::decode(0, text), Err(MapError::Foreign), "{text}");
    }
}

/// F05: at the limit, one character over it, and with a broker set to 1024.
#[test]
fn a_map_degrades_when_it_is_longer_than_the_limit_and_not_before() {
    let map = |users: i64| {
        let heads = (1..=users).map(|user| head(user * 3, 1 + user as u32 % 9, Some(1_700_000_000_000 + user as u64))).collect();
        Map { committed: 3, frontier: users * 3, epoch: 1 << 40, heads }
    };
    for (max_chars, base64url) in [(4096, false), (4096, true), (1024, false), (1024, true), (3800, false)] {
        let limits = MapLimits { max_chars, base64url };
        let mut least = 0;
        for tier in [Tier::Full, Tier::Attempts, Tier::Heads] {
            let mut past = 8_000;
            while past - least > 1 {
                let middle = (least + past) / 2;
                if map(middle).encode(limits).tier <= tier { least = middle } else { past = middle }
            }
            let most = map(least).encode(limits);
            assert_eq!(most.tier, tier);
            let length = chars(&most.text);
            assert!(length <= max_chars && length + 7 > max_chars, "{length} of {max_chars} characters in tier {tier:?}");
            let one_more = MapLimits { max_chars: max_chars + 7, base64url };
            assert!(map(past).encode(one_more).tier == tier && chars(&map(past).encode(one_more).text) > max_chars);
        }
        let partial = map(least + 1).encode(limits);
        let back = decode(&map(least + 1), &partial.text);
        assert_eq!((partial.tier, back.frontier + 1), (Tier::Partial, map(least + 1).heads[back.heads.len()].offset));
        assert!(chars(&partial.text) + 7 > max_chars);
    }
}

/// F05: `offset.metadata.max.bytes` is 4096 by default, and a text of that length is the longest that a broker takes.
#[test]
fn a_text_of_4096_characters_is_kept_whole_and_4097_are_not() {
    // Each head without attempts is one byte; 8 characters hold 15 of them.
    let map = |heads: i64| Map { committed: 0, frontier: heads, epoch: 1, heads: (0..heads).map(|offset| head(offset, 0, None)).collect() };
    let length = |heads: i64| chars(&map(heads).encode(ROOMY).text);
    let most = (7_000..8_000).take_while(|heads| length(*heads) <= 4096).last().unwrap();
    assert_eq!((length(most), length(most + 1)), (4096, 4097));
    let limits = MapLimits { max_chars: 4096, base64url: false };
    assert_eq!(chars(&map(most).encode(limits).text), 4096);
    assert_eq!(map(most).encode(limits).tier, Tier::Full);
    assert!(map(most + 1).encode(limits).tier > Tier::Full);
    assert!(chars(&map(most + 1).encode(limits).text) <= 4096);
}

/// F05: the broker's answer to a limit that is lower than ours.
#[test]
fn halving_ends_at_a_text_that_always_fits() {
    let map = Map { committed: 5, frontier: 1 << 40, epoch: u64::MAX, heads: (5..5_000).map(|offset| head(offset, 0, None)).collect() };
    for start in
        [MapLimits::default(), MapLimits { base64url: true, ..MapLimits::default() }, MapLimits { max_chars: usize::MAX, base64url: false }]
    {
        let mut limits = start;
        let mut halvings = 0;
        while !map.encode(limits).text.is_empty() {
            assert!(chars(&map.encode(limits).text) <= limits.max_chars.min(10_000));
            limits = limits.halved();
            halvings += 1;
        }
        assert!(halvings <= 13);
        assert_eq!(map.encode(limits).tier, Tier::Nothing);
    }
}

#[test]
fn thirty_five_minutes_of_failing_users_fit_many_times() {
    let heads = |failed: bool| {
        let due = |at: i64| 1_700_000_000_000 + at as u64 * 10;
        (0..210).map(|user| head(user * 1_000, u32::from(failed), failed.then(|| due(user * 1_000)))).collect::<Vec<_>>()
    };
    let map = |heads| Map { committed: 0, frontier: 210_000, epoch: 1_700_000_000_000, heads };
    assert!(chars(&map(heads(false)).encode(ROOMY).text) <= 240);
    assert!(chars(&map(heads(true)).encode(ROOMY).text) <= 581);
}

#[test]
fn no_limit_makes_the_text_longer_than_the_protocol_takes() {
    let heads = (0..40_000).map(|offset| head(offset, 1, None)).collect();
    let map = Map { committed: 0, frontier: 1 << 40, epoch: 1, heads };
    let encoded = map.encode(MapLimits { max_chars: usize::MAX, base64url: false });
    assert!(encoded.text.len() <= 32_767);
    assert_eq!(decode(&map, &encoded.text).heads.len() as i64, decode(&map, &encoded.text).frontier + 1);
}

#[test]
fn more_failures_than_a_byte_holds_are_told_as_255() {
    let map = Map { committed: 3, frontier: 3, epoch: 1, heads: vec![head(3, 100_000, None)] };
    assert_eq!(decode(&map, &map.encode(ROOMY).text).heads, [head(3, 255, None)]);
}
