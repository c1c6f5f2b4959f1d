//! Prints durable commits per second with 1 and with 16 writers, and the time of a point read.
//!
//! `cargo run --release -p matron-storage --example commit_bench -- [sqlite|sled|memory] [directory]`
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for a developer's eyes")]

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use matron_storage::{Batch, EngineKind, Key, SlotForm, Store, Table, open};

const TIME: Duration = Duration::from_secs(3);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let kinds = match arguments.next() {
        Some(name) => vec![name.parse().unwrap()],
        None => EngineKind::ALL.to_vec(),
    };
    let place = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    for kind in kinds {
        for writers in [1, 16] {
            let dir = place.join(format!("matron-bench-{}-{kind}-{writers}", std::process::id()));
            let store = open(kind, &dir).unwrap();
            let commits = write(&*store, writers);
            let (point, count) = (read(&*store), store.flushes());
            let memory = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let memory = memory.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("unknown").trim();
            println!(
                "{kind}: {writers:>2} writers: {:.0} commits/s, {count} flushes; a point read takes {point:?}; {memory} resident",
                f64::from(u32::try_from(commits).unwrap()) / TIME.as_secs_f64(),
            );
            store.close();
            if kind != EngineKind::Memory {
                std::fs::remove_dir_all(&dir).unwrap();
            }
        }
    }
}

/// One event as the server writes it: six tables, 1.2 KB.
fn event(number: u64) -> Batch {
    let id = format!("$event-{number:032}");
    let mut batch = Batch::new();
    let index = batch.reserve_position();
    let (timeline, slot) = Key::new().text("!room:example.org").position(index, SlotForm::Timeline);
    let (change, change_slot) = Key::new().position(index, SlotForm::Plain);
    batch.put(Table::EventPdu, id.clone(), vec![b's'; 500]);
    batch.put(Table::EventContent, id.clone(), vec![b'c'; 700]);
    batch.put_at(Table::RoomTimeline, timeline, Some(slot), id.clone(), None);
    batch.put_at(Table::DeviceListStream, change, Some(change_slot), "!room:example.org", None);
    batch.put(Table::RoomExtremity, Key::new().text("!room:example.org"), id.clone());
    batch.put(Table::EventTxn, Key::new().text("@user:example.org").number(number), id);
    batch
}

fn write(store: &dyn Store, writers: u64) -> u64 {
    let (next, end) = (AtomicU64::new(0), Instant::now() + TIME);
    std::thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                while Instant::now() < end {
                    store.submit(event(next.fetch_add(1, Ordering::Relaxed))).wait().unwrap();
                }
            });
        }
    });
    next.into_inner()
}

fn read(store: &dyn Store) -> Duration {
    const READS: u32 = 20_000;
    let begin = Instant::now();
    for number in 0..READS {
        let id = format!("$event-{:032}", number % 500);
        std::hint::black_box(store.get(Table::EventPdu, id.as_bytes()).unwrap());
    }
    begin.elapsed() / READS
}
