//! Small moving pictures of large ones.

use std::io::Cursor;

use bytes::Bytes;
use image::{
    AnimationDecoder as _, DynamicImage, Frame, Frames, ImageDecoder, ImageFormat, ImageResult,
    codecs::{
        gif::{GifDecoder, GifEncoder, Repeat},
        png::PngDecoder,
        webp::WebPDecoder,
    },
};

use super::{
    metadata::gif_frames,
    thumbnail::{MAX_PIXELS, MAX_THUMBNAIL_BYTES, ThumbnailRequest, limits, shrink},
};

/// The longest animation that is made smaller, frames; of a longer one the first picture is.
const MAX_FRAMES: u64 = 300;

/// The most pixels of all frames together that are decoded.
const MAX_ALL_PIXELS: u64 = 100_000_000;

/// How carefully colours are chosen, from 1 (slowly) to 30.
const COLOUR_SPEED: i32 = 20;

/// Whether the picture moves.
pub(super) fn is_animated(content: &[u8]) -> bool {
    match image::guess_format(content) {
        Ok(ImageFormat::Gif) => gif_frames(content) > 1,
        Ok(ImageFormat::Png) => {
            PngDecoder::with_limits(Cursor::new(content), limits()).and_then(|it| it.is_apng()).unwrap_or(false)
        }
        Ok(ImageFormat::WebP) => WebPDecoder::new(Cursor::new(content)).is_ok_and(|it| it.has_animation()),
        _ => false,
    }
}

/// The moving picture made smaller, as GIF; `None` if it does not move, or is too much to be decoded.
pub(super) fn make(original: &[u8], size: ThumbnailRequest) -> Option<Bytes> {
    let (dimensions, frames) = frames_of(original)?.ok()?;
    let pixels = u64::from(dimensions.0).saturating_mul(u64::from(dimensions.1)).max(1);
    if pixels > MAX_PIXELS {
        return None;
    }
    let mut left = MAX_FRAMES.min(MAX_ALL_PIXELS / pixels);
    let mut encoded = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut encoded, COLOUR_SPEED);
    encoder.set_repeat(Repeat::Infinite).ok()?;
    let mut count = 0_u64;
    for frame in frames {
        // Of a broken animation what came before is shown.
        let Ok(frame) = frame else { break };
        left = left.checked_sub(1)?;
        let delay = frame.delay();
        let small = shrink(&DynamicImage::ImageRgba8(frame.into_buffer()), size).into_rgba8();
        encoder.encode_frame(Frame::from_parts(small, 0, 0, delay)).ok()?;
        count = count.saturating_add(1);
    }
    drop(encoder);
    let fits = u64::try_from(encoded.len()).is_ok_and(|length| length <= MAX_THUMBNAIL_BYTES);
    (count > 1 && fits).then(|| encoded.into())
}

/// The size and the frames, decoded one by one within bounds.
fn frames_of(original: &[u8]) -> Option<ImageResult<((u32, u32), Frames<'_>)>> {
    let input = Cursor::new(original);
    Some(match image::guess_format(original).ok()? {
        ImageFormat::Gif => GifDecoder::new(input).and_then(|mut decoder| {
            decoder.set_limits(limits())?;
            Ok((decoder.dimensions(), decoder.into_frames()))
        }),
        ImageFormat::Png => PngDecoder::with_limits(input, limits()).and_then(|decoder| {
            let dimensions = decoder.dimensions();
            Ok((dimensions, decoder.apng()?.into_frames()))
        }),
        ImageFormat::WebP => WebPDecoder::new(input).and_then(|mut decoder| {
            decoder.set_limits(limits())?;
            Ok((decoder.dimensions(), decoder.into_frames()))
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use image::{Delay, Rgba, RgbaImage};

    use super::*;
    use crate::media::Method;

    const SMALL: ThumbnailRequest = ThumbnailRequest { width: 32, height: 32, method: Method::Crop, animated: true };

    fn gif(frames: u8, side: u32) -> Vec<u8> {
        let mut encoded = Vec::new();
        let mut encoder = GifEncoder::new_with_speed(&mut encoded, 30);
        for index in 0..frames {
            let colour = Rgba([index.wrapping_mul(40), 0, 200, 255]);
            let picture = RgbaImage::from_pixel(side, side, colour);
            let delay = Delay::from_numer_denom_ms(120, 1);
            encoder.encode_frame(Frame::from_parts(picture, 0, 0, delay)).unwrap();
        }
        drop(encoder);
        encoded
    }

    fn frames(content: &[u8]) -> Vec<(u32, u32, (u32, u32))> {
        let decoder = GifDecoder::new(Cursor::new(content)).unwrap();
        let frames = decoder.into_frames().map(Result::unwrap);
        frames.map(|it| (it.buffer().width(), it.buffer().height(), it.delay().numer_denom_ms())).collect()
    }

    #[test]
    fn a_moving_picture_stays_one_with_its_pace() {
        let moving = gif(4, 80);
        assert!(is_animated(&moving));
        let small = make(&moving, SMALL).unwrap();
        assert_eq!(frames(&small), vec![(32, 32, (120, 1)); 4]);
    }

    #[test]
    fn what_stands_still_or_is_too_much_is_not_moved() {
        assert!(!is_animated(&gif(1, 80)));
        assert!(make(&gif(1, 80), SMALL).is_none());
        // A GIF that promises a screen of 60000 by 60000 pixels.
        let mut bomb = gif(3, 8);
        bomb.splice(6..10, [0x60, 0xEA, 0x60, 0xEA]);
        assert!(make(&bomb, SMALL).is_none());
        for broken in [b"".as_slice(), b"GIF89a", b"RIFF\0\0\0\0WEBP", b"\x89PNG\r\n\x1a\n", b"hello"] {
            assert!(!is_animated(broken) && make(broken, SMALL).is_none());
        }
        let mut torn = gif(5, 80);
        torn.truncate(torn.len() * 2 / 3);
        assert!(make(&torn, SMALL).is_none_or(|small| frames(&small).len() < 5));
    }
}
