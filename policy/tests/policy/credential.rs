//! Credentials: issued by one organisation, verified by every other.

use matron_policy::{
    CREDENTIAL_FIELD, Credential, CredentialError, CredentialStatus, Fact, Forgery, PersonFacts, Revocation,
    Revocations, VerificationLevel,
};
use serde_json::{Value, json};

use crate::fixtures::*;

fn status(credential: &Credential, user_id: &str, now_ms: u64) -> CredentialStatus {
    credential.verify(&register(), &Revocations::default(), user_id, now_ms)
}

#[test]
fn credential_is_valid_in_its_owners_hands_for_its_time() {
    let credential = credential(BEN, "RXB");
    assert_eq!(status(&credential, BEN, NOW_MS), valid(credential.clone()));
    let end = NOW_MS + 90 * DAY_MS;
    let mut lasting = plain_register();
    lasting.expires_at_ms = end + DAY_MS;
    let register = verify(&lasting);
    let at = |now_ms| credential.verify(&register, &Revocations::default(), BEN, now_ms);
    assert!(matches!(at(end - 1), CredentialStatus::Valid { .. }));
    assert_eq!(at(end), CredentialStatus::Expired { expired_at_ms: end });
    assert_eq!(at(0), CredentialStatus::Forged(Forgery::FromTheFuture));
}

#[test]
fn credential_of_somebody_else_is_forged() {
    assert_eq!(status(&credential(BEN, "RXB"), AMIRA, NOW_MS), CredentialStatus::Forged(Forgery::OtherPerson));
}

#[test]
fn organisation_vouches_for_its_own_servers_alone() {
    assert_eq!(status(&credential(BEN, "RXA"), BEN, NOW_MS), CredentialStatus::Forged(Forgery::OtherOrganisation));
}

#[test]
fn key_of_another_organisation_does_not_count() {
    let forged = Credential::issue(claims(BEN, "RXB"), "2027", &organisation_key("RXA")).unwrap();
    assert_eq!(status(&forged, BEN, NOW_MS), CredentialStatus::Forged(Forgery::BadSignature));
    let unknown = Credential::issue(claims(BEN, "RXB"), "2031", &organisation_key("RXB")).unwrap();
    assert_eq!(status(&unknown, BEN, NOW_MS), CredentialStatus::Forged(Forgery::UnknownKey));
    let foreign = Credential::issue(claims(BEN, "RXZ"), "2027", &organisation_key("RXZ")).unwrap();
    assert_eq!(status(&foreign, BEN, NOW_MS), CredentialStatus::Forged(Forgery::UnknownOrganisation));
}

#[test]
fn key_that_an_expired_register_does_not_know_may_be_genuine() {
    let unknown = Credential::issue(claims(BEN, "RXB"), "2031", &organisation_key("RXB")).unwrap();
    assert_eq!(status(&unknown, BEN, NOW_MS + 31 * DAY_MS), CredentialStatus::Unverifiable);
}

#[test]
fn every_altered_field_breaks_the_signature() {
    let changes = [
        ("profession", json!("doctor")),
        ("roles", json!(["ward-7", "compliance-officer"])),
        ("level", json!("identity")),
        ("checked_at_ms", json!(NOW_MS)),
        ("expires_at_ms", json!(NOW_MS + 900 * DAY_MS)),
        ("serial", json!("RXB-0002")),
        ("signature", json!("")),
    ];
    for (field, value) in changes {
        let mut shown = credential(BEN, "RXB").to_value();
        shown[field] = value;
        let shown = Credential::from_value(&shown).unwrap();
        assert_eq!(status(&shown, BEN, NOW_MS), CredentialStatus::Forged(Forgery::BadSignature), "{field}");
    }
}

#[test]
fn revoked_credential_is_revoked_by_register_and_stays_with_its_issuer() {
    let mut register = plain_register();
    let serial = "RXB-0001".to_owned();
    register.revocations =
        vec![Revocation { organisation: "RXA".to_owned(), serial: serial.clone(), revoked_at_ms: 5 }];
    let lists = |register: &matron_policy::Register| Revocations::from_register(&verify(register));
    let judged =
        |revocations: &Revocations| credential(BEN, "RXB").verify(&verify(&plain_register()), revocations, BEN, NOW_MS);
    // Another organisation's serial of the same name says nothing.
    assert!(matches!(judged(&lists(&register)), CredentialStatus::Valid { .. }));
    register.revocations.push(Revocation { organisation: "RXB".to_owned(), serial, revoked_at_ms: 6 });
    assert_eq!(judged(&lists(&register)), CredentialStatus::Revoked { revoked_at_ms: 6 });
}

#[test]
fn facts_are_gathered_from_a_member_events_content() {
    let content = json!({"membership": "join", CREDENTIAL_FIELD: credential(BEN, "RXB").to_value()});
    let gather =
        |content: Option<&Value>| PersonFacts::gather(BEN, content, Some(&register()), &Revocations::default(), NOW_MS);
    let facts = gather(Some(&content));
    assert!(matches!(facts.credential, CredentialStatus::Valid { .. }));
    assert!(matches!(facts.organisation, Fact::Known(organisation) if organisation.code == "RXB"));
    assert_eq!(gather(Some(&json!({"membership": "join"}))).credential, CredentialStatus::Missing);
    assert_eq!(gather(Some(&json!({CREDENTIAL_FIELD: null}))).credential, CredentialStatus::Missing);
    assert_eq!(gather(None).credential, CredentialStatus::Missing);
    for shown in [json!("yes"), json!([]), json!({}), json!({"type": "org.matron.credential"})] {
        let content = json!({CREDENTIAL_FIELD: shown});
        assert_eq!(gather(Some(&content)).credential, CredentialStatus::Forged(Forgery::Unreadable));
    }
    let blind = PersonFacts::gather(BEN, Some(&content), None, &Revocations::default(), NOW_MS);
    assert_eq!(blind.credential, CredentialStatus::Unverifiable);
    assert!(matches!(blind.organisation, Fact::Unavailable(_)));
}

#[test]
fn malformed_claims_are_not_signed() {
    type Change = fn(&mut matron_policy::CredentialClaims);
    let cases: [(Change, &str); 7] = [
        (|c| c.user_id = "amira".to_owned(), "user_id"),
        (|c| c.organisation = String::new(), "organisation"),
        (|c| c.profession = "x".repeat(65), "profession"),
        (|c| c.serial = "a b".to_owned(), "serial"),
        (|c| c.roles = (0..33).map(|n| format!("r{n}")).collect(), "roles"),
        (|c| c.expires_at_ms = c.checked_at_ms, "expires before"),
        (|c| c.expires_at_ms = u64::MAX, "2^53"),
    ];
    for (change, words) in cases {
        let mut claims = claims(AMIRA, "RXA");
        change(&mut claims);
        let error = Credential::issue(claims, "2027", &organisation_key("RXA")).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn levels_are_named_and_ordered() {
    assert!(VerificationLevel::Identity < VerificationLevel::Employment);
    assert!(VerificationLevel::Employment < VerificationLevel::RightToPractise);
    assert_eq!("right_to_practise".parse::<VerificationLevel>().unwrap(), VerificationLevel::RightToPractise);
    assert!(matches!("doctor".parse::<VerificationLevel>(), Err(CredentialError::Malformed("level"))));
}
