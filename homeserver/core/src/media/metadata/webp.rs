//! WebP: the chunks EXIF and XMP go, and the flags that announce them.

use super::{Cursor, exif};

const EXIF_FLAG: u8 = 0x08;
const XMP_FLAG: u8 = 0x04;

/// The picture without metadata and without anything behind its end; `None` if it is broken.
pub(super) fn strip(content: &[u8]) -> Option<Vec<u8>> {
    let size = u32::from_le_bytes(*content.get(4..8)?.first_chunk()?);
    let end = usize::try_from(size).ok()?.checked_add(8)?;
    let mut input = Cursor::new(content.get(..end)?);
    let mut output = Vec::with_capacity(end);
    output.extend_from_slice(input.take(12)?);
    let mut kept_exif = None;
    let mut flags_at = None;
    while !input.rest().is_empty() {
        let kind = input.take(4)?;
        let length = input.take(4)?;
        let count = usize::try_from(u32::from_le_bytes(*length.first_chunk()?)).ok()?;
        let body = input.take(count)?;
        // Odd chunks are padded; some writers forget the last one's padding.
        if count % 2 == 1 && !input.rest().is_empty() {
            input.take(1)?;
        }
        match kind {
            b"XMP " => continue,
            b"EXIF" => {
                kept_exif = exif::replacement(body.strip_prefix(b"Exif\0\0").unwrap_or(body));
                continue;
            }
            b"VP8X" => flags_at = Some(output.len().checked_add(8)?),
            _ => {}
        }
        write_chunk(&mut output, kind, body)?;
    }
    if let Some(flags) = flags_at.and_then(|at| output.get_mut(at)) {
        *flags &= !(EXIF_FLAG | XMP_FLAG);
        if kept_exif.is_some() {
            *flags |= EXIF_FLAG;
        }
    }
    if let Some(exif) = kept_exif {
        write_chunk(&mut output, b"EXIF", &exif)?;
    }
    let size = u32::try_from(output.len().checked_sub(8)?).ok()?.to_le_bytes();
    output.get_mut(4..8)?.copy_from_slice(&size);
    Some(output)
}

fn write_chunk(output: &mut Vec<u8>, kind: &[u8], body: &[u8]) -> Option<()> {
    output.extend_from_slice(kind);
    output.extend_from_slice(&u32::try_from(body.len()).ok()?.to_le_bytes());
    output.extend_from_slice(body);
    if body.len() % 2 == 1 {
        output.push(0);
    }
    Some(())
}
