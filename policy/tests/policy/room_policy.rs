//! The room's own policy, and its mirror in words that other servers know.

use matron_policy::{Fact, MirrorError, ROOM_POLICY_TYPE, RoomEncryption, RoomFacts, RoomPolicy, Unavailable};
use serde_json::{Value, json};

use crate::fixtures::*;

#[test]
fn policy_that_says_little_is_strict() {
    let policy = RoomPolicy::parse(&json!({"organisations": ["RXA"]})).unwrap();
    assert!(policy.credential_required && policy.encryption_required && policy.lifetime_required);
    assert_eq!(policy, RoomPolicy::of_organisations(["RXA"]));
}

#[test]
fn policy_that_cannot_be_kept_is_refused_with_its_fault() {
    let cases = [
        (json!({}), "organisations"),
        (json!([]), "not an object"),
        (json!([1, ["RXA"], true, true, true, null, null, null, null, null, null, null]), "not an object"),
        (json!({"organisations": []}), "1 to 256 organisations"),
        (json!({"organisations": ["RXA"], "max_lifetime": 5}), "unknown field `max_lifetime`"),
        (json!({"organisations": ["RXA"], "version": 2}), "version 2"),
        (json!({"organisations": ["RXA"], "max_lifetime_ms": 0}), "at least 1"),
        (json!({"organisations": ["RXA"], "max_lifetime_ms": -5}), "invalid value"),
        (json!({"organisations": ["R X A"]}), "malformed name in organisations"),
        (json!({"organisations": ["RXA"], "roles": [""]}), "malformed name in roles"),
        (json!({"organisations": ["RXA"], "encryption_required": "no"}), "invalid type"),
    ];
    for (content, words) in cases {
        let error = RoomPolicy::parse(&content).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn mirror_speaks_the_words_of_other_servers() {
    let mirror = room_policy().mirror(&register()).unwrap();
    assert_eq!(mirror.retention, Some(json!({"max_lifetime": HOUR_MS})));
    assert_eq!(
        mirror.server_acl,
        json!({"allow": ["trust-a.example", "trust-b.example"], "deny": [], "allow_ip_literals": false})
    );
    assert_eq!(mirror.encryption, Some(json!({"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_ms": HOUR_MS})));
    assert!(mirror.federate);
    assert!(!RoomPolicy::of_organisations(["RXA"]).mirror(&register()).unwrap().federate);
}

#[test]
fn mirror_names_hosts_without_ports_and_allows_addresses_only_where_a_server_is_one() {
    let mut register = plain_register();
    register.organisations[0].server_names = vec!["127.0.0.1:8448".to_owned(), "trust-a.example:443".to_owned()];
    register.organisations[0].governance_users.clear();
    register.organisations[0].service_users.clear();
    let mirror = room_policy().mirror(&verify(&register)).unwrap();
    assert_eq!(
        mirror.server_acl,
        json!({"allow": ["127.0.0.1", "trust-a.example", "trust-b.example"], "deny": [], "allow_ip_literals": true})
    );
}

#[test]
fn room_key_lives_no_longer_than_a_week() {
    let mirror = RoomPolicy::of_organisations(["RXA"]).with_max_lifetime_ms(365 * DAY_MS).mirror(&register()).unwrap();
    assert_eq!(mirror.encryption.unwrap()["rotation_period_ms"], json!(7 * DAY_MS));
}

#[test]
fn organisation_that_left_the_register_has_no_mirror() {
    let error = RoomPolicy::of_organisations(["RXA", "RXZ"]).mirror(&register()).unwrap_err();
    assert_eq!(error, MirrorError::UnknownOrganisation("RXZ".to_owned()));
}

#[test]
fn facts_of_a_room_are_read_from_its_state() {
    let state = |event_type: &str| match event_type {
        ROOM_POLICY_TYPE => Fact::Known(room_policy().to_content()),
        "m.room.encryption" => Fact::Known(json!({"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_ms": HOUR_MS})),
        "m.room.retention" => Fact::Known(json!({"max_lifetime": HOUR_MS})),
        _ => Fact::Absent,
    };
    assert_eq!(RoomFacts::from_state(state), clinical_room());
    assert_eq!(RoomFacts::from_state(|_| Fact::Absent), RoomFacts::none());
    let broken = RoomFacts::from_state(|_| Fact::Known(json!({"max_lifetime": 1.5})));
    let malformed = Unavailable::Malformed;
    assert_eq!(broken.policy, Fact::Unavailable(malformed));
    assert_eq!(broken.encryption, Fact::Unavailable(malformed));
    assert_eq!(broken.lifetime_ms, Fact::Unavailable(malformed));
    // What redaction leaves of a policy is no policy, and no freedom.
    let redacted = RoomFacts::from_state(|_| Fact::Known(Value::Object(serde_json::Map::new())));
    assert_eq!(redacted.policy, Fact::Unavailable(malformed));
    let dark = RoomFacts::from_state(|_| Fact::Unavailable(Unavailable::NotLoaded));
    assert_eq!(dark.lifetime_ms, Fact::Unavailable(Unavailable::NotLoaded));
    assert_eq!(RoomEncryption::read(&json!({"algorithm": 5})), None);
}

#[test]
fn policy_server_is_named_in_the_words_of_the_specification() {
    let mut organisation = plain_register().organisations.remove(0);
    assert_eq!(organisation.policy_server_content("trust-a.example"), None);
    organisation.policy_server_key = Some("key".to_owned());
    assert_eq!(
        organisation.policy_server_content("trust-a.example"),
        Some(json!({"via": "trust-a.example", "public_keys": {"ed25519": "key"}}))
    );
}
