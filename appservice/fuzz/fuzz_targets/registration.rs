//! No registration file makes its reader panic, and what is read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matron_appservice::Registration;

fuzz_target!(|text: &str| {
    if let Ok(registration) = Registration::parse(text) {
        let Ok(written) = registration.to_json() else {
            return;
        };
        assert!(Registration::parse(&written).is_ok());
    }
});
