//! An event that the rules reject: nobody is shown it or builds upon it, and what others build upon it goes on.

use matron_core::{ports::http_method::Method, rooms::Status};
use matron_testkit::{Reply, TestNet, part};
use ruma::OwnedEventId;
use serde_json::{Value, json};

fn ids(events: &Value) -> Vec<String> {
    let room = matron_room::RoomVersion::find("11").unwrap();
    let id = |event: &Value| {
        let raw = serde_json::value::to_raw_value(event).unwrap();
        matron_room::UncheckedPdu::parse(&raw, room).unwrap().event_id().to_string()
    };
    events.as_array().unwrap().iter().map(id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_event_is_shown_to_nobody_and_hides_nothing_that_was_before_it() {
    let net = TestNet::new();
    let (north, south) = (net.server("north.example"), net.server("south.example"));
    let (alice, bob) = (north.person("alice").await, south.person("bob").await);
    let room = alice.room(json!({"preset": "public_chat", "room_version": "11"})).await;
    let evil = net.adversary("evil.example");
    evil.answers(|_| Reply::Json(json!({})));
    let foothold = evil.join(&north, &room, "mallory").await;
    // Mallory may not name the room, and speaks on behind that.
    let seal = |draft: matron_testkit::Draft| draft.seal(evil.key(), evil.name());
    let one = seal(foothold.message("one"));
    let two = seal(foothold.message("two").after([&one]));
    let rejected = seal(foothold.state("m.room.name", "", json!({"name": "Mallory's"})).after([&two]));
    let behind = seal(foothold.message("behind it").after([&rejected]));
    let told = evil.push(&north, [&one, &two, &rejected, &behind]).await;
    assert_eq!(told[rejected.event_id().as_str()], json!({}), "it was dealt with");
    assert_eq!(north.status(rejected.event_id()), Some(Status::Rejected));
    assert_eq!(north.status(behind.event_id()), Some(Status::Accepted));
    let answer: OwnedEventId = alice.say(room.as_str(), "what comes next").await.try_into().unwrap();
    let prevs = north.core.load_event(&answer).unwrap().unwrap().pdu.prev_events().to_vec();
    assert!(prevs.iter().any(|id| id == behind.event_id()) && prevs.iter().all(|id| id != rejected.event_id()));
    let name = alice.send("GET", &format!("/v3/rooms/{}/state/m.room.name/", part(room.as_str())), &Value::Null).await;
    assert_eq!(name.0, 404);

    // Every way back through the graph from what is behind leads past it, and none shows it.
    let path = |what: &str| format!("/_matrix/federation/v1/{what}/{}", part(room.as_str()));
    let join = foothold.join.event_id().to_string();
    for from in [behind.event_id(), rejected.event_id()] {
        let query = format!("{}?v={}&limit=50", path("backfill"), part(from.as_str()));
        let (status, history) = evil.ask(&north.name, Method::Get, &query, None).await;
        assert_eq!(status, 200, "{history}");
        let given = ids(&history["pdus"]);
        assert!(given.contains(&join) && !given.contains(&rejected.event_id().to_string()), "{given:?}");
    }
    let missing = json!({"earliest_events": [], "latest_events": [behind.event_id()], "limit": 2});
    let (_, given) = evil.ask(&north.name, Method::Post, &path("get_missing_events"), Some(missing)).await;
    let given = ids(&given["events"]);
    let nearest = [&one, &two].map(|event| event.event_id().to_string());
    assert_eq!(given, nearest, "what is not shown takes nobody's place");
    let query = format!("/_matrix/federation/v1/event/{}", part(rejected.event_id().as_str()));
    assert_eq!(evil.ask(&north.name, Method::Get, &query, None).await.0, 404);

    // Who comes later pages back past it.
    assert_eq!(bob.try_join(room.as_str(), "north.example").await.0, 200);
    let history = bob.get(&format!("/v3/rooms/{}/messages?dir=b&limit=50", part(room.as_str()))).await;
    let shown: Vec<&Value> = history["chunk"].as_array().unwrap().iter().map(|event| &event["event_id"]).collect();
    for event in [answer.as_str(), behind.event_id().as_str(), join.as_str()] {
        assert!(shown.contains(&&json!(event)), "{history}");
    }
    assert!(!shown.contains(&&json!(rejected.event_id())));
}
