//! What was before a server came to a room is nothing new to it, whoever tells it again.

use matron_core::rooms::Status;
use matron_testkit::{Reply, TestNet, part};
use serde_json::{Value, json};

/// State that set the room up, told once more to a server that joined later: as an end of the graph it would bring back the
/// state of a time when nobody of that server was joined, and by the rules of today nobody of it could join.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_from_before_the_join_is_no_new_end_of_the_graph() {
    for version in ["10", "12"] {
        let net = TestNet::new();
        let (north, south) = (net.server("north.example"), net.server("south.example"));
        let (alice, bob) = (north.person("alice").await, south.person("bob").await);
        let room = alice.room(json!({"preset": "public_chat", "room_version": version, "name": "ward"})).await;
        let (status, answer) = bob.try_join(room.as_str(), "north.example").await;
        assert_eq!(status, 200, "{answer}");
        let evil = net.adversary("evil.example");
        let foothold = evil.join(&north, &room, "mallory").await;
        let rules = format!("/v3/rooms/{}/state/m.room.join_rules", part(room.as_str()));
        alice.put(&rules, json!({"join_rule": "invite"})).await;
        let old = foothold.state_of("m.room.name", "").clone();
        let wire = |event: &matron_room::Pdu| -> Value { serde_json::from_str(event.json().get()).unwrap() };
        let sealed = |draft: matron_testkit::Draft| draft.seal(evil.key(), evil.name());
        let missing = sealed(foothold.message("missing").after([&foothold.join, &old]));
        let late = sealed(foothold.message("late").after([&missing]));
        let (state, history): (Vec<_>, Vec<_>) = (
            foothold.state.iter().map(|event| event.event_id().to_owned()).collect(),
            [&old, &missing].map(wire).to_vec(),
        );
        evil.answers(move |question| match question.path.split('/').nth(4) {
            Some("get_missing_events") => Reply::Json(json!({ "events": history })),
            Some("state_ids") => Reply::Json(json!({"pdu_ids": state, "auth_chain_ids": []})),
            _ => Reply::Json(json!({})),
        });
        net.settle(&[&north, &south]).await;

        let ends = south.ends(&room);
        evil.push(&south, [&old]).await;
        assert_eq!(south.ends(&room), ends, "version {version}: it was told by itself");
        evil.push(&south, [&late]).await;
        assert_eq!(south.status(old.event_id()), Some(Status::Outlier), "version {version}");
        assert_eq!(south.status(late.event_id()), Some(Status::Accepted), "version {version}");
        assert!(!south.ends(&room).contains(old.event_id()), "version {version}: it came as history");
        let key = ("m.room.member".to_owned(), bob.id.clone());
        assert!(south.state(&room).contains_key(&key), "version {version}: bob is still in the room");
        bob.say(room.as_str(), "still here").await;
    }
}
