//! Takes place, time, device and person out of pictures, byte by byte, without decoding them.
//!
//! What a picture looks like stays, and so does how the camera was held, or it would lie on its side. A file that is not a
//! whole JPEG, PNG or WebP picture is left as it is: encrypted uploads never are.

mod exif;
mod jpeg;
mod png;
mod webp;

use bytes::Bytes;

/// The content without metadata; the same bytes if there is none.
#[must_use]
pub fn strip(content: Bytes) -> Bytes {
    let stripped = if content.starts_with(b"\xFF\xD8\xFF") {
        jpeg::strip(&content)
    } else if content.starts_with(b"\x89PNG\r\n\x1a\n") {
        png::strip(&content)
    } else if content.starts_with(b"RIFF") && content.get(8..12) == Some(b"WEBP") {
        webp::strip(&content)
    } else {
        None
    };
    match stripped {
        Some(stripped) if stripped.len() != content.len() || stripped != content => stripped.into(),
        _ => content,
    }
}

/// Reads a file from front to back.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor as Io;

    use image::{DynamicImage, ImageFormat};

    use super::*;

    const SECRET: &[u8] = b"51.5074N 0.1278W Nurse Joy";

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let mut picture = Io::new(Vec::new());
        DynamicImage::new_rgb8(9, 7).write_to(&mut picture, format).unwrap();
        picture.into_inner()
    }

    fn holds(content: &[u8], wanted: &[u8]) -> bool {
        content.windows(wanted.len()).any(|window| window == wanted)
    }

    fn exif_with(orientation: u16) -> Vec<u8> {
        let mut exif = exif::with_orientation(orientation);
        exif.extend_from_slice(SECRET);
        exif
    }

    fn jpeg_with(orientation: u16) -> Vec<u8> {
        let picture = encoded(ImageFormat::Jpeg);
        let exif = [b"Exif\0\0".as_slice(), &exif_with(orientation)].concat();
        let segment = |marker: u8, body: &[u8]| {
            let length = u16::try_from(body.len() + 2).unwrap().to_be_bytes();
            [&[0xFF, marker], &length[..], body].concat()
        };
        [&picture[..2], &segment(0xE1, &exif), &segment(0xFE, SECRET), &segment(0xED, SECRET), &picture[2..], SECRET]
            .concat()
    }

    fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], kind, body, &[0; 4]].concat()
    }

    #[test]
    fn a_jpeg_loses_what_tells_and_keeps_how_it_was_held() {
        let stripped = strip(jpeg_with(6).into());
        assert!(!holds(&stripped, SECRET));
        assert!(holds(&stripped, b"Exif\0\0"));
        let picture = image::load_from_memory(&stripped).unwrap();
        assert_eq!((picture.width(), picture.height()), (9, 7));
        assert_eq!(strip(stripped.clone()), stripped, "stripping twice changes nothing more");
        let upright = strip(jpeg_with(1).into());
        assert!(!holds(&upright, b"Exif"));
    }

    #[test]
    fn a_png_loses_its_texts() {
        let picture = encoded(ImageFormat::Png);
        let texts =
            [chunk(b"tEXt", SECRET), chunk(b"iTXt", SECRET), chunk(b"eXIf", &exif_with(1)), chunk(b"tIME", SECRET)];
        let told = [&picture[..33], &texts.concat(), &picture[33..], SECRET].concat();
        assert_eq!(strip(told.into()), picture);
    }

    #[test]
    fn a_webp_loses_exif_and_xmp() {
        let picture = encoded(ImageFormat::WebP);
        let part = |kind: &[u8; 4], body: &[u8]| {
            let mut part = [kind, &u32::try_from(body.len()).unwrap().to_le_bytes()[..], body].concat();
            part.resize(part.len().next_multiple_of(2), 0);
            part
        };
        let head = part(b"VP8X", &[0x0C, 0, 0, 0, 8, 0, 0, 6, 0, 0]);
        let body =
            [&b"WEBP"[..], &head, &picture[12..], &part(b"EXIF", &exif_with(1)), &part(b"XMP ", SECRET)].concat();
        let told = [&b"RIFF"[..], &u32::try_from(body.len()).unwrap().to_le_bytes(), &body].concat();
        let stripped = strip(told.into());
        assert!(!holds(&stripped, SECRET));
        let size = u32::from_le_bytes(stripped[4..8].try_into().unwrap());
        assert_eq!(size as usize + 8, stripped.len());
        assert_eq!(stripped[20] & 0x0C, 0, "the flags for EXIF and XMP are cleared");
        image::load_from_memory(&stripped).unwrap();
    }

    #[test]
    fn pictures_without_metadata_and_other_files_are_left_as_they_are() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif] {
            let picture = encoded(format);
            assert_eq!(strip(picture.clone().into()), picture);
        }
        for file in [
            b"".as_slice(),
            b"\xFF\xD8\xFF",
            b"\xFF\xD8\xFF\xE1\0",
            b"\x89PNG\r\n\x1a\n\0\0\0\xFFtEXt",
            b"RIFF\0\0\0\0WEBPEXIF\xFF\xFF\xFF\xFF",
        ] {
            assert_eq!(strip(Bytes::from_static(file)), file);
        }
    }
}
