//! MLLP framing, without input or output.
//!
//! A block is `0x0B … 0x1C 0x0D`. HL7 "Minimal Lower Layer Protocol", Transport Specification release 1.

use thiserror::Error;

/// Start of a block.
pub const START_BLOCK: u8 = 0x0B;
/// End of a block's data.
pub const END_BLOCK: u8 = 0x1C;
/// What follows the end.
pub const CARRIAGE_RETURN: u8 = 0x0D;
/// Most bytes that are skipped before a block starts: stray line ends, not a wrong protocol.
const MAX_STRAY_BYTES: usize = 64;

/// Why a connection can no longer be followed.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum MllpError {
    /// The block is larger than the limit.
    #[error("the block is larger than {0} bytes")]
    TooLarge(usize),
    /// Bytes that start no block.
    #[error("the peer does not speak MLLP")]
    NotMllp,
    /// A new block began before the last one ended.
    #[error("a block started inside a block")]
    Nested,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Outside {
        stray: usize,
    },
    Inside,
    /// After `0x1C`.
    Ending,
}

/// Turns bytes into blocks.
#[derive(Debug)]
pub struct Decoder {
    max_bytes: usize,
    state: State,
    block: Vec<u8>,
    failed: Option<MllpError>,
}

impl Decoder {
    /// A decoder of blocks of at most `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: State::Outside { stray: 0 }, block: Vec::new(), failed: None }
    }

    /// Takes bytes and gives the blocks that they complete, in order.
    ///
    /// # Errors
    /// [`MllpError`] once the connection cannot be followed any more; blocks before it are given first, and
    /// the error stands on every later call.
    pub fn push(&mut self, bytes: &[u8], blocks: &mut Vec<Vec<u8>>) -> Result<(), MllpError> {
        for byte in bytes {
            if let Some(error) = self.failed {
                return Err(error);
            }
            if let Err(error) = self.step(*byte, blocks) {
                self.block = Vec::new();
                self.failed = Some(error);
                return Err(error);
            }
        }
        self.failed.map_or(Ok(()), Err)
    }

    fn step(&mut self, byte: u8, blocks: &mut Vec<Vec<u8>>) -> Result<(), MllpError> {
        match (self.state, byte) {
            (State::Outside { .. }, START_BLOCK) => self.state = State::Inside,
            (State::Outside { stray }, b'\r' | b'\n' | b' ' | 0) if stray < MAX_STRAY_BYTES => {
                self.state = State::Outside { stray: stray + 1 };
            }
            (State::Outside { .. }, _) => return Err(MllpError::NotMllp),
            (State::Inside, END_BLOCK) => self.state = State::Ending,
            (State::Inside, START_BLOCK) => return Err(MllpError::Nested),
            (State::Inside, byte) => self.keep(byte)?,
            (State::Ending, CARRIAGE_RETURN) => {
                blocks.push(std::mem::take(&mut self.block));
                self.state = State::Outside { stray: 0 };
            }
            // The end byte alone was data after all; HL7 text never has it, its parser will say so.
            (State::Ending, byte) => {
                self.keep(END_BLOCK)?;
                self.state = State::Inside;
                return self.step(byte, blocks);
            }
        }
        Ok(())
    }

    fn keep(&mut self, byte: u8) -> Result<(), MllpError> {
        if self.block.len() >= self.max_bytes {
            return Err(MllpError::TooLarge(self.max_bytes));
        }
        self.block.push(byte);
        Ok(())
    }

    /// True between blocks: the peer may close here without losing anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Outside { .. })
    }
}

/// A block around these bytes.
#[must_use]
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 3);
    out.push(START_BLOCK);
    out.extend_from_slice(payload);
    out.extend_from_slice(&[END_BLOCK, CARRIAGE_RETURN]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_block_ends_the_connection() {
        let mut blocks = Vec::new();
        let mut decoder = Decoder::new(8);
        assert_eq!(decoder.push(b"GET / HTTP/1.1", &mut blocks), Err(MllpError::NotMllp));
        assert_eq!(decoder.push(&frame(b"x"), &mut blocks), Err(MllpError::NotMllp));
        assert_eq!(Decoder::new(8).push(b"\x0b123456789", &mut blocks), Err(MllpError::TooLarge(8)));
        assert_eq!(Decoder::new(8).push(b"\x0b1\x0b", &mut blocks), Err(MllpError::Nested));
        assert_eq!(Decoder::new(8).push(&[b'\n'; 100], &mut blocks), Err(MllpError::NotMllp));
        assert!(blocks.is_empty());
    }

    #[test]
    fn blocks_before_an_error_are_given() {
        let mut blocks = Vec::new();
        let bytes = [frame(b"one"), b"garbage".to_vec()].concat();
        assert_eq!(Decoder::new(8).push(&bytes, &mut blocks), Err(MllpError::NotMllp));
        assert_eq!(blocks, [b"one"]);
    }

    proptest! {
        #[test]
        fn blocks_survive_any_cut_of_the_stream(
            payloads in prop::collection::vec(prop::collection::vec(
                any::<u8>().prop_filter("framing bytes", |b| *b != START_BLOCK && *b != END_BLOCK), 0..40), 0..6),
            cut in 1usize..7,
        ) {
            let stream: Vec<u8> = payloads.iter().flat_map(|payload| frame(payload)).collect();
            let mut decoder = Decoder::new(64);
            let mut blocks = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece, &mut blocks).unwrap();
            }
            prop_assert!(decoder.is_idle());
            prop_assert_eq!(blocks, payloads);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic_or_grow(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut blocks = Vec::new();
            let _any = Decoder::new(32).push(&bytes, &mut blocks);
            prop_assert!(blocks.iter().all(|block| block.len() <= 32));
        }
    }
}
