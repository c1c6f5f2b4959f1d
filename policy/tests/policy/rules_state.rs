//! What may be done to the state that holds the policy up.

use matron_policy::{Action, Fact, Obligation, ROOM_POLICY_TYPE, ReasonCode, RedactTarget, RoomPolicy, Unavailable};
use serde_json::{Value, json};

use crate::fixtures::*;

fn set(event_type: &str, content: Value) -> Action {
    Action::of_event(AMIRA, event_type, Some(""), &content, RedactTarget::Unknown)
}

fn policy_state() -> Vec<(&'static str, Value)> {
    vec![
        (ROOM_POLICY_TYPE, room_policy().to_content()),
        ("m.room.encryption", json!({"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_ms": 1000})),
        ("m.room.retention", json!({"max_lifetime": 1000})),
        ("m.room.server_acl", json!({"allow": ["*"]})),
        ("m.room.policy", json!({})),
        ("m.room.tombstone", json!({"replacement_room": "!free:elsewhere.example"})),
    ]
}

#[test]
fn governance_alone_changes_the_policy_state() {
    for (event_type, content) in policy_state() {
        let act = set(event_type, content);
        assert_refused(&judge(AMIRA, act.clone(), &facts(AMIRA)), ReasonCode::NotGovernance);
        assert_refused(&judge(BEN, act.clone().from_outside(), &facts(BEN)), ReasonCode::NotGovernance);
        assert_refused(&judge(LAB, act.clone(), &facts(LAB)), ReasonCode::NotGovernance);
        assert_permitted(&judge(BOT, act.clone(), &facts(BOT)));
        let other_bot = "@matron:trust-b.example";
        assert_permitted(&judge(other_bot, act.from_outside(), &facts(other_bot)));
    }
}

#[test]
fn governance_alone_redacts_the_policy_state() {
    for (event_type, _) in policy_state() {
        let act = Action::Redact(RedactTarget::State(event_type.to_owned()));
        assert_refused(&judge(AMIRA, act.clone(), &facts(AMIRA)), ReasonCode::NotGovernance);
        assert_permitted(&judge(BOT, act, &facts(BOT)));
    }
    let act = Action::Redact(RedactTarget::State("m.room.topic".to_owned()));
    assert_permitted(&judge(AMIRA, act, &facts(AMIRA)));
}

#[test]
fn governance_alone_redacts_the_credential_that_a_member_shows() {
    let act = Action::Redact(RedactTarget::State("m.room.member".to_owned()));
    assert_refused(&judge(AMIRA, act.clone(), &facts(AMIRA)), ReasonCode::NotGovernance);
    assert_refused(&judge(BEN, act.clone().from_outside(), &facts(BEN)), ReasonCode::NotGovernance);
    assert_permitted(&judge(BOT, act.clone(), &facts(BOT)));
    let undemanding = RoomPolicy { credential_required: false, ..room_policy() };
    let mut without = facts(AMIRA);
    without.room.policy = Fact::Known(undemanding);
    assert_permitted(&judge(AMIRA, act, &without));
}

#[test]
fn nobody_opens_the_room_or_its_history_to_the_world() {
    let openings = [
        ("m.room.join_rules", json!({"join_rule": "public"}), ReasonCode::RoomWouldBeOpen),
        ("m.room.join_rules", json!({"join_rule": "org.new"}), ReasonCode::RoomWouldBeOpen),
        ("m.room.join_rules", json!({}), ReasonCode::RoomWouldBeOpen),
        ("m.room.join_rules", json!({"join_rule": 7}), ReasonCode::RoomWouldBeOpen),
        ("m.room.history_visibility", json!({"history_visibility": "world_readable"}), ReasonCode::HistoryWouldBeOpen),
        ("m.room.guest_access", json!({"guest_access": "can_join"}), ReasonCode::GuestsWouldEnter),
    ];
    for (event_type, content, code) in openings {
        for user in [AMIRA, BOT] {
            assert_refused(&judge(user, set(event_type, content.clone()), &facts(user)), code);
        }
    }
    let harmless = [
        ("m.room.join_rules", json!({"join_rule": "invite"})),
        ("m.room.history_visibility", json!({"history_visibility": "joined"})),
        ("m.room.guest_access", json!({"guest_access": "forbidden"})),
        ("m.room.topic", json!({"topic": "Ward 7"})),
    ];
    for (event_type, content) in harmless {
        assert_permitted(&judge(AMIRA, set(event_type, content), &facts(AMIRA)));
    }
}

#[test]
fn even_governance_cannot_weaken_encryption_or_lengthen_life() {
    let weakened = [
        ("m.room.encryption", json!({"algorithm": "org.rot13"}), ReasonCode::EncryptionTooWeak),
        ("m.room.encryption", json!({}), ReasonCode::EncryptionTooWeak),
        ("m.room.retention", json!({"max_lifetime": 2 * HOUR_MS}), ReasonCode::LifetimeTooLong),
        ("m.room.retention", json!({"max_lifetime": 0}), ReasonCode::LifetimeZero),
        ("m.room.retention", json!({}), ReasonCode::LifetimeMissing),
        ("m.room.retention", json!({"max_lifetime": "long"}), ReasonCode::LifetimeMissing),
        (ROOM_POLICY_TYPE, json!({}), ReasonCode::PolicyMalformed),
        (ROOM_POLICY_TYPE, json!({"organisations": ["RXA"], "surprise": true}), ReasonCode::PolicyMalformed),
    ];
    for (event_type, content, code) in weakened {
        assert_refused(&judge(BOT, set(event_type, content), &facts(BOT)), code);
    }
}

#[test]
fn first_encryption_and_first_lifetime_may_be_set_by_any_member() {
    let mut bare = facts(AMIRA);
    bare.room.encryption = Fact::Absent;
    bare.room.lifetime_ms = Fact::Absent;
    let verdict = judge(AMIRA, set("m.room.encryption", json!({"algorithm": "m.megolm.v1.aes-sha2"})), &bare);
    assert_permitted(&verdict);
    assert_eq!(verdict.obligations(), [Obligation::RotateKeys { every_ms: HOUR_MS }]);
    assert_permitted(&judge(AMIRA, set("m.room.retention", json!({"max_lifetime": 1000})), &bare));
}

#[test]
fn ordinary_room_becomes_clinical_by_its_first_policy_and_never_by_a_broken_one() {
    let ordinary = matron_policy::Facts::ordinary(NOW_MS);
    assert_permitted(&judge(AMIRA, set(ROOM_POLICY_TYPE, room_policy().to_content()), &ordinary));
    let broken = set(ROOM_POLICY_TYPE, json!({"organisations": []}));
    assert_refused(&judge(AMIRA, broken, &ordinary), ReasonCode::PolicyMalformed);
}

#[test]
fn governance_repairs_a_policy_that_cannot_be_read() {
    let repair = set(ROOM_POLICY_TYPE, room_policy().to_content());
    let mut frozen = facts(BOT);
    frozen.room.policy = Fact::Unavailable(Unavailable::Malformed);
    assert_permitted(&judge(BOT, repair.clone(), &frozen));
    let mut frozen = facts(AMIRA);
    frozen.room.policy = Fact::Unavailable(Unavailable::Malformed);
    assert!(!judge(AMIRA, repair, &frozen).is_permit());
}

#[test]
fn state_under_another_key_is_not_the_room_policy() {
    let act = Action::of_event(AMIRA, ROOM_POLICY_TYPE, Some("decoy"), &json!({}), RedactTarget::Unknown);
    assert_permitted(&judge(AMIRA, act, &facts(AMIRA)));
}

#[test]
fn other_server_cannot_call_an_old_room_new() {
    let act = set("m.room.server_acl", json!({"allow": ["*"]})).from_outside();
    let mut request = request(BEN, act);
    request.context.room_being_created = true;
    let verdict = matron_policy::decide(&request, &facts(BEN), &matron_policy::PolicySet::default());
    assert_refused(&verdict, ReasonCode::NotGovernance);
}
