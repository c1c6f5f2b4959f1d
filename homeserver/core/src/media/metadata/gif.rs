//! GIF: comments and what applications add go, XMP among it; how often it is repeated stays.

use super::Cursor;

const HEADER_BYTES: usize = 13;

/// The extensions of applications that say how often an animation is repeated.
const KEPT: [&[u8]; 2] = [b"NETSCAPE2.0", b"ANIMEXTS1.0"];

/// The picture without metadata and without anything behind its end; `None` if it is broken.
pub(super) fn strip(content: &[u8]) -> Option<Vec<u8>> {
    let mut output = Vec::with_capacity(content.len());
    walk(content, |block| {
        let is_told = match block.first_chunk()? {
            [0x21, 0xFE, _] => false,
            [0x21, 0xFF, _] => block.get(3..14).is_some_and(|name| KEPT.contains(&name)),
            _ => true,
        };
        if is_told {
            output.extend_from_slice(block);
        }
        Some(())
    })?;
    output.push(0x3B);
    Some(output)
}

/// How many pictures the file shows one after the other, as far as it is whole.
pub(crate) fn frames(content: &[u8]) -> usize {
    let mut count = 0_usize;
    let _broken = walk(content, |block| {
        count = count.saturating_add(usize::from(block.first() == Some(&0x2C)));
        Some(())
    });
    count
}

/// Visits the header and each block before the end. `None` if the file ends too early.
fn walk<'a>(content: &'a [u8], mut visit: impl FnMut(&'a [u8]) -> Option<()>) -> Option<()> {
    let mut input = Cursor::new(content);
    let header = input.take(HEADER_BYTES)?;
    input.take(table_bytes(*header.get(10)?))?;
    visit(content.get(..input.at)?)?;
    loop {
        let start = input.at;
        match *input.take(1)?.first()? {
            0x2C => {
                let flags = *input.take(9)?.get(8)?;
                input.take(table_bytes(flags))?;
                input.take(1)?;
            }
            0x21 => {
                input.take(1)?;
            }
            0x3B => return Some(()),
            _ => return None,
        }
        loop {
            let length = usize::from(*input.take(1)?.first()?);
            if length == 0 {
                break;
            }
            input.take(length)?;
        }
        visit(content.get(start..input.at)?)?;
    }
}

/// The length of the table of colours that a byte of flags announces.
fn table_bytes(flags: u8) -> usize {
    if flags & 0x80 == 0 { 0 } else { 3_usize << ((flags & 0x07) + 1) }
}
