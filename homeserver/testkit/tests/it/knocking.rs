//! What a server that is asked for a knock tells of the room.

use matron_room::{CreateNonce, DraftPdu, RoomVersion};
use matron_testkit::{Draft, Reply, TestNet, part};
use ruma::OwnedUserId;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_signed_is_not_shown_to_someone_who_knocks() {
    let net = TestNet::new();
    let south = net.server("south.example");
    let bob = south.person("bob").await;
    let evil = net.adversary("evil.example");
    let version = RoomVersion::find("12").unwrap();
    let mallory: OwnedUserId = "@mallory:evil.example".try_into().unwrap();
    let mut create = DraftPdu::new(None, mallory.clone(), "m.room.create", json!({"room_version": "12"}));
    create.state_key = Some(String::new());
    create.nonce = Some(CreateNonce::from_random([7; 16]));
    let create = create.seal(version, evil.key(), evil.name()).unwrap();
    let room = create.room_id().to_owned();
    let set = |kind: &str, content: Value| {
        let draft = Draft::new(version, &room, &mallory, kind, content).state_key("").after([&create]);
        let event = draft.authorised_by(Vec::new()).depth(2).seal(evil.key(), evil.name());
        serde_json::from_str::<Value>(event.json().get()).unwrap()
    };
    let mut unsigned = set("m.room.topic", json!({"topic": "nobody signed this"}));
    unsigned["signatures"] = json!({});
    let stripped =
        json!({"type": "m.room.join_rules", "state_key": "", "sender": mallory, "content": {"join_rule": "knock"}});
    let founding: Value = serde_json::from_str(create.json().get()).unwrap();
    let shown = json!([founding, set("m.room.name", json!({"name": "Ward 9"})), unsigned, stripped]);
    let template = json!({
        "type": "m.room.member", "room_id": room, "sender": bob.id, "state_key": bob.id,
        "content": {"membership": "knock"}, "prev_events": [create.event_id()], "auth_events": [], "depth": 3,
    });
    evil.answers(move |question| {
        Reply::Json(if question.path.contains("/make_knock/") {
            json!({"room_version": "12", "event": template})
        } else {
            json!({"knock_room_state": shown})
        })
    });
    let path = format!("/v3/knock/{}?via=evil.example", part(room.as_str()));
    bob.post(&path, json!({})).await;
    let (told, _) = bob
        .sync_until("", |answer| answer["rooms"]["knock"][room.as_str()]["knock_state"]["events"].as_array().cloned())
        .await;
    let mut kinds: Vec<&str> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["m.room.create", "m.room.member", "m.room.name"]);
}
