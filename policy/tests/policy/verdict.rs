//! Verdicts and the permits that come of them.

use matron_policy::{Action, Facts, Outcome, PolicySet, RedactTarget, decide};

use crate::fixtures::*;

#[test]
fn permit_is_bound_to_its_request() {
    let asked = request(AMIRA, message());
    let permit = judge(AMIRA, message(), &facts(AMIRA)).into_permit().unwrap();
    assert!(permit.is_for(&asked));
    assert!(!permit.is_for(&request(BEN, message())));
    assert!(!permit.is_for(&request(AMIRA, plaintext())));
    let mut elsewhere = asked;
    elsewhere.resource = matron_policy::Resource::Room("!other:trust-a.example".to_owned());
    assert!(!permit.is_for(&elsewhere));
}

#[test]
fn refusal_tells_whether_to_ask_again() {
    let refusal = judge(CARLA, Action::Join, &facts(CARLA)).into_permit().unwrap_err();
    assert!(!refusal.is_retryable());
    let mut blind = facts(AMIRA);
    blind.register = matron_policy::RegisterStatus::None;
    assert!(judge(AMIRA, Action::Join, &blind).into_permit().unwrap_err().is_retryable());
}

#[test]
fn refusal_outweighs_a_gap() {
    let mut facts = facts(CARLA);
    facts.room.encryption = matron_policy::Fact::Unavailable(matron_policy::Unavailable::NotLoaded);
    assert_eq!(*judge(CARLA, message(), &facts).outcome(), Outcome::Deny);
}

#[test]
fn refusal_gives_every_reason_against_it() {
    let mut facts = facts(OUTSIDER);
    facts.person.credential = matron_policy::CredentialStatus::Missing;
    let verdict = judge(OUTSIDER, plaintext().from_outside(), &facts);
    assert_eq!(verdict.reasons().len(), 3, "{verdict:?}");
    assert_eq!(verdict.sentence().matches('.').count(), 3);
}

#[test]
fn redaction_brings_the_duty_to_erase() {
    let policies = PolicySet {
        floor: Some(matron_policy::PolicyLayer { redacted_content_kept_ms: Some(9), ..Default::default() }),
        ..PolicySet::default()
    };
    let act = Action::Redact(RedactTarget::Message);
    let verdict = decide(&request(AMIRA, act), &Facts::ordinary(NOW_MS), &policies);
    assert_eq!(verdict.obligations(), [matron_policy::Obligation::EraseRedacted { within_ms: 9 }]);
}

#[test]
fn question_and_facts_are_kept_and_asked_again() {
    let asked = request(BEN, message().from_outside());
    let facts = facts(BEN);
    let kept = serde_json::to_string(&(&asked, &facts)).unwrap();
    let (request, facts_again): (matron_policy::Request, Facts) = serde_json::from_str(&kept).unwrap();
    assert_eq!((&request, &facts_again), (&asked, &facts));
    assert_eq!(decide(&request, &facts_again, &PolicySet::default()), decide(&asked, &facts, &PolicySet::default()));
}
