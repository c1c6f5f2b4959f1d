//! Whatever has a canonical form has one only, and printing it is the inverse of reading it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matron_room::{canonical_json, parse_canonical};

fuzz_target!(|text: &str| {
    let Ok(object) = parse_canonical(text) else { return };
    let printed = canonical_json(&object).expect("an object that was read can be printed");
    let again = parse_canonical(&printed).expect("canonical JSON is JSON");
    assert_eq!(again, object);
    assert_eq!(canonical_json(&again).expect("as before"), printed);
});
