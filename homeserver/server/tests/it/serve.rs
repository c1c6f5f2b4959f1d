//! `matron serve` comes up at once, answers, and goes down in order.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{Home, command, raw_request, request};

#[test]
fn an_empty_store_is_served_within_a_second() {
    let home = Home::new();
    // The best of three: other work on the machine is not what is measured.
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let _ = std::fs::remove_dir_all(home.data());
        let server = home.start();
        best = best.min(server.ready_after);
        assert_eq!(server.get("/_matrix/client/versions", None).status, 200);
    }
    assert!(best < Duration::from_secs(1), "ready after {best:?}");
}

#[test]
fn no_configuration_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    // The default port may be taken on the machine that runs the tests; everything else is default.
    let mut child = command()
        .arg("serve")
        .current_dir(dir.path())
        .env("MATRON_LISTEN__ADDRESS", "127.0.0.1:0")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    crate::support::wait_until("keys are made", || dir.path().join("matron-data/operator.sock").exists());
    for key in ["signing.key", "master.key"] {
        let mode = std::fs::metadata(dir.path().join("matron-data").join(key)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600, "{key}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn health_and_metrics_answer_on_this_machine() {
    let home = Home::new();
    let server = home.start();
    assert_eq!(server.get("/health", None).json(), json!({"status": "ok"}));
    let metrics = server.get("/metrics", None);
    assert_eq!(metrics.status, 200);
    for name in ["process_resident_memory_bytes ", "process_cpu_seconds_total ", "matron_store_position "] {
        assert!(metrics.body.contains(name), "{name} is not in {}", metrics.body);
    }
}

#[test]
fn an_idle_server_needs_less_than_60_mb() {
    let home = Home::new();
    let server = home.start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    // An unoptimised program's own text is several times the real one's, and says nothing: there, what it took counts.
    let fields: &[&str] = if cfg!(debug_assertions) { &["RssAnon:", "RssShmem:"] } else { &["VmRSS:"] };
    let kib: u64 = status
        .lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(field)))
        .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
        .sum();
    assert!(kib > 0, "{status}");
    assert!(kib < 60 * 1024, "{kib} KiB resident");
}

#[test]
fn unknown_paths_are_matrix_errors() {
    let home = Home::new();
    let server = home.start();
    let reply = server.get("/_matrix/client/v3/nonsense", None);
    assert_eq!((reply.status, reply.json()["errcode"].clone()), (404, json!("M_UNRECOGNIZED")));
}

#[test]
fn a_narrow_listener_serves_its_resources_only() {
    let home = Home::new();
    home.configure(json!({"listen": {"address": "127.0.0.1:0", "resources": ["key", "health"]}}));
    let server = home.start();
    assert_eq!(server.get("/_matrix/key/v2/server", None).status, 200);
    assert_eq!(server.get("/health", None).status, 200);
    assert_eq!(server.get("/_matrix/client/versions", None).status, 404);
    assert_eq!(server.get("/metrics", None).status, 404);
}

#[test]
fn a_stop_ends_long_polls_at_once_and_the_server_starts_again() {
    let home = Home::new();
    let mut server = home.start();
    let token = server.register("amira", "a long password");
    let first = server.get("/_matrix/client/v3/sync?timeout=0", Some(&token)).json();
    let since = first["next_batch"].as_str().unwrap().to_owned();
    let address = server.address.clone();
    let poll = std::thread::spawn({
        let token = token.clone();
        move || {
            request(
                &address,
                "GET",
                &format!("/_matrix/client/v3/sync?since={since}&timeout=60000"),
                Some(&token),
                None,
            )
        }
    });
    let began = Instant::now();
    let status = server.stop();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(10), "the stop took {:?}", began.elapsed());
    // Answered with a 503 or not at all, when the stop came before the request did; never left hanging.
    if let Ok(reply) = poll.join().unwrap() {
        assert!(reply.status == 503 || reply.status == 200, "{reply:?}");
    }
    assert!(!home.data().join("operator.sock").exists());
    let again = home.start();
    assert_eq!(again.get("/_matrix/client/v3/account/whoami", Some(&token)).status, 200);
}

#[test]
fn a_request_that_is_no_http_ends_its_connection_only() {
    let home = Home::new();
    let server = home.start();
    let _ = raw_request(&server.address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n");
    assert_eq!(server.get("/health", None).status, 200);
}

#[test]
fn a_slow_head_and_a_slow_body_run_out_of_time() {
    let home = Home::new();
    home.configure(json!({"listen": {"address": "127.0.0.1:0", "header_timeout_ms": 200, "body_timeout_ms": 200}}));
    let server = home.start();
    for sent in [
        "GET /health HTTP/1.1\r\nHost: x\r\n",
        "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    ] {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        // The server closes the connection, with an answer or without.
        let _ = stream.read_to_end(&mut Vec::new()).unwrap();
    }
    assert_eq!(server.get("/health", None).status, 200);
}
