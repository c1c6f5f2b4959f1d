//! The one thing in EXIF that a picture needs: how the camera was held.

/// The tag of the orientation.
const ORIENTATION: u16 = 0x0112;

/// How many entries of the first directory are looked at.
const MAX_ENTRIES: u16 = 512;

/// The orientation (1 to 8) that a TIFF block tells; `None` if it tells none or is broken.
pub(super) fn orientation(tiff: &[u8]) -> Option<u16> {
    let little = match tiff.get(..4)? {
        [b'I', b'I', 42, 0] => true,
        [b'M', b'M', 0, 42] => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(2)?)?.first_chunk::<2>()?;
        Some(if little { u16::from_le_bytes(*bytes) } else { u16::from_be_bytes(*bytes) })
    };
    let long = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(4)?)?.first_chunk::<4>()?;
        Some(if little { u32::from_le_bytes(*bytes) } else { u32::from_be_bytes(*bytes) })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let entries = short(directory)?.min(MAX_ENTRIES);
    for entry in 0..usize::from(entries) {
        let at = directory.checked_add(2)?.checked_add(entry.checked_mul(12)?)?;
        if short(at)? == ORIENTATION {
            let value = short(at.checked_add(8)?)?;
            return (1..=8).contains(&value).then_some(value);
        }
    }
    None
}

/// A TIFF block that tells this orientation and nothing else.
pub(super) fn with_orientation(orientation: u16) -> Vec<u8> {
    let [high, low] = orientation.to_be_bytes();
    vec![
        b'M', b'M', 0, 42, 0, 0, 0, 8, // Big-endian TIFF, first directory at 8.
        0, 1, // One entry:
        0x01, 0x12, 0, 3, 0, 0, 0, 1, high, low, 0, 0, // orientation, SHORT, once.
        0, 0, 0, 0, // No further directory.
    ]
}

/// The block that replaces another: the orientation if it matters.
pub(super) fn replacement(tiff: &[u8]) -> Option<Vec<u8>> {
    orientation(tiff).filter(|orientation| *orientation != 1).map(with_orientation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orientation_is_read_back() {
        for value in 1..=8 {
            assert_eq!(orientation(&with_orientation(value)), Some(value));
        }
        assert_eq!(orientation(&with_orientation(9)), None);
        assert_eq!(replacement(&with_orientation(1)), None);
    }

    #[test]
    fn a_broken_block_tells_nothing() {
        let whole = with_orientation(6);
        for length in 0..20 {
            assert_eq!(orientation(&whole[..length]), None);
        }
        assert_eq!(orientation(b"II*\0\xFF\xFF\xFF\xFF"), None);
    }
}
