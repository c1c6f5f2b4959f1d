//! kill -9 at any moment: nothing acknowledged is lost, and no half batch is there.
//!
//! The test starts this binary again as a writer, which prints the number of every batch once it is
//! acknowledged; kills it at a random moment; opens the store, and compares.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use matron_storage::{
    Batch, EngineKind, Key, KeyRange, KeyRing, MasterKey, Order, SlotForm, Store, StreamPos, Table, open,
};

const KILLS: u32 = 24;
const WRITERS: u64 = 4;
/// The rows of one batch, in several tables.
const TABLES: [Table; 4] = [Table::EventPdu, Table::EventContent, Table::RoomTimeline, Table::Misc];

fn key(writer: u64, number: u64) -> Vec<u8> {
    Key::new().number(writer).number(number).into()
}

fn count(store: &dyn Store, table: Table, writer: u64) -> u64 {
    let range = Key::new().number(writer).prefix();
    let newest = store.scan(table, &range, Order::Descending, 1).unwrap();
    newest.first().map_or(0, |(key, _)| u64::from_be_bytes(key[8..].try_into().unwrap()) + 1)
}

fn batch(writer: u64, number: u64) -> Batch {
    let mut batch = Batch::new();
    for table in TABLES {
        batch.put(table, key(writer, number), vec![b'x'; usize::try_from(number % 700).unwrap()]);
    }
    let (key, slot) = Key::new().position(batch.reserve_position(), SlotForm::Plain);
    batch.put_at(Table::DeviceListStream, key, Some(slot), "", None);
    batch
}

/// Not a test: what the child process does until it is killed.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var("MATRON_TEST_CRASH_DIR") else { return };
    let kind = std::env::var("MATRON_TEST_CRASH_ENGINE").unwrap().parse().unwrap();
    let store = open(kind, &Path::new(&dir).join("store")).unwrap();
    let ring = KeyRing::open(&Path::new(&dir).join("keys"), MasterKey::from_bytes([1; 32])).unwrap();
    let say = |line: String| {
        // One write for each line; what was written before the kill is in the pipe.
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    };
    say("ready\n".to_owned());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, ring, say) = (&store, &ring, &say);
            scope.spawn(move || {
                for number in count(&**store, Table::EventPdu, writer).. {
                    store.submit(batch(writer, number)).wait().unwrap();
                    say(format!("commit {writer} {number}\n"));
                    if number % 4 == 0 {
                        ring.seal(&format!("!{writer}"), number, b"", b"").unwrap();
                        say(format!("key {writer} {number}\n"));
                    }
                    if number % 8 == 0 {
                        ring.destroy(&format!("!{writer}"), number).unwrap();
                        say(format!("destroyed {writer} {number}\n"));
                    }
                }
            });
        }
    });
}

/// What the child acknowledged before it was killed.
fn run_and_kill(kind: EngineKind, dir: &Path, lifetime: Duration) -> Vec<(String, u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "crash::child_that_writes_until_it_is_killed"])
        .env("MATRON_TEST_CRASH_DIR", dir)
        .env("MATRON_TEST_CRASH_ENGINE", kind.name())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // Half of the time the opening itself is hit.
    if lifetime.as_millis().is_multiple_of(2) {
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
    }
    let killer = std::thread::spawn(move || {
        let end = Instant::now() + lifetime;
        while Instant::now() < end {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let mut told = Vec::new();
    for line in lines {
        let line = line.unwrap();
        if let [what, writer, number] = line.split(' ').collect::<Vec<_>>()[..] {
            told.push((what.to_owned(), writer.parse().unwrap(), number.parse().unwrap()));
        } else {
            assert_eq!(line, "ready");
        }
    }
    killer.join().unwrap();
    told
}

fn survives_kill(kind: EngineKind) {
    let dir = tempfile::tempdir().unwrap();
    let (mut commits, mut destroyed) = (0, 0);
    let mut round = 0;
    // On a busy machine some rounds end before anything is written: longer ones follow until enough was.
    while round < KILLS || (round < 10 * KILLS && (commits <= 100 || destroyed <= 5)) {
        let lifetime = Duration::from_millis(u64::from(round * 37 % 101 + round / KILLS * 50));
        let told = run_and_kill(kind, dir.path(), lifetime);
        let store = open(kind, &dir.path().join("store")).unwrap();
        let ring = KeyRing::open(&dir.path().join("keys"), MasterKey::from_bytes([1; 32])).unwrap();
        let mut rows = 0;
        for writer in 0..WRITERS {
            let counts = TABLES.map(|table| count(&*store, table, writer));
            assert!(counts.iter().all(|count| *count == counts[0]), "half a batch in round {round}: {counts:?}");
            rows += counts[0];
        }
        let changes =
            |range: &KeyRange| store.scan(Table::DeviceListStream, range, Order::Ascending, usize::MAX).unwrap();
        let (mut range, mut total) = (KeyRange::all(), 0);
        while let page @ [_, ..] = changes(&range).as_slice() {
            total += u64::try_from(page.len()).unwrap();
            range = range.after(&page.last().unwrap().0);
        }
        assert_eq!((total, store.position()), (rows, StreamPos(rows)), "positions in round {round}");
        assert_eq!(ring.damaged_slots(), 0);
        for (what, writer, number) in told {
            let kept = ring.buckets(&format!("!{writer}")).contains(&number);
            match what.as_str() {
                "commit" => {
                    commits += 1;
                    let row = store.get(Table::EventPdu, &key(writer, number)).unwrap();
                    assert_eq!(row.map(|value| value.len()), Some(usize::try_from(number % 700).unwrap()));
                }
                // Those that are destroyed right after are judged there.
                "key" => assert!(kept || number % 8 == 0, "a key was lost in round {round}"),
                _ => {
                    destroyed += 1;
                    assert!(!kept, "a key came back in round {round}");
                }
            }
        }
        store.close();
        round += 1;
    }
    assert!(commits > 100 && destroyed > 5, "the rounds were too short: {commits} commits, {destroyed} destroyed");
}

#[test]
fn sqlite_survives_being_killed() {
    survives_kill(EngineKind::Sqlite);
}

#[test]
fn sled_survives_being_killed() {
    survives_kill(EngineKind::Sled);
}
