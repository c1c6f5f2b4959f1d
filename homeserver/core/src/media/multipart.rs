//! `multipart/mixed`, as servers exchange media.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid>.

use bytes::Bytes;

/// Where the parts before the file must have ended, bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The second part of an answer: the file, or where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub content_type: Option<String>,
    pub content_disposition: Option<String>,
    pub location: Option<String>,
    pub body: Bytes,
}

/// The boundary that a content type names.
fn boundary_of(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then_some(value.trim())
    })?;
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    (!value.is_empty() && value.len() <= 70).then_some(value)
}

/// The second of exactly two parts.
pub(super) fn second_part(content_type: &str, body: &Bytes) -> Option<Part> {
    let delimiter = format!("--{}", boundary_of(content_type)?).into_bytes();
    let head = body.get(..body.len().min(MAX_HEAD_BYTES))?;
    let first = find(head, &delimiter)?;
    let after_first = first.checked_add(delimiter.len())?;
    let second = find(head.get(after_first..)?, &delimiter)?.checked_add(after_first)?;
    // The line break that ends the delimiter belongs to the search: with it, an empty block of headers is found too.
    let headers_start = second.checked_add(delimiter.len())?;
    let headers_end = find(head.get(headers_start..)?, b"\r\n\r\n")?.checked_add(headers_start)?;
    let headers = std::str::from_utf8(body.get(headers_start..headers_end)?).ok()?;
    let content_start = headers_end.checked_add(4)?;
    let closing = [b"\r\n".as_slice(), &delimiter].concat();
    let content_end = rfind(body.get(content_start..)?, &closing)?.checked_add(content_start)?;
    let mut part = Part { body: body.slice(content_start..content_end), ..Part::default() };
    for line in headers.split("\r\n") {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = Some(value.trim().to_owned());
        match name.trim().to_ascii_lowercase().as_str() {
            "content-type" => part.content_type = value,
            "content-disposition" => part.content_disposition = value,
            "location" => part.location = value,
            _ => {}
        }
    }
    Some(part)
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn rfind(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).rposition(|window| window == wanted)
}

/// What comes before and after the file in an answer to another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `Content-Type` of the whole.
    pub content_type: String,
    /// Before the file.
    pub head: Bytes,
    /// After the file.
    pub tail: Bytes,
}

/// The envelope of a file with these headers; `boundary` is random, so that no file contains it.
pub(super) fn envelope(boundary: &str, content_type: &str, content_disposition: &str) -> Envelope {
    Envelope {
        content_type: format!("multipart/mixed; boundary={boundary}"),
        head: format!(
            "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n\
             Content-Type: {content_type}\r\nContent-Disposition: {content_disposition}\r\n\r\n"
        )
        .into(),
        tail: format!("\r\n--{boundary}--\r\n").into(),
    }
}

/// The file name in a `Content-Disposition`.
pub(super) fn file_name_of(content_disposition: &str) -> Option<String> {
    let parameters = || content_disposition.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let extended = parameters().find(|(name, _)| name.trim().eq_ignore_ascii_case("filename*"));
    if let Some((_, value)) = extended
        && let Some((charset, rest)) = value.trim().split_once('\'')
        && charset.eq_ignore_ascii_case("utf-8")
        && let Some((_, encoded)) = rest.split_once('\'')
    {
        return percent_encoding::percent_decode_str(encoded).decode_utf8().ok().map(Into::into);
    }
    let (_, value) = parameters().find(|(name, _)| name.trim().eq_ignore_ascii_case("filename"))?;
    let value = value.trim();
    match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(quoted) => Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\")),
        None => Some(value.to_owned()),
    }
}

/// `Content-Disposition` with a file name that any reader understands.
#[must_use]
pub fn content_disposition(inline: bool, file_name: Option<&str>) -> String {
    let kind = if inline { "inline" } else { "attachment" };
    let Some(name) = file_name else { return kind.to_owned() };
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte);
    if !name.is_empty() && name.bytes().all(is_token) {
        return format!("{kind}; filename={name}");
    }
    if name.bytes().all(|byte| (b' '..0x7F).contains(&byte)) {
        return format!("{kind}; filename=\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    }
    let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    format!("{kind}; filename*=utf-8''{encoded}")
}

/// The content types that no browser mistakes for a page of this origin.
///
/// SPEC: v1.19 "Serving inline content".
const INLINE: &[&str] = &[
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// Whether content of this type may be shown inside a page.
#[must_use]
pub fn is_inline(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    INLINE.iter().any(|allowed| essence.eq_ignore_ascii_case(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_enveloped_is_found_again() {
        let envelope = envelope("abc", "image/png", "inline; filename=\"a b.png\"");
        for content in [b"".as_slice(), b"hello", b"\r\n--ab\r\n\r\n", b"--abd\r\n"] {
            let body = [&envelope.head[..], content, &envelope.tail[..]].concat().into();
            let part = second_part(&envelope.content_type, &body).unwrap();
            assert_eq!(part.body, content);
            assert_eq!(part.content_type.as_deref(), Some("image/png"));
            assert_eq!(file_name_of(&part.content_disposition.unwrap()).as_deref(), Some("a b.png"));
        }
    }

    #[test]
    fn a_location_is_found() {
        let body = b"preamble\r\n--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\nLocation: https://cdn/a\r\n\r\n\r\n--x--";
        let part = second_part("multipart/mixed; boundary=\"x\"", &Bytes::from_static(body)).unwrap();
        assert_eq!(part.location.as_deref(), Some("https://cdn/a"));
        assert_eq!(part.body, "");
    }

    #[test]
    fn broken_answers_are_no_parts() {
        for (kind, body) in [
            ("multipart/mixed", "--x\r\n\r\n--x--"),
            ("multipart/mixed; boundary=x", ""),
            ("multipart/mixed; boundary=x", "--x"),
            ("multipart/mixed; boundary=x", "--x\r\n\r\n{}\r\n--x--\r\n"),
            ("multipart/form-data; boundary=x", "--x\r\n\r\n{}\r\n--x\r\n\r\nfile\r\n--x--"),
            ("multipart/mixed; boundary=x", "--x\r\n\r\n{}\r\n--x\r\nContent-Type: a\r\n\r\nno end"),
        ] {
            assert_eq!(second_part(kind, &Bytes::from_static(body.as_bytes())), None, "{body}");
        }
    }

    #[test]
    fn file_names_survive_the_way_through_a_header() {
        for name in ["a.png", "a b.png", "say \"hi\".txt", "Röntgen.png", "☕", "a;b=c"] {
            let header = content_disposition(false, Some(name));
            assert!(header.is_ascii());
            if !name.contains(';') {
                assert_eq!(file_name_of(&header).as_deref(), Some(name), "{header}");
            }
        }
    }

    #[test]
    fn pages_and_scripts_are_never_inline() {
        assert!(is_inline("image/png"));
        assert!(is_inline("text/plain; charset=utf-8"));
        for kind in ["text/html", "image/svg+xml", "application/javascript", "application/pdf", ""] {
            assert!(!is_inline(kind), "{kind}");
        }
    }
}
