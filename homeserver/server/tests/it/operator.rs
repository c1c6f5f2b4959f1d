//! Operators' commands, on a running server's data and on a resting one's.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::Home;

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn log_in(home: &Home, server: &crate::support::Server, user: &str, password: &str) -> u16 {
    let _ = home;
    let body =
        json!({"type": "m.login.password", "identifier": {"type": "m.id.user", "user": user}, "password": password});
    server.post("/_matrix/client/v3/login", None, &body).status
}

#[test]
fn accounts_are_made_and_changed_while_the_server_runs_and_while_it_rests() {
    let home = Home::new();
    home.start().kill();
    let made = home.matron_with_input(&["user", "create", "amira", "--admin"], "first password\n");
    assert!(said(&made).contains("@amira:matron.test"));
    let server = home.start();
    assert_eq!(log_in(&home, &server, "amira", "first password"), 200);
    said(&home.matron_with_input(&["user", "create", "ben"], "bens password\n"));
    said(&home.matron_with_input(&["user", "set-password", "amira"], "second password\n"));
    assert_eq!(log_in(&home, &server, "amira", "first password"), 403);
    assert_eq!(log_in(&home, &server, "amira", "second password"), 200);
    let list = said(&home.matron(&["user", "list"]));
    assert!(list.contains("@amira:matron.test  admin") && list.contains("@ben:matron.test"), "{list}");
    said(&home.matron(&["user", "admin", "amira", "--revoke"]));
    said(&home.matron(&["user", "deactivate", "@ben:matron.test"]));
    let list = said(&home.matron(&["user", "list"]));
    assert!(!list.contains("admin") && list.contains("@ben:matron.test  deactivated"), "{list}");
    assert_eq!(log_in(&home, &server, "ben", "bens password"), 403);
}

#[test]
fn a_refusal_is_one_sentence_and_a_failure() {
    let home = Home::new();
    let _server = home.start();
    let output = home.matron_with_input(&["user", "set-password", "nobody"], "some password\n");
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("matron: ") && error.lines().count() == 1, "{error}");
}

#[test]
fn the_audit_log_verifies_and_an_unknown_decision_is_said_to_be_one() {
    let home = Home::new();
    let _server = home.start();
    assert!(said(&home.matron(&["audit", "verify"])).contains("whole"));
    assert!(home.matron(&["audit", "show"]).status.success());
    let output = home.matron(&["policy", "explain", "7K3F-9QXM-2B4T"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("no decision"), "{error}");
}

#[test]
fn a_backup_of_a_running_server_comes_back_with_its_messages() {
    let home = Home::new();
    let server = home.start();
    let token = server.register("amira", "a long password");
    let room = server.create_room(&token);
    let path =
        format!("/_matrix/client/v3/rooms/{}/send/m.room.message/1", room.replace('!', "%21").replace(':', "%3A"));
    let event = server.put(&path, Some(&token), &json!({"msgtype": "m.text", "body": "kept"})).json();
    let backup = home.path().join("backup");
    said(&home.matron(&["backup", backup.to_str().unwrap(), "--with-key-ring"]));
    let again = home.matron(&["backup", backup.to_str().unwrap()]);
    assert!(!again.status.success(), "a backup must not be overwritten");
    server.kill();

    let master_key = std::fs::read(home.data().join("master.key")).unwrap();
    std::fs::remove_dir_all(home.data()).unwrap();
    said(&home.matron(&["restore", backup.to_str().unwrap()]));
    let twice = home.matron(&["restore", backup.to_str().unwrap()]);
    assert!(!twice.status.success(), "a restore must not overwrite data");
    let key = home.data().join("master.key");
    std::fs::write(&key, master_key).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&key, private).unwrap();
    let server = home.start();
    let path = format!(
        "/_matrix/client/v3/rooms/{}/event/{}",
        room.replace('!', "%21").replace(':', "%3A"),
        event["event_id"].as_str().unwrap()
    );
    let found = server.get(&path, Some(&token));
    assert_eq!(found.json()["content"]["body"], json!("kept"), "{found:?}");
}

/// What is refused, and that nothing is in the data directory then.
fn refused(home: &Home, backup: &std::path::Path, sentence: &str) {
    let output = home.matron(&["restore", backup.to_str().unwrap()]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains(sentence), "{error}");
    let left = std::fs::read_dir(home.data()).map(|entries| entries.count()).unwrap_or(0);
    assert_eq!(left, 0, "{error}");
}

/// Zeros where the database's trees are.
fn zeroed(whole: &[u8]) -> Vec<u8> {
    let mut broken = whole.to_vec();
    broken[4096..].fill(0);
    broken
}

#[test]
fn a_broken_backup_is_not_restored_and_the_doctor_finds_a_broken_database() {
    let home = Home::new();
    let server = home.start();
    let token = server.register("amira", "a long password");
    server.create_room(&token);
    let backup = home.path().join("backup");
    said(&home.matron(&["backup", backup.to_str().unwrap(), "--with-key-ring"]));
    assert!(said(&home.matron(&["doctor"])).contains("good  database"));
    server.kill();
    std::fs::remove_dir_all(home.data()).unwrap();

    let database = backup.join("store/store.sqlite");
    let whole = std::fs::read(&database).unwrap();
    std::fs::write(&database, &whole[..whole.len() / 2]).unwrap();
    refused(&home, &backup, "bytes");
    std::fs::write(&database, zeroed(&whole)).unwrap();
    refused(&home, &backup, "is not what was written");
    std::fs::remove_file(&database).unwrap();
    refused(&home, &backup, "is missing");
    std::fs::write(&database, &whole).unwrap();
    let stray = backup.join("store/store.sqlite-wal");
    std::fs::write(&stray, b"of another time").unwrap();
    refused(&home, &backup, "is not of this backup");
    std::fs::remove_file(stray).unwrap();

    // A backup of before there were sums: its database is read.
    let manifest = backup.join("backup.json");
    let listed = std::fs::read(&manifest).unwrap();
    let mut old: Value = serde_json::from_slice(&listed).unwrap();
    assert!(old["files"]["store/store.sqlite"]["sha256"].is_string() && old["files"]["signing.key"].is_object());
    old.as_object_mut().unwrap().remove("files");
    std::fs::write(&manifest, old.to_string()).unwrap();
    refused(&home, &backup, "does not say");
    old["format"] = json!(1);
    std::fs::write(&manifest, old.to_string()).unwrap();
    std::fs::write(&database, zeroed(&whole)).unwrap();
    refused(&home, &backup, "damaged");
    std::fs::remove_file(&database).unwrap();
    refused(&home, &backup, "damaged");
    std::fs::rename(backup.join("store"), backup.join("elsewhere")).unwrap();
    refused(&home, &backup, "damaged");
    std::fs::rename(backup.join("elsewhere"), backup.join("store")).unwrap();
    std::fs::write(&database, &whole).unwrap();
    assert!(said(&home.matron(&["restore", backup.to_str().unwrap()])).contains("database alone is checked"));

    std::fs::write(home.data().join("store/store.sqlite"), zeroed(&whole)).unwrap();
    let output = home.matron(&["doctor"]);
    assert!(!output.status.success());
    let findings = String::from_utf8(output.stdout).unwrap();
    assert!(findings.contains("BAD   database"), "{findings}");

    std::fs::remove_dir_all(home.data()).unwrap();
    std::fs::write(&manifest, listed).unwrap();
    home.configure(json!({"storage": {"engine": "sled"}}));
    for _ in 0..2 {
        // Reading it into another engine leaves the backup as it is.
        said(&home.matron(&["restore", backup.to_str().unwrap()]));
        std::fs::remove_dir_all(home.data()).unwrap();
    }
}

#[test]
fn the_doctor_finds_what_is_wrong() {
    let home = Home::new();
    home.start().kill();
    let good = home.matron(&["doctor"]);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stdout));
    home.configure(json!({"storage": {"engine": "memory"}}));
    let bad = home.matron(&["doctor"]);
    assert!(!bad.status.success());
    assert!(String::from_utf8(bad.stdout).unwrap().contains("BAD   engine"));
}

#[test]
fn a_register_and_a_credential_are_made_signed_and_verified() {
    let home = Home::new();
    let file = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (register, key, trust) = (file("register.json"), file("register.key"), file("trust-a.key"));
    let public = said(&home.matron(&["register", "new", &register, "--key", &key])).lines().last().unwrap().to_owned();
    said(&home.matron(&[
        "register",
        "add",
        &register,
        "--code",
        "RJ1",
        "--name",
        "Trust A",
        "--server",
        "matron.test",
        "--jurisdiction",
        "GB-ENG",
        "--credential-key",
        &trust,
    ]));
    assert!(!home.matron(&["register", "verify", &register, "--public-key", &public]).status.success(), "unsigned");
    said(&home.matron(&["register", "sign", &register, "--key", &key]));
    said(&home.matron(&["register", "verify", &register, "--public-key", &public]));
    assert!(said(&home.matron(&["register", "show", &register])).contains("RJ1  Trust A"));

    let issue = [
        "credential",
        "issue",
        "@amira:matron.test",
        "--organisation",
        "RJ1",
        "--key",
        &trust,
        "--profession",
        "nurse",
        "--role",
        "ward-7",
    ];
    let credential = said(&home.matron(&issue));
    let shown: Value = serde_json::from_str(&credential).unwrap();
    let path = file("credential.json");
    std::fs::write(&path, &credential).unwrap();
    let verify = ["credential", "verify", &path, "--register", &register, "--public-key", &public];
    said(&home.matron(&verify));
    assert!(said(&home.matron(&["credential", "show", &path])).contains("nurse"));

    std::fs::write(&path, credential.replace("\"nurse\"", "\"doctor\"")).unwrap();
    assert!(!home.matron(&verify).status.success(), "an altered credential must not verify");
    let serial = shown["serial"].as_str().unwrap();
    let notice =
        said(&home.matron(&["credential", "revoke", serial, "--organisation", "RJ1", "--key", &trust, "--print-only"]));
    assert!(notice.contains("org.matron.revocation") && notice.contains(serial), "{notice}");
}
