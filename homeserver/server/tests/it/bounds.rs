//! What one peer may cost: bodies are refused before they are read, connections end in time and are counted.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{Home, PATIENCE, Server};

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything that comes until the server closes.
fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn bodies_over_the_limit_are_refused_before_they_are_read() {
    let home = Home::new();
    home.configure(json!({"max_upload_bytes": 100_000}));
    let server = home.start();
    let token = server.register("amira", "a long password");
    let x_matrix = "X-Matrix origin=\"a.test\",destination=\"matron.test\",key=\"ed25519:a\",sig=\"AAAA\"";
    let bearer = format!("Bearer {token}");
    for (line, authorization, length) in [
        ("POST /_matrix/client/v3/login", "", 1_048_577_u64),
        ("POST /_matrix/client/v3/createRoom", bearer.as_str(), 99_999_999_999),
        ("PUT /_matrix/federation/v1/send/t", x_matrix, 16 * 1024 * 1024 + 1),
        ("PUT /_matrix/federation/v2/send_join/!a:b/$c", x_matrix, 99_999_999_999),
        ("POST /_matrix/key/v2/query", "", 17 * 1024 * 1024),
        ("POST /_matrix/media/v3/upload", bearer.as_str(), 100_001),
    ] {
        let mut stream = connect(&server);
        // Only the head is sent: the answer proves that nobody waits for the body.
        write!(
            stream,
            "{line} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )
        .unwrap();
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("M_TOO_LARGE"), "{line}: {answer}");
    }
}

#[test]
fn a_signature_that_is_none_costs_no_body() {
    let home = Home::new();
    let server = home.start();
    for authorization in ["X-Matrix", "Bearer abc", "X-Matrix origin=,key=,sig="] {
        let mut stream = connect(&server);
        write!(
            stream,
            "PUT /_matrix/federation/v1/send/t HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\
             Connection: close\r\nContent-Length: 1000000\r\n\r\n"
        )
        .unwrap();
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("M_UNAUTHORIZED"), "{authorization}: {answer}");
    }
}

#[test]
fn an_answer_that_needs_no_body_leaves_the_connection_usable_or_says_that_it_ends() {
    let home = Home::new();
    let server = home.start();
    let mut stream = connect(&server);
    for _ in 0..20 {
        // The head and the body in packets of their own; the answer does not need the body.
        stream
            .write_all(b"POST /_matrix/client/v3/createRoom HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer no\r\n")
            .unwrap();
        stream.write_all(b"Content-Length: 13\r\n\r\n").unwrap();
        stream.write_all(b"{\"name\":\"ab\"}").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut part = [0; 4096];
            let length = stream.read(&mut part).unwrap();
            assert_ne!(length, 0, "the connection ended: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&part[..length]);
        }
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(answer.starts_with("http/1.1 401 ") && !answer.contains("connection: close"), "{answer}");
    }
    // More than anyone reads in vain: the answer says that the connection ends.
    let mut stream = connect(&server);
    stream.write_all(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    let answer = rest(stream).to_lowercase();
    assert!(answer.starts_with("http/1.1 404 ") && answer.contains("connection: close"), "{answer}");
}

#[test]
fn a_chunked_body_is_read_to_its_limit_and_no_further() {
    let home = Home::new();
    home.configure(json!({"max_upload_bytes": 100_000}));
    let server = home.start();
    let token = server.register("amira", "a long password");
    for (path, limit) in [("/_matrix/client/v3/createRoom", 1_048_576), ("/_matrix/media/v3/upload", 100_000)] {
        let mut stream = connect(&server);
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        .unwrap();
        let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
        // Buffers on the way take some; a server that read on would take all.
        let most = limit / 0x10000 + 400;
        let sent = (0..most).take_while(|_| stream.write_all(chunk.as_bytes()).is_ok()).count();
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).unwrap_or(0);
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        // A reset may overtake the answer; what counts is that the server stopped reading.
        assert!(
            answer.contains("M_TOO_LARGE") || (answer.is_empty() && sent < most),
            "{path}: {sent} chunks, {answer}"
        );
    }
    assert_eq!(server.get("/health", None).status, 200);
}

#[test]
fn requests_that_lie_about_their_length_end_their_connection_only() {
    let home = Home::new();
    let server = home.start();
    let login = "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\n";
    for request in [
        format!("{login}Content-Length: 2\r\n\r\n{{}}{{}}{{}}\x00\x01\x02"),
        format!("{login}Content-Length: -1\r\n\r\n{{}}"),
        format!("{login}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"),
        format!("{login}Content-Length: 99999999999999999999999\r\n\r\n{{}}"),
        format!("{login}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{{}}\r\n\r\n"),
        format!("{login}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{{}}\r\n0\r\n\r\n"),
        format!("{login}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}"),
        format!("{login}Transfer-Encoding: gzip\r\n\r\n{{}}"),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "GET /_matrix/client/versions HTTP/1.1\r\nHost x\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000)),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(5_000)),
        "GET /health HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50) + "rubbish rubbish rubbish\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        let mut stream = connect(&server);
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = rest(stream);
        let last = answer.rfind("HTTP/1.1 ").map_or("", |at| &answer[at..]);
        assert!(!last.starts_with("HTTP/1.1 5"), "{}: {answer}", &request[..60]);
        assert_eq!(server.get("/health", None).status, 200);
    }
}

#[test]
fn a_body_that_drips_does_not_hold_its_request_open() {
    let home = Home::new();
    home.configure(json!({"listen": {"address": "127.0.0.1:0", "body_timeout_ms": 300}}));
    let server = home.start();
    let mut stream = connect(&server);
    write!(stream, "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n").unwrap();
    let began = Instant::now();
    // Each byte comes well within the time for the next part; all of them together never would.
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    loop {
        assert!(began.elapsed() < PATIENCE, "the server still waits for the body");
        if stream.write_all(b" ").is_err() {
            break;
        }
        match stream.read(&mut [0; 512]) {
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            _ended => break,
        }
    }
}

#[test]
fn whoever_does_not_take_an_answer_loses_the_connection() {
    let home = Home::new();
    home.configure(json!({
        "listen": {"address": "127.0.0.1:0", "body_timeout_ms": 300, "max_connections": 2},
        "max_upload_bytes": 20_000_000,
    }));
    let server = home.start();
    let token = server.register("amira", "a long password");
    let bearer = format!("Bearer {token}");
    let file = vec![b'x'; 16_000_000];
    let upload = crate::wire::request("POST", "/_matrix/media/v3/upload", Some(&bearer), Some(&file));
    let uri = crate::wire::Wire::new(&server.address).exchange(&upload).unwrap().json();
    let uri = uri["content_uri"].as_str().unwrap().trim_start_matches("mxc://").to_owned();
    let greedy: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = connect(&server);
            let path = format!("/_matrix/client/v1/media/download/{uri}");
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\n\r\n").unwrap();
            stream
        })
        .collect();
    // Both places are taken by those who do not read; this request is answered when they have lost theirs.
    assert_eq!(server.get("/health", None).status, 200);
    drop(greedy);
}

#[test]
fn idle_connections_are_counted_and_end() {
    let home = Home::new();
    home.configure(json!({"listen": {"address": "127.0.0.1:0", "header_timeout_ms": 300, "max_connections": 2}}));
    let server = home.start();
    let mut silent = connect(&server);
    let mut kept = connect(&server);
    kept.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_ne!(kept.read(&mut [0; 512]).unwrap(), 0);
    // Nobody says anything on either; the next request is answered when they are closed.
    assert_eq!(server.get("/health", None).status, 200);
    assert_eq!(silent.read(&mut [0; 512]).unwrap_or(0), 0);
}
