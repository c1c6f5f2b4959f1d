//! Signing keys and signed JSON.

use std::collections::BTreeMap;

use matron_room::{KeyError, SignatureError, SigningKey, VerifyKey, parse_canonical, verify_json_signature};

use crate::support::spec_key;

#[test]
fn key_file_survives_a_round_trip() {
    let key = SigningKey::generate([9; 32]);
    let again = SigningKey::from_key_file(&key.to_key_file()).unwrap();
    assert_eq!(again.key_id(), key.key_id());
    assert_eq!(again.verify_key(), key.verify_key());
    assert_eq!(again.sign_bytes(b"x"), key.sign_bytes(b"x"));
}

#[test]
fn damaged_key_files_are_refused_by_what_is_wrong() {
    let seed = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";
    let cases = [
        (String::new(), KeyError::NotAKeyLine),
        ("ed25519 a".to_owned(), KeyError::NotAKeyLine),
        (format!("ed25519 a {seed} more"), KeyError::NotAKeyLine),
        (format!("rsa a {seed}"), KeyError::Algorithm),
        (format!("ed25519 a:b {seed}"), KeyError::Name),
        ("ed25519 a YJDB".to_owned(), KeyError::Length),
        ("ed25519 a !!!!".to_owned(), KeyError::Length),
    ];
    for (text, expected) in cases {
        assert_eq!(SigningKey::from_key_file(&text).unwrap_err(), expected);
    }
}

#[test]
fn debug_output_holds_no_secret() {
    let key = spec_key();
    let printed = format!("{key:?}");
    assert!(printed.contains("ed25519:1") && !printed.contains("YJDBA9") && !printed.contains("96, 144"));
}

#[test]
fn signed_json_verifies_and_altered_json_does_not() {
    let key = spec_key();
    let keys = BTreeMap::from([(key.key_id().to_owned(), key.verify_key().to_base64())]);
    let mut object = parse_canonical(r#"{"a":1,"unsigned":{"b":2},"signatures":{"other":{"ed25519:x":"y"}}}"#).unwrap();
    key.sign_json(&mut object, "domain").unwrap();
    verify_json_signature(&object, "domain", &keys).unwrap();

    object.remove("unsigned");
    verify_json_signature(&object, "domain", &keys).unwrap();
    assert!(matches!(verify_json_signature(&object, "else", &keys), Err(SignatureError::Missing { .. })));
    assert!(matches!(
        verify_json_signature(&object, "domain", &BTreeMap::new()),
        Err(SignatureError::UnknownKey { .. })
    ));
    object.insert("a".to_owned(), matron_room::CanonicalJsonValue::Integer(2.into()));
    assert!(matches!(verify_json_signature(&object, "domain", &keys), Err(SignatureError::Invalid { .. })));
}

#[test]
fn nonsense_keys_and_signatures_verify_nothing() {
    let key = spec_key().verify_key();
    assert_eq!(VerifyKey::from_base64(&key.to_base64()).unwrap(), key);
    for signature in ["", "AAAA", "not base64", &"A".repeat(86), &"A".repeat(87)] {
        assert!(!key.verifies(b"message", signature));
    }
    let small_order = VerifyKey::from_bytes([0; 32]);
    assert!(!small_order.verifies(b"message", &"A".repeat(86)));
}
