//! The registration file: how a homeserver and this application service know each other.
//!
//! Spec: Application Service API, "Registration".

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::secret::Secret;
use crate::yaml;

/// Why a registration file was refused.
#[derive(Debug, Error)]
pub enum RegistrationError {
    /// Neither JSON nor the plain YAML of the spec's example.
    #[error("the registration file is not readable: {0}")]
    Yaml(#[from] yaml::YamlError),
    /// A field is missing or of the wrong type.
    #[error("the registration file has a wrong shape: {0}")]
    Shape(#[from] serde_json::Error),
    /// A token is too short to be a secret.
    #[error("the registration's {0} is shorter than 16 characters")]
    WeakToken(&'static str),
    /// Both tokens are the same, so either side could impersonate the other.
    #[error("the registration's as_token and hs_token are equal")]
    EqualTokens,
}

/// One namespace of ids that this application service is interested in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Nobody else may create ids in it.
    pub exclusive: bool,
    /// A POSIX regular expression over whole ids.
    pub regex: String,
}

/// The namespaces by kind of id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// User ids.
    #[serde(default)]
    pub users: Vec<Namespace>,
    /// Room aliases.
    #[serde(default)]
    pub aliases: Vec<Namespace>,
    /// Room ids.
    #[serde(default)]
    pub rooms: Vec<Namespace>,
}

/// The registration that the homeserver and the application service share.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registration {
    /// Unique name of this application service on its homeserver.
    pub id: String,
    /// Where the homeserver pushes transactions; `None` pushes nothing.
    pub url: Option<String>,
    /// Proves the application service to the homeserver.
    pub as_token: Secret,
    /// Proves the homeserver to the application service.
    pub hs_token: Secret,
    /// Localpart of the application service's own user: the bot, or nobody who speaks.
    pub sender_localpart: String,
    /// The ids that belong to this application service.
    pub namespaces: Namespaces,
    /// Whether the homeserver limits the rate of its users; ours are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limited: Option<bool>,
    /// Third-party protocols; none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<String>>,
}

impl Registration {
    /// A registration with fresh 256-bit tokens, an exclusive namespace for the lab users and the bot.
    /// The bot is the sender, as Matron expects of who governs its rooms.
    pub fn generate<R: Rng + ?Sized>(random: &mut R, url: &str, server_name: &str, bot_localpart: &str) -> Self {
        let server = escape_regex(server_name);
        let bot = escape_regex(bot_localpart);
        Self {
            id: "matron-appservice".to_owned(),
            url: Some(url.to_owned()),
            as_token: token(random),
            hs_token: token(random),
            sender_localpart: bot_localpart.to_owned(),
            namespaces: Namespaces {
                users: vec![
                    Namespace { exclusive: true, regex: format!("@lab-.*:{server}") },
                    Namespace { exclusive: true, regex: format!("@{bot}:{server}") },
                ],
                aliases: Vec::new(),
                rooms: Vec::new(),
            },
            rate_limited: Some(false),
            protocols: None,
        }
    }

    /// The bot is another user than the sender.
    ///
    /// SPEC: Application Service API, "Using /sync and /events": homeservers other than Matron need not let the
    /// sender sync, and a bot that reads encrypted rooms must.
    #[must_use]
    pub fn with_separate_sender(mut self) -> Self {
        self.sender_localpart.push_str("-appservice");
        self
    }

    /// Reads a registration from JSON or from YAML written in block style.
    ///
    /// # Errors
    /// [`RegistrationError`] when the text is malformed, a field is missing or a token is no secret.
    pub fn parse(text: &str) -> Result<Self, RegistrationError> {
        let registration: Self = serde_json::from_value(yaml::parse(text)?)?;
        for (name, token) in [("as_token", &registration.as_token), ("hs_token", &registration.hs_token)] {
            if token.expose().len() < 16 {
                return Err(RegistrationError::WeakToken(name));
            }
        }
        if registration.as_token.matches(registration.hs_token.expose()) {
            return Err(RegistrationError::EqualTokens);
        }
        Ok(registration)
    }

    /// The registration as JSON, which every YAML reader takes too.
    ///
    /// # Errors
    /// [`RegistrationError::Shape`] never in practice; the type is serialisable.
    pub fn to_json(&self) -> Result<String, RegistrationError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// The registration as block-style YAML, as in the spec's example.
    ///
    /// # Errors
    /// [`RegistrationError::Shape`] never in practice; the type is serialisable.
    pub fn to_yaml(&self) -> Result<String, RegistrationError> {
        Ok(yaml::write(&serde_json::to_value(self)?))
    }
}

fn token<R: Rng + ?Sized>(random: &mut R) -> Secret {
    let mut bytes = zeroize::Zeroizing::new([0u8; 32]);
    random.fill_bytes(bytes.as_mut_slice());
    Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()))
}

fn escape_regex(literal: &str) -> String {
    let mut out = String::with_capacity(literal.len() + 4);
    for c in literal.chars() {
        if !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '=' | '/')) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated() -> Registration {
        Registration::generate(&mut rand::rng(), "http://127.0.0.1:9", "north.example", "matron")
    }

    #[test]
    fn generated_registration_survives_yaml_and_json() {
        let registration = generated();
        for text in [registration.to_yaml().unwrap(), registration.to_json().unwrap()] {
            let read = Registration::parse(&text).unwrap();
            assert!(read.as_token.matches(registration.as_token.expose()));
            assert!(read.hs_token.matches(registration.hs_token.expose()));
            assert_eq!(read.namespaces, registration.namespaces);
            assert_eq!(read.url, registration.url);
            assert_eq!(read.rate_limited, Some(false));
        }
    }

    #[test]
    fn two_registrations_share_no_token() {
        let (a, b) = (generated(), generated());
        assert!(!a.as_token.matches(b.as_token.expose()));
        assert!(!a.hs_token.matches(a.as_token.expose()));
    }

    #[test]
    fn the_example_of_the_spec_is_read() {
        let text = r##"
id: "IRC Bridge"
url: "http://127.0.0.1:1234"
as_token: "30c05ae90a248a4188e620216fa72e349803310ec83e2a77b34fe90be6081f46"
hs_token: "312df522183efd404ec1cd22d2ffa4bbc76a8c1ccf541dd692eef281356bb74e"
sender_localpart: "_irc_bot" # Will result in @_irc_bot:example.org
namespaces:
  users:
    - exclusive: true
      regex: "@_irc_bridge_.*"
  aliases:
    - exclusive: false
      regex: "#_irc_bridge_.*"
  rooms: []
"##;
        let registration = Registration::parse(text).unwrap();
        assert_eq!(registration.sender_localpart, "_irc_bot");
        assert_eq!(registration.namespaces.users.len(), 1);
        assert_eq!(registration.namespaces.aliases[0].regex, "#_irc_bridge_.*");
        assert!(!registration.namespaces.aliases[0].exclusive);
        assert!(registration.namespaces.rooms.is_empty());
    }

    #[test]
    fn weak_or_equal_tokens_are_refused() {
        let mut registration = generated();
        registration.as_token = Secret::new("short".to_owned());
        let text = registration.to_json().unwrap();
        assert!(matches!(Registration::parse(&text), Err(RegistrationError::WeakToken("as_token"))));
        let mut registration = generated();
        registration.as_token = registration.hs_token.clone();
        let text = registration.to_json().unwrap();
        assert!(matches!(Registration::parse(&text), Err(RegistrationError::EqualTokens)));
    }
}
