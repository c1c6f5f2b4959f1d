//! What a client asks for: the Client-Server API, on a device that it names.

use ruma::OwnedDeviceId;

use super::OAuthError;

/// The two spellings of what comes before `api:` and `device:`.
// MSC: 2967 is the unstable one; clients still use it.
const PREFIXES: [&str; 2] = ["urn:matrix:client:", "urn:matrix:org.matrix.msc2967.client:"];

/// A scope that can be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// What is granted, in the client's spelling; tokens that are not known are left out.
    pub text: String,
    /// The device.
    pub device_id: OwnedDeviceId,
}

impl Scope {
    /// The scope that a client asks for.
    ///
    /// # Errors
    /// `invalid_scope` unless there is full access to the API and exactly one device of 10 to 255 unreserved characters.
    ///
    /// SPEC: v1.19 Client-Server API, "Allocated scope tokens".
    pub fn parse(text: &str) -> Result<Self, OAuthError> {
        let wrong = |sentence: &'static str| OAuthError::refused("invalid_scope", sentence);
        let mut granted = Vec::new();
        let mut device: Option<&str> = None;
        let mut has_api = false;
        for token in text.split(' ') {
            let Some(rest) = PREFIXES.iter().find_map(|prefix| token.strip_prefix(prefix)) else { continue };
            if rest == "api:*" {
                has_api = true;
                granted.push(token);
            } else if let Some(id) = rest.strip_prefix("device:") {
                if device.replace(id).is_some_and(|before| before != id) {
                    return Err(wrong("the scope names more than one device"));
                }
                granted.push(token);
            }
        }
        let device = device.ok_or_else(|| wrong("the scope names no device: urn:matrix:client:device:<id>"))?;
        if !has_api {
            return Err(wrong("the scope lacks urn:matrix:client:api:*"));
        }
        let unreserved = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        if !(10..=255).contains(&device.len()) || !device.chars().all(unreserved) {
            return Err(wrong("a device id has 10 to 255 characters of A-Z a-z 0-9 - . _ ~"));
        }
        Ok(Self { text: granted.join(" "), device_id: device.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_known_and_what_is_not_known_is_not_granted() {
        let scope = Scope::parse("openid urn:matrix:client:api:* urn:matrix:client:device:ABCDEFGHIJ").unwrap();
        assert_eq!(scope.device_id, "ABCDEFGHIJ");
        assert_eq!(scope.text, "urn:matrix:client:api:* urn:matrix:client:device:ABCDEFGHIJ");
        let old = "urn:matrix:org.matrix.msc2967.client:api:* urn:matrix:org.matrix.msc2967.client:device:abcdefghij";
        assert_eq!(Scope::parse(old).unwrap().text, old);
    }

    #[test]
    fn a_scope_without_one_sound_device_or_without_the_api_is_refused() {
        for text in [
            "",
            "urn:matrix:client:api:*",
            "urn:matrix:client:device:ABCDEFGHIJ",
            "urn:matrix:client:api:* urn:matrix:client:device:",
            "urn:matrix:client:api:* urn:matrix:client:device:short",
            "urn:matrix:client:api:* urn:matrix:client:device:ABCDEFGHIJ%2F",
            "urn:matrix:client:api:* urn:matrix:client:device:ABCDEFGHIJ urn:matrix:client:device:JIHGFEDCBA",
        ] {
            let Err(OAuthError::Refused(refusal)) = Scope::parse(text) else { panic!("{text}") };
            assert_eq!(refusal.code, "invalid_scope");
        }
    }
}
