//! What is wrong is said in one sentence, and nothing is overwritten.

use std::os::unix::fs::PermissionsExt as _;

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
