//! JPEG: segments that describe the picture go, segments that are the picture stay.

use super::{Cursor, exif};

const EXIF: &[u8] = b"Exif\0\0";
const ICC: &[u8] = b"ICC_PROFILE\0";
const START_OF_SCAN: u8 = 0xDA;
const END_OF_IMAGE: u8 = 0xD9;

/// The picture without metadata and without anything behind its end; `None` if it is broken.
pub(super) fn strip(content: &[u8]) -> Option<Vec<u8>> {
    let mut input = Cursor::new(content);
    let mut output = Vec::with_capacity(content.len());
    output.extend_from_slice(input.take(2)?);
    loop {
        let marker = next_marker(&mut input)?;
        match marker {
            END_OF_IMAGE => {
                output.extend_from_slice(&[0xFF, END_OF_IMAGE]);
                return Some(output);
            }
            // Markers without a length.
            0x01 | 0xD0..=0xD7 => output.extend_from_slice(&[0xFF, marker]),
            _ => {
                let length = input.take(2)?;
                let body_length = usize::from(u16::from_be_bytes(*length.first_chunk()?)).checked_sub(2)?;
                let body = input.take(body_length)?;
                if let Some(body) = kept(marker, body) {
                    output.extend_from_slice(&[0xFF, marker]);
                    output.extend_from_slice(&u16::try_from(body.len().checked_add(2)?).ok()?.to_be_bytes());
                    output.extend_from_slice(&body);
                }
                if marker == START_OF_SCAN {
                    output.extend_from_slice(scan(&mut input)?);
                }
            }
        }
    }
}

/// The marker's second byte; fill bytes before it are skipped.
fn next_marker(input: &mut Cursor<'_>) -> Option<u8> {
    if *input.take(1)?.first()? != 0xFF {
        return None;
    }
    loop {
        let byte = *input.take(1)?.first()?;
        if byte != 0xFF {
            return (byte != 0).then_some(byte);
        }
    }
}

/// What stays of a segment.
fn kept(marker: u8, body: &[u8]) -> Option<std::borrow::Cow<'_, [u8]>> {
    match marker {
        // JFIF and Adobe tell how to read the colours.
        0xE0 | 0xEE => Some(body.into()),
        0xE1 => {
            let replacement = exif::replacement(body.strip_prefix(EXIF)?)?;
            Some([EXIF, &replacement].concat().into())
        }
        0xE2 => body.starts_with(ICC).then_some(body.into()),
        // Other applications' segments, and comments.
        0xE3..=0xEF | 0xFE => None,
        _ => Some(body.into()),
    }
}

/// Compressed data up to the next marker that is not part of it.
fn scan<'a>(input: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let rest = input.rest();
    let mut at = 0_usize;
    loop {
        let next = rest.get(at..)?.iter().position(|byte| *byte == 0xFF)?;
        at = at.checked_add(next)?;
        match rest.get(at.checked_add(1)?)? {
            0x00 | 0xD0..=0xD7 => at = at.checked_add(2)?,
            0xFF => at = at.checked_add(1)?,
            _ => return input.take(at),
        }
    }
}
