//! The `X-Matrix` authorization of requests between servers: its text, its signature, its header.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>.

use matron_room::{SigningKey, VerifyKey};
use ruma::{OwnedServerName, ServerName};
use serde_json::Value;

/// Longer headers are refused before they are looked at, bytes.
const MAX_HEADER_BYTES: usize = 4096;

/// What is signed of a request.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// The verb, in capitals.
    pub method: &'a str,
    /// Path and query, exactly as sent.
    pub uri: &'a str,
    /// The sending server.
    pub origin: &'a ServerName,
    /// The receiving server; old servers leave it out.
    pub destination: Option<&'a ServerName>,
    /// The parsed body, if there is one.
    pub content: Option<&'a Value>,
}

/// The parameters of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XMatrix {
    /// The sending server, as it says.
    pub origin: OwnedServerName,
    /// The receiving server.
    pub destination: Option<OwnedServerName>,
    /// The key's id.
    pub key_id: String,
    /// The signature, unpadded base64.
    pub signature: String,
}

/// The header is not `X-Matrix` with `origin`, `key` and `sig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It has another form.
    #[error("the Authorization header is not a well-formed X-Matrix header")]
    Malformed,
    /// It names as a server what is no server name.
    #[error("the Authorization header names as a server what is no server name")]
    ServerName,
}

/// The `Authorization` header of a request, signed by us.
#[must_use]
pub fn sign_request(request: &SignedRequest<'_>, key: &SigningKey) -> String {
    let signature = key.sign_bytes(signing_text(request).as_bytes());
    let destination = request.destination.map(|server| format!(",destination=\"{server}\"")).unwrap_or_default();
    format!("X-Matrix origin=\"{}\"{destination},key=\"{}\",sig=\"{signature}\"", request.origin, key.key_id())
}

/// Whether the signature is this key's over the request.
#[must_use]
pub fn request_verifies(request: &SignedRequest<'_>, key: &VerifyKey, signature: &str) -> bool {
    key.verifies(signing_text(request).as_bytes(), signature)
}

/// The canonical form of a request's body.
#[must_use]
pub fn canonical_content(content: &Value) -> String {
    let mut text = String::new();
    write_canonical(&mut text, content);
    text
}

/// The canonical JSON that is signed.
fn signing_text(request: &SignedRequest<'_>) -> String {
    signing_text_around(request, request.content.map(canonical_content).as_deref())
}

/// As [`signing_text`], around a body in its canonical form, whatever the request's own says.
pub(super) fn signing_text_around(request: &SignedRequest<'_>, content: Option<&str>) -> String {
    let mut text = String::from("{");
    if let Some(content) = content {
        text.push_str("\"content\":");
        text.push_str(content);
        text.push(',');
    }
    if let Some(destination) = request.destination {
        text.push_str("\"destination\":");
        write_text(&mut text, destination.as_str());
        text.push(',');
    }
    for (name, value) in [("method", request.method), ("origin", request.origin.as_str()), ("uri", request.uri)] {
        write_text(&mut text, name);
        text.push(':');
        write_text(&mut text, value);
        text.push(',');
    }
    text.pop();
    text.push('}');
    text
}

/// Canonical form of any JSON. Fractions and large integers, which have none but occur in events of room versions
/// 1 to 5, are written as they came: the signature then stands or falls with the other server's spelling.
fn write_canonical(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(true) => text.push_str("true"),
        Value::Bool(false) => text.push_str("false"),
        Value::Number(number) => text.push_str(&number.to_string()),
        Value::String(string) => write_text(text, string),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(text, item);
            }
            text.push(']');
        }
        Value::Object(object) => {
            // Whether serde_json keeps keys sorted depends on the features that other crates choose.
            let mut members: Vec<_> = object.iter().collect();
            members.sort_unstable_by_key(|(name, _)| name.as_str());
            text.push('{');
            for (index, (name, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_text(text, name);
                text.push(':');
                write_canonical(text, member);
            }
            text.push('}');
        }
    }
}

/// A JSON string with the escapes of canonical JSON, which are those of serde_json.
fn write_text(text: &mut String, string: &str) {
    if string.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        text.push_str(&Value::from(string).to_string());
        return;
    }
    text.push('"');
    text.push_str(string);
    text.push('"');
}

impl XMatrix {
    /// The parameters of this `Authorization` header.
    ///
    /// # Errors
    /// [`HeaderError`], also when a parameter stands twice.
    pub fn parse(header: &str) -> Result<Self, HeaderError> {
        if header.len() > MAX_HEADER_BYTES {
            return Err(HeaderError::Malformed);
        }
        let (scheme, mut rest) = header.trim_start().split_once(' ').ok_or(HeaderError::Malformed)?;
        if !scheme.eq_ignore_ascii_case("X-Matrix") {
            return Err(HeaderError::Malformed);
        }
        let (mut origin, mut destination, mut key_id, mut signature) = (None, None, None, None);
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let (name, value, tail) = parameter(rest)?;
            let slot = match name.to_ascii_lowercase().as_str() {
                "origin" => Some(&mut origin),
                "destination" => Some(&mut destination),
                "key" => Some(&mut key_id),
                "sig" => Some(&mut signature),
                _unknown => None,
            };
            if let Some(slot) = slot
                && slot.replace(value).is_some()
            {
                return Err(HeaderError::Malformed);
            }
            rest = tail;
        }
        let server = |name: String| ServerName::parse(name).map_err(|_invalid| HeaderError::ServerName);
        Ok(Self {
            origin: server(origin.ok_or(HeaderError::Malformed)?)?,
            destination: destination.map(server).transpose()?,
            key_id: key_id.ok_or(HeaderError::Malformed)?,
            signature: signature.ok_or(HeaderError::Malformed)?,
        })
    }
}

/// The next `name=value`, its value unescaped, and what follows it.
fn parameter(text: &str) -> Result<(&str, String, &str), HeaderError> {
    let (name, rest) = text.split_once('=').ok_or(HeaderError::Malformed)?;
    let name = name.trim_end_matches([' ', '\t']);
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte)) {
        return Err(HeaderError::Malformed);
    }
    let rest = rest.trim_start_matches([' ', '\t']);
    let Some(quoted) = rest.strip_prefix('"') else {
        // Old servers leave colons, and some the slashes of base64, without quotes.
        let (value, tail) = rest.split_once(',').unwrap_or((rest, ""));
        let value = value.trim_end_matches([' ', '\t']);
        if value.is_empty() || value.contains(['"', ' ', '\t']) {
            return Err(HeaderError::Malformed);
        }
        return Ok((name, value.to_owned(), tail));
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next().ok_or(HeaderError::Malformed)? {
            '"' => break,
            '\\' => value.push(characters.next().ok_or(HeaderError::Malformed)?),
            character => value.push(character),
        }
    }
    let tail = characters.as_str().trim_start_matches([' ', '\t']);
    if tail.is_empty() || tail.starts_with(',') { Ok((name, value, tail)) } else { Err(HeaderError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        // The signing key of the specification's test vectors.
        SigningKey::from_key_file("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap()
    }

    fn name(name: &str) -> &ServerName {
        name.try_into().unwrap()
    }

    #[test]
    fn what_is_signed_is_canonical() {
        let content = serde_json::json!({"b": [1, true, null, {"z": 1, "a": "\u{1f}\"\\\n日"}], "a": {}, "1.5": 1.5});
        let request = SignedRequest {
            method: "PUT",
            uri: "/_matrix/federation/v1/send/1?a=%20",
            origin: name("a.example"),
            destination: Some(name("b.example:8448")),
            content: Some(&content),
        };
        assert_eq!(
            signing_text(&request),
            r#"{"content":{"1.5":1.5,"a":{},"b":[1,true,null,{"a":"\u001f\"\\\n日","z":1}]},"#.to_owned()
                + r#""destination":"b.example:8448","method":"PUT","origin":"a.example","uri":"/_matrix/federation/v1/send/1?a=%20"}"#
        );
    }

    #[test]
    fn the_signing_text_is_that_of_signed_json() {
        let object = serde_json::json!({
            "method": "GET", "uri": "/x", "origin": "domain", "destination": "b", "content": {"two": "Two", "one": 1},
        });
        let mut signed = matron_room::canonical_object(&object).unwrap();
        key().sign_json(&mut signed, "domain").unwrap();
        let signed = serde_json::to_value(signed).unwrap();
        let request = SignedRequest {
            method: "GET",
            uri: "/x",
            origin: name("domain"),
            destination: Some(name("b")),
            content: object.get("content"),
        };
        let header = XMatrix::parse(&sign_request(&request, &key())).unwrap();
        assert_eq!(signed["signatures"]["domain"]["ed25519:1"], header.signature);
        assert!(request_verifies(&request, &key().verify_key(), &header.signature));
        let other = SignedRequest { uri: "/y", ..request };
        assert!(!request_verifies(&other, &key().verify_key(), &header.signature));
    }

    #[test]
    fn headers_of_old_and_new_servers_are_read() {
        let expected = XMatrix {
            origin: name("origin.hs.example.com").to_owned(),
            destination: Some(name("destination.hs.example.com:80").to_owned()),
            key_id: "ed25519:key1".to_owned(),
            signature: "ABC+/DEF".to_owned(),
        };
        for header in [
            r#"X-Matrix origin="origin.hs.example.com",destination="destination.hs.example.com:80",key="ed25519:key1",sig="ABC+/DEF""#,
            r#"x-matrix   SIG="ABC+/DEF" ,	Key=ed25519:key1, Origin = origin.hs.example.com,destination=destination.hs.example.com:80, new="a, b""#,
            r#"X-Matrix origin=origin.hs.example.com,key="ed25519:\k\e\y1",sig=ABC+/DEF,destination="destination.hs.example.com:80","#,
        ] {
            assert_eq!(XMatrix::parse(header), Ok(expected.clone()), "{header}");
        }
    }

    #[test]
    fn malformed_headers_are_refused() {
        for header in [
            "",
            "X-Matrix",
            "X-Matrix ",
            "Bearer abc",
            r#"X-Matrix origin="a",key="k""#,
            r#"X-Matrix origin="a",origin="b",key="k",sig="s""#,
            r#"X-Matrix origin="a" key="k",sig="s""#,
            r#"X-Matrix origin="a,key="k",sig="s""#,
            r#"X-Matrix origin="a",key="k",sig="s"#,
            r#"X-Matrix origin="a",key="k",sig="s\"#,
            r#"X-Matrix origin="not a server",key="k",sig="s""#,
            r#"X-Matrix origin="a",destination="",key="k",sig="s""#,
            r#"X-Matrix =,key="k",sig="s""#,
        ] {
            assert!(XMatrix::parse(header).is_err(), "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(header in ".{0,200}", rest in "[ -~]{0,200}") {
            let _ = XMatrix::parse(&header);
            let _ = XMatrix::parse(&format!("X-Matrix {rest}"));
        }

        #[test]
        fn quoted_values_come_back_as_they_were(key_id in "[ -~]{1,40}", signature in "[ -~]{1,100}") {
            let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!(r#"X-Matrix origin="a",key="{}",sig="{}""#, escape(&key_id), escape(&signature));
            let parsed = XMatrix::parse(&header).unwrap();
            proptest::prop_assert_eq!((parsed.key_id, parsed.signature), (key_id, signature));
        }
    }
}
