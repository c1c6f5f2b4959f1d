//! The public clients against the real binary: matrix-js-sdk in Node and in a browser (`homeserver/clients`).

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

use serde_json::{Value, json};

use crate::{proxy::Proxy, support::Home};

const HINT: &str = "the public clients are tested with Node 20 or newer and npm (Debian: `apt install nodejs npm`, \
                    or https://nodejs.org)";

/// The folder of the npm project, with its packages installed as the lock file names them.
static CLIENTS: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients");
    let version = run(Command::new("node").arg("--version"), "node");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    assert!(major.is_some_and(|major| major >= 20), "node is {version}; {HINT}");
    let wanted = std::fs::read(folder.join("package-lock.json")).unwrap();
    let stamp = folder.join("node_modules/.matron-lock");
    if std::fs::read(&stamp).ok().as_deref() != Some(&wanted) {
        let installed = run(Command::new("npm").arg("ci").current_dir(&folder), "npm");
        assert!(installed.status.success(), "`npm ci` in homeserver/clients failed; {HINT}\n{}", text(&installed));
        std::fs::write(&stamp, &wanted).unwrap();
    }
    folder
});

fn run(command: &mut Command, what: &str) -> Output {
    command.output().unwrap_or_else(|error| panic!("{what}: {error}; {HINT}"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs the project's test files in a folder against a server of their own.
fn node_tests(folder: &str, settings: impl FnOnce(&str) -> Value) {
    let clients = CLIENTS.as_path();
    let proxy = Proxy::open();
    let url = format!("http://{}", proxy.address);
    let home = Home::new();
    home.configure(settings(&url));
    let server = home.start();
    proxy.lead_to(&server.address);
    let mut files: Vec<_> = std::fs::read_dir(clients.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".test.mjs"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no tests in {folder}");
    let mut node = Command::new("node");
    node.args(["--test", "--test-timeout=600000", "--test-force-exit", "--test-reporter=spec"])
        .args(files)
        .current_dir(clients)
        .env("MATRON_URL", url);
    let output = run(&mut node, "node");
    let report = text(&output);
    println!("{report}");
    assert!(output.status.success(), "a client did not get what it should");
    // A run that found nothing to do is no success.
    assert!(!report.contains("\nℹ pass 0\n") && report.contains("\nℹ skipped 0\n"), "nothing may be skipped");
    proxy.finish();
}

#[test]
fn matrix_js_sdk_in_node_gets_what_it_asks_for() {
    node_tests("node", |_| json!({}));
}

#[test]
fn a_page_of_another_origin_works_in_a_real_browser() {
    // The page also sends its user to sign in at the server.
    node_tests(
        "browser",
        |url| json!({ "public_base_url": url, "oauth": { "enabled": true, "insecure_client_uris": true } }),
    );
}
