//! Small pictures of large ones.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#thumbnails>.

use std::{io::Cursor, sync::Arc};

use bytes::Bytes;
use image::{
    DynamicImage, ImageDecoder as _, ImageError, ImageFormat, ImageReader, Limits, codecs::jpeg::JpegEncoder,
    imageops::FilterType,
};
use serde::Deserialize;

use super::{
    DownloadOptions, MediaFile, MediaMeta, Mxc, animation,
    disk::{ORIGINAL, Place, blocking},
    download::{MediaContent, place_of},
};
use crate::{Core, Error};

/// The most that decoding one picture may take, bytes.
pub const MAX_DECODED_BYTES: u64 = 256 * 1024 * 1024;

/// The largest file that is decoded, bytes.
pub(super) const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// The most pixels that are decoded.
pub(super) const MAX_PIXELS: u64 = 50_000_000;

/// The longest side that is decoded, pixels.
const MAX_SIDE: u32 = 20_000;

/// The longest side of a thumbnail, pixels; who wants more gets the picture itself.
const MAX_THUMBNAIL_SIDE: u32 = 1_600;

/// The largest thumbnail that is kept, bytes.
pub(super) const MAX_THUMBNAIL_BYTES: u64 = 32 * 1024 * 1024;

/// SPEC: v1.19 "Thumbnails": the sizes that servers should produce; what is asked for is rounded up to one of them.
const SIZES: &[(u32, u32)] = &[(32, 32), (96, 96), (320, 240), (640, 480), (800, 600), (1_600, 1_200)];

/// How a picture is made to fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The whole picture, at least as large as asked on one side.
    #[default]
    Scale,
    /// The middle of the picture, in the asked shape.
    Crop,
}

/// What a client wants of a picture.
#[derive(Clone, Copy, Debug)]
pub struct ThumbnailRequest {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// How it is made to fit.
    pub method: Method,
    /// A picture that moves may go on moving; else its first frame is given.
    pub animated: bool,
}

impl ThumbnailRequest {
    /// The size that is made and kept; `None` if the picture itself is given.
    fn rounded(self) -> Option<Self> {
        if self.width > MAX_THUMBNAIL_SIDE || self.height > MAX_THUMBNAIL_SIDE {
            return None;
        }
        if self.method == Method::Crop && self.width != self.height {
            // The shape is the client's; sides are rounded up to sixteen, so that there are few of them.
            let round = |side: u32| side.div_ceil(16).saturating_mul(16);
            return Some(Self { width: round(self.width), height: round(self.height), ..self });
        }
        let fits = |size: &&(u32, u32)| size.0 >= self.width && size.1 >= self.height;
        match self.method {
            Method::Scale => SIZES.iter().find(fits).map(|&(width, height)| Self { width, height, ..self }),
            Method::Crop => {
                let side = [32, 96, 320, 640, 1_600].into_iter().find(|side| *side >= self.width)?;
                Some(Self { width: side, height: side, ..self })
            }
        }
    }

    pub(super) fn variant(self) -> String {
        let method = match self.method {
            Method::Scale => "scale",
            Method::Crop => "crop",
        };
        let moving = if self.animated { "-moving" } else { "" };
        format!("{}x{}-{method}{moving}", self.width, self.height)
    }
}

/// What decoding a picture came to.
enum Made {
    /// A smaller picture.
    Thumbnail(Bytes),
    /// The picture is no larger than what was asked for.
    SmallEnough,
}

impl Core {
    /// A picture of at least the size asked for, if the original is as large.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for a size of nothing, `M_UNKNOWN` (400) for what is no picture, `M_TOO_LARGE` (413, 502 for remote
    /// media) for pictures beyond our bounds; as [`Core::download_media`].
    pub async fn thumbnail(
        &self,
        mxc: &Mxc,
        request: ThumbnailRequest,
        options: DownloadOptions<'_>,
    ) -> Result<MediaFile, Error> {
        if request.width == 0 || request.height == 0 {
            return Err(Error::invalid("a thumbnail has a width and a height"));
        }
        let meta = self.media_ready(mxc, options).await?;
        // Only these kinds move; of others there is one thumbnail.
        let kinds = ["image/gif", "image/png", "image/apng", "image/webp"];
        let may_move = meta.content_type.as_deref().is_none_or(|kind| kinds.contains(&kind));
        let request = ThumbnailRequest { animated: request.animated && may_move, ..request };
        let thumbnail = match request.rounded() {
            Some(size) => self.thumbnail_of(&meta, size).await,
            None if may_move && !request.animated && self.moves(&meta).await? => {
                let size = ThumbnailRequest { width: 1_600, height: 1_200, method: Method::Scale, animated: false };
                self.thumbnail_of(&meta, size).await
            }
            None => self.picture_itself(&meta).await,
        };
        let remote = !self.is_local(mxc.server());
        thumbnail.map_err(|error| match error {
            Error::TooLarge(message) if remote => Error::Custom { status: 502, errcode: "M_TOO_LARGE", message },
            error => error,
        })
    }

    async fn moves(&self, meta: &MediaMeta) -> Result<bool, Error> {
        if meta.size_bytes > MAX_FILE_BYTES {
            return Ok(false);
        }
        let (disk, place) = (self.disk(), place_of(meta)?);
        blocking(move || {
            Ok(disk.read(&place, ORIGINAL, MAX_FILE_BYTES)?.is_some_and(|original| animation::is_animated(&original)))
        })
        .await
    }

    /// What `make` makes of the file, one of the few that are decoded at once; it is given nothing if the file is gone.
    ///
    /// # Errors
    /// What `make` gives, and what reading does.
    pub(super) async fn decode<T: Send + 'static>(
        &self,
        place: &Place,
        make: impl FnOnce(Option<Bytes>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.media.decoders).acquire_owned().await;
        let permit = permit.map_err(|_| Error::internal("the decoders were closed"))?;
        let (disk, place) = (self.disk(), place.clone());
        blocking(move || {
            let _decoding = permit;
            make(disk.read(&place, ORIGINAL, MAX_FILE_BYTES)?)
        })
        .await
    }

    async fn thumbnail_of(&self, meta: &MediaMeta, size: ThumbnailRequest) -> Result<MediaFile, Error> {
        let place = place_of(meta)?;
        let variant = size.variant();
        let disk = self.disk();
        let kept = {
            let (disk, place, variant) = (disk.clone(), place.clone(), variant.clone());
            blocking(move || disk.read(&place, &variant, MAX_THUMBNAIL_BYTES)).await?
        };
        if let Some(kept) = kept {
            return Ok(in_memory(kept, meta));
        }
        if meta.size_bytes > MAX_FILE_BYTES {
            return Err(Error::TooLarge("the picture is too large to be made smaller".into()));
        }
        let made = self.decode(&place, move |original| {
            let original = original.ok_or_else(|| Error::internal("a media file is missing from the disk"))?;
            make(&original, size)
        });
        let made = made.await?;
        match made {
            Made::SmallEnough => self.picture_itself(meta).await,
            Made::Thumbnail(thumbnail) => {
                // Under the lock of its file, which may be dying: a thumbnail must not outlive it.
                let _writing = self.lock_file(&place).await;
                let (kept, keeps) = (thumbnail.clone(), place.clone());
                blocking(move || {
                    if disk.open(&keeps, ORIGINAL, 0)?.is_some() {
                        disk.write(&keeps, &variant, &kept)?;
                    }
                    Ok(())
                })
                .await?;
                Ok(in_memory(thumbnail, meta))
            }
        }
    }

    /// The picture as it is, if a browser may show it.
    async fn picture_itself(&self, meta: &MediaMeta) -> Result<MediaFile, Error> {
        let place = place_of(meta)?;
        let size_bytes = meta.size_bytes;
        let disk = self.disk();
        let head = {
            let (disk, place) = (disk.clone(), place.clone());
            blocking(move || disk.read(&place, ORIGINAL, 64)).await?
        };
        let head = head.ok_or_else(|| Error::internal("a media file is missing from the disk"))?;
        let content_type = kind_of(&head).ok_or_else(no_picture)?;
        let reader = blocking(move || disk.open(&place, ORIGINAL, size_bytes)).await?;
        let reader = reader.ok_or_else(|| Error::internal("a media file is missing from the disk"))?;
        Ok(MediaFile {
            content_type: Some(content_type.to_owned()),
            file_name: meta.file_name.clone(),
            size_bytes,
            expires_ms: meta.expires_ms,
            content: MediaContent::File(reader),
        })
    }
}

fn no_picture() -> Error {
    Error::Unknown("this media is no picture that can be made smaller".into())
}

/// The content type of a picture that can be decoded, by its first bytes.
fn kind_of(head: &[u8]) -> Option<&'static str> {
    match image::guess_format(head).ok()? {
        ImageFormat::Png => Some("image/png"),
        ImageFormat::Jpeg => Some("image/jpeg"),
        ImageFormat::Gif => Some("image/gif"),
        ImageFormat::WebP => Some("image/webp"),
        _ => None,
    }
}

fn in_memory(content: Bytes, meta: &MediaMeta) -> MediaFile {
    let content_type = kind_of(&content).unwrap_or("image/png");
    let file_name = match content_type {
        "image/jpeg" => "thumbnail.jpg",
        "image/gif" => "thumbnail.gif",
        _ => "thumbnail.png",
    };
    MediaFile {
        content_type: Some(content_type.to_owned()),
        file_name: Some(file_name.to_owned()),
        size_bytes: content.len() as u64,
        expires_ms: meta.expires_ms,
        content: MediaContent::Memory(content),
    }
}

/// Decodes within bounds, turns as the camera was held, and makes smaller.
fn make(original: &[u8], size: ThumbnailRequest) -> Result<Made, Error> {
    let picture = decode(original)?;
    let moves = animation::is_animated(original);
    if picture.width() <= size.width && picture.height() <= size.height && (size.animated || !moves) {
        return Ok(Made::SmallEnough);
    }
    if size.animated
        && moves
        && let Some(moving) = animation::make(original, size)
    {
        return Ok(Made::Thumbnail(moving));
    }
    encode(&shrink(&picture, size), is_photograph(original)).map(Made::Thumbnail)
}

/// The picture in the size asked for, and never larger than it was.
pub(super) fn shrink(picture: &DynamicImage, size: ThumbnailRequest) -> DynamicImage {
    match size.method {
        Method::Crop => {
            let (width, height) = (size.width.min(picture.width()), size.height.min(picture.height()));
            picture.resize_to_fill(width, height, FilterType::Triangle)
        }
        Method::Scale => {
            let (width, height) = cover(picture.width(), picture.height(), size);
            picture.resize_exact(width, height, FilterType::Triangle)
        }
    }
}

/// Whether the picture is of a kind that loses a little when it is encoded, and may lose a little more.
pub(super) fn is_photograph(original: &[u8]) -> bool {
    kind_of(original) == Some("image/jpeg")
}

/// What decoders may take.
pub(super) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    limits
}

pub(super) fn decode(original: &[u8]) -> Result<DynamicImage, Error> {
    let too_large = || Error::TooLarge("the picture is too large to be made smaller".into());
    let as_error = |error: ImageError| match error {
        ImageError::Limits(_) => too_large(),
        _ => no_picture(),
    };
    let mut reader = ImageReader::new(Cursor::new(original)).with_guessed_format().map_err(|_| no_picture())?;
    kind_of(original).ok_or_else(no_picture)?;
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(as_error)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width).saturating_mul(u64::from(height)) > MAX_PIXELS || decoder.total_bytes() > MAX_DECODED_BYTES {
        return Err(too_large());
    }
    let orientation = decoder.orientation().ok();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(as_error)?;
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(picture)
}

/// The size at which the whole picture is at least as large as asked on one side, and never larger than it was.
fn cover(width: u32, height: u32, size: ThumbnailRequest) -> (u32, u32) {
    let (width, height) = (u64::from(width.max(1)), u64::from(height.max(1)));
    let (wanted_width, wanted_height) = (u64::from(size.width), u64::from(size.height));
    let side = |value: u64| u32::try_from(value.max(1)).unwrap_or(u32::MAX);
    // The side on which the picture is relatively larger is fitted.
    let (new_width, new_height) = if wanted_width.saturating_mul(height) < wanted_height.saturating_mul(width) {
        (wanted_width, height.saturating_mul(wanted_width).div_ceil(width))
    } else {
        (width.saturating_mul(wanted_height).div_ceil(height), wanted_height)
    };
    if new_width >= width || new_height >= height {
        return (side(width), side(height));
    }
    (side(new_width), side(new_height))
}

pub(super) fn encode(picture: &DynamicImage, photographic: bool) -> Result<Bytes, Error> {
    let mut encoded = Cursor::new(Vec::new());
    let written = if photographic && !picture.color().has_alpha() {
        picture.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut encoded, 82))
    } else {
        picture.to_rgba8().write_to(&mut encoded, ImageFormat::Png)
    };
    written.map_err(|error| Error::internal(format!("a thumbnail cannot be encoded: {error}")))?;
    Ok(encoded.into_inner().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> Vec<u8> {
        let mut encoded = Cursor::new(Vec::new());
        DynamicImage::new_rgb8(width, height).write_to(&mut encoded, ImageFormat::Png).unwrap();
        encoded.into_inner()
    }

    fn made(original: &[u8], width: u32, height: u32, method: Method) -> Option<(u32, u32)> {
        let size = ThumbnailRequest { width, height, method, animated: false }.rounded().unwrap();
        match make(original, size).unwrap() {
            Made::SmallEnough => None,
            Made::Thumbnail(content) => {
                let picture = image::load_from_memory(&content).unwrap();
                Some((picture.width(), picture.height()))
            }
        }
    }

    #[test]
    fn scaling_keeps_the_shape_and_fits_the_box() {
        let original = picture(1000, 500);
        assert_eq!(made(&original, 300, 200, Method::Scale), Some((320, 160)));
        assert_eq!(made(&picture(500, 1000), 300, 200, Method::Scale), Some((120, 240)));
    }

    #[test]
    fn cropping_gives_the_asked_shape() {
        assert_eq!(made(&picture(1000, 500), 96, 96, Method::Crop), Some((96, 96)));
        assert_eq!(made(&picture(1000, 500), 160, 320, Method::Crop), Some((160, 320)));
    }

    #[test]
    fn nothing_is_made_larger() {
        assert_eq!(made(&picture(30, 20), 320, 240, Method::Scale), None);
        assert_eq!(made(&picture(30, 20), 32, 32, Method::Crop), None);
        assert!(
            ThumbnailRequest { width: 5000, height: 10, method: Method::Scale, animated: false }.rounded().is_none()
        );
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_decoded() {
        // A PNG header that promises 60000 by 60000 pixels.
        let mut bomb = picture(1, 1);
        bomb.splice(16..24, [0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        let mut crc = 0xFFFF_FFFF_u32;
        for byte in &bomb[12..29] {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            }
        }
        bomb.splice(29..33, (!crc).to_be_bytes());
        let size = ThumbnailRequest { width: 32, height: 32, method: Method::Scale, animated: false };
        assert!(matches!(make(&bomb, size), Err(Error::TooLarge(_))));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let size = ThumbnailRequest { width: 32, height: 32, method: Method::Scale, animated: false };
        for content in [b"".as_slice(), b"hello", b"\x89PNG\r\n\x1a\n", b"\xFF\xD8\xFF", b"GIF89a", b"RIFF\0\0\0\0WEBP"]
        {
            assert!(matches!(make(content, size), Err(Error::Unknown(_))));
        }
    }
}
