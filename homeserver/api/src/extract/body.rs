//! JSON bodies, bounded before and while they are read.

use std::fmt;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use matron_core::Error;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_json::error::Category;

use crate::{ApiError, AppState};

/// The largest JSON body of most endpoints, bytes.
pub const DEFAULT_JSON_BYTES: usize = 1024 * 1024;

/// The largest JSON body of endpoints that carry many keys or events, bytes.
pub const LARGE_JSON_BYTES: usize = 16 * 1024 * 1024;

/// How deep a client's values may be nested. Parsers stop at 128 levels, and what a client stores is told to it
/// inside something else.
const MAX_DEPTH: usize = 100;

/// A JSON body of at most `MAX` bytes.
///
/// Refusals: `M_TOO_LARGE`, `M_NOT_JSON` (also invalid UTF-8 and an empty body), `M_MISSING_PARAM`, `M_BAD_JSON`.
#[derive(Clone, Copy, Debug)]
pub struct JsonBody<T, const MAX: usize = DEFAULT_JSON_BYTES>(pub T);

/// As [`JsonBody`], where an empty body means `{}`.
#[derive(Clone, Copy, Debug)]
pub struct JsonOrEmpty<T, const MAX: usize = DEFAULT_JSON_BYTES>(pub T);

impl<T: DeserializeOwned, const MAX: usize> FromRequest<AppState> for JsonBody<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(&parts.headers, body, MAX).await?;
        let value = parse_json(&bytes)?;
        refuse_deep(&bytes)?;
        refuse_unreadable(&bytes)?;
        Ok(Self(value))
    }
}

impl<T: DeserializeOwned, const MAX: usize> FromRequest<AppState> for JsonOrEmpty<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(&parts.headers, body, MAX).await?;
        if bytes.is_empty() {
            return Ok(Self(parse_json(b"{}")?));
        }
        let value = parse_json(&bytes)?;
        refuse_deep(&bytes)?;
        refuse_unreadable(&bytes)?;
        Ok(Self(value))
    }
}

/// The whole body, if it has at most `max_bytes`.
///
/// # Errors
/// `M_TOO_LARGE`, decided by `Content-Length` before reading where it is given; `M_NOT_JSON` when the connection breaks.
pub async fn read_body(headers: &HeaderMap, body: Body, max_bytes: usize) -> Result<Bytes, Error> {
    let too_large = || Error::TooLarge(format!("the body may have at most {max_bytes} bytes").into());
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > max_bytes)) {
        return Err(too_large());
    }
    match Limited::new(body, max_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Error::NotJson),
    }
}

/// Nothing, if the text is nested as deep as is allowed at most.
pub(super) fn refuse_deep(bytes: &[u8]) -> Result<(), Error> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Error::BadJson(format!("values may be nested at most {MAX_DEPTH} deep").into()));
        }
    }
    Ok(())
}

/// Nothing, if every text and number in the body can be read: no halves of characters, no number beyond all bounds.
///
/// What is stored as it came, unread, would else spoil every answer that it becomes part of.
fn refuse_unreadable(bytes: &[u8]) -> Result<(), Error> {
    serde_json::from_slice::<Readable>(bytes).map(drop).map_err(|_| Error::NotJson)
}

/// Any value, read to its end and dropped.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _value: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _value: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _value: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _value: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        while fields.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

/// The value that a body holds.
///
/// # Errors
/// `M_NOT_JSON`, `M_MISSING_PARAM` naming the field, `M_BAD_JSON` naming the place; never the content.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::NotJson)?;
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => Error::NotJson,
        Category::Data => {
            // A wrong value inside an otherwise broken body is still not JSON.
            if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
                return Error::NotJson;
            }
            missing_field(&error.to_string()).map_or_else(
                || {
                    Error::BadJson(
                        format!("a value has the wrong form, at line {} column {}", error.line(), error.column())
                            .into(),
                    )
                },
                |field| Error::MissingParam(format!("`{field}` is missing").into()),
            )
        }
    })
}

/// The field that serde says is missing.
pub(super) fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// A body of which only interactive authentication matters.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct UiaBody {
    /// The client's `auth`.
    pub auth: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_refused() {
        for good in [r#""\ud83d\ude00""#, r#""\\ud800""#, r#"{"a\n": [1, -2.5e300, null, true, {}]}"#, "1"] {
            refuse_unreadable(good.as_bytes()).unwrap();
        }
        for bad in [r#""\ud800""#, r#"["\udc00"]"#, r#"{"\ude00\ud83d": 1}"#, r#"{"a": "\ud83dx\ude00"}"#, "[1e400]"] {
            assert!(refuse_unreadable(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn depth_counts_outside_of_text_only() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        refuse_deep(nested(MAX_DEPTH).as_bytes()).unwrap();
        assert!(refuse_deep(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        let text = format!(r#"{{"body": "\"{}"}}"#, "[".repeat(500));
        refuse_deep(text.as_bytes()).unwrap();
        let flat = format!("[{}1]", "[1],".repeat(500));
        refuse_deep(flat.as_bytes()).unwrap();
    }
}
