//! HEIF and AVIF, as telephones take pictures: what the items for EXIF and XMP hold becomes zeros, so that nothing moves.
//!
//! How the camera was held is a property of the picture, not of its EXIF. SPEC: ISO/IEC 23008-12 and 14496-12.

use std::ops::Range;

use super::Cursor;

/// How many items a picture may have; one with more is left as it is.
const MAX_ITEMS: u64 = 4_096;

/// A box: its type, and where its content is.
struct Part {
    kind: [u8; 4],
    content: Range<usize>,
}

/// Whether the file says that it is such a picture.
pub(super) fn is_heif(content: &[u8]) -> bool {
    const BRANDS: [&[u8]; 8] = [b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis"];
    content.get(4..8) == Some(b"ftyp") && content.get(8..12).is_some_and(|brand| BRANDS.contains(&brand))
}

/// The picture without metadata; `None` if it is broken, or has none.
pub(super) fn strip(content: &[u8]) -> Option<Vec<u8>> {
    let mut silenced: Vec<Range<usize>> = Vec::new();
    for part in parts(content, 0..content.len())? {
        match &part.kind {
            // Whatever an application adds beside the picture, XMP among it.
            b"uuid" => silenced.push(part.content),
            // Four bytes of version and flags come first.
            b"meta" => silenced.extend(metadata_in(content, part.content.start.checked_add(4)?..part.content.end)?),
            _ => {}
        }
    }
    if silenced.is_empty() {
        return None;
    }
    let mut output = content.to_vec();
    for range in silenced {
        output.get_mut(range)?.fill(0);
    }
    Some(output)
}

/// The boxes that follow each other in a range.
fn parts(content: &[u8], range: Range<usize>) -> Option<Vec<Part>> {
    let mut found = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let mut input = Cursor::new(content.get(at..range.end)?);
        let size = number(&mut input, 4)?;
        let kind = *input.take(4)?.first_chunk()?;
        let size = match size {
            0 => range.end.checked_sub(at)?,
            1 => usize::try_from(number(&mut input, 8)?).ok()?,
            size => usize::try_from(size).ok()?,
        };
        let end = at.checked_add(size).filter(|end| *end <= range.end)?;
        let start = at.checked_add(input.at).filter(|start| *start <= end)?;
        found.push(Part { kind, content: start..end });
        at = end;
    }
    Some(found)
}

/// Where the items with EXIF and XMP are, in the whole file.
fn metadata_in(content: &[u8], range: Range<usize>) -> Option<Vec<Range<usize>>> {
    let children = parts(content, range)?;
    let child = |kind: &[u8; 4]| children.iter().find(|part| part.kind == *kind).map(|part| part.content.clone());
    let (Some(infos), Some(places)) = (child(b"iinf"), child(b"iloc")) else { return Some(Vec::new()) };
    let wanted = metadata_items(content, infos)?;
    if wanted.is_empty() {
        return Some(Vec::new());
    }
    let inside = child(b"idat").map(|range| range.start);
    extents(content.get(places)?, &wanted, inside)
}

/// The ids of the items with EXIF and XMP.
fn metadata_items(content: &[u8], range: Range<usize>) -> Option<Vec<u64>> {
    let mut input = Cursor::new(content.get(range.clone())?);
    let version = number(&mut input, 4)? >> 24;
    number(&mut input, if version == 0 { 2 } else { 4 })?;
    let entries = range.start.checked_add(input.at)?..range.end;
    let mut ids = Vec::new();
    for entry in parts(content, entries)?.iter().filter(|entry| &entry.kind == b"infe") {
        let mut input = Cursor::new(content.get(entry.content.clone())?);
        let version = number(&mut input, 4)? >> 24;
        if version < 2 {
            continue;
        }
        let id = number(&mut input, if version == 2 { 2 } else { 4 })?;
        number(&mut input, 2)?;
        let kind = input.take(4)?;
        // What a `mime` item may hold is text about the picture.
        if kind == b"Exif" || kind == b"mime" || kind == b"uri " {
            ids.push(id);
        }
    }
    Some(ids)
}

/// Where the bytes of these items are. `inside` is where the file keeps what lies within its own table.
fn extents(table: &[u8], wanted: &[u64], inside: Option<usize>) -> Option<Vec<Range<usize>>> {
    let mut input = Cursor::new(table);
    let version = number(&mut input, 4)? >> 24;
    let sizes = number(&mut input, 2)?;
    let size = |shift: u32| usize::try_from(sizes >> shift & 0xF).unwrap_or(0);
    let (offset_bytes, length_bytes, base_bytes) = (size(12), size(8), size(4));
    let index_bytes = if version == 0 { 0 } else { size(0) };
    let wide = if version < 2 { 2 } else { 4 };
    let count = number(&mut input, wide).filter(|count| *count <= MAX_ITEMS)?;
    let mut found = Vec::new();
    for _ in 0..count {
        let id = number(&mut input, wide)?;
        let method = if version == 0 { 0 } else { number(&mut input, 2)? & 0xF };
        number(&mut input, 2)?;
        let base = number(&mut input, base_bytes)?;
        for _ in 0..number(&mut input, 2)? {
            number(&mut input, index_bytes)?;
            let offset = number(&mut input, offset_bytes)?;
            let length = number(&mut input, length_bytes)?;
            if !wanted.contains(&id) {
                continue;
            }
            let start = match method {
                0 => 0,
                1 => inside?,
                _ => continue,
            };
            let start = start.checked_add(usize::try_from(base.checked_add(offset)?).ok()?)?;
            found.push(start..start.checked_add(usize::try_from(length).ok()?)?);
        }
    }
    Some(found)
}

/// A number of so many bytes, the largest first.
fn number(input: &mut Cursor<'_>, count: usize) -> Option<u64> {
    if count > 8 {
        return None;
    }
    Some(input.take(count)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
