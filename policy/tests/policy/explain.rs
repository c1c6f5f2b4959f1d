//! Decisions in plain words.

use matron_policy::{Action, AuditDraft, AuditKind, ChainHead, CredentialStatus, DecisionId, Digest, append, explain};

use crate::fixtures::*;

fn id() -> DecisionId {
    DecisionId::from_random([7; 8])
}

#[test]
fn refusal_is_told_in_words_that_a_nurse_reads() {
    let mut facts = facts(BEN);
    facts.person.credential = CredentialStatus::Revoked { revoked_at_ms: 1 };
    let request = request(BEN, Action::Join.from_outside());
    let verdict = judge(BEN, request.action.clone(), &facts);
    let entry = append(&ChainHead::GENESIS, AuditDraft::decision(&request, &verdict, NOW_MS, id()));
    let told = explain(&entry);
    let expected = format!(
        "E1R7-0W3G-E1R7 at 2027-01-15 08:00:00 UTC: @ben:trust-b.example wanted to join in room \
         !ward:trust-a.example, from another server.\n\
         Refused:\n\
         - This person's organisation has taken the credential back. [current_credential: credential_revoked]\n\
         Policy revision {}.\n\
         Entry 0 of the audit log, hash {}.",
        verdict.revision().short(),
        entry.hash.short()
    );
    assert_eq!(told, expected);
}

#[test]
fn permit_is_told_with_its_duties() {
    let told = explain(&judge(AMIRA, message(), &facts(AMIRA)));
    assert!(told.starts_with("Permitted:\n- Northwick Park (RXA) is one of the organisations of this room."), "{told}");
    assert!(told.contains("holds for another 90 days."), "{told}");
    assert!(told.contains("\n+ The message must be destroyed after 1 hour."), "{told}");
}

#[test]
fn acts_are_told_too() {
    let told = |kind| explain(&append(&ChainHead::GENESIS, AuditDraft::act(kind, 0, id())));
    let deletion = AuditKind::Deletion {
        room_id: ROOM.to_owned(),
        events: 3,
        media: 1,
        up_to_ms: 951_782_400_000,
        key_destroyed: true,
    };
    let text = told(deletion);
    assert!(text.contains("1970-01-01 00:00:00 UTC"), "{text}");
    assert!(text.contains("3 message(s) and 1 file(s)"), "{text}");
    assert!(text.contains("2000-02-29 00:00:00 UTC were destroyed, and the key to every copy"), "{text}");
    let register = AuditKind::RegisterAccepted { version: 7, digest: Digest::ZERO };
    assert!(told(register).contains("Federation register version 7 (000000000000) came into use."));
    let act = AuditKind::OperatorAct { operator: "root".to_owned(), act: "backup".to_owned(), target: None };
    assert!(told(act).contains("Operator root: backup."));
}

#[test]
fn times_beyond_all_calendars_are_told_without_a_panic() {
    let kind = AuditKind::Revocation { organisation: "RXA".to_owned(), serial: "1".to_owned() };
    assert!(explain(&append(&ChainHead::GENESIS, AuditDraft::act(kind, u64::MAX, id()))).contains("UTC"));
}

#[test]
fn policy_is_told_to_the_members_of_the_room() {
    assert_eq!(
        explain(&room_policy()),
        "Only people of these organisations may be here: RXA, RXB.\n\
         Joining and speaking need a current credential.\n\
         Messages must be end-to-end encrypted.\n\
         Messages are destroyed after 1 hour at the latest."
    );
    assert_eq!(
        explain(&matron_policy::PolicyLayer::default()),
        "No policy: everything that Matrix allows is permitted."
    );
}
