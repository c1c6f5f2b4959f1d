//! A file as an HTTP answer: what browsers may do with it, parts of it, and its bytes as they are read.

use std::{io, ops::Range};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
        CONTENT_TYPE, RANGE, VARY, X_CONTENT_TYPE_OPTIONS,
    },
};
use matron_core::{
    Core, Error,
    media::{FederationMedia, MediaContent, MediaFile, content_disposition, is_inline},
};

use crate::ApiError;

/// SPEC: v1.19 Client-Server API, "Content repository".
const POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                      style-src 'unsafe-inline'; object-src 'self';";

/// How long a browser may keep a file, seconds; never longer than the file lives.
const MAX_AGE_S: u64 = 24 * 60 * 60;

/// The answer with the file, or the part of it that was asked for.
///
/// # Errors
/// [`Error::Store`] when the file cannot be read.
pub(crate) async fn file(core: &Core, file: MediaFile, headers: &HeaderMap) -> Result<Response, ApiError> {
    let size_bytes = file.size_bytes;
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok()).map(|range| wanted(range, size_bytes));
    let content_type = file.content_type.as_deref().unwrap_or("application/octet-stream");
    let content_type =
        HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let inline = content_type.to_str().is_ok_and(is_inline);
    let disposition = content_disposition(inline, file.file_name.as_deref());
    let disposition = HeaderValue::from_str(&disposition).unwrap_or(HeaderValue::from_static("attachment"));
    let max_age_s = file.expires_ms.map_or(MAX_AGE_S, |end| (end.saturating_sub(core.now_ms()) / 1000).min(MAX_AGE_S));
    let mut response = match range {
        Some(Wanted::Nothing) => return Ok(beyond_the_end(size_bytes)),
        Some(Wanted::Part(part)) => {
            let length = part.end.saturating_sub(part.start);
            let told = format!("bytes {}-{}/{size_bytes}", part.start, part.end.saturating_sub(1));
            let mut response = body(file.content, Some(part)).await?;
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
            set(&mut response, CONTENT_RANGE, &told);
            response
        }
        Some(Wanted::Everything) | None => {
            let mut response = body(file.content, None).await?;
            response.headers_mut().insert(CONTENT_LENGTH, size_bytes.into());
            response
        }
    };
    let answer = response.headers_mut();
    answer.insert(CONTENT_TYPE, content_type);
    answer.insert(CONTENT_DISPOSITION, disposition);
    answer.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    answer.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin"));
    set(&mut response, CACHE_CONTROL, &format!("private, max-age={max_age_s}"));
    // Whoever sits down at this browser next does not get from its cache what their own token does not open.
    response.headers_mut().append(VARY, HeaderValue::from_static("Authorization"));
    Ok(response)
}

/// The refusal of a part that the file does not have.
fn beyond_the_end(size_bytes: u64) -> Response {
    let refusal = Error::Custom {
        status: StatusCode::RANGE_NOT_SATISFIABLE.as_u16(),
        errcode: "M_INVALID_PARAM",
        message: format!("the file has {size_bytes} bytes, and none of those that were asked for").into(),
    };
    let mut response = ApiError(refusal).into_response();
    set(&mut response, CONTENT_RANGE, &format!("bytes */{size_bytes}"));
    response
}

/// The answer with a file for another server.
///
/// # Errors
/// Never yet; the type is that of a handler.
pub(crate) async fn federation(media: FederationMedia) -> Result<Response, ApiError> {
    let FederationMedia { envelope, file } = media;
    let around = (envelope.head.len() as u64).saturating_add(envelope.tail.len() as u64);
    let length = file.size_bytes.saturating_add(around);
    let content = parts(file.content, None).await?;
    let whole = stream::iter([Ok(envelope.head)]).chain(content).chain(stream::iter([Ok(envelope.tail)]));
    let mut response = Body::from_stream(whole).into_response();
    set(&mut response, CONTENT_TYPE, &envelope.content_type);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(response)
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

async fn body(content: MediaContent, part: Option<Range<u64>>) -> Result<Response, Error> {
    Ok(Body::from_stream(parts(content, part).await?).into_response())
}

/// The content part by part, read as the client takes it.
async fn parts(
    content: MediaContent,
    part: Option<Range<u64>>,
) -> Result<impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static, Error> {
    let content = match (content, part) {
        (MediaContent::File(reader), Some(part)) => {
            MediaContent::File(reader.range(part.start, part.end.saturating_sub(part.start)).await?)
        }
        (MediaContent::Memory(content), Some(part)) => {
            let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(content.len());
            MediaContent::Memory(content.slice(at(part.start)..at(part.end)))
        }
        (content, None) => content,
    };
    Ok(stream::unfold(Some(content), |content| async move {
        match content? {
            MediaContent::Memory(content) => Some((Ok(content), None)),
            MediaContent::File(mut reader) => match reader.next_part().await {
                Ok(Some(part)) => Some((Ok(part), Some(MediaContent::File(reader)))),
                Ok(None) => None,
                Err(error) => {
                    tracing::error!(%error, "a media file could not be read to its end");
                    Some((Err(io::Error::other("the file could not be read to its end")), None))
                }
            },
        }
    }))
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Part(Range<u64>),
    /// A part that the file does not have.
    Nothing,
    /// Not understood, or several parts: answered as if nothing was asked.
    Everything,
}

fn wanted(range: &str, size_bytes: u64) -> Wanted {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Wanted::Everything;
    };
    let part = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size_bytes),
        (Ok(first), Err(_)) if last.trim().is_empty() => first..size_bytes,
        (Err(_), Ok(count)) if first.trim().is_empty() => size_bytes.saturating_sub(count)..size_bytes,
        _ => return Wanted::Everything,
    };
    if part.is_empty() { Wanted::Nothing } else { Wanted::Part(part) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_file_are_understood() {
        assert_eq!(wanted("bytes=0-4", 10), Wanted::Part(0..5));
        assert_eq!(wanted("bytes=5-", 10), Wanted::Part(5..10));
        assert_eq!(wanted("bytes=-3", 10), Wanted::Part(7..10));
        assert_eq!(wanted("bytes=-30", 10), Wanted::Part(0..10));
        assert_eq!(wanted("bytes=8-99", 10), Wanted::Part(8..10));
        assert_eq!(wanted("bytes=10-", 10), Wanted::Nothing);
        assert_eq!(wanted("bytes=-0", 10), Wanted::Nothing);
        for everything in ["bytes=4-2", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b", "bytes=-"] {
            assert_eq!(wanted(everything, 10), Wanted::Everything, "{everything}");
        }
    }
}
