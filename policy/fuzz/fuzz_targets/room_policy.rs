//! Any JSON offered as a room policy is read or refused; what is read survives being written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matron_policy::RoomPolicy;

fuzz_target!(|bytes: &[u8]| {
    let Ok(content) = serde_json::from_slice(bytes) else { return };
    let Ok(policy) = RoomPolicy::parse(&content) else { return };
    assert_eq!(RoomPolicy::parse(&policy.to_content()).expect("its own form"), policy);
});
