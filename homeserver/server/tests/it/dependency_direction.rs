//! Which crate of the house may use which: any other edge fails here.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Every crate of the workspace with all siblings that it may name, for any purpose but tests.
const ALLOWED: &[(&str, &[&str])] = &[
    ("matron-policy", &[]),
    ("matron-room", &[]),
    ("matron-storage", &["matron-room"]),
    ("matron-core", &["matron-policy", "matron-room", "matron-storage"]),
    ("matron-api", &["matron-core"]),
    ("matron-net", &["matron-core", "matron-room"]),
    // The application service speaks HTTP like anyone's, so that it also runs beside other homeservers.
    ("matron-appservice", &["matron-policy"]),
    // The demo drives the public client library, the application service and the binary, never the inside.
    ("matron-demo", &["matron-appservice", "matron-policy"]),
    // Whole servers for tests, down to the wire: nothing that ships may name it.
    ("matron-testkit", &["matron-api", "matron-core", "matron-room", "matron-storage", "matron-policy"]),
    // What the specification says, as data: nothing that ships may name it.
    ("matron-conformance", &[]),
    // The load generator speaks HTTP like anyone's client, so that it also measures other homeservers.
    ("matron-load", &[]),
    (
        "matron",
        &[
            "matron-api",
            "matron-net",
            "matron-core",
            "matron-room",
            "matron-storage",
            "matron-policy",
            "matron-appservice",
            "matron-demo",
        ],
    ),
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Each crate's dependencies of one kind (`None`: ordinary ones), by name.
fn dependencies(metadata: &Value, development: bool) -> BTreeMap<String, Vec<String>> {
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let named = package["dependencies"].as_array().unwrap().iter();
            let named = named.filter(|dependency| (dependency["kind"] == "dev") == development);
            let names = named.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect();
            (package["name"].as_str().unwrap().to_owned(), names)
        })
        .collect()
}

#[test]
fn every_edge_between_crates_points_down_the_house() {
    let dependencies = dependencies(&metadata(), false);
    for (package, named) in &dependencies {
        let allowed = ALLOWED.iter().find(|(name, _)| name == package);
        let allowed = allowed.unwrap_or_else(|| panic!("say in this test what {package} may use")).1;
        for name in named.iter().filter(|name| dependencies.contains_key(*name)) {
            assert!(allowed.contains(&name.as_str()), "{package} must not depend on {name}");
        }
    }
    for (name, _) in ALLOWED {
        assert!(dependencies.contains_key(*name), "{name} is gone from the workspace");
    }
}

#[test]
fn pure_crates_know_no_runtime_no_web_and_no_engine() {
    let metadata = metadata();
    for development in [false, true] {
        let dependencies = dependencies(&metadata, development);
        for pure in ["matron-policy", "matron-room"] {
            for name in &dependencies[pure] {
                let impure = ["tokio", "axum", "hyper", "rusqlite", "sled", "reqwest"].contains(&name.as_str());
                assert!(!impure, "{pure} must stay pure, and names {name}");
            }
        }
    }
}

#[test]
fn the_server_knows_no_generated_client_or_federation_types() {
    let dependencies = dependencies(&metadata(), false);
    for package in ["matron-core", "matron-api", "matron-net", "matron", "matron-room", "matron-storage"] {
        for name in &dependencies[package] {
            let heavy = ["ruma-client-api", "ruma-federation-api", "matrix-sdk"].contains(&name.as_str());
            assert!(!heavy, "{package} must not depend on {name}: bytes stay bytes");
        }
    }
}
