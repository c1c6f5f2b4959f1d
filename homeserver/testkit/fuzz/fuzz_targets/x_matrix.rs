//! No text makes a panic; what reads as X-Matrix, written again, reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matron_core::federation::keys::x_matrix::XMatrix;

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fuzz_target!(|text: &str| {
    let Ok(read) = XMatrix::parse(text) else { return };
    let destination = read.destination.as_ref().map(|name| format!(",destination={}", quoted(name.as_str())));
    let again = format!(
        "X-Matrix origin={}{},key={},sig={}",
        quoted(read.origin.as_str()),
        destination.unwrap_or_default(),
        quoted(&read.key_id),
        quoted(&read.signature),
    );
    // Escaping may make the text longer than a header may be.
    if again.len() <= 4096 {
        assert_eq!(XMatrix::parse(&again).as_ref(), Ok(&read));
    }
});
