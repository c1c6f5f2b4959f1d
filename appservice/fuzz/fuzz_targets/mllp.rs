//! However a stream is cut, the decoder gives the same blocks, never panics and never outgrows its limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matron_appservice::hl7::mllp::Decoder;

const MAX_BYTES: usize = 256;

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let mut whole = Vec::new();
    let at_once = Decoder::new(MAX_BYTES).push(bytes, &mut whole);
    let mut pieces = Vec::new();
    let mut decoder = Decoder::new(MAX_BYTES);
    let mut in_pieces = Ok(());
    for piece in bytes.chunks(usize::from(cut).max(1)) {
        in_pieces = decoder.push(piece, &mut pieces);
        if in_pieces.is_err() {
            break;
        }
    }
    assert_eq!(whole, pieces);
    assert_eq!(at_once, in_pieces);
    assert!(whole.iter().all(|block| block.len() <= MAX_BYTES));
});
