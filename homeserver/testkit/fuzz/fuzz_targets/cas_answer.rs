//! No answer of a CAS server makes a panic; whoever it names has a name that fits on one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matron_core::oauth::CasAnswer;

fuzz_target!(|bytes: &[u8]| {
    match CasAnswer::parse(bytes) {
        Ok(CasAnswer::Valid(principal)) => {
            assert!((1..=255).contains(&principal.user.len()) && !principal.user.contains(char::is_control));
            assert!(principal.attributes.values().flatten().all(|value| !value.is_empty()));
        }
        Ok(CasAnswer::Refused(code)) => assert!(code.len() <= 64 && code.is_ascii()),
        Ok(CasAnswer::Proxied) | Err(_) => {}
    }
});
