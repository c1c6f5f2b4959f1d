//! An event that is soft-failed: its server is told nothing wrong, nobody is shown it or builds upon it, and what others build
//! upon it counts, also for the room's state.

use std::{collections::BTreeSet, time::Duration};

use matron_core::{policy_server::KEY_ID, ports::http_method::Method, rooms::Status};
use matron_room::SigningKey;
use matron_testkit::{Reply, TestNet, part};
use ruma::OwnedEventId;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_failed_event_is_shown_to_nobody_until_the_room_builds_upon_it() {
    let net = TestNet::new();
    let north = net.server("north.example");
    let alice = north.person("alice").await;
    let evil = net.adversary("evil.example");
    evil.answers(|_| Reply::Json(json!({})));
    let levels = json!({"events": {"m.room.topic": 0}});
    let room = alice.room(json!({"preset": "public_chat", "power_level_content_override": levels})).await;
    let foothold = evil.join(&north, &room, "mallory").await;
    // The room's policy server recommends the one event and refuses the other.
    let signing = SigningKey::from_seed("policy_server", &[1; 32]).unwrap();
    let named = json!({"via": "evil.example", "public_keys": {"ed25519": signing.verify_key().to_base64()}});
    alice.put(&format!("/v3/rooms/{}/state/m.room.policy/", part(room.as_str())), named).await;
    evil.answers(|_| Reply::Status(400));
    let topic = foothold.state("m.room.topic", "", json!({"topic": "Mallory's"})).seal(evil.key(), evil.name());
    let since = alice.now().await;
    let told = evil.push(&north, [&topic]).await;
    assert_eq!(told[topic.event_id().as_str()], json!({}), "its server is told of no failure");
    assert_eq!(north.status(topic.event_id()), Some(Status::SoftFailed));
    let is_end = |event: &ruma::EventId| north.ends(&room).contains(event);
    assert!(!is_end(topic.event_id()));
    let (shown, since) = alice.timeline_since(room.as_str(), &since).await;
    assert!(shown.is_empty(), "{shown:?}");
    let state = format!("/v3/rooms/{}/state/m.room.topic/", part(room.as_str()));
    assert_eq!(alice.send("GET", &state, &Value::Null).await.0, 404);
    // Other servers may ask for it, and find it only on the way back from what is behind it.
    let ask = async |path: String| evil.ask(&north.name, Method::Get, &path, None).await;
    let (status, given) = ask(format!("/_matrix/federation/v1/event/{}", part(topic.event_id().as_str()))).await;
    assert_eq!((status, &given["pdus"][0]["content"]["topic"]), (200, &json!("Mallory's")));
    let back_from = async |event: &str| {
        let path = format!("/_matrix/federation/v1/backfill/{}?v={}&limit=50", part(room.as_str()), part(event));
        ask(path).await.1["pdus"].to_string().contains("Mallory's")
    };
    let end: OwnedEventId = north.ends(&room).into_iter().next().unwrap();
    assert!(!back_from(end.as_str()).await);

    let behind = foothold.message("behind it").after([&topic]).seal(evil.key(), evil.name());
    let behind =
        behind.with_foreign_signature("evil.example", KEY_ID, &behind.signature_by(&signing).unwrap()).unwrap();
    evil.push(&north, [&behind]).await;
    assert_eq!(north.status(behind.event_id()), Some(Status::Accepted));
    assert!(is_end(behind.event_id()) && !is_end(topic.event_id()));
    assert!(back_from(behind.event_id().as_str()).await);
    assert_eq!(alice.get(&state).await["topic"], "Mallory's");
    // The client hears of the state, though the event that brought it is in no timeline.
    let answer = alice.get(&format!("/v3/sync?timeout=0&since={since}")).await;
    let here = &answer["rooms"]["join"][room.as_str()];
    let has = |part: &Value| part["events"].to_string().contains(topic.event_id().as_str());
    assert!(has(&here["state"]) && !has(&here["timeline"]), "{here}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_is_shown_ends_earlier_too_when_a_room_s_lifetime_becomes_shorter() {
    let net = TestNet::new();
    let north = net.server("north.example");
    let alice = north.person("alice").await;
    let evil = net.adversary("evil.example");
    evil.answers(|_| Reply::Json(json!({})));
    let room = alice.room(json!({"preset": "public_chat"})).await;
    let foothold = evil.join(&north, &room, "mallory").await;
    let mut late = Vec::new();
    // More than one page of them.
    for number in 0..230 {
        let body = format!("number {number}");
        late.push(foothold.message(&body).after([&foothold.join]).seal(evil.key(), evil.name()));
    }
    let ban = json!({"user_id": foothold.user, "reason": "spam"});
    alice.post(&format!("/v3/rooms/{}/ban", part(room.as_str())), ban).await;
    for some in late.chunks(50) {
        evil.push(&north, some).await;
    }
    let ends_ms = || {
        let end = |event: &matron_room::Pdu| {
            let stored = north.core.load_event(event.event_id()).unwrap().unwrap();
            assert_eq!(stored.record.status, Status::SoftFailed);
            // What has no end yet ends at 0.
            stored.record.expires_ms.saturating_sub(stored.record.received_ms.min(event.origin_server_ts_ms()))
        };
        late.iter().map(end).collect::<BTreeSet<_>>()
    };
    let live_for = async |lifetime_ms: u64| {
        let path = format!("/v3/rooms/{}/state/m.room.retention/", part(room.as_str()));
        alice.put(&path, json!({"max_lifetime": lifetime_ms})).await;
        // The server's own worker goes through the room; another round beside it could find a key gone that it still needs.
        let shortened = async {
            while ends_ms() != [lifetime_ms].into() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), shortened).await.is_ok();
        assert!(in_time, "they end {:?} ms after they came, not {lifetime_ms}", ends_ms());
    };
    live_for(600_000_000).await;
    live_for(60_000_000).await;
}
