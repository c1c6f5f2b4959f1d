//! Merging layers is a meet: the order does not matter, and no layer can loosen another.

use std::collections::BTreeSet;

use matron_policy::{
    Action, Fact, Facts, Outcome, PolicyLayer, PolicySet, RedactTarget, RegisterStatus, RoomPolicy, RuleId,
    Unavailable, VerificationLevel, decide,
};
use proptest::option;
use proptest::prelude::*;

use crate::fixtures::*;

fn codes_of(names: &'static [&'static str]) -> impl Strategy<Value = Option<BTreeSet<String>>> {
    option::of(proptest::collection::btree_set(proptest::sample::select(names).prop_map(str::to_owned), 0..4))
}

fn level() -> impl Strategy<Value = VerificationLevel> {
    prop_oneof![
        Just(VerificationLevel::Identity),
        Just(VerificationLevel::Employment),
        Just(VerificationLevel::RightToPractise)
    ]
}

pub(crate) fn layer() -> impl Strategy<Value = PolicyLayer> {
    let people = (
        codes_of(&["RXA", "RXB", "RXC"]),
        codes_of(&["GB-ENG", "DE"]),
        option::of(any::<bool>()),
        option::of(level()),
        codes_of(&["nurse", "doctor"]),
        codes_of(&["ward-7", "ward-8"]),
        option::of(0..4 * DAY_MS),
    );
    let content = (
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(prop_oneof![1..2 * HOUR_MS, any::<u64>()]),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<u64>()),
        option::of(any::<u64>()),
        option::of(any::<bool>()),
    );
    (people, content).prop_map(|(people, content)| PolicyLayer {
        organisations: people.0,
        jurisdictions: people.1,
        credential_required: people.2,
        minimum_level: people.3,
        professions: people.4,
        roles: people.5,
        credential_max_age_ms: people.6,
        encryption_required: content.0,
        lifetime_required: content.1,
        max_lifetime_ms: content.2,
        governance_creates_rooms: content.3,
        federate: content.4,
        media_max_bytes: content.5,
        redacted_content_kept_ms: content.6,
        unverified_may_read: content.7,
    })
}

pub(crate) fn user() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&[AMIRA, BEN, CARLA, OUTSIDER, BOT, LAB][..])
}

pub(crate) fn action() -> impl Strategy<Value = Action> {
    let state = |event_type: &'static str, content: serde_json::Value| {
        Just(Action::of_event(AMIRA, event_type, Some(""), &content, RedactTarget::Unknown))
    };
    let act = prop_oneof![
        any::<bool>().prop_map(|federates| Action::CreateRoom { federates }),
        user().prop_map(|invitee| Action::Invite { invitee: invitee.to_owned() }),
        user().prop_map(|invitee| Action::FederatedInvite { invitee: invitee.to_owned() }),
        Just(Action::Join),
        Just(Action::Knock),
        Just(Action::Remain),
        Just(Action::Read),
        Just(Action::FederatedJoin),
        Just(Action::FederatedKnock),
        Just(message()),
        Just(plaintext()),
        any::<u64>().prop_map(|size_bytes| Action::UploadMedia { size_bytes }),
        Just(Action::Redact(RedactTarget::State("m.room.server_acl".to_owned()))),
        state("m.room.join_rules", serde_json::json!({"join_rule": "public"})),
        state("m.room.retention", serde_json::json!({"max_lifetime": 5})),
        state("m.room.encryption", serde_json::json!({"algorithm": "m.megolm.v1.aes-sha2"})),
        state("m.room.topic", serde_json::json!({})),
    ];
    (act, any::<bool>()).prop_map(|(act, outside)| if outside { act.from_outside() } else { act })
}

pub(crate) fn circumstances() -> impl Strategy<Value = (&'static str, Action, Facts)> {
    (user(), action(), 0..4_u8, any::<bool>(), any::<bool>()).prop_map(|(user, act, gap, verified, lifetime)| {
        let mut facts = match act.target() {
            Some(target) => facts_with_invitee(user, target),
            None => facts(user),
        };
        match gap {
            0 => facts.register = RegisterStatus::None,
            1 => facts.room.encryption = Fact::Unavailable(Unavailable::NotLoaded),
            2 => facts.room.policy = Fact::Absent,
            _ => {}
        }
        if !verified {
            facts.person.credential = matron_policy::CredentialStatus::Missing;
        }
        if !lifetime {
            facts.room.lifetime_ms = Fact::Absent;
        }
        (user, act, facts)
    })
}

proptest! {
    #[test]
    fn meet_is_associative(a in layer(), b in layer(), c in layer()) {
        prop_assert_eq!(a.meet(&b).meet(&c), a.meet(&b.meet(&c)));
    }

    #[test]
    fn meet_is_commutative(a in layer(), b in layer()) {
        prop_assert_eq!(a.meet(&b), b.meet(&a));
    }

    #[test]
    fn meet_is_idempotent_and_the_empty_layer_adds_nothing(a in layer()) {
        prop_assert_eq!(a.meet(&a), a.clone());
        prop_assert_eq!(a.meet(&PolicyLayer::default()), a);
    }

    #[test]
    fn meet_is_at_least_as_strict_as_each_of_its_layers(a in layer(), b in layer()) {
        let both = a.meet(&b);
        prop_assert!(both.is_at_least_as_strict_as(&a));
        prop_assert!(both.is_at_least_as_strict_as(&b));
    }

    #[test]
    fn no_layer_makes_a_permit_of_what_was_refused(
        floor in layer(), organisation in layer(), (user, act, facts) in circumstances()
    ) {
        let one = PolicySet { floor: Some(floor.clone()), ..PolicySet::default() };
        let two = PolicySet { floor: Some(floor), organisation: Some(organisation), ..PolicySet::default() };
        let request = request(user, act);
        let (before, after) = (decide(&request, &facts, &one), decide(&request, &facts, &two));
        // A layer that sets a lifetime gives another the one that it missed: that alone may make a permit.
        let lifetime_was_missing = before.reasons().iter().any(|reason| reason.rule == RuleId::LifetimeRequired);
        if lifetime_was_missing && after.expire_after_ms().is_some() {
            return Ok(());
        }
        if after.is_permit() {
            prop_assert!(before.is_permit(), "{before:?} {after:?}");
            if let Some(limit) = before.expire_after_ms() {
                prop_assert!(after.expire_after_ms().is_some_and(|shorter| shorter <= limit));
            }
        }
        if *before.outcome() == Outcome::Deny {
            prop_assert_eq!(after.outcome(), &Outcome::Deny);
        }
    }

    #[test]
    fn room_policy_makes_no_permit_of_what_the_deployment_refuses(
        floor in layer(), credential_required: bool, encryption_required: bool, lifetime_required: bool,
        (user, act, mut facts) in circumstances()
    ) {
        let policies = PolicySet { floor: Some(floor), ..PolicySet::default() };
        let request = request(user, act);
        facts.room.policy = Fact::Absent;
        let before = decide(&request, &facts, &policies);
        facts.room.policy = Fact::Known(RoomPolicy {
            credential_required, encryption_required, lifetime_required, ..room_policy()
        });
        let after = decide(&request, &facts, &policies);
        // A room that sets a lifetime gives the deployment the one that it missed: that alone may make a permit.
        let lifetime_was_missing = before.reasons().iter().any(|reason| reason.rule == RuleId::LifetimeRequired);
        let is_mended = lifetime_was_missing && after.expire_after_ms().is_some();
        prop_assert!(before.is_permit() || !after.is_permit() || is_mended, "{before:?} {after:?}");
    }

    #[test]
    fn equal_questions_get_equal_answers_and_every_answer_has_a_reason(
        floor in layer(), (user, act, facts) in circumstances()
    ) {
        let policies = PolicySet { floor: Some(floor), ..PolicySet::default() };
        let request = request(user, act);
        let verdict = decide(&request, &facts, &policies);
        prop_assert_eq!(&verdict, &decide(&request, &facts, &policies));
        prop_assert!(!verdict.reasons().is_empty());
        prop_assert!(verdict.reasons().iter().all(|reason| reason.sentence.ends_with('.')));
        prop_assert_eq!(verdict.request_digest(), request.digest());
    }

    #[test]
    fn equal_policies_have_equal_revisions_in_any_order_of_layers(a in layer(), b in layer()) {
        let set = |a: &PolicyLayer, b: &PolicyLayer| PolicySet {
            floor: Some(a.clone()), organisation: Some(b.clone()), ..PolicySet::default()
        };
        let room = Fact::Known(room_policy());
        prop_assert_eq!(set(&a, &b).effective(&room).revision(), set(&b, &a).effective(&room).revision());
    }

    #[test]
    fn layer_survives_json(a in layer()) {
        let text = serde_json::to_string(&a).unwrap();
        prop_assert_eq!(serde_json::from_str::<PolicyLayer>(&text).unwrap(), a);
    }
}

#[test]
fn layer_with_an_unknown_field_is_refused_by_name() {
    let error = serde_json::from_str::<PolicyLayer>(r#"{"max_lifetime": 5}"#).unwrap_err();
    assert!(error.to_string().contains("max_lifetime"), "{error}");
}

#[test]
fn template_named_by_the_room_adds_its_layer() {
    let mut policy = room_policy();
    policy.template = Some("ward".to_owned());
    let policies = PolicySet {
        templates: [("ward".to_owned(), PolicyLayer { max_lifetime_ms: Some(9), ..PolicyLayer::default() })].into(),
        ..PolicySet::default()
    };
    assert_eq!(policies.effective(&Fact::Known(policy)).layer().max_lifetime_ms, Some(9));
    assert_eq!(policies.effective(&Fact::Known(room_policy())).layer().max_lifetime_ms, Some(HOUR_MS));
}

#[test]
fn layer_that_nobody_can_have_meant_is_refused() {
    let wrong = [
        (PolicyLayer { max_lifetime_ms: Some(0), ..Default::default() }, "at least 1"),
        (PolicyLayer { organisations: Some(BTreeSet::new()), ..Default::default() }, "organisations is empty"),
        (PolicyLayer { roles: Some(["a b".to_owned()].into()), ..Default::default() }, "roles holds a name"),
    ];
    for (layer, words) in wrong {
        assert!(layer.check().unwrap_err().to_string().contains(words));
    }
    assert_eq!(room_policy().layer().check(), Ok(()));
}
