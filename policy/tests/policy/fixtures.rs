//! A small federation: trusts A and B share a room, trust C is a member that has no part in it.

use std::collections::BTreeMap;

use matron_policy::{
    Action, Context, Credential, CredentialClaims, CredentialStatus, Fact, Facts, Form, Invitee, MEGOLM, Organisation,
    PersonFacts, PolicySet, Principal, PrincipalKind, Register, Request, Resource, Revocations, RoomEncryption,
    RoomFacts, RoomPolicy, SignedRegister, SigningKey, Verdict, VerificationLevel, VerifiedRegister, decide, keys,
};

pub(crate) const NOW_MS: u64 = 1_800_000_000_000;
pub(crate) const HOUR_MS: u64 = 3_600_000;
pub(crate) const DAY_MS: u64 = 24 * HOUR_MS;
pub(crate) const ROOM: &str = "!ward:trust-a.example";
pub(crate) const AMIRA: &str = "@amira:trust-a.example";
pub(crate) const BEN: &str = "@ben:trust-b.example";
pub(crate) const CARLA: &str = "@carla:trust-c.example";
pub(crate) const OUTSIDER: &str = "@mallory:elsewhere.example";
pub(crate) const BOT: &str = "@matron:trust-a.example";
pub(crate) const LAB: &str = "@lab-pathology:trust-a.example";

pub(crate) fn register_key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

pub(crate) fn organisation_key(code: &str) -> SigningKey {
    SigningKey::from_bytes(&[*code.as_bytes().last().unwrap(); 32])
}

pub(crate) fn organisation(code: &str, name: &str, server: &str) -> Organisation {
    Organisation {
        code: code.to_owned(),
        name: name.to_owned(),
        jurisdiction: if code == "RXC" { "DE".to_owned() } else { "GB-ENG".to_owned() },
        server_names: vec![server.to_owned()],
        credential_keys: BTreeMap::from([(
            "2027".to_owned(),
            keys::encode_verifying_key(&organisation_key(code).verifying_key()),
        )]),
        policy_server_key: None,
        governance_users: vec![format!("@matron:{server}")],
        service_users: vec![format!("@lab-*:{server}")],
    }
}

pub(crate) fn plain_register() -> Register {
    Register {
        kind: Default::default(),
        version: 7,
        issued_at_ms: NOW_MS - DAY_MS,
        expires_at_ms: NOW_MS + 30 * DAY_MS,
        federation: "North Sea Care".to_owned(),
        organisations: vec![
            organisation("RXA", "Northwick Park", "trust-a.example"),
            organisation("RXB", "Southmead", "trust-b.example"),
            organisation("RXC", "Charité", "trust-c.example"),
        ],
        revocations: Vec::new(),
    }
}

pub(crate) fn sign(register: &Register) -> Vec<u8> {
    SignedRegister::sign(register, &[&register_key()]).unwrap().to_bytes().unwrap()
}

pub(crate) fn verify(register: &Register) -> VerifiedRegister {
    SignedRegister::verify(&sign(register), &[register_key().verifying_key()]).unwrap()
}

pub(crate) fn register() -> VerifiedRegister {
    verify(&plain_register())
}

pub(crate) fn claims(user_id: &str, organisation: &str) -> CredentialClaims {
    CredentialClaims {
        user_id: user_id.to_owned(),
        organisation: organisation.to_owned(),
        profession: "nurse".to_owned(),
        roles: ["ward-7".to_owned()].into(),
        level: VerificationLevel::RightToPractise,
        checked_at_ms: NOW_MS - DAY_MS,
        expires_at_ms: NOW_MS + 90 * DAY_MS,
        serial: format!("{organisation}-0001"),
    }
}

pub(crate) fn credential(user_id: &str, organisation: &str) -> Credential {
    Credential::issue(claims(user_id, organisation), "2027", &organisation_key(organisation)).unwrap()
}

pub(crate) fn valid(credential: Credential) -> CredentialStatus {
    CredentialStatus::Valid { credential: Box::new(credential) }
}

pub(crate) fn room_policy() -> RoomPolicy {
    RoomPolicy::of_organisations(["RXA", "RXB"]).with_max_lifetime_ms(HOUR_MS)
}

/// The room of trusts A and B, encrypted, with messages that live for an hour.
pub(crate) fn clinical_room() -> RoomFacts {
    RoomFacts {
        policy: Fact::Known(room_policy()),
        encryption: Fact::Known(RoomEncryption { algorithm: MEGOLM.to_owned(), rotation_period_ms: Some(HOUR_MS) }),
        lifetime_ms: Fact::Known(HOUR_MS),
    }
}

/// Facts about a verified member of the organisation of the user's server, in the clinical room.
pub(crate) fn facts(user_id: &str) -> Facts {
    let register = register();
    let mut person = PersonFacts::gather(user_id, None, Some(&register), &Revocations::default(), NOW_MS);
    if let Fact::Known(organisation) = &person.organisation {
        person.credential = valid(credential(user_id, &organisation.code));
    }
    Facts { now_ms: NOW_MS, register: register.status(NOW_MS), person, room: clinical_room(), invitee: Fact::Absent }
}

pub(crate) fn facts_with_invitee(user_id: &str, invitee: &str) -> Facts {
    Facts { invitee: Fact::Known(Invitee::gather(invitee, Some(&register()))), ..facts(user_id) }
}

pub(crate) fn request(user_id: &str, action: Action) -> Request {
    let local = user_id.ends_with(":trust-a.example").then_some(PrincipalKind::Clinician);
    let kind = register().kind_of(user_id, local);
    Request {
        principal: Principal::new(user_id, kind),
        action,
        resource: Resource::Room(ROOM.to_owned()),
        context: Context::default(),
    }
}

pub(crate) fn message() -> Action {
    Action::Send { event_type: "m.room.encrypted".to_owned(), form: Form::Encrypted }
}

pub(crate) fn plaintext() -> Action {
    Action::Send { event_type: "m.room.message".to_owned(), form: Form::Clear }
}

/// The verdict in a deployment without layers.
pub(crate) fn judge(user_id: &str, action: Action, facts: &Facts) -> Verdict {
    decide(&request(user_id, action), facts, &PolicySet::default())
}

/// All ways in.
pub(crate) fn admissions() -> Vec<Action> {
    vec![
        Action::CreateRoom { federates: true },
        Action::Join,
        Action::Knock,
        Action::FederatedJoin,
        Action::FederatedKnock,
    ]
}

pub(crate) fn codes(verdict: &Verdict) -> Vec<matron_policy::ReasonCode> {
    verdict.reasons().iter().map(|reason| reason.code).collect()
}

/// The verdict is a refusal for this reason and no other.
#[track_caller]
pub(crate) fn assert_refused(verdict: &Verdict, code: matron_policy::ReasonCode) {
    assert_eq!(*verdict.outcome(), matron_policy::Outcome::Deny, "{verdict:?}");
    assert_eq!(codes(verdict), [code], "{verdict:?}");
}

/// The verdict waits for facts, for this reason among others.
#[track_caller]
pub(crate) fn assert_undetermined(verdict: &Verdict, code: matron_policy::ReasonCode) {
    assert!(verdict.is_undetermined(), "{verdict:?}");
    assert!(codes(verdict).contains(&code), "{verdict:?}");
}

#[track_caller]
pub(crate) fn assert_permitted(verdict: &Verdict) {
    assert!(verdict.is_permit(), "{verdict:?}");
    assert!(!verdict.reasons().is_empty());
}
