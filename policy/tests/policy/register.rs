//! The register: signed, consistent, never rolled back.

use matron_policy::{
    RegisterError, RegisterStatus, Revocation, SignedRegister, SigningKey, VerifiedRegister, accept, canonical,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::*;

fn read(bytes: &[u8]) -> Result<VerifiedRegister, RegisterError> {
    SignedRegister::verify(bytes, &[register_key().verifying_key()])
}

fn altered(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(&sign(&plain_register())).unwrap();
    change(&mut value);
    serde_json::to_vec(&value).unwrap()
}

#[test]
fn signed_register_is_read_back_whole() {
    let register = read(&sign(&plain_register())).unwrap();
    assert_eq!(*register.register(), plain_register());
    assert_eq!(register.organisation_of_server("trust-b.example").unwrap().code, "RXB");
    assert_eq!(register.organisation("RXC").unwrap().name, "Charité");
    assert!(register.organisation_of_server("elsewhere.example").is_none());
    assert_eq!(register.servers().count(), 3);
}

#[test]
fn layout_and_order_of_keys_do_not_matter() {
    let value: Value = serde_json::from_slice(&sign(&plain_register())).unwrap();
    let pretty = serde_json::to_vec_pretty(&value).unwrap();
    assert_eq!(read(&pretty).unwrap().digest(), register().digest());
}

#[test]
fn corrupt_register_is_called_corrupt() {
    let mut bytes = sign(&plain_register());
    bytes.truncate(bytes.len() / 2);
    assert!(matches!(read(&bytes), Err(RegisterError::Corrupt(_))));
    assert!(matches!(read(b""), Err(RegisterError::Corrupt(_))));
    assert!(matches!(read(b"\xff\xfe"), Err(RegisterError::Corrupt(_))));
    let large = vec![b' '; matron_policy::register::MAX_REGISTER_BYTES + 1];
    assert!(matches!(read(&large), Err(RegisterError::Corrupt(canonical::CanonicalError::TooLarge { .. }))));
}

#[test]
fn other_documents_are_no_registers() {
    assert!(matches!(read(b"[]"), Err(RegisterError::NotARegister)));
    assert!(matches!(read(b"{}"), Err(RegisterError::NotARegister)));
    assert!(matches!(read(&altered(|r| r["type"] = json!("org.matron.credential"))), Err(RegisterError::NotARegister)));
}

#[test]
fn unsigned_register_is_called_unsigned() {
    let unsigned = altered(|register| {
        register.as_object_mut().unwrap().remove("signatures");
    });
    assert!(matches!(read(&unsigned), Err(RegisterError::Unsigned)));
    assert!(matches!(read(&altered(|r| r["signatures"] = json!({}))), Err(RegisterError::Unsigned)));
    assert!(matches!(SignedRegister::sign(&plain_register(), &[]), Err(RegisterError::Unsigned)));
}

#[test]
fn foreign_register_is_called_foreign() {
    let foreign = SignedRegister::sign(&plain_register(), &[&SigningKey::from_bytes(&[9; 32])]).unwrap();
    assert!(matches!(read(&foreign.to_bytes().unwrap()), Err(RegisterError::Foreign { named: 1 })));
    assert!(matches!(SignedRegister::verify(&sign(&plain_register()), &[]), Err(RegisterError::Foreign { .. })));
}

#[test]
fn altered_register_is_called_altered() {
    let cases = [
        altered(|register| register["version"] = json!(8)),
        altered(|register| register["organisations"][0]["server_names"][0] = json!("elsewhere.example")),
        altered(|register| {
            register["signatures"].as_object_mut().unwrap().values_mut().for_each(|s| *s = json!("AAAA"))
        }),
        altered(|register| register["signatures"].as_object_mut().unwrap().values_mut().for_each(|s| *s = json!(1))),
        altered(|register| register["surprise"] = json!(1)),
    ];
    for bytes in cases {
        assert!(matches!(read(&bytes), Err(RegisterError::BadSignature { .. })));
    }
}

#[test]
fn second_signature_of_a_trusted_key_suffices() {
    let both = SignedRegister::sign(&plain_register(), &[&SigningKey::from_bytes(&[9; 32]), &register_key()]).unwrap();
    assert!(read(&both.to_bytes().unwrap()).is_ok());
}

#[test]
fn one_server_belongs_to_one_organisation() {
    let mut register = plain_register();
    register.organisations[1].server_names.push("trust-a.example".to_owned());
    let error = SignedRegister::sign(&register, &[&register_key()]).unwrap_err();
    assert_eq!(error.to_string(), "server trust-a.example belongs to RXA and to RXB");
}

#[test]
fn inconsistent_registers_are_refused_by_name() {
    type Change = fn(&mut matron_policy::Register);
    let cases: [(Change, &str); 10] = [
        (|r| r.organisations[0].service_users = vec!["@*:trust-a.example".to_owned()], "nearly everybody"),
        (|r| r.organisations[1].code = "RXA".to_owned(), "two organisations have the code RXA"),
        (|r| r.organisations[0].code = String::new(), "code of organisation number 1"),
        (|r| r.organisations[0].server_names = vec!["Trust A".to_owned()], "malformed server name"),
        (|r| r.organisations[0].server_names = vec!["*".to_owned()], "malformed server name"),
        (|r| r.organisations[0].governance_users = vec!["@matron:trust-b.example".to_owned()], "not its own"),
        (
            |r| {
                r.organisations[0].credential_keys.insert("x".to_owned(), "AAAA".to_owned());
            },
            "key x of organisation RXA: an ed25519 key has 32 bytes",
        ),
        (
            |r| {
                // The neutral element: a key that would accept almost anything.
                r.organisations[0].policy_server_key = Some(format!("AQ{}", "A".repeat(41)));
            },
            "no sound ed25519 key",
        ),
        (|r| r.expires_at_ms = r.issued_at_ms, "expires before it is issued"),
        (
            |r| {
                r.revocations.push(Revocation {
                    organisation: "RXZ".to_owned(),
                    serial: "1".to_owned(),
                    revoked_at_ms: 1,
                });
            },
            "revocation number 1",
        ),
    ];
    for (change, words) in cases {
        let mut register = plain_register();
        change(&mut register);
        let error = SignedRegister::sign(&register, &[&register_key()]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn register_holds_for_its_time() {
    let register = register();
    assert_eq!(register.status(NOW_MS), RegisterStatus::Fresh { version: 7 });
    let end = NOW_MS + 30 * DAY_MS;
    assert_eq!(register.status(end - 1), RegisterStatus::Fresh { version: 7 });
    assert_eq!(register.status(end), RegisterStatus::Stale { expired_at_ms: end });
    assert!(matches!(register.check_current(end), Err(RegisterError::Expired { .. })));
    assert!(matches!(register.check_current(0), Err(RegisterError::NotYetValid { .. })));
    assert_eq!(register.status(0), RegisterStatus::None);
    assert_eq!(register.status(u64::MAX), RegisterStatus::Stale { expired_at_ms: end });
}

#[test]
fn register_is_never_rolled_back() {
    let current = register();
    let mut newer = plain_register();
    newer.version = 8;
    let newer = verify(&newer);
    let mut other = plain_register();
    other.federation = "Elsewhere".to_owned();
    assert_eq!(accept(None, current.clone()).unwrap().version(), 7);
    assert_eq!(accept(Some(&current), newer.clone()).unwrap().version(), 8);
    assert_eq!(accept(Some(&current), register()).unwrap().version(), 7);
    assert!(matches!(accept(Some(&newer), current.clone()), Err(RegisterError::RolledBack { current: 8, offered: 7 })));
    assert!(matches!(accept(Some(&current), verify(&other)), Err(RegisterError::Conflict { version: 7 })));
}

proptest! {
    #[test]
    fn any_flipped_bit_is_noticed(place in 0..10_000_usize, bit in 0..8_u8) {
        let mut bytes = sign(&plain_register());
        let place = place % bytes.len();
        bytes[place] ^= 1 << bit;
        if let Ok(read) = read(&bytes) {
            // Only what base64 leaves open may differ: the document itself is the same.
            prop_assert_eq!(read.digest(), register().digest());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = read(&bytes);
    }
}
