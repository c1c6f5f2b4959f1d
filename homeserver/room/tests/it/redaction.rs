//! Properties of canonical JSON, parsing and redaction over arbitrary events.

use matron_room::{DraftPdu, RoomVersion, UncheckedPdu, canonical_json, parse_canonical};
use proptest::prelude::*;
use ruma::{owned_event_id, owned_room_id, owned_user_id, server_name};
use serde_json::{Map, Value};

use crate::support::spec_key;

/// Any JSON that canonical JSON can hold.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Content with fields that redaction knows, holding anything.
fn content() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "membership",
        "creator",
        "join_rule",
        "allow",
        "users",
        "invite",
        "history_visibility",
        "aliases",
        "redacts",
        "third_party_invite",
        "join_authorised_via_users_server",
        "body",
        "signed",
    ]);
    prop::collection::vec((names, json_value()), 0..8).prop_map(|entries| {
        let entries: Map<String, Value> = entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Value::Object(entries)
    })
}

fn kind() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "m.room.member",
        "m.room.join_rules",
        "m.room.power_levels",
        "m.room.history_visibility",
        "m.room.aliases",
        "m.room.redaction",
        "m.room.message",
    ])
}

fn room_version() -> impl Strategy<Value = &'static RoomVersion> {
    (0..RoomVersion::supported().len()).prop_map(|index| &RoomVersion::supported()[index])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn canonical_json_is_a_fixed_point_and_keeps_the_value(value in json_value()) {
        let object = serde_json::json!({ "value": value });
        let text = canonical_json(&object).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), &object);
        prop_assert_eq!(canonical_json(&parse_canonical(&text).unwrap()).unwrap(), text);
    }

    #[test]
    fn printing_undoes_parsing_and_redaction_is_idempotent_and_keeps_the_id(
        kind in kind(),
        content in content(),
        state_key in proptest::option::of("[a-z@:]{0,12}"),
        version in room_version(),
    ) {
        let mut draft =
            DraftPdu::new(Some(owned_room_id!("!r:domain")), owned_user_id!("@a:domain"), kind, content);
        draft.state_key = state_key;
        draft.prev_events = vec![owned_event_id!("$p:domain")];
        let event = draft.seal(version, &spec_key(), server_name!("domain")).unwrap();

        let again = UncheckedPdu::parse(event.json(), version).unwrap().trust_own();
        prop_assert_eq!(again.json().get(), event.json().get());
        prop_assert_eq!(again.event_id(), event.event_id());

        let skeleton = event.skeleton().unwrap();
        let twice = skeleton.skeleton().unwrap();
        prop_assert_eq!(twice.json().get(), skeleton.json().get());
        let recomputed = UncheckedPdu::parse(skeleton.json(), version).unwrap();
        prop_assert_eq!(recomputed.event_id(), event.event_id());
        let stored =
            matron_room::Pdu::from_stored(skeleton.json().get(), version, event.event_id().to_owned()).unwrap();
        prop_assert_eq!(stored.content_str(), skeleton.content_str());
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), value in json_value(), version in room_version()) {
        let _ = UncheckedPdu::parse_str(&text, version);
        let _ = UncheckedPdu::parse_str(&value.to_string(), version);
        let _ = matron_room::Pdu::from_stored(&text, version, owned_event_id!("$x"));
    }
}
