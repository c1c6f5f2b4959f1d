//! Whose word counts: credentials, bots, machines and officers.

use matron_policy::*;

use crate::fixtures::*;

#[test]
fn credential_that_is_not_current_neither_joins_nor_speaks() {
    let cases = [
        (CredentialStatus::Missing, ReasonCode::CredentialMissing),
        (CredentialStatus::Expired { expired_at_ms: 1 }, ReasonCode::CredentialExpired),
        (CredentialStatus::Revoked { revoked_at_ms: 1 }, ReasonCode::CredentialRevoked),
        (CredentialStatus::Forged(Forgery::BadSignature), ReasonCode::CredentialForged),
        (CredentialStatus::Forged(Forgery::OtherPerson), ReasonCode::CredentialForged),
    ];
    for (status, code) in cases {
        let mut facts = facts(BEN);
        facts.person.credential = status;
        for act in [Action::Join, Action::Knock, Action::FederatedJoin, message(), message().from_outside()] {
            assert_refused(&judge(BEN, act, &facts), code);
        }
    }
    let mut facts = facts(BEN);
    facts.person.credential = CredentialStatus::Unverifiable;
    assert_undetermined(&judge(BEN, message(), &facts), ReasonCode::CredentialUnverifiable);
}

#[test]
fn revoked_member_is_evicted_and_expired_member_stays_silent() {
    let mut facts = facts(BEN);
    facts.person.credential = CredentialStatus::Revoked { revoked_at_ms: 1 };
    assert_refused(&judge(BEN, Action::Remain, &facts), ReasonCode::CredentialRevoked);
    facts.person.credential = CredentialStatus::Expired { expired_at_ms: 1 };
    assert_permitted(&judge(BEN, Action::Remain, &facts));
    facts.person.credential = CredentialStatus::Unverifiable;
    assert!(judge(BEN, Action::Remain, &facts).is_undetermined());
}

#[test]
fn bot_and_machine_of_a_member_need_no_credential() {
    for user in [BOT, LAB] {
        let mut facts = facts(user);
        facts.person.credential = CredentialStatus::Missing;
        assert_permitted(&judge(user, Action::Join, &facts));
        assert_permitted(&judge(user, message(), &facts));
        assert_permitted(&judge(user, message().from_outside(), &facts));
    }
}

#[test]
fn clinician_who_calls_itself_a_machine_is_not_believed_by_the_register() {
    assert_eq!(register().kind_of("@label:trust-a.example", None), PrincipalKind::Remote);
    assert_eq!(register().kind_of("@lab-x:trust-a.example.evil", None), PrincipalKind::Remote);
    assert_eq!(register().kind_of(LAB, None), PrincipalKind::AppService);
    assert_eq!(register().kind_of(BOT, None), PrincipalKind::Bot);
}

#[test]
fn room_may_ask_for_level_profession_role_and_recent_check() {
    let with = |layer: PolicyLayer| {
        let policies = PolicySet { floor: Some(layer), ..PolicySet::default() };
        decide(&request(AMIRA, message()), &facts(AMIRA), &policies)
    };
    let set = |name: &str| Some([name.to_owned()].into());
    assert_permitted(&with(PolicyLayer { professions: set("nurse"), roles: set("ward-7"), ..PolicyLayer::default() }));
    assert_refused(
        &with(PolicyLayer { professions: set("doctor"), ..PolicyLayer::default() }),
        ReasonCode::ProfessionNotAllowed,
    );
    assert_refused(&with(PolicyLayer { roles: set("ward-8"), ..PolicyLayer::default() }), ReasonCode::RoleNotAllowed);
    assert_refused(
        &with(PolicyLayer { credential_max_age_ms: Some(HOUR_MS), ..PolicyLayer::default() }),
        ReasonCode::CredentialTooOld,
    );
    let mut identified = claims(AMIRA, "RXA");
    identified.level = VerificationLevel::Identity;
    let mut facts = facts(AMIRA);
    facts.person.credential =
        valid(matron_policy::Credential::issue(identified, "2027", &organisation_key("RXA")).unwrap());
    let policies = PolicySet {
        floor: Some(PolicyLayer { minimum_level: Some(VerificationLevel::Employment), ..PolicyLayer::default() }),
        ..PolicySet::default()
    };
    assert_refused(&decide(&request(AMIRA, message()), &facts, &policies), ReasonCode::LevelTooLow);
}

#[test]
fn member_whose_credential_lapsed_reads_on_unless_the_policy_says_no() {
    let mut facts = facts(AMIRA);
    facts.person.credential = CredentialStatus::Expired { expired_at_ms: 1 };
    assert_permitted(&judge(AMIRA, Action::Read, &facts));
    let mut policy = room_policy();
    policy.unverified_may_read = Some(false);
    facts.room.policy = Fact::Known(policy);
    assert_refused(&judge(AMIRA, Action::Read, &facts), ReasonCode::CredentialExpired);
}

#[test]
fn officer_role_counts_only_in_a_valid_credential_of_a_member() {
    let mut officer = claims(AMIRA, "RXA");
    officer.roles = [OFFICER_ROLE.to_owned()].into();
    let credential = matron_policy::Credential::issue(officer, "2027", &organisation_key("RXA")).unwrap();
    let change = Action::of_event(AMIRA, "m.room.server_acl", Some(""), &serde_json::json!({}), RedactTarget::Unknown);
    let mut facts = facts(AMIRA);
    assert_refused(&judge(AMIRA, change.clone(), &facts), ReasonCode::NotGovernance);
    facts.person.credential = valid(credential);
    assert_permitted(&judge(AMIRA, change.clone(), &facts));
    facts.person.credential = CredentialStatus::Revoked { revoked_at_ms: 0 };
    assert!(!judge(AMIRA, change, &facts).is_permit());
}
