//! The forms that clients see.

use matron_room::{DraftPdu, Unsigned, client_event, stripped_event, sync_event};
use ruma::{owned_event_id, server_name};
use serde_json::{Value, json};

use crate::support::{TestRoom, spec_key, user_id, version};

fn value(raw: &serde_json::value::RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap()
}

#[test]
fn client_form_has_exactly_the_fields_of_the_specification() {
    let mut room = TestRoom::new(version("11"), "a");
    let event = room.send_last("a", "m.room.topic", Some(""), json!({ "topic": "t \" \u{1f600}" })).unwrap();
    let unsigned = Unsigned { age: Some(5), transaction_id: Some("t1".to_owned()), ..Unsigned::default() };
    let expected = json!({
        "content": { "topic": "t \" \u{1f600}" },
        "event_id": event.event_id(),
        "origin_server_ts": event.origin_server_ts_ms(),
        "room_id": "!room:domain",
        "sender": "@a:domain",
        "state_key": "",
        "type": "m.room.topic",
        "unsigned": { "age": 5, "transaction_id": "t1" },
    });
    assert_eq!(value(&client_event(&event, &unsigned)), expected);
    let mut in_sync = expected;
    in_sync.as_object_mut().unwrap().remove("room_id");
    in_sync.as_object_mut().unwrap().remove("unsigned");
    assert_eq!(value(&sync_event(&event, &Unsigned::default())), in_sync);
    assert_eq!(
        value(&stripped_event(&event)),
        json!({ "content": { "topic": "t \" \u{1f600}" }, "sender": "@a:domain", "state_key": "", "type": "m.room.topic" })
    );
}

#[test]
fn redactions_name_their_target_in_both_places_in_every_version() {
    for (id, content) in [("6", json!({})), ("6", json!({ "reason": "r" })), ("11", json!({ "reason": "r" }))] {
        let room = TestRoom::new(version(id), "a");
        let mut draft = DraftPdu::new(room.room_id.clone(), user_id("a"), "m.room.redaction", content);
        draft.redacts = Some(owned_event_id!("$target"));
        let event = draft.seal(version(id), &spec_key(), server_name!("domain")).unwrap();
        let seen = value(&client_event(&event, &Unsigned::default()));
        assert_eq!(seen.pointer("/redacts"), Some(&json!("$target")));
        assert_eq!(seen.pointer("/content/redacts"), Some(&json!("$target")));
    }
}

#[test]
fn version_12_create_event_shows_its_room_to_clients() {
    let room = TestRoom::new(version("12"), "a");
    let create = room.event(room.order.first().unwrap()).unwrap();
    let seen = value(&client_event(&create, &Unsigned::default()));
    assert_eq!(seen.pointer("/room_id").and_then(Value::as_str), Some(create.room_id().as_str()));
}
