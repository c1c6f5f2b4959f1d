//! Any bytes are strict JSON or refused; canonical bytes read back as themselves.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matron_policy::canonical;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = canonical::parse(bytes, 1 << 20) else { return };
    let Ok(written) = canonical::to_bytes(&value) else { return };
    assert_eq!(canonical::parse(&written, 1 << 20).expect("its own form"), value);
});
