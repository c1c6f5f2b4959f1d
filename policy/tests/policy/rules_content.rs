//! What may be said, how long it lives, and what is always possible.

use matron_policy::*;

use crate::fixtures::*;

#[test]
fn ordinary_room_permits_everything_to_everybody() {
    let mut acts = admissions();
    acts.extend([
        message(),
        plaintext(),
        Action::Invite { invitee: OUTSIDER.to_owned() },
        Action::FederatedInvite { invitee: OUTSIDER.to_owned() },
        Action::UploadMedia { size_bytes: u64::MAX },
        Action::Read,
        Action::Remain,
        Action::of_event(
            OUTSIDER,
            "m.room.join_rules",
            Some(""),
            &serde_json::json!({"join_rule": "public"}),
            RedactTarget::Unknown,
        ),
        plaintext().from_outside(),
    ]);
    for act in acts {
        let verdict = judge(OUTSIDER, act, &Facts::ordinary(NOW_MS));
        assert_permitted(&verdict);
        assert_eq!(codes(&verdict), [ReasonCode::RoomIsOrdinary]);
        assert!(verdict.obligations().is_empty());
    }
}

#[test]
fn layer_without_opinion_leaves_rooms_ordinary() {
    let policies = PolicySet { floor: Some(PolicyLayer::default()), ..PolicySet::default() };
    let verdict = decide(&request(OUTSIDER, plaintext()), &Facts::ordinary(NOW_MS), &policies);
    assert_eq!(codes(&verdict), [ReasonCode::RoomIsOrdinary]);
}

#[test]
fn plaintext_is_refused_where_encryption_is_required() {
    assert_refused(&judge(AMIRA, plaintext(), &facts(AMIRA)), ReasonCode::MessageNotEncrypted);
    assert_refused(&judge(BEN, plaintext().from_outside(), &facts(BEN)), ReasonCode::MessageNotEncrypted);
    let reaction = Action::Send { event_type: "m.reaction".to_owned(), form: Form::Sign };
    assert_permitted(&judge(AMIRA, reaction, &facts(AMIRA)));
}

#[test]
fn room_must_be_encrypted_before_anybody_writes() {
    let mut facts = facts(AMIRA);
    facts.room.encryption = Fact::Absent;
    assert_refused(&judge(AMIRA, message(), &facts), ReasonCode::RoomNotEncrypted);
    facts.room.encryption = Fact::Unavailable(Unavailable::Malformed);
    assert_undetermined(&judge(AMIRA, message(), &facts), ReasonCode::EncryptionUnavailable);
    facts.room.encryption =
        Fact::Known(matron_policy::RoomEncryption { algorithm: "org.rot13".to_owned(), rotation_period_ms: None });
    assert_refused(&judge(AMIRA, message(), &facts), ReasonCode::EncryptionTooWeak);
}

#[test]
fn message_dies_at_the_shortest_lifetime_of_all() {
    let policies = PolicySet {
        floor: Some(PolicyLayer { max_lifetime_ms: Some(60_000), ..PolicyLayer::default() }),
        ..PolicySet::default()
    };
    let lifetime =
        |facts: &Facts, policies: &PolicySet| decide(&request(AMIRA, message()), facts, policies).expire_after_ms();
    assert_eq!(lifetime(&facts(AMIRA), &policies), Some(60_000));
    let mut short = facts(AMIRA);
    short.room.lifetime_ms = Fact::Known(5_000);
    assert_eq!(lifetime(&short, &policies), Some(5_000));
    short.room.lifetime_ms = Fact::Absent;
    assert_eq!(lifetime(&short, &PolicySet::default()), Some(HOUR_MS));
}

#[test]
fn message_without_a_lifetime_is_refused_where_one_is_required() {
    let mut facts = facts(AMIRA);
    let mut policy = room_policy();
    policy.max_lifetime_ms = None;
    facts.room.policy = Fact::Known(policy);
    facts.room.lifetime_ms = Fact::Absent;
    assert_refused(&judge(AMIRA, message(), &facts), ReasonCode::LifetimeMissing);
    facts.room.lifetime_ms = Fact::Unavailable(Unavailable::NotLoaded);
    assert_undetermined(&judge(AMIRA, message(), &facts), ReasonCode::LifetimeUnavailable);
}

#[test]
fn way_out_is_open_whatever_is_missing() {
    let mut dark = Facts::ordinary(NOW_MS);
    dark.room = RoomFacts {
        policy: Fact::Unavailable(Unavailable::Malformed),
        encryption: Fact::Unavailable(Unavailable::NotLoaded),
        lifetime_ms: Fact::Unavailable(Unavailable::NotLoaded),
    };
    dark.person.organisation = Fact::Unavailable(Unavailable::NotLoaded);
    dark.person.credential = CredentialStatus::Revoked { revoked_at_ms: 0 };
    let ways_out = [
        Action::Leave,
        Action::Remove { target: OUTSIDER.to_owned() },
        Action::Redact(RedactTarget::Message),
        Action::Redact(RedactTarget::Unknown),
    ];
    for act in ways_out {
        assert_permitted(&judge(OUTSIDER, act.clone(), &dark));
        assert_permitted(&judge(OUTSIDER, act.from_outside(), &dark));
    }
    for act in [Action::Join, message(), plaintext(), Action::FederatedJoin, Action::Read, Action::Remain] {
        assert!(!judge(AMIRA, act, &dark).is_permit());
    }
}

#[test]
fn room_with_an_unreadable_policy_stands_still() {
    let mut frozen = facts(AMIRA);
    frozen.room.policy = Fact::Unavailable(Unavailable::Malformed);
    for act in [Action::Join, message(), plaintext(), Action::Read] {
        assert_undetermined(&judge(AMIRA, act, &frozen), ReasonCode::PolicyUnavailable);
    }
}

#[test]
fn file_beyond_the_limit_is_refused() {
    let policies = PolicySet {
        floor: Some(PolicyLayer { media_max_bytes: Some(10), ..PolicyLayer::default() }),
        ..PolicySet::default()
    };
    let upload =
        |size_bytes| decide(&request(AMIRA, Action::UploadMedia { size_bytes }), &Facts::ordinary(NOW_MS), &policies);
    assert_permitted(&upload(10));
    assert_refused(&upload(11), ReasonCode::MediaTooLarge);
}
