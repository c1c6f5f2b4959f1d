//! PNG: chunks of text, time and EXIF go.

use super::{Cursor, exif};

const SIGNATURE_BYTES: usize = 8;

/// The picture without metadata and without anything behind its end; `None` if it is broken.
pub(super) fn strip(content: &[u8]) -> Option<Vec<u8>> {
    let mut input = Cursor::new(content);
    let mut output = Vec::with_capacity(content.len());
    output.extend_from_slice(input.take(SIGNATURE_BYTES)?);
    loop {
        let length = input.take(4)?;
        let kind = input.take(4)?;
        let body = input.take(usize::try_from(u32::from_be_bytes(*length.first_chunk()?)).ok()?)?;
        let sum = input.take(4)?;
        match kind {
            b"tEXt" | b"zTXt" | b"iTXt" | b"tIME" => {}
            b"eXIf" => {
                if let Some(exif) = exif::replacement(body) {
                    output.extend_from_slice(&u32::try_from(exif.len()).ok()?.to_be_bytes());
                    output.extend_from_slice(b"eXIf");
                    output.extend_from_slice(&exif);
                    output.extend_from_slice(&checksum(&[b"eXIf".as_slice(), &exif].concat()).to_be_bytes());
                }
            }
            _ => {
                for part in [length, kind, body, sum] {
                    output.extend_from_slice(part);
                }
                if kind == b"IEND" {
                    return Some(output);
                }
            }
        }
    }
}

/// CRC-32 as PNG wants it; for the few bytes of one small chunk.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(super::checksum(b"IEND"), 0xAE42_6082);
    }
}
