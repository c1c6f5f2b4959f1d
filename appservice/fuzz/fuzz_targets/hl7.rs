//! Whatever comes in a block is read, refused or rendered within the limits of an event, and acknowledged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matron_appservice::hl7::{Ack, LabReport, Message, render};

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::parse(bytes) else {
        assert!(!Ack::TRY_AGAIN.write(None, 0).is_empty());
        return;
    };
    let ack = match LabReport::read(&message) {
        Ok(report) => match render(&report) {
            Ok(parts) => {
                assert!(parts.iter().all(|part| part.to_string().len() < 48 * 1024));
                Ack::ACCEPTED
            }
            Err(refusal) => Ack::refused(&refusal),
        },
        Err(refusal) => Ack::refused(&refusal),
    };
    let written = ack.write(
        Some(&message),
        u64::from(bytes.first().copied().unwrap_or_default()) << 32,
    );
    assert!(written.starts_with(b"MSH"));
});
