//! Decoding takes at most a stated multiple of its input and never panics, whatever the input: counted by an allocator of this test's own.
//!
//! `WORKER_FUZZ_ROUNDS=5000000 cargo test --test memory` mutates the corpus for longer; `WORKER_FUZZ_SEED` begins elsewhere.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
};

use worker::event::{
    Catalog, Decoder,
    decode::{MEMORY_BASE, MEMORY_PER_BYTE},
    record::{Record, RecordParts, TopicPartition},
};

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed to the system's allocator unchanged; the counters are plain cells and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = NOW.try_with(|now| {
            now.set(now.get() + layout.size());
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
        });
        // SAFETY: the caller's layout, as the caller promised it.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        let _ = NOW.try_with(|now| now.set(now.get().saturating_sub(layout.size())));
        // SAFETY: it was allocated above with that layout.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes held at once while `work` runs, beyond those held before.
fn peak_of(work: impl FnOnce()) -> usize {
    let before = NOW.get();
    PEAK.set(before);
    work();
    PEAK.get() - before
}

fn record(value: impl Into<Vec<u8>>) -> Record {
    binary(value, Vec::new())
}

fn binary(value: impl Into<Vec<u8>>, headers: Vec<(String, Option<Vec<u8>>)>) -> Record {
    let parts = RecordParts { offset: 1, value: Some(value.into()), headers, ..RecordParts::default() };
    Record::copy_of(&TopicPartition::new("task-events", 0), &parts)
}

fn event(data: &str) -> String {
    format!(r#"{{"event_type":"task.completed","user_id":"u","task_id":1,"data":{data}}}"#)
}

#[test]
#[expect(clippy::unwrap_used, reason = "tests")]
fn decoding_takes_at_most_the_stated_multiple_of_the_value() {
    // One more than a power of two: the list has just been moved to twice its room.
    const SIZE: usize = (1 << 18) + 1;
    let catalog = Arc::new(Catalog::embedded().unwrap());
    let names =
        |name: &dyn Fn(usize) -> String| (0..SIZE / 10).map(|index| format!(r#""{}":0"#, name(index))).collect::<Vec<_>>().join(",");
    let hostile = [
        event(&format!(r#"{{"x":"{}"}}"#, "x".repeat(10_000_000))),
        event(&format!(r#"{{"x":"{}"}}"#, "\\n".repeat(SIZE))),
        event(&format!(r#"{{"x":[{}0]}}"#, "0,".repeat(SIZE))),
        event(&format!(r#"{{"tags":[{}[]]}}"#, "[],".repeat(SIZE))),
        event(&format!(r#"{{"x":[{}{{}}]}}"#, "{},".repeat(SIZE))),
        event(&format!(r#"{{"x":[{}{{}}]}}"#, r#"{"":0},"#.repeat(SIZE / 2))),
        event(&format!("{{{}}}", names(&|index| format!("{index:x}")))),
        event(&format!("{{{}}}", names(&|_| "a".to_owned()))),
        event(&format!(r#"{{"x":{}{}}}"#, "[".repeat(SIZE), "]".repeat(SIZE))),
        format!(r#"{{"event_type":"task.completed","user_id":"u","task_id":1,{}}}"#, names(&|index| format!("{index:x}"))),
        format!(r#"{{"specversion":"1.0","type":"t","data":"{}"}}"#, "{".repeat(SIZE)),
        format!(r#"{{"specversion":"1.0","type":"t","data_base64":"{}"}}"#, "A".repeat(SIZE)),
        "[".repeat(SIZE),
        event("{}"),
    ];
    for validate in [false, true] {
        let decoder = Decoder::new(Arc::clone(&catalog), validate);
        let per_byte = if validate { MEMORY_PER_BYTE } else { 4 };
        for value in &hostile {
            let length = value.len();
            let record = record(value.clone());
            let mut verdict = None;
            let peak = peak_of(|| verdict = Some(decoder.decode(record)));
            let shown = value.chars().take(110).skip(70).collect::<String>();
            println!("{} bytes, validate {validate}: {:.1} bytes per byte ({shown})", length, peak as f64 / length as f64);
            assert!(peak <= length * per_byte + MEMORY_BASE, "{peak} bytes for {length} ({shown})");
        }
    }
}

/// Every event and every hostile value of the fixtures, and an event of each type.
#[expect(clippy::unwrap_used, reason = "tests")]
fn corpus(catalog: &Catalog) -> Vec<Vec<u8>> {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut paths: Vec<_> = ["corpus", "events"]
        .into_iter()
        .flat_map(|folder| std::fs::read_dir(fixtures.join(folder)).unwrap())
        .map(|file| file.unwrap().path())
        .collect();
    paths.sort();
    let files = paths.into_iter().map(|path| std::fs::read(path).unwrap());
    let types = catalog.types().map(|kind| {
        let event =
            serde_json::json!({ "event_id": "e", "event_type": &*kind.name, "timestamp": "2025-12-30T10:00:00Z", "data": kind.example });
        event.to_string().into_bytes()
    });
    files.chain(types).collect()
}

/// Changes a value in one of the ways that break parsers: a byte, a cut, a repeated piece, a piece of another value, a telling word.
fn mutate(value: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut fastrand::Rng) {
    const WORDS: [&[u8]; 16] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b"\\u",
        b"null",
        b"1e309",
        b"-",
        b"99999999999999999999",
        b"\xEF\xBB\xBF",
        b"\xFF",
        b"\"data\":{",
        b"\"specversion\":\"1.0\",",
        b"\"event_version\":\"9.9\",",
        b"\\ud800",
    ];
    let place = |length: usize, random: &mut fastrand::Rng| random.usize(0..=length);
    let (from, to) = (place(value.len(), random), place(value.len(), random));
    let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 64));
    match random.u8(0..6) {
        0 if !value.is_empty() => {
            let at = random.usize(0..value.len());
            value[at] ^= 1 << random.u8(0..8);
        }
        1 => drop(value.drain(from..to)),
        2 => {
            let piece = value[from..to].repeat(random.usize(1..8));
            value.splice(to..to, piece);
        }
        3 => {
            let other = &corpus[random.usize(0..corpus.len())];
            let (start, end) = (place(other.len(), random), place(other.len(), random));
            value.splice(from..to, other[start.min(end)..start.max(end)].iter().copied());
        }
        4 => drop(value.splice(from..from, WORDS[random.usize(0..WORDS.len())].iter().copied())),
        _ => value.truncate(to),
    }
}

#[test]
#[expect(clippy::unwrap_used, reason = "tests")]
fn no_mutation_of_the_corpus_makes_decoding_panic_or_take_more_memory_than_stated() {
    let number = |name: &str, otherwise: u64| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let catalog = Arc::new(Catalog::embedded().unwrap());
    let corpus = corpus(&catalog);
    assert!(corpus.len() > 40, "{} values", corpus.len());
    let decoders = [true, false].map(|validate| Decoder::new(Arc::clone(&catalog), validate));
    let mut random = fastrand::Rng::with_seed(number("WORKER_FUZZ_SEED", 1));
    let mut decoded = 0;
    for round in 0..number("WORKER_FUZZ_ROUNDS", 20_000) {
        // The first rounds are the corpus itself.
        let value = usize::try_from(round).ok().and_then(|round| corpus.get(round)).cloned().unwrap_or_else(|| {
            let mut value = corpus[random.usize(0..corpus.len())].clone();
            (0..random.u8(1..5)).for_each(|_| mutate(&mut value, &corpus, &mut random));
            value
        });
        let headers = match random.u8(0..8) {
            0 => vec![("ce_type".to_owned(), Some(b"task.completed".to_vec())), ("ce_id".to_owned(), Some(value.clone()))],
            1 => vec![("content-type".to_owned(), Some(b"application/cloudevents+json".to_vec()))],
            _ => Vec::new(),
        };
        let length = value.len() + headers.iter().map(|(_, value)| value.as_ref().map_or(0, Vec::len)).sum::<usize>();
        for decoder in &decoders {
            let record = binary(value.clone(), headers.clone());
            let mut verdict = None;
            let peak = peak_of(|| verdict = Some(decoder.decode(record)));
            assert!(peak <= length * MEMORY_PER_BYTE + MEMORY_BASE, "{peak} bytes for {length}, round {round}: {}", value.escape_ascii());
            decoded += u64::from(verdict.is_some_and(|verdict| verdict.is_ok()));
        }
    }
    assert!(decoded > 100, "mutations that are all refused at once show little: {decoded} were events");
}
