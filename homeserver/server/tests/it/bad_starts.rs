//! What is wrong is said in one sentence, and nothing is overwritten.

use std::{
    collections::BTreeMap,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use crate::support::{Home, command};

/// The refusal of a start that cannot succeed.
fn refusal(home: &Home) -> String {
    let output = home.matron(&["serve"]);
    assert!(!output.status.success(), "it started");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    let home = Home::new();
    home.configure(json!({"registraton": {"mode": "open"}}));
    let said = refusal(&home);
    assert!(said.contains("`registraton`") && said.contains("`registration`"), "{said}");
    assert!(!home.data().exists(), "a bad configuration must create nothing");
}

#[test]
fn an_unknown_variable_is_named() {
    let output = command().args(["config", "check"]).env("MATRON_LISTEN__ADRESS", "127.0.0.1:1").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("listen.address"), "{said}");
}

#[test]
fn a_broken_file_is_named_with_the_place() {
    let home = Home::new();
    let path = home.path().join("broken.toml");
    std::fs::write(&path, "server_name = \n").unwrap();
    let output = command().arg("--config").arg(&path).args(["config", "check"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("broken.toml") && said.contains("line 1"), "{said}");
}

#[test]
fn another_servers_data_is_refused() {
    let home = Home::new();
    home.start().kill();
    home.configure(json!({"server_name": "other.test"}));
    let said = refusal(&home);
    assert!(said.contains("matron.test") && said.contains("other.test"), "{said}");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let home = Home::new();
    home.start().kill();
    for key in ["signing.key", "master.key"] {
        let path = home.data().join(key);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let said = refusal(&home);
        assert!(said.contains("mode"), "{key}: {said}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    home.start();
}

#[test]
fn a_lost_or_foreign_master_key_is_never_replaced() {
    let home = Home::new();
    home.start().kill();
    let key = home.data().join("master.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let said = refusal(&home);
    assert!(said.contains("master.key") && !key.exists(), "{said}");
    std::fs::write(&key, format!("{}\n", "ab".repeat(32))).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let said = refusal(&home);
    assert!(said.contains("key ring"), "{said}");
    std::fs::write(&key, kept).unwrap();
    home.start();
}

#[test]
fn a_corrupt_signing_key_is_refused_and_kept() {
    let home = Home::new();
    home.start().kill();
    let key = home.data().join("signing.key");
    std::fs::write(&key, "not a key\n").unwrap();
    let said = refusal(&home);
    assert!(said.contains("signing.key"), "{said}");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), "not a key\n");
}

#[test]
fn a_corrupt_database_is_refused_and_kept() {
    let home = Home::new();
    home.start().kill();
    let store = home.data().join("store");
    let file = std::fs::read_dir(&store)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "db" || extension == "sqlite"))
        .expect("a database file");
    for leftover in ["wal", "shm"] {
        let _ = std::fs::remove_file(format!("{}-{leftover}", file.display()));
    }
    std::fs::write(&file, b"this is no database, it is a letter to the operator").unwrap();
    let said = refusal(&home);
    assert!(said.contains("database"), "{said}");
    assert!(std::fs::read(&file).unwrap().starts_with(b"this is no database"));
}

#[test]
fn two_servers_never_share_a_data_directory() {
    let home = Home::new();
    let _first = home.start();
    let said = refusal(&home);
    assert!(said.contains("running"), "{said}");
}

#[test]
fn a_taken_address_is_named() {
    let home = Home::new();
    let first = home.start();
    let other = Home::new();
    other.configure(json!({"listen": {"address": first.address.clone()}}));
    let said = refusal(&other);
    assert!(said.contains(&first.address), "{said}");
}

#[test]
fn a_certificate_that_is_none_is_named() {
    let home = Home::new();
    let path = home.path().join("tls.pem");
    std::fs::write(&path, "hello").unwrap();
    home.configure(json!({"listen": {"address": "127.0.0.1:0", "tls_certificate": path, "tls_key": path}}));
    let said = refusal(&home);
    assert!(said.contains("tls.pem"), "{said}");
}

/// Every file below `dir` with its mode and content; sockets and locks hold nothing.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            found.extend(snapshot(&path));
        } else if kind.is_file() {
            found.insert(path.clone(), (path.metadata().unwrap().mode(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

/// How a start ended: refused with these words, or up and killed again (`None`).
fn outcome(home: &Home) -> Option<String> {
    let mut child = command()
        .arg("--config")
        .arg(home.config())
        .arg("serve")
        .current_dir(home.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap());
    let ready = loop {
        let mut line = String::new();
        if std::io::BufRead::read_line(&mut lines, &mut line).unwrap() == 0 {
            break false;
        }
        said.push_str(&line);
        if line.contains(" ready ") {
            child.kill().unwrap();
            break true;
        }
    };
    let status = child.wait().unwrap();
    if ready {
        return None;
    }
    assert!(!status.success(), "it ended without an error: {said}");
    assert!(status.code().is_some(), "it was ended by a signal: {said}");
    Some(said)
}

/// A server that has run and ended in order, so that all it knows is in its files.
fn used_home(engine: &str) -> Home {
    let home = Home::new();
    home.configure(json!({"storage": {"engine": engine}}));
    let mut server = home.start();
    let token = server.register("amira", "a long password");
    server.create_room(&token);
    assert!(server.stop().success());
    home
}

/// Spoils every file of the data directory in every way, one at a time; the words of each refusal.
fn spoil_each_file(engine: &str) -> BTreeMap<String, Vec<Option<String>>> {
    let home = used_home(engine);
    let whole = snapshot(&home.data());
    let mut outcomes: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for (path, (_, content)) in &whole {
        let name = path.strip_prefix(home.data()).unwrap().display().to_string();
        let flipped = |at: usize| {
            let mut content = content.clone();
            content.iter_mut().skip(at).take(64).for_each(|byte| *byte ^= 0xff);
            content
        };
        for spoilt in [
            Vec::new(),
            content[..content.len() / 2].to_vec(),
            flipped(0),
            flipped(content.len() / 2),
            b"this is a letter to the operator, and nothing else\n".repeat(100),
        ] {
            if spoilt == *content {
                continue;
            }
            std::fs::write(path, &spoilt).unwrap();
            let before = snapshot(&home.data());
            let ended = outcome(&home);
            if let Some(said) = &ended {
                assert!(!said.contains("panicked"), "{name}: {said}");
                assert!(said.contains("matron: ") || said.contains("ERROR"), "{name}: no reason: {said}");
                let after = snapshot(&home.data());
                for (path, kept) in &before {
                    assert!(after.get(path) == Some(kept), "{name}: a refused start changed {}", path.display());
                }
            }
            outcomes.entry(name.clone()).or_default().push(ended);
            // As it was, whatever the start made of it.
            std::fs::remove_dir_all(home.data()).unwrap();
            for (path, (mode, content)) in &whole {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode)).unwrap();
            }
            make_private(&home.data());
        }
    }
    assert_eq!(outcome(&home), None, "the whole directory must start");
    outcomes
}

fn make_private(dir: &Path) {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            make_private(&path);
        }
    }
}

/// Files without which nothing may start, however they are spoilt.
fn assert_refused(outcomes: &BTreeMap<String, Vec<Option<String>>>, names: &[&str]) {
    for name in names {
        let ended = outcomes.get(*name).unwrap_or_else(|| panic!("{name} is not among {:?}", outcomes.keys()));
        // A flip in the middle of a file may hit what is not used any more; everything else must be seen.
        let started = ended.iter().filter(|ended| ended.is_none()).count();
        assert!(started <= 1, "{name}: started {started} times of {}", ended.len());
        assert!(ended[0].is_some(), "{name}: started with an empty file");
    }
}

/// A key ring is refused whose head is spoilt. It begins with room for a thousand keys; what is cut off or changed in the
/// middle of that was never used, and costs nothing.
fn assert_ring_refused(outcomes: &BTreeMap<String, Vec<Option<String>>>) {
    let started: Vec<bool> = outcomes["keyring"].iter().map(Option::is_none).collect();
    assert_eq!(
        started,
        [false, true, false, true, false],
        "emptied, halved, changed at the start and in the middle, a letter"
    );
}

#[test]
fn spoilt_files_of_sqlite_are_refused_or_harmless_and_never_overwritten() {
    let outcomes = spoil_each_file("sqlite");
    assert_refused(&outcomes, &["signing.key", "master.key", "server_name"]);
    assert_ring_refused(&outcomes);
    let database = outcomes.iter().find(|(name, _)| name.ends_with("sqlite") || name.ends_with(".db"));
    let (_, ended) = database.unwrap_or_else(|| panic!("no database among {:?}", outcomes.keys()));
    assert!(ended.iter().filter(|ended| ended.is_some()).count() >= 3, "{ended:?}");
}

#[test]
fn spoilt_files_of_sled_are_refused_or_harmless_and_never_overwritten() {
    let outcomes = spoil_each_file("sled");
    assert_refused(&outcomes, &["signing.key", "master.key", "server_name"]);
    assert_ring_refused(&outcomes);
}

#[test]
fn data_of_another_engine_is_refused_and_kept() {
    for (one, other) in [("sqlite", "sled"), ("sled", "sqlite")] {
        let home = used_home(one);
        let before = snapshot(&home.data());
        home.configure(json!({"storage": {"engine": other}}));
        let said = refusal(&home);
        assert!(said.contains(one) && said.contains("store"), "{said}");
        assert!(snapshot(&home.data()) == before);
    }
}

#[test]
fn a_newer_or_foreign_database_is_refused_and_kept() {
    let home = used_home("sqlite");
    let files = snapshot(&home.data().join("store"));
    let is_marker = |content: &[u8]| std::str::from_utf8(content).is_ok_and(|text| text.contains("state ready"));
    let (marker, (_, content)) = files.iter().find(|(_, (_, content))| is_marker(content)).unwrap();
    let text = std::str::from_utf8(content).unwrap();
    std::fs::write(marker, text.replace("format ", "format 9")).unwrap();
    let before = snapshot(&home.data());
    let said = refusal(&home);
    assert!(said.contains("format 9"), "{said}");
    assert!(snapshot(&home.data()) == before);
    std::fs::write(marker, content).unwrap();

    // SQLite's header has the application's id at 68.
    let file = database(&home);
    let mut content = std::fs::read(&file).unwrap();
    content[68..72].copy_from_slice(&0x7fff_0000_u32.to_be_bytes());
    std::fs::write(&file, content).unwrap();
    let before = snapshot(&home.data());
    let said = refusal(&home);
    assert!(said.contains("not a store of Matron"), "{said}");
    assert!(snapshot(&home.data()).get(&file) == before.get(&file));
}

fn database(home: &Home) -> PathBuf {
    let files = snapshot(&home.data().join("store"));
    files.into_keys().find(|path| std::fs::read(path).unwrap().starts_with(b"SQLite format 3\0")).unwrap()
}

#[test]
fn a_server_that_lost_its_store_or_signing_key_does_not_begin_anew() {
    let home = used_home("sqlite");
    for part in ["store", "signing.key", "keyring", "master.key", "server_name"] {
        let (path, away) = (home.data().join(part), home.path().join("away"));
        std::fs::rename(&path, &away).unwrap();
        let said = refusal(&home);
        assert!(said.contains("missing") && said.contains(part), "{said}");
        assert!(!path.exists(), "{part} was made anew");
        std::fs::rename(&away, &path).unwrap();
    }
    home.start();
}

#[test]
fn a_lost_key_ring_is_made_anew_only_when_the_operator_says_so() {
    for engine in ["sqlite", "sled"] {
        let home = used_home(engine);
        let new_ring = || {
            let output = home.matron(&["keyring", "new"]);
            (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
        };
        let before = snapshot(&home.data());
        let (made, said) = new_ring();
        assert!(!made && said.contains("keyring") && said.contains("nothing was changed"), "{said}");
        assert!(snapshot(&home.data()) == before, "{engine}: what is there was changed");

        let ring = home.data().join("keyring");
        std::fs::remove_file(&ring).unwrap();
        let before = snapshot(&home.data());
        let said = refusal(&home);
        assert!(said.contains("keyring") && said.contains("missing") && said.contains("matron keyring new"), "{said}");
        assert!(snapshot(&home.data()) == before, "{engine}: a refused start changed something");
        let said = String::from_utf8(home.matron(&["doctor"]).stdout).unwrap();
        assert!(said.lines().any(|line| line.starts_with("BAD") && line.contains("keyring")), "{said}");
        assert!(snapshot(&home.data()).keys().eq(before.keys()), "{engine}: the doctor made something");

        let (made, said) = new_ring();
        assert!(made && ring.exists(), "{said}");
        // What was sealed is gone and breaks nothing; what is said from now on can be read.
        let mut server = home.start();
        let log_in = json!({
            "type": "m.login.password", "identifier": {"type": "m.id.user", "user": "amira"}, "password": "a long password",
        });
        let reply = server.post("/_matrix/client/v3/login", None, &log_in);
        assert_eq!(reply.status, 200, "{}", reply.body);
        let token = reply.json()["access_token"].as_str().unwrap().to_owned();
        assert_eq!(server.get("/_matrix/client/v3/sync?timeout=0", Some(&token)).status, 200);
        server.create_room(&token);
        assert!(server.stop().success());
        assert!(!server.rest_of_log().contains("panicked"));
    }
    let fresh = Home::new();
    let output = fresh.matron(&["keyring", "new"]);
    assert!(!output.status.success() && !fresh.data().exists(), "there was no server to begin with");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let home = Home::new();
    let mounted = |options: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(home.data());
        mount.output().is_ok_and(|done| done.status.success())
    };
    std::fs::create_dir(home.data()).unwrap();
    let is_mounted = mounted("size=16m,mode=0700");
    if is_mounted {
        home.start().kill();
        let again = Command::new("mount").args(["-o", "remount,ro"]).arg(home.data()).status().unwrap();
        assert!(again.success());
    } else {
        home.start().kill();
        std::fs::set_permissions(home.data(), std::fs::Permissions::from_mode(0o500)).unwrap();
        let probe = home.data().join("probe");
        if std::fs::write(&probe, "").is_ok() {
            eprintln!("NOTICE: this user may write anywhere and mount nothing; a read-only directory is not tried");
            return;
        }
    }
    let ended = outcome(&home);
    if is_mounted {
        let _ = Command::new("umount").arg("-l").arg(home.data()).status();
    } else {
        std::fs::set_permissions(home.data(), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    let said = ended.expect("it started on a directory that it cannot write");
    assert!(said.contains("data") && !said.contains("panicked"), "{said}");
}

#[test]
fn a_register_that_is_none_is_named() {
    let home = Home::new();
    let register = home.path().join("register.json");
    let key = "1WhvjEtL6JgbZNRtRKSu6BlCVJqtYDXPxwbcVWVmwLg";
    for (content, what) in [
        (None, "missing"),
        (Some("".to_owned()), "empty"),
        (Some("{\"a\":".to_owned()), "half a document"),
        (Some("[]".to_owned()), "another document"),
        (Some("[".repeat(100_000)), "a deep document"),
        (Some(json!({"type": "org.matron.register", "version": 1}).to_string()), "an unsigned one"),
    ] {
        let _ = std::fs::remove_file(&register);
        if let Some(content) = &content {
            std::fs::write(&register, content).unwrap();
        }
        home.configure(json!({"policy": {
            "register_file": register, "register_keys": {"ed25519:1": key}, "organisation": "RJ1",
        }}));
        if let Some(said) = outcome(&home) {
            assert!(said.contains("register"), "{what}: {said}");
            assert!(!said.contains("panicked"), "{what}: {said}");
        } else {
            panic!("{what}: it started");
        }
        assert_eq!(std::fs::read_to_string(&register).ok(), content, "{what}: the file was changed");
    }
}

#[test]
fn a_registration_that_is_none_is_named() {
    let home = Home::new();
    let path = home.path().join("bridge.yaml");
    for content in ["", "[", "id: a", "\0\0\0", "id: [a]\nas_token: 1\n"] {
        std::fs::write(&path, content).unwrap();
        home.configure(json!({"appservices": [path]}));
        let said = refusal(&home);
        assert!(said.contains("bridge.yaml") && !said.contains("panicked"), "{content:?}: {said}");
    }
}

#[test]
fn a_configuration_that_is_none_creates_nothing() {
    let home = Home::new();
    for content in [
        "",
        "{",
        "[]",
        "{\"server_name\": \"not a name!\"}",
        "{\"server_name\": 1}",
        "{\"listen\": {\"address\": \"nowhere\"}}",
        "{\"storage\": {\"engine\": \"paper\"}}",
        "{\"default_room_version\": \"99\"}",
        "{\"federation\": {\"allow_ip_ranges\": [\"10/8\"]}}",
    ] {
        std::fs::write(home.config(), content).unwrap();
        if content.is_empty() || content == "[]" {
            continue;
        }
        let said = refusal(&home);
        assert!(!said.contains("panicked") && said.len() > 20, "{content}: {said}");
        let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 1, "{content}: {left:?}");
    }
}
