//! A server that a room's access control list keeps out: nothing that it asks or says of this room counts, and all else does.

use std::sync::Arc;

use matron_core::{ports::http_method::Method, rooms::Status};
use matron_testkit::{Adversary, Foothold, Person, Reply, TestNet, TestServer, part};
use ruma::OwnedEventId;
use serde_json::{Value, json};

/// A server and a peer in two rooms; the first one's list, which keeps the peer out, has an entry that is no text.
struct Walled {
    north: TestServer,
    alice: Person,
    evil: Arc<Adversary>,
    walled: Foothold,
    open: Foothold,
}

impl Walled {
    async fn new() -> Self {
        let net = TestNet::new();
        let north = net.server("north.example");
        let alice = north.person("alice").await;
        let evil = net.adversary("evil.example");
        evil.answers(|_| Reply::Json(json!({})));
        let mut rooms = Vec::new();
        for _ in 0..2 {
            let room = alice.room(json!({"preset": "public_chat", "room_version": "11"})).await;
            rooms.push(evil.join(&north, &room, "mallory").await);
        }
        // In a unit that speaks of both, the walled one comes first.
        rooms.sort_by(|one, other| one.room.cmp(&other.room));
        let [walled, open] = <[Foothold; 2]>::try_from(rooms).unwrap();
        let list = json!({"allow": ["*"], "deny": ["EVIL.*", 7], "allow_ip_literals": "no"});
        alice.put(&format!("/v3/rooms/{}/state/m.room.server_acl/", part(walled.room.as_str())), list).await;
        Self { north, alice, evil, walled, open }
    }
}

fn wire(event: &matron_room::Pdu) -> Value {
    serde_json::from_str(event.json().get()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_of_the_room_is_closed_to_it() {
    let Walled { north, alice, evil, walled, open } = Walled::new().await;
    let anna = &alice.id;
    let requests = |at: &Foothold| -> Vec<(Method, String, Option<Value>)> {
        let (room, user, event) = (part(at.room.as_str()), part(at.user.as_str()), part(at.join.event_id().as_str()));
        let body = || Some(wire(&at.join));
        let invite = json!({"room_version": "11", "event": wire(&at.join), "invite_room_state": []});
        let missing = json!({"earliest_events": [], "latest_events": [at.join.event_id()]});
        vec![
            (Method::Get, format!("v1/make_join/{room}/{user}?ver=11"), None),
            (Method::Get, format!("v1/make_leave/{room}/{user}"), None),
            (Method::Get, format!("v1/make_knock/{room}/{user}?ver=11"), None),
            (Method::Put, format!("v1/send_join/{room}/{event}"), body()),
            (Method::Put, format!("v2/send_join/{room}/{event}"), body()),
            (Method::Put, format!("v1/send_leave/{room}/{event}"), body()),
            (Method::Put, format!("v2/send_leave/{room}/{event}"), body()),
            (Method::Put, format!("v1/send_knock/{room}/{event}"), body()),
            (Method::Put, format!("v1/invite/{room}/{event}"), body()),
            (Method::Put, format!("v2/invite/{room}/{event}"), Some(invite)),
            (Method::Get, format!("v1/state/{room}?event_id={event}"), None),
            (Method::Get, format!("v1/state_ids/{room}?event_id={event}"), None),
            (Method::Get, format!("v1/backfill/{room}?v={event}&limit=5"), None),
            (Method::Get, format!("v1/event_auth/{room}/{event}"), None),
            (Method::Post, format!("v1/get_missing_events/{room}"), Some(missing)),
            (Method::Get, format!("v1/timestamp_to_event/{room}?ts=0&dir=f"), None),
            (Method::Get, format!("v1/event/{event}"), None),
        ]
    };
    for (method, path, body) in requests(&walled) {
        let (status, answer) = evil.ask(&north.name, method, &format!("/_matrix/federation/{path}"), body).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains("access control list"), "{path}: {answer}");
    }
    for (method, path, body) in requests(&open) {
        let (_, answer) = evil.ask(&north.name, method, &format!("/_matrix/federation/{path}"), body).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(!error.contains("access control list"), "{anna} {path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_sends_of_the_room_is_ignored_alone() {
    let Walled { north, alice, evil, walled, open } = Walled::new().await;
    let mut said = Vec::new();
    for at in [&walled, &open] {
        let read: OwnedEventId = alice.say(at.room.as_str(), "read this").await.try_into().unwrap();
        let event = at.message("heard?").seal(evil.key(), evil.name());
        said.push((at, read, event));
    }
    let typing = said.iter().map(|(at, ..)| {
        let content = json!({"room_id": at.room, "user_id": at.user, "typing": true});
        json!({"edu_type": "m.typing", "content": content})
    });
    let receipt = |user: &ruma::UserId, read: &OwnedEventId| json!({"m.read": {user.as_str(): {"event_ids": [read], "data": {"ts": 1}}}});
    let receipts: serde_json::Map<String, Value> =
        said.iter().map(|(at, read, _)| (at.room.to_string(), receipt(&at.user, read))).collect();
    let edus = typing.chain([json!({"edu_type": "m.receipt", "content": receipts})]).collect();
    let pdus = said.iter().map(|(.., event)| wire(event)).collect();
    let (status, answer) = evil.transact(&north.name, pdus, edus).await;
    assert_eq!(status, 200, "{answer}");
    let synced = alice.get("/v3/sync?timeout=0").await;
    for (at, _, event) in &said {
        let is_heard = std::ptr::eq(*at, &open);
        let result = &answer["pdus"][event.event_id().as_str()];
        assert_eq!(result.get("error").is_none(), is_heard, "{answer}");
        assert_eq!(north.status(event.event_id()), is_heard.then_some(Status::Accepted));
        assert_eq!(!north.core.typing_in(&at.room).1.is_empty(), is_heard, "typing");
        let events = synced["rooms"]["join"][at.room.as_str()]["ephemeral"]["events"].to_string();
        assert_eq!(events.contains("m.receipt") && events.contains(at.user.as_str()), is_heard, "{events}");
    }
}
