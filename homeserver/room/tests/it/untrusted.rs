//! Events from outside that are not what they should be.

use std::collections::BTreeMap;

use matron_room::{ContentState, FormatError, SignatureError, UncheckedPdu, VerifyKey};
use ruma::{OwnedServerName, ServerName, server_name};
use serde_json::{Value, json};

use crate::support::{TestRoom, spec_key, version};

fn keys() -> BTreeMap<OwnedServerName, BTreeMap<String, VerifyKey>> {
    let key = spec_key();
    let of_domain = BTreeMap::from([(key.key_id().to_owned(), key.verify_key())]);
    BTreeMap::from([(server_name!("domain").to_owned(), of_domain)])
}

fn sample(id: &str) -> Value {
    let mut room = TestRoom::new(version(id), "a");
    let event = room.send_last("a", "m.room.message", None, json!({ "body": "x" })).unwrap();
    serde_json::from_str(event.json().get()).unwrap()
}

fn parse(value: &Value, id: &str) -> Result<UncheckedPdu, FormatError> {
    UncheckedPdu::parse_str(&value.to_string(), version(id))
}

#[test]
fn every_missing_or_malformed_field_is_named() {
    let good = sample("11");
    assert!(parse(&good, "11").is_ok());
    let required = [
        "type",
        "sender",
        "room_id",
        "content",
        "depth",
        "origin_server_ts",
        "prev_events",
        "auth_events",
        "hashes",
        "signatures",
    ];
    for name in required {
        let mut event = good.clone();
        event.as_object_mut().unwrap().remove(name);
        assert!(matches!(parse(&event, "11"), Err(FormatError::Missing { field }) if field == name), "{name}");
        for wrong in [json!(null), json!(true), json!([1]), json!([["$a", {}]])] {
            event[name] = wrong;
            assert!(matches!(parse(&event, "11"), Err(FormatError::Malformed { field }) if field == name), "{name}");
        }
    }
    for (name, wrong) in [
        ("sender", json!("nobody")),
        ("room_id", json!("nowhere")),
        ("depth", json!(-1)),
        ("origin_server_ts", json!(-1)),
        ("state_key", json!(null)),
        ("prev_events", json!(["no sigil"])),
    ] {
        let mut event = good.clone();
        event[name] = wrong;
        assert!(matches!(parse(&event, "11"), Err(FormatError::Malformed { field }) if field == name), "{name}");
    }
}

#[test]
fn lists_and_names_are_bounded() {
    let good = sample("11");
    let ids = |count: usize| -> Value { (0..count).map(|number| format!("${number}")).collect() };
    for (name, limit) in [("prev_events", 20), ("auth_events", 10)] {
        let mut event = good.clone();
        event[name] = ids(limit);
        assert!(parse(&event, "11").is_ok());
        event[name] = ids(limit + 1);
        assert!(matches!(parse(&event, "11"), Err(FormatError::TooLong { field }) if field == name));
    }
    for (name, value) in
        [("type", "t".repeat(256)), ("state_key", "s".repeat(256)), ("sender", format!("@{}:domain", "u".repeat(250)))]
    {
        let mut event = good.clone();
        event[name] = json!(value);
        assert!(matches!(parse(&event, "11"), Err(FormatError::TooLong { field }) if field == name));
    }
}

#[test]
fn what_a_version_forbids_is_refused() {
    let mut event = sample("11");
    event["event_id"] = json!("$mine");
    assert!(matches!(parse(&event, "11"), Err(FormatError::Superfluous { field: "event_id" })));

    let mut event = sample("12");
    let create = event["room_id"].as_str().unwrap().replace('!', "$");
    event["auth_events"].as_array_mut().unwrap().push(json!(create));
    assert!(matches!(parse(&event, "12"), Err(FormatError::CreateInAuthEvents)));

    let room = TestRoom::new(version("12"), "a");
    let create = room.event(room.order.first().unwrap()).unwrap();
    let mut create: Value = serde_json::from_str(create.json().get()).unwrap();
    create["room_id"] = json!("!x:domain");
    assert!(matches!(parse(&create, "12"), Err(FormatError::Superfluous { field: "room_id" })));
}

#[test]
fn oversized_events_are_refused_before_they_are_read() {
    let huge = " ".repeat(600_000);
    let error = UncheckedPdu::parse_str(&huge, version("11")).unwrap_err();
    assert!(matches!(error, FormatError::TooLarge { size_bytes: 600_000 }));
}

#[test]
fn deeply_nested_json_is_an_error() {
    let deep = format!("{{\"content\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    assert!(UncheckedPdu::parse_str(&deep, version("11")).is_err());
}

#[test]
fn altered_content_becomes_the_redacted_form_under_the_same_id() {
    for id in ["1", "3", "6", "8", "11", "12"] {
        let mut event = sample(id);
        let before = parse(&event, id).unwrap().event_id().to_owned();
        event["content"]["body"] = json!("altered");
        let signed = parse(&event, id).unwrap().verify(&keys()).unwrap();
        assert_eq!(signed.content(), ContentState::Redacted);
        assert_eq!(signed.pdu().event_id(), before);
        assert_eq!(signed.pdu().content_str(), "{}");
    }
}

#[test]
fn altered_protected_field_drops_the_event() {
    for id in ["1", "6", "11", "12"] {
        let mut event = sample(id);
        event["depth"] = json!(77);
        let error = parse(&event, id).unwrap().verify(&keys()).unwrap_err();
        assert!(matches!(error, SignatureError::Invalid { .. }));
    }
}

#[test]
fn absent_signature_and_unknown_key_are_told_apart() {
    let mut event = sample("11");
    let unchecked = parse(&event, "11").unwrap();
    let needed = unchecked.required_key_ids();
    assert_eq!(needed.get(server_name!("domain")).unwrap().iter().collect::<Vec<_>>(), ["ed25519:1"]);
    assert!(matches!(
        unchecked.verify(&BTreeMap::<OwnedServerName, BTreeMap<String, VerifyKey>>::new()),
        Err(SignatureError::UnknownKey { .. })
    ));
    event["signatures"] = json!({});
    assert!(matches!(parse(&event, "11").unwrap().verify(&keys()), Err(SignatureError::Missing { .. })));
}

#[test]
fn restricted_join_needs_the_signature_of_the_authorising_server() {
    let mut event = sample("11");
    event["content"] = json!({ "membership": "join", "join_authorised_via_users_server": "@x:resident" });
    let servers = |event: &Value, id: &str| parse(event, id).unwrap().required_servers();
    assert_eq!(servers(&event, "11").len(), 1, "only member events are joins");
    event["type"] = json!("m.room.member");
    event["state_key"] = json!("@a:domain");
    let resident: &ServerName = server_name!("resident");
    assert!(servers(&event, "11").contains(resident));
    assert!(!servers(&event, "7").contains(resident));
}

#[test]
fn third_party_invite_is_not_signed_by_the_senders_server() {
    let mut event = sample("11");
    event["type"] = json!("m.room.member");
    event["state_key"] = json!("@b:elsewhere");
    event["content"] = json!({ "membership": "invite", "third_party_invite": { "signed": {} } });
    assert!(parse(&event, "11").unwrap().required_servers().is_empty());
}

#[test]
fn keys_must_have_been_valid_since_version_5_only() {
    for (id, enforced) in [("1", false), ("4", false), ("5", true), ("12", true)] {
        assert_eq!(parse(&sample(id), id).unwrap().keys_valid_at_ms().is_some(), enforced);
    }
}

#[test]
fn unsigned_of_others_is_dropped() {
    let mut event = sample("11");
    event["unsigned"] = json!({ "transaction_id": "forged" });
    assert!(!parse(&event, "11").unwrap().trust_own().json().get().contains("forged"));
}

#[test]
fn debug_output_shows_no_content() {
    let event = parse(&sample("11"), "11").unwrap();
    let printed = format!("{event:?} {:?}", event.unverified());
    assert!(!printed.contains("body") && !printed.contains("@a:domain"));
}

#[test]
fn fractions_are_refused_since_version_6_and_kept_before() {
    for (id, allowed) in [("1", true), ("5", true), ("6", false), ("12", false)] {
        let mut event = sample(id);
        event["content"]["height"] = json!(1.5);
        assert_eq!(parse(&event, id).is_ok(), allowed, "version {id}");
        event["content"] = json!(1.5);
        assert!(parse(&event, id).is_err());
    }
    let mut room = TestRoom::new(version("4"), "a");
    let event = room.send_last("a", "m.room.message", None, json!({ "height": 1.5e-9, "n": [2.0] })).unwrap();
    assert_eq!(event.content_str(), r#"{"height":1.5e-09,"n":[2.0]}"#);
    let again = UncheckedPdu::parse(event.json(), version("4")).unwrap();
    assert_eq!(again.event_id(), event.event_id());
    assert_eq!(again.verify(&keys()).unwrap().content(), ContentState::Intact);
    assert_eq!(event.skeleton().unwrap().event_id(), event.event_id());
}
