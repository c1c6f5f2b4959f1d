//! Any bytes offered as a credential or a revocation are read or refused, and nothing unsigned is ever valid.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use matron_policy::{
    Credential, CredentialStatus, Organisation, Register, RevocationNotice, Revocations, SignedRegister, SigningKey,
    VerifiedRegister, keys,
};

static REGISTER: LazyLock<VerifiedRegister> = LazyLock::new(|| {
    let key = SigningKey::from_bytes(&[1; 32]);
    let register = Register {
        kind: Default::default(),
        version: 1,
        issued_at_ms: 0,
        expires_at_ms: 1 << 50,
        federation: "fuzz".to_owned(),
        organisations: vec![Organisation {
            code: "A".to_owned(),
            name: "A".to_owned(),
            jurisdiction: "GB".to_owned(),
            server_names: vec!["a".to_owned()],
            credential_keys: BTreeMap::from([("k".to_owned(), keys::encode_verifying_key(&key.verifying_key()))]),
            policy_server_key: None,
            governance_users: Vec::new(),
            service_users: Vec::new(),
        }],
        revocations: Vec::new(),
    };
    let bytes = SignedRegister::sign(&register, &[&key]).and_then(|signed| signed.to_bytes()).expect("sound");
    SignedRegister::verify(&bytes, &[key.verifying_key()]).expect("sound")
});

fuzz_target!(|bytes: &[u8]| {
    let _ = RevocationNotice::verify(bytes, &REGISTER);
    let Ok(credential) = Credential::parse(bytes) else { return };
    let status = credential.verify(&REGISTER, &Revocations::default(), "@amira:a", 1);
    assert!(!matches!(status, CredentialStatus::Valid { .. }), "nobody signed this");
    assert_eq!(Credential::from_value(&credential.to_value()).expect("its own form"), credential);
});
