//! Decoding takes at most a stated multiple of its input, whatever the input: counted by an allocator of this test's own.

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

fn record(value: String) -> Record {
    let parts = RecordParts { offset: 1, value: Some(value.into_bytes()), ..RecordParts::default() };
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
