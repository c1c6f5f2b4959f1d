//! Whatever JSON a server with a valid key sends as a transaction is answered with 200 or 400.
#![no_main]

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering},
};

use libfuzzer_sys::fuzz_target;
use matron_core::ports::http_method::Method;
use matron_testkit::{Adversary, TestNet, TestServer};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

struct House {
    runtime: Runtime,
    server: TestServer,
    evil: Arc<Adversary>,
    room: String,
    _net: Arc<TestNet>,
}

static HOUSE: LazyLock<House> = LazyLock::new(|| {
    let runtime = Runtime::new().expect("a runtime");
    let (net, server, evil, room) = runtime.block_on(async {
        let net = TestNet::new();
        let server = net.server("north.example");
        let room = server.person("alice").await.room(json!({"preset": "public_chat"})).await;
        let evil = net.adversary("evil.example");
        evil.join(&server, &room, "mallory").await;
        (net, server, evil, room.to_string())
    });
    House { runtime, server, evil, room, _net: net }
});

static NEXT: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|text: &str| {
    // The fuzzer cannot guess a hash: `ROOM` stands for the room's id.
    let Ok(body) = serde_json::from_str::<Value>(&text.replace("ROOM", &HOUSE.room)) else { return };
    let body_is_number = body.is_number();
    let path = format!("/_matrix/federation/v1/send/{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let asked = HOUSE.evil.ask(&HOUSE.server.name, Method::Put, &path, Some(body));
    let (status, answer) = HOUSE.runtime.block_on(asked);
    // A number that canonical JSON does not know is not on the wire what was signed.
    let is_unsigned = status == 401 && body_is_number;
    assert!(status == 200 || status == 400 || is_unsigned, "{status} {answer}");
});
