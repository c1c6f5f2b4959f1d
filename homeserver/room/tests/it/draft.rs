//! Sealing our own events, and others' templates.

use matron_room::{
    CreateNonce, DraftPdu, FormatError, MAX_PDU_BYTES, RoomVersion, SealError, TemplateError, UncheckedPdu,
};
use ruma::{owned_event_id, owned_room_id, owned_user_id, server_name};
use serde_json::{Value, json, value::to_raw_value};

use crate::support::{TestRoom, spec_key, user, version};

fn create_draft(nonce: u8) -> DraftPdu {
    let content = json!({ "room_version": "12" });
    let mut draft = DraftPdu::new(None, owned_user_id!("@a:domain"), "m.room.create", content).with_state_key("");
    draft.origin_server_ts_ms = 1_000;
    draft.nonce = Some(CreateNonce::from_random([nonce; 16]));
    draft
}

fn message(content: Value) -> DraftPdu {
    let mut draft =
        DraftPdu::new(Some(owned_room_id!("!r:domain")), owned_user_id!("@a:domain"), "m.room.message", content);
    draft.origin_server_ts_ms = 1_000;
    draft
}

#[test]
fn two_rooms_created_by_one_user_in_one_millisecond_differ() {
    let server = server_name!("domain");
    let one = create_draft(1).seal(version("12"), &spec_key(), server).unwrap();
    let same = create_draft(1).seal(version("12"), &spec_key(), server).unwrap();
    let other = create_draft(2).seal(version("12"), &spec_key(), server).unwrap();
    assert_eq!(one.room_id(), same.room_id());
    assert_ne!(one.room_id(), other.room_id());
    assert_ne!(one.skeleton().unwrap().room_id(), other.skeleton().unwrap().room_id());
}

#[test]
fn version_12_create_without_nonce_is_refused() {
    let draft = DraftPdu { nonce: None, ..create_draft(1) };
    let error = draft.seal(version("12"), &spec_key(), server_name!("domain")).unwrap_err();
    assert!(matches!(error, SealError::NonceMissing));
}

#[test]
fn version_12_room_id_is_the_hash_of_the_create_event() {
    let create = create_draft(1).seal(version("12"), &spec_key(), server_name!("domain")).unwrap();
    assert_eq!(create.room_id().as_str().strip_prefix('!'), create.event_id().as_str().strip_prefix('$'));
    assert!(!create.json().get().contains("room_id"));
    let again = UncheckedPdu::parse(create.json(), version("12")).unwrap();
    assert_eq!(again.room_id(), create.room_id());
}

#[test]
fn version_12_events_never_name_the_create_event() {
    let mut room = TestRoom::new(version("12"), "a");
    let create = room.order.first().unwrap().clone();
    let event = room.send_last("a", "m.room.message", None, json!({ "body": "x" })).unwrap();
    assert!(!event.auth_events().contains(&create));
    assert!(event.auth_event_ids_with_create().contains(&create));
    let mut draft = DraftPdu::new(room.room_id.clone(), owned_user_id!("@a:domain"), "m.x", json!({}));
    draft.auth_events = vec![create.clone()];
    let sealed = draft.seal(version("12"), &spec_key(), server_name!("domain")).unwrap();
    assert!(sealed.auth_events().is_empty());
}

#[test]
fn sealed_events_read_back_alike_in_every_version() {
    for version in RoomVersion::supported() {
        let mut room = TestRoom::new(version, "a");
        let event = room.send_last("a", "m.room.message", None, json!({ "body": "x", "n": [1, null] })).unwrap();
        let again = UncheckedPdu::parse(event.json(), version).unwrap();
        assert_eq!(again.event_id(), event.event_id());
        let again = again.trust_own();
        assert_eq!(again.json().get(), event.json().get());
        assert_eq!(again.prev_events(), event.prev_events());
        assert_eq!(again.content_value(), json!({ "body": "x", "n": [1, null] }));
        assert!(!again.is_redacted() && again.skeleton().unwrap().is_redacted());
    }
}

#[test]
fn redaction_names_its_target_where_the_version_wants_it() {
    for (id, in_content) in [("6", false), ("10", false), ("11", true), ("12", true)] {
        let mut draft = message(json!({ "reason": "r" }));
        draft.kind = "m.room.redaction".to_owned();
        draft.redacts = Some(owned_event_id!("$target"));
        let event = draft.seal(version(id), &spec_key(), server_name!("domain")).unwrap();
        assert_eq!(event.redacts(), Some(owned_event_id!("$target")));
        let json: Value = serde_json::from_str(event.json().get()).unwrap();
        assert_eq!(json.pointer("/content/redacts").is_some(), in_content);
        assert_eq!(json.pointer("/redacts").is_some(), !in_content);
    }
}

#[test]
fn event_may_fill_the_limit_and_not_exceed_it() {
    let server = server_name!("domain");
    let empty = message(json!({ "body": "" })).seal(version("11"), &spec_key(), server).unwrap();
    let room = MAX_PDU_BYTES - empty.json().get().len();
    let full = message(json!({ "body": "x".repeat(room) })).seal(version("11"), &spec_key(), server).unwrap();
    assert_eq!(full.json().get().len(), MAX_PDU_BYTES);
    assert!(UncheckedPdu::parse(full.json(), version("11")).is_ok());
    let error = message(json!({ "body": "x".repeat(room + 1) })).seal(version("11"), &spec_key(), server).unwrap_err();
    assert!(matches!(error, SealError::TooLarge { size_bytes } if size_bytes == MAX_PDU_BYTES + 1));
}

#[test]
fn drafts_that_break_the_format_are_refused() {
    let server = server_name!("domain");
    let seal = |draft: DraftPdu| draft.seal(version("11"), &spec_key(), server).unwrap_err();
    assert!(matches!(seal(message(json!({ "a": 1.5 }))), SealError::Canonical(_)));
    assert!(matches!(seal(message(json!([]))), SealError::Canonical(_)));
    let long = message(json!({})).with_state_key("x".repeat(256));
    assert!(matches!(seal(long), SealError::Format(FormatError::TooLong { field: "state_key" })));
    let deep = DraftPdu { depth: u64::MAX, ..message(json!({})) };
    assert!(matches!(seal(deep), SealError::Number { field: "depth" }));
}

#[test]
fn join_completes_a_template_and_refuses_one_for_something_else() {
    for id in ["1", "6", "11", "12"] {
        let version = version(id);
        let mut room = TestRoom::new(version, "a");
        let last = room.last();
        let join = room.join(&[last], "b").unwrap();
        let draft = || {
            let content = json!({ "membership": "join", "displayname": "B" });
            let mut draft = DraftPdu::new(room.room_id.clone(), owned_user_id!("@b:domain"), "m.room.member", content)
                .with_state_key(user("b"));
            draft.origin_server_ts_ms = 5;
            draft
        };
        let mut theirs = draft();
        theirs.prev_events = join.prev_events().to_vec();
        theirs.auth_events = join.auth_events().to_vec();
        theirs.depth = join.depth();
        theirs.content = json!({ "membership": "join", "join_authorised_via_users_server": "@a:domain" });
        let template = theirs.to_template(version).unwrap();
        let sealed = draft().seal_with_template(&template, version, &spec_key(), server_name!("domain")).unwrap();
        assert_eq!(sealed.prev_events(), join.prev_events());
        assert_eq!(sealed.auth_events(), join.auth_events());
        assert_eq!(sealed.depth(), join.depth());
        assert_eq!(
            sealed.content_value(),
            json!({ "membership": "join", "displayname": "B", "join_authorised_via_users_server": "@a:domain" })
        );

        let mut hostile: Value = serde_json::from_str(template.get()).unwrap();
        for (field, value) in
            [("sender", json!("@c:domain")), ("room_id", json!("!other:domain")), ("type", json!("m.x"))]
        {
            let mut altered = hostile.clone();
            altered[field] = value;
            let altered = to_raw_value(&altered).unwrap();
            let error = draft().seal_with_template(&altered, version, &spec_key(), server_name!("domain")).unwrap_err();
            assert!(matches!(error, TemplateError::Mismatch { field: found } if found == field));
        }
        hostile["content"]["membership"] = json!("leave");
        let hostile = to_raw_value(&hostile).unwrap();
        assert!(draft().seal_with_template(&hostile, version, &spec_key(), server_name!("domain")).is_err());
    }
}

#[test]
fn second_signature_leaves_the_event_the_same() {
    let event = message(json!({ "body": "x" })).seal(version("11"), &spec_key(), server_name!("domain")).unwrap();
    let key = matron_room::SigningKey::generate([3; 32]);
    let signed = event.with_signature(&key, server_name!("other")).unwrap();
    assert_eq!(signed.event_id(), event.event_id());
    let signature = event.signature_by(&key).unwrap();
    let same = event.with_foreign_signature("other", key.key_id(), &signature).unwrap();
    assert_eq!(same.json().get(), signed.json().get());
    let again = UncheckedPdu::parse(signed.json(), version("11")).unwrap();
    let keys = std::collections::BTreeMap::from([(
        server_name!("other").to_owned(),
        std::collections::BTreeMap::from([(key.key_id().to_owned(), key.verify_key())]),
    )]);
    again.verify_server(server_name!("other"), &keys).unwrap();
    assert!(again.verify(&keys).is_err());
}

#[test]
fn version_1_references_carry_the_hashes_that_the_caller_knows() {
    let room = TestRoom::new(version("1"), "a");
    let last = room.event(&room.last()).unwrap();
    let hashes = [(last.event_id().to_owned(), last.reference_hash().unwrap())].into();
    let mut draft = message(json!({}));
    draft.prev_events = vec![room.last()];
    let event = draft.seal_with_references(version("1"), &spec_key(), server_name!("domain"), &hashes).unwrap();
    let seen: Value = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
    let expected = json!([[last.event_id(), { "sha256": last.reference_hash().unwrap() }]]);
    assert_eq!(seen["prev_events"], expected);
    assert_eq!(event.prev_events(), [room.last()]);
}
