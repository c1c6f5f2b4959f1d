//! The forms that other programs read. A change here is a change of protocol.

use matron_policy::{
    Action, AuditDraft, AuditKind, ChainHead, DecisionId, Obligation, Outcome, PolicyLayer, ReasonCode, RuleId, append,
};
use serde_json::{Value, json};

use crate::fixtures::*;

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn room_policy_content() {
    assert_eq!(
        room_policy().to_content(),
        json!({
            "version": 1,
            "organisations": ["RXA", "RXB"],
            "credential_required": true,
            "encryption_required": true,
            "lifetime_required": true,
            "max_lifetime_ms": 3_600_000,
        })
    );
}

#[test]
fn signed_register() {
    let mut register = plain_register();
    register.organisations.truncate(1);
    let document = parsed(&sign(&register));
    assert_eq!(
        document,
        json!({
            "type": "org.matron.register",
            "version": 7,
            "issued_at_ms": NOW_MS - DAY_MS,
            "expires_at_ms": NOW_MS + 30 * DAY_MS,
            "federation": "North Sea Care",
            "organisations": [{
                "code": "RXA",
                "name": "Northwick Park",
                "jurisdiction": "GB-ENG",
                "server_names": ["trust-a.example"],
                "credential_keys": {"2027": document["organisations"][0]["credential_keys"]["2027"]},
                "governance_users": ["@matron:trust-a.example"],
                "service_users": ["@lab-*:trust-a.example"],
            }],
            "revocations": [],
            "signatures": {
                "ed25519:iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w":
                    document["signatures"]["ed25519:iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w"],
            },
        })
    );
}

#[test]
fn signed_credential() {
    let credential = credential(AMIRA, "RXA").to_value();
    assert_eq!(
        credential,
        json!({
            "type": "org.matron.credential",
            "user_id": "@amira:trust-a.example",
            "organisation": "RXA",
            "profession": "nurse",
            "roles": ["ward-7"],
            "level": "right_to_practise",
            "checked_at_ms": NOW_MS - DAY_MS,
            "expires_at_ms": NOW_MS + 90 * DAY_MS,
            "serial": "RXA-0001",
            "key_id": "2027",
            "signature": credential["signature"],
        })
    );
    assert_eq!(credential["signature"].as_str().map(str::len), Some(86));
}

#[test]
fn audit_entry() {
    let request = request(CARLA, Action::Join.from_outside());
    let verdict = judge(CARLA, request.action.clone(), &facts(CARLA));
    let id = DecisionId::from_random([1; 8]);
    let entry = append(&ChainHead::GENESIS, AuditDraft::decision(&request, &verdict, NOW_MS, id));
    assert_eq!(
        parsed(&entry.to_bytes()),
        json!({
            "seq": 0,
            "at_ms": NOW_MS,
            "decision_id": "2081-040G-2081",
            "kind": {"decision": {
                "request": {
                    "user_id": "@carla:trust-c.example",
                    "principal": "remote",
                    "action": "join",
                    "federated": true,
                    "room_id": "!ward:trust-a.example",
                },
                "request_digest": request.digest().to_string(),
                "outcome": "deny",
                "reasons": [{
                    "rule": "organisation_bounds",
                    "code": "outside_room",
                    "sentence": "This person's organisation (RXC) is not one of the organisations of this room.",
                }],
            }},
            "revision": verdict.revision().to_string(),
            "prev_hash": "0".repeat(64),
            "hash": entry.hash.to_string(),
        })
    );
}

#[test]
fn audit_acts() {
    let form = |kind: AuditKind| serde_json::to_value(kind).unwrap();
    assert_eq!(
        form(AuditKind::Deletion { room_id: ROOM.to_owned(), events: 2, media: 1, up_to_ms: 5, key_destroyed: false }),
        json!({"deletion": {"room_id": ROOM, "events": 2, "media": 1, "up_to_ms": 5, "key_destroyed": false}})
    );
    assert_eq!(
        form(AuditKind::Eviction {
            room_id: ROOM.to_owned(),
            user_id: BEN.to_owned(),
            code: ReasonCode::CredentialRevoked
        }),
        json!({"eviction": {"room_id": ROOM, "user_id": BEN, "code": "credential_revoked"}})
    );
}

#[test]
fn outcomes_and_obligations() {
    let outcome = Outcome::Permit(vec![Obligation::Expire { after_ms: 5 }, Obligation::Encrypt]);
    assert_eq!(serde_json::to_value(outcome).unwrap(), json!({"permit": [{"expire": {"after_ms": 5}}, "encrypt"]}));
    assert_eq!(serde_json::to_value(Outcome::Undetermined).unwrap(), json!("undetermined"));
    assert_eq!(serde_json::to_value(RuleId::CurrentCredential).unwrap(), json!("current_credential"));
}

#[test]
fn revision_of_a_policy_does_not_drift() {
    let facts = matron_policy::Fact::Known(room_policy());
    let revision = matron_policy::PolicySet::default().effective(&facts).revision();
    assert_eq!(revision.to_string(), "4f87a76a373ee076bd1917c0269c371a97455cf5b1fa42778835c259a76e3047");
}

#[test]
fn empty_layer_is_an_empty_object() {
    assert_eq!(serde_json::to_value(PolicyLayer::default()).unwrap(), json!({}));
}
