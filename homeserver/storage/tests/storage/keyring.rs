//! The key ring.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Barrier,
};

use matron_storage::{
    KeyRing, KeyRingError, MasterKey, MasterKeyError,
    keyring::{MAX_EXPIRED, NO_EXPIRY},
};
use tempfile::TempDir;

fn master(byte: u8) -> MasterKey {
    MasterKey::from_bytes([byte; 32])
}

fn ring_in(dir: &TempDir) -> (PathBuf, KeyRing) {
    let path = dir.path().join("keys");
    let ring = KeyRing::open(&path, master(1)).unwrap();
    (path, ring)
}

fn reopen(path: &Path, ring: KeyRing) -> KeyRing {
    drop(ring);
    KeyRing::open(path, master(1)).unwrap()
}

#[test]
fn content_opens_with_its_own_room_bucket_and_address_only() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ring) = ring_in(&dir);
    let sealed = ring.seal("!a:x", 5, b"$event", b"potassium 6.1").unwrap();
    assert!(!sealed.windows(9).any(|part| part == b"potassium"));
    ring.seal("!a:x", 6, b"$event", b"other").unwrap();
    let ring = reopen(&path, ring);
    assert_eq!(ring.open_sealed("!a:x", 5, b"$event", &sealed).unwrap(), b"potassium 6.1");
    assert!(matches!(ring.open_sealed("!a:x", 5, b"$other", &sealed), Err(KeyRingError::Tampered)));
    assert!(matches!(ring.open_sealed("!a:x", 6, b"$event", &sealed), Err(KeyRingError::KeyDestroyed)));
    assert!(matches!(ring.open_sealed("!b:x", 5, b"$event", &sealed), Err(KeyRingError::KeyDestroyed)));
    for at in 21..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(matches!(ring.open_sealed("!a:x", 5, b"$event", &changed), Err(KeyRingError::Tampered)));
    }
    for length in 0..sealed.len() {
        assert!(ring.open_sealed("!a:x", 5, b"$event", &sealed[..length]).is_err());
    }
}

#[test]
fn destroyed_key_is_gone_from_the_file_and_stays_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ring) = ring_in(&dir);
    let sealed = ring.seal("!a:x", 5, b"", b"text").unwrap();
    let before = fs::read(&path).unwrap();
    let slot = before[4096..].chunks(512).find(|slot| slot.iter().any(|byte| *byte != 0)).unwrap().to_vec();
    assert!(ring.destroy("!a:x", 5).unwrap());
    assert!(!ring.destroy("!a:x", 5).unwrap());
    let after = fs::read(&path).unwrap();
    assert!(after[4096..].iter().all(|byte| *byte == 0), "nothing of the slot is left");
    assert!(matches!(ring.open_sealed("!a:x", 5, b"", &sealed), Err(KeyRingError::KeyDestroyed)));
    // The bucket may be used again; what was sealed before stays closed.
    let again = ring.seal("!a:x", 5, b"", b"new").unwrap();
    assert!(matches!(ring.open_sealed("!a:x", 5, b"", &sealed), Err(KeyRingError::KeyDestroyed)));
    let ring = reopen(&path, ring);
    assert_eq!(ring.open_sealed("!a:x", 5, b"", &again).unwrap(), b"new");
    assert_eq!(fs::metadata(&path).unwrap().len(), u64::try_from(after.len()).unwrap(), "the slot was used again");
    // An old copy of a slot is worthless in another place.
    drop(ring);
    let mut forged = after.clone();
    forged[4096 + 512 * 7..4096 + 512 * 8].copy_from_slice(&slot);
    fs::write(&path, forged).unwrap();
    let ring = KeyRing::open(&path, master(1)).unwrap();
    assert_eq!((ring.damaged_slots(), ring.len()), (1, 0));
}

#[test]
fn buckets_are_named_by_room_and_by_end() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ring) = ring_in(&dir);
    for (room, bucket) in [("!a", 30), ("!a", 10), ("!b", 20), ("!b", NO_EXPIRY | 1)] {
        ring.seal(room, bucket, b"", b"").unwrap();
    }
    let ring = reopen(&path, ring);
    assert_eq!(ring.buckets("!a"), [10, 30]);
    assert_eq!(ring.buckets("!c"), [0; 0]);
    assert_eq!(ring.expired_buckets(20), [("!a".to_owned(), 10), ("!b".to_owned(), 20)]);
    assert_eq!(ring.expired_buckets(u64::MAX).len(), 3, "what has no lifetime does not end");
    assert_eq!(ring.destroy_room("!b").unwrap(), 2);
    assert_eq!(ring.destroy_many(&[("!a", 10), ("!a", 11)]).unwrap(), 1);
    assert_eq!(reopen(&path, ring).expired_buckets(u64::MAX), [("!a".to_owned(), 30)]);
}

#[test]
fn many_keys_share_a_flush_and_growth_goes_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ring) = ring_in(&dir);
    let wanted: Vec<_> = (0..3000).map(|bucket| ("!a", bucket)).collect();
    ring.prepare(&wanted).unwrap();
    assert!(ring.flushes() <= 4, "{} flushes", ring.flushes());
    assert_eq!(ring.len(), 3000);
    assert_eq!(fs::metadata(&path).unwrap().len(), 4096 + 3 * 1024 * 512);
    assert!(ring.expired_buckets(u64::MAX).len() <= MAX_EXPIRED);
    ring.destroy_room("!a").unwrap();
    ring.prepare(&wanted).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 4096 + 3 * 1024 * 512, "slots are used again");
    assert_eq!(reopen(&path, ring).len(), 3000);
}

#[test]
fn threads_agree_on_the_key_of_a_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ring) = ring_in(&dir);
    let barrier = Barrier::new(8);
    let sealed: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    (0..50).map(|bucket| (bucket, ring.seal("!a", bucket, b"", b"x").unwrap())).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ring.len(), 50);
    let ring = reopen(&path, ring);
    for (bucket, sealed) in sealed {
        assert_eq!(ring.open_sealed("!a", bucket, b"", &sealed).unwrap(), b"x");
    }
}

#[test]
fn evicted_keys_are_read_back_from_their_slots() {
    let dir = tempfile::tempdir().unwrap();
    let (_, ring) = ring_in(&dir);
    let first = ring.seal("!a", 0, b"", b"first").unwrap();
    let wanted: Vec<_> = (1..6000).map(|bucket| ("!a", bucket)).collect();
    ring.prepare(&wanted).unwrap();
    assert_eq!(ring.open_sealed("!a", 0, b"", &first).unwrap(), b"first");
}

#[test]
fn wrong_master_key_and_foreign_files_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ring) = ring_in(&dir);
    ring.seal("!a", 1, b"", b"").unwrap();
    assert!(matches!(KeyRing::open(&path, master(1)), Err(KeyRingError::InUse)));
    drop(ring);
    let before = fs::read(&path).unwrap();
    assert!(matches!(KeyRing::open(&path, master(2)), Err(KeyRingError::WrongMasterKey)));
    assert_eq!(fs::read(&path).unwrap(), before);
    let foreign = dir.path().join("foreign");
    for content in [b"".as_slice(), b"not a ring", &[7; 9000]] {
        fs::write(&foreign, content).unwrap();
        assert!(matches!(KeyRing::open(&foreign, master(1)), Err(KeyRingError::Foreign(_))));
        assert_eq!(fs::read(&foreign).unwrap(), content);
    }
    let mut newer = before.clone();
    newer[19] = 9;
    fs::write(&foreign, &newer).unwrap();
    let error = KeyRing::open(&foreign, master(1)).unwrap_err();
    assert!(error.to_string().contains("format 9"), "{error}");
    assert!(matches!(KeyRing::open(&dir.path().join("no/such/directory"), master(1)), Err(KeyRingError::Io(_))));
}

#[test]
fn torn_slot_is_reported_and_harms_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ring) = ring_in(&dir);
    let sealed = ring.seal("!a", 1, b"", b"kept").unwrap();
    ring.seal("!a", 2, b"", b"torn").unwrap();
    drop(ring);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 512 + 300..4096 + 1024].fill(0);
    // A growth that was cut off.
    bytes.truncate(4096 + 1000 * 512 + 100);
    fs::write(&path, bytes).unwrap();
    let ring = KeyRing::open(&path, master(1)).unwrap();
    assert_eq!((ring.damaged_slots(), ring.buckets("!a")), (1, vec![1]));
    assert_eq!(ring.open_sealed("!a", 1, b"", &sealed).unwrap(), b"kept");
    let wanted: Vec<_> = (0..2000).map(|bucket| ("!b", bucket)).collect();
    ring.prepare(&wanted).unwrap();
    let ring = reopen(&path, ring);
    assert_eq!((ring.damaged_slots(), ring.len()), (1, 2001));
}

#[test]
fn room_of_more_than_255_bytes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, ring) = ring_in(&dir);
    ring.seal(&"r".repeat(255), 1, b"", b"").unwrap();
    assert!(matches!(ring.seal(&"r".repeat(256), 1, b"", b""), Err(KeyRingError::RoomTooLong)));
    ring.seal("!a", 1, b"", b"").unwrap();
}

#[test]
fn files_of_every_length_open_whole_or_not_at_all() {
    const CHUNK: usize = 64 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let (_, ring) = ring_in(&dir);
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5] {
        let plain: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut sealed = Vec::new();
        let count = ring.seal_file("media", 9, b"id", &mut plain.as_slice(), &mut sealed).unwrap();
        assert_eq!(usize::try_from(count).unwrap(), length);
        let mut opened = Vec::new();
        ring.open_file("media", 9, b"id", &mut sealed.as_slice(), &mut opened).unwrap();
        assert!(opened == plain, "length {length}");
        let open = |sealed: &[u8]| ring.open_file("media", 9, b"id", &mut &*sealed, &mut std::io::sink());
        // Cut off at every edge, lengthened, changed, chunks exchanged.
        for cut in [1, 16, 17, CHUNK + 16, sealed.len()] {
            if cut <= sealed.len() {
                assert!(matches!(open(&sealed[..sealed.len() - cut]), Err(KeyRingError::Tampered)), "{length} {cut}");
            }
        }
        assert!(matches!(open(&[sealed.as_slice(), b"x"].concat()), Err(KeyRingError::Tampered)));
        if length > 2 * CHUNK {
            let (head, chunks) = sealed.split_at(72);
            let (one, rest) = chunks.split_at(CHUNK + 16);
            let (two, rest) = rest.split_at(CHUNK + 16);
            assert!(matches!(open(&[head, two, one, rest].concat()), Err(KeyRingError::Tampered)));
        }
        let other = ring.open_file("media", 9, b"other", &mut sealed.as_slice(), &mut std::io::sink());
        assert!(matches!(other, Err(KeyRingError::Tampered)));
    }
}

#[test]
fn file_can_be_streamed_in_small_parts_and_dies_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let (_, ring) = ring_in(&dir);
    let mut sealer = ring.file_sealer("!a", 1, b"id", Vec::new()).unwrap();
    for part in 0..20_000_u32 {
        sealer.write_all(&part.to_be_bytes()).unwrap();
    }
    let sealed = sealer.finish().unwrap();
    let mut opener = ring.file_opener("!a", 1, b"id", sealed.as_slice()).unwrap();
    let mut part = [0; 4];
    for expected in 0..20_000_u32 {
        opener.read_exact(&mut part).unwrap();
        assert_eq!(u32::from_be_bytes(part), expected);
    }
    assert_eq!(opener.read(&mut part).unwrap(), 0);
    ring.destroy("!a", 1).unwrap();
    let gone = ring.file_opener("!a", 1, b"id", sealed.as_slice());
    assert!(matches!(gone, Err(KeyRingError::KeyDestroyed)));
}

#[test]
fn master_key_file_is_made_once_and_read_strictly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    drop(MasterKey::from_file(&path).unwrap());
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!((text.len(), text.trim().len()), (65, 64));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let ring = dir.path().join("keys");
    drop(KeyRing::open(&ring, MasterKey::from_file(&path).unwrap()).unwrap());
    drop(KeyRing::open(&ring, MasterKey::load(&path).unwrap()).unwrap());
    assert!(matches!(MasterKey::create(&path), Err(MasterKeyError::Io(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no unfinished file is left");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(matches!(MasterKey::from_file(&path), Err(MasterKeyError::Mode(0o640))));
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    for wrong in ["", "00", &"0".repeat(63), &"0".repeat(66), &"x".repeat(64), &"0".repeat(1000)] {
        fs::write(&path, wrong).unwrap();
        assert!(matches!(MasterKey::from_file(&path), Err(MasterKeyError::Malformed)), "{wrong}");
        assert_eq!(fs::read_to_string(&path).unwrap(), wrong);
    }
    assert!(matches!(MasterKey::load(&dir.path().join("none")), Err(MasterKeyError::Io(_))));
    assert!(matches!(MasterKey::load(dir.path()), Err(MasterKeyError::NotAFile)));
}

#[test]
fn master_key_command_prints_the_key_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let digits = "01".repeat(32);
    let key = MasterKey::from_command(&format!("echo {digits}")).unwrap();
    assert_eq!(format!("{key:?}"), "MasterKey(redacted)");
    drop(KeyRing::open(&path, key).unwrap());
    drop(KeyRing::open(&path, master(1)).unwrap());
    assert!(matches!(MasterKey::from_command(&format!("echo {digits}; exit 3")), Err(MasterKeyError::Command(_))));
    assert!(matches!(MasterKey::from_command("echo no key"), Err(MasterKeyError::Malformed)));
    assert!(MasterKey::from_command("yes").is_err(), "endless output ends");
}
