//! No key file makes a panic, and what reads as a key prints as the same key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matron_room::SigningKey;

fuzz_target!(|text: &str| {
    let Ok(key) = SigningKey::from_key_file(text) else { return };
    let again = SigningKey::from_key_file(&key.to_key_file()).expect("a printed key reads back");
    assert_eq!(again.key_id(), key.key_id());
    assert_eq!(again.verify_key(), key.verify_key());
});
