//! Whatever arrives becomes a question.

use matron_policy::{Action, MEGOLM, RedactTarget, StateEffect};
use proptest::prelude::*;
use serde_json::json;

use crate::canonical::value;
use crate::fixtures::*;

fn member(sender: &str, target: &str, membership: &str) -> Action {
    let content = json!({"membership": membership});
    Action::of_event(sender, "m.room.member", Some(target), &content, RedactTarget::Unknown)
}

#[test]
fn membership_events_become_their_acts() {
    assert_eq!(member(AMIRA, BEN, "invite"), Action::Invite { invitee: BEN.to_owned() });
    assert_eq!(member(BEN, BEN, "join"), Action::Join);
    assert_eq!(member(BEN, BEN, "knock"), Action::Knock);
    assert_eq!(member(BEN, BEN, "leave"), Action::Leave);
    assert_eq!(member(AMIRA, BEN, "leave"), Action::Remove { target: BEN.to_owned() });
    assert_eq!(member(AMIRA, BEN, "ban"), Action::Remove { target: BEN.to_owned() });
    assert_eq!(member(BEN, BEN, "org.new"), Action::Join);
}

#[test]
fn other_events_become_their_acts() {
    let of = |event_type, state_key, content| {
        Action::of_event(AMIRA, event_type, state_key, &content, RedactTarget::Message)
    };
    assert_eq!(of("m.room.encrypted", None, json!({"algorithm": MEGOLM, "ciphertext": "AwgA"})), message());
    assert_eq!(of("m.room.message", None, json!({})), plaintext());
    assert_eq!(of("m.room.redaction", None, json!({})), Action::Redact(RedactTarget::Message));
    assert_eq!(of("m.room.create", Some(""), json!({"m.federate": false})), Action::CreateRoom { federates: false });
    assert_eq!(of("m.room.create", Some(""), json!({})), Action::CreateRoom { federates: true });
    // An encrypted event with a state key is state, not speech.
    assert!(
        matches!(of("m.room.encrypted", Some(""), json!({})), Action::SendState(change) if change.effect == StateEffect::Other)
    );
}

#[test]
fn nested_outside_events_are_their_essence() {
    let act = message().from_outside().from_outside();
    assert_eq!(*act.essence(), message());
    assert!(act.is_federated());
    assert_eq!(act.event_type(), Some("m.room.encrypted"));
}

proptest! {
    #[test]
    fn any_content_becomes_some_act(
        event_type in proptest::sample::select(&[
            "m.room.member", "m.room.create", "m.room.encryption", "m.room.retention", "m.room.join_rules",
            "m.room.history_visibility", "m.room.guest_access", "org.matron.room.policy", "x", "m.room.encrypted",
            "m.reaction", "m.key.verification.start", "m.room.redaction",
        ][..]),
        state_key: Option<String>,
        content in value(),
    ) {
        let act = Action::of_event(AMIRA, event_type, state_key.as_deref(), &content, RedactTarget::Unknown);
        let verdict = judge(AMIRA, act, &facts(AMIRA));
        prop_assert!(!verdict.reasons().is_empty());
    }
}
