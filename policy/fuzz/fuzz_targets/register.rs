//! Any bytes offered as a register are read or refused; what passes as a document can be signed and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matron_policy::{Register, SignedRegister, SigningKey};

fuzz_target!(|bytes: &[u8]| {
    let key = SigningKey::from_bytes(&[1; 32]);
    let trusted = [key.verifying_key()];
    let _ = SignedRegister::verify(bytes, &trusted);
    let Ok(register) = serde_json::from_slice::<Register>(bytes) else { return };
    let Ok(signed) = SignedRegister::sign(&register, &[&key]) else { return };
    let bytes = signed.to_bytes().expect("what was signed can be written");
    let read = SignedRegister::verify(&bytes, &trusted).expect("what was signed can be verified");
    assert_eq!(*read.register(), register);
});
