//! A full disk stops writes with an error, loses nothing and recovers.
//!
//! The disk is a small file system in memory where the tests may mount one. Where they may not, the largest file that
//! the server may write is limited instead, which every system can do: the writes fail in the same places, though with
//! another error, and the test says so.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use crate::{
    support::{Home, Server, wait_until},
    wire::{Answer, Wire, escape, request},
};

/// How writes are made to fail, and to succeed again.
enum Disk {
    /// A file system of its own, and the file that fills it.
    Small { mount: PathBuf, ballast: PathBuf },
    /// Files may not grow beyond this, bytes.
    Limited { largest_file: u64 },
}

impl Disk {
    /// A disk of this size below `home`.
    fn new(home: &Home, megabytes: u32) -> Self {
        let mount = home.path().join("disk");
        std::fs::create_dir(&mount).unwrap();
        let size = format!("size={megabytes}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&mount).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Self::Small { ballast: mount.join("ballast"), mount };
        }
        eprintln!("NOTICE: no file system can be mounted here; the size of files is limited instead of the disk's");
        Self::Limited { largest_file: 0 }
    }

    /// All but `left` bytes of the disk are taken by something else.
    fn fill(&mut self, home: &Home, server: &Server, left: u64) {
        match self {
            Self::Small { mount, ballast } => {
                let free = free_bytes(mount);
                let mut file = File::create(ballast).unwrap();
                let block = vec![1; 64 * 1024];
                for _ in 0..free.saturating_sub(left) / 65_536 {
                    file.write_all(&block).unwrap();
                }
            }
            Self::Limited { largest_file } => {
                *largest_file = largest(&home.path().join("disk")) + 64 * 1024;
                limit(server, Some(*largest_file));
            }
        }
    }

    /// There is room again.
    fn free(&self, server: &Server) {
        match self {
            Self::Small { ballast, .. } => std::fs::remove_file(ballast).unwrap(),
            Self::Limited { .. } => limit(server, None),
        }
    }

    /// Whether the error of a write says that the disk is full.
    fn is_refusal(&self, answer: &Answer) -> bool {
        let body = answer.json();
        let errcode = body["errcode"].as_str().unwrap_or_default();
        let has_sentence = body["error"].as_str().is_some_and(|sentence| !sentence.is_empty());
        has_sentence
            && match self {
                Self::Small { .. } => (answer.status, errcode) == (507, "M_RESOURCE_LIMIT_EXCEEDED"),
                Self::Limited { .. } => answer.status >= 500 && !errcode.is_empty(),
            }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Self::Small { mount, .. } = self {
            let _ = Command::new("umount").arg("-l").arg(mount).status();
        }
    }
}

fn free_bytes(path: &Path) -> u64 {
    let space = rustix::fs::statvfs(path).unwrap();
    space.f_bavail * space.f_frsize
}

fn largest(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let sizes =
        entries.map(|path| if path.is_dir() { largest(&path) } else { path.metadata().map_or(0, |file| file.len()) });
    sizes.max().unwrap_or(0)
}

fn limit(server: &Server, largest_file: Option<u64>) {
    let id = Pid::from_raw(i32::try_from(server.id()).unwrap());
    prlimit(id, Resource::Fsize, Rlimit { current: largest_file, maximum: None }).unwrap();
}

/// Somebody who writes as much as there is room for.
struct Writer {
    wire: Wire,
    bearer: String,
    room: String,
    sent: Vec<String>,
}

impl Writer {
    fn call(&mut self, method: &str, path: &str, body: Option<&[u8]>) -> Answer {
        self.wire.exchange(&request(method, path, Some(&self.bearer), body)).unwrap()
    }

    /// Sends a message of this size; what was acknowledged is remembered.
    fn send(&mut self, size_bytes: usize) -> Answer {
        let text = format!("{}{}", self.sent.len(), "x".repeat(size_bytes));
        let body = json!({"msgtype": "m.text", "body": text}).to_string();
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message", self.room);
        let answer = self.call("POST", &path, Some(body.as_bytes()));
        if answer.status == 200 {
            self.sent.push(answer.json()["event_id"].as_str().unwrap().to_owned());
        }
        answer
    }

    /// Writes until there is no room.
    fn send_until_refused(&mut self) -> Answer {
        let mut answers = (0..4_000).map(|_| self.send(20_000));
        answers.find(|answer| answer.status != 200).expect("the disk never became full")
    }

    /// Everything acknowledged can be read.
    fn assert_whole(&mut self) {
        for id in self.sent.clone() {
            let path = format!("/_matrix/client/v3/rooms/{}/event/{}", self.room, escape(&id));
            let answer = self.call("GET", &path, None);
            assert_eq!(answer.status, 200, "an acknowledged event is gone: {}", String::from_utf8_lossy(&answer.body));
        }
    }
}

/// A server whose data is on the disk, and somebody who has written there.
fn start(home: &Home, engine: &str) -> (Server, Writer) {
    home.configure(json!({
        "data_dir": home.path().join("disk/data"),
        "storage": {"engine": engine},
        "logging": {"level": "info"},
    }));
    let server = home.start_ignoring_file_limits();
    let token = server.register("amira", "a long password");
    let room = escape(&server.create_room(&token));
    let mut writer =
        Writer { wire: Wire::new(&server.address), bearer: format!("Bearer {token}"), room, sent: Vec::new() };
    assert_eq!(writer.send(10).status, 200);
    (server, writer)
}

fn fills_and_recovers(engine: &str, megabytes: u32, left: u64) {
    let home = Home::new();
    let mut disk = Disk::new(&home, megabytes);
    let (mut server, mut writer) = start(&home, engine);
    disk.fill(&home, &server, left);

    let refused = writer.send_until_refused();
    assert!(disk.is_refusal(&refused), "{refused:?}");
    // Other writes meet the full disk too, and none of them breaks anything.
    for (method, path, body) in [
        ("POST", "/_matrix/client/v3/createRoom", json!({"name": "x".repeat(30_000)}).to_string()),
        ("POST", "/_matrix/media/v3/upload", "x".repeat(1_500_000)),
        (
            "PUT",
            "/_matrix/client/v3/user/@amira:matron.test/account_data/a.b",
            json!({"a": "x".repeat(60_000)}).to_string(),
        ),
        (
            "POST",
            "/_matrix/client/v3/keys/upload",
            json!({"one_time_keys": {"signed_curve25519:A": {"key": "x".repeat(30_000)}}}).to_string(),
        ),
    ] {
        let answer = writer.call(method, path, Some(body.as_bytes()));
        assert!(disk.is_refusal(&answer) || answer.status < 500, "{method} {path}: {answer:?}");
    }
    assert_ne!(writer.send(20_000).status, 200);
    // Reading goes on.
    writer.assert_whole();
    for path in ["/_matrix/client/v3/sync?timeout=0", "/_matrix/client/v3/joined_rooms", "/health"] {
        assert_eq!(writer.call("GET", path, None).status, 200, "{path}");
    }

    disk.free(&server);
    wait_until("messages are accepted again", || writer.send(20_000).status == 200);
    assert_eq!(writer.send(100).status, 200);
    writer.assert_whole();
    assert!(server.stop().success());
    let log = server.rest_of_log();
    assert!(!log.contains("panicked"), "{log}");
    let server = home.start();
    writer.wire = Wire::new(&server.address);
    writer.assert_whole();
    assert_eq!(writer.send(100).status, 200);
    drop(server);
}

#[test]
fn sqlite_stops_writing_on_a_full_disk_loses_nothing_and_goes_on() {
    fills_and_recovers("sqlite", 24, 1_000_000);
}

#[test]
fn sled_stops_writing_on_a_full_disk_loses_nothing_and_goes_on() {
    fills_and_recovers("sled", 96, 34_000_000);
}

#[test]
fn sled_that_could_not_write_stops_and_has_everything_after_a_restart() {
    // Its reserve keeps it from a full disk. This is a disk that fails all the same.
    let home = Home::new();
    std::fs::create_dir(home.path().join("disk")).unwrap();
    let mut disk = Disk::Limited { largest_file: 0 };
    let (mut server, mut writer) = start(&home, "sled");
    disk.fill(&home, &server, 0);
    let refused = writer.send_until_refused();
    assert!(disk.is_refusal(&refused), "{refused:?}");
    // Nobody reads on from what may never have reached the disk: whoever supervises the server is told.
    for (method, path) in [("GET", "/_matrix/client/v3/sync?timeout=0"), ("POST", "/_matrix/client/v3/createRoom")] {
        let answer = writer.call(method, path, Some(b"{}"));
        assert!(answer.status >= 500 && answer.json()["errcode"].is_string(), "{path}: {answer:?}");
    }
    assert_eq!(writer.call("GET", "/health", None).status, 503);
    server.stop();
    let log = server.rest_of_log();
    assert!(!log.contains("panicked"), "{log}");
    let server = home.start();
    writer.wire = Wire::new(&server.address);
    writer.assert_whole();
    assert_eq!(writer.send(100).status, 200);
    drop(server);
}
