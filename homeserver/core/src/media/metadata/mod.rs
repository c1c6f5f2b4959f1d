//! Takes place, time, device and person out of pictures, byte by byte, without decoding them.
//!
//! What a picture looks like stays, and so does how the camera was held, or it would lie on its side. A file that is not a
//! whole JPEG, PNG, WebP, GIF, HEIF or AVIF picture is left as it is: encrypted uploads never are.

mod exif;
mod gif;
mod heif;
mod jpeg;
mod png;
mod webp;

use bytes::Bytes;

pub(super) use gif::frames as gif_frames;

/// The content without metadata; the same bytes if there is none.
#[must_use]
pub fn strip(content: Bytes) -> Bytes {
    let stripped = if content.starts_with(b"\xFF\xD8\xFF") {
        jpeg::strip(&content)
    } else if content.starts_with(b"\x89PNG\r\n\x1a\n") {
        png::strip(&content)
    } else if content.starts_with(b"RIFF") && content.get(8..12) == Some(b"WEBP") {
        webp::strip(&content)
    } else if content.starts_with(b"GIF8") {
        gif::strip(&content)
    } else if heif::is_heif(&content) {
        heif::strip(&content)
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
    fn a_gif_loses_comments_and_xmp_and_keeps_its_pace() {
        let picture = encoded(ImageFormat::Gif);
        let sub_blocks = |body: &[u8]| [&[u8::try_from(body.len()).unwrap()], body, &[0]].concat();
        let comment = [&[0x21, 0xFE][..], &sub_blocks(SECRET)].concat();
        let xmp = [&[0x21, 0xFF, 11][..], b"XMP DataXMP", &sub_blocks(SECRET)].concat();
        let repeats = [&[0x21, 0xFF, 11][..], b"NETSCAPE2.0", &sub_blocks(&[1, 0, 0])].concat();
        let flags = picture[10];
        let head = 13 + if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
        let with = |parts: &[&[u8]]| [&picture[..head], &parts.concat(), &picture[head..]].concat();
        let told = [with(&[&repeats, &comment, &xmp]), SECRET.to_vec()].concat();
        let stripped = strip(told.into());
        assert!(!holds(&stripped, SECRET));
        assert_eq!(stripped, with(&[&repeats]));
        image::load_from_memory(&stripped).unwrap();
    }

    fn part(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&u32::try_from(body.len() + 8).unwrap().to_be_bytes()[..], kind, body].concat()
    }

    /// A picture as a telephone writes it: the picture is item 1, its EXIF item 2, its XMP item 3.
    fn heif() -> Vec<u8> {
        let info = |id: u8, kind: &[u8; 4], more: &[u8]| {
            part(b"infe", &[&[2, 0, 0, 0, 0, id, 0, 0], &kind[..], more].concat())
        };
        let infos = [
            &[0, 0, 0, 0, 0, 3][..],
            &info(1, b"hvc1", b"\0"),
            &info(2, b"Exif", b"\0"),
            &info(3, b"mime", b"\0application/rdf+xml\0"),
        ]
        .concat();
        let place = |id: u8, offset: u32| {
            let length = u32::try_from(SECRET.len()).unwrap().to_be_bytes();
            [&[0, id, 0, 0, 0, 1][..], &offset.to_be_bytes(), &length].concat()
        };
        let places = |first: u32| {
            let length = u32::try_from(SECRET.len()).unwrap();
            let all: Vec<u8> = (0..3_u8).flat_map(|n| place(n + 1, first + u32::from(n) * length)).collect();
            [&[0, 0, 0, 0, 0x44, 0, 0, 3][..], &all].concat()
        };
        let file = |first: u32| {
            let tables = [part(b"iinf", &infos), part(b"iloc", &places(first))].concat();
            let meta = part(b"meta", &[&[0; 4][..], &tables].concat());
            let picture = vec![7; SECRET.len()];
            [part(b"ftyp", b"heic\0\0\0\0mif1"), meta, part(b"mdat", &[&picture, SECRET, SECRET].concat())].concat()
        };
        let first = file(0).len() - 3 * SECRET.len();
        file(u32::try_from(first).unwrap())
    }

    #[test]
    fn a_heif_picture_loses_exif_and_xmp_and_nothing_moves() {
        let told = heif();
        let stripped = strip(told.clone().into());
        assert!(holds(&told, SECRET) && !holds(&stripped, SECRET));
        assert_eq!(stripped.len(), told.len());
        assert!(holds(&stripped, &vec![7; SECRET.len()]), "the picture is as it was");
        for end in 0..told.len() {
            // Whatever is torn is left alone, or loses what could be found; nothing else happens.
            assert_eq!(strip(Bytes::copy_from_slice(&told[..end])).len(), end);
        }
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
            b"GIF89a\0\0\0\0\xFF\0\0",
            b"\0\0\0\x0Cftypheic\0\0\0\xFFmeta",
        ] {
            assert_eq!(strip(Bytes::from_static(file)), file);
        }
    }
}
