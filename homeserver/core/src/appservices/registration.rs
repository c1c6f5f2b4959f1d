//! Registrations, as their files say, and checked.

use ruma::{OwnedUserId, RoomAliasId, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// One application service, as its registration file says (Application Service API, "Registration").
#[derive(Clone, Serialize, Deserialize)]
pub struct Registration {
    /// Unique and unchanging.
    pub id: String,
    /// Where its transactions go; `None`: it receives none.
    #[serde(default)]
    pub url: Option<String>,
    /// What it shows to us.
    pub as_token: String,
    /// What we show to it.
    pub hs_token: String,
    /// Localpart of its own user.
    pub sender_localpart: String,
    /// What it is interested in.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// Whether its users are rate limited.
    #[serde(default)]
    pub rate_limited: Option<bool>,
    /// Third-party protocols it serves.
    #[serde(default)]
    pub protocols: Option<Vec<String>>,
    /// Whether it receives typing, receipts, presence and to-device messages.
    #[serde(default, alias = "de.sorunome.msc2409.push_ephemeral", alias = "push_ephemeral")]
    pub receive_ephemeral: bool,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Registration").field("id", &self.id).field("url", &self.url).finish_non_exhaustive()
    }
}

/// What an application service is interested in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Users.
    pub users: Vec<Namespace>,
    /// Room aliases.
    pub aliases: Vec<Namespace>,
    /// Room ids.
    pub rooms: Vec<Namespace>,
}

/// A regular expression over identifiers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Namespace {
    /// Nobody else may have what matches.
    #[serde(default)]
    pub exclusive: bool,
    /// The expression.
    pub regex: String,
}

/// Why a registration file is refused.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// Neither YAML nor JSON, or a key has the wrong form.
    #[error("the registration is not valid YAML or JSON: {0}")]
    Syntax(String),
    /// A namespace is no regular expression.
    #[error("the expression of a namespace in `{area}` is not a regular expression")]
    Regex { area: &'static str, source: regex::Error },
    /// A token or id is empty.
    #[error("`{0}` is empty")]
    Empty(&'static str),
    /// The sender is no localpart.
    #[error("`sender_localpart` is not a valid localpart")]
    Sender,
}

impl Registration {
    /// A registration from its file's text, YAML or JSON, checked.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn parse(text: &str) -> Result<Self, RegistrationError> {
        let registration: Self = serde_saphyr::from_str(text).map_err(|error| {
            RegistrationError::Syntax(error.to_string().lines().next().unwrap_or_default().to_owned())
        })?;
        for (name, value) in [
            ("id", &registration.id),
            ("as_token", &registration.as_token),
            ("hs_token", &registration.hs_token),
            ("sender_localpart", &registration.sender_localpart),
        ] {
            if value.is_empty() {
                return Err(RegistrationError::Empty(name));
            }
        }
        let namespaces = &registration.namespaces;
        Compiled::new("users", &namespaces.users)?;
        Compiled::new("aliases", &namespaces.aliases)?;
        Compiled::new("rooms", &namespaces.rooms)?;
        Ok(registration)
    }
}

/// The expressions of one area, compiled.
#[derive(Debug, Default)]
struct Compiled(Vec<(regex::Regex, bool)>);

impl Compiled {
    /// Expressions are anchored at the start, as every homeserver does.
    fn new(area: &'static str, namespaces: &[Namespace]) -> Result<Self, RegistrationError> {
        namespaces
            .iter()
            .map(|namespace| {
                regex::RegexBuilder::new(&format!("^(?:{})", namespace.regex))
                    .size_limit(1 << 20)
                    .build()
                    .map(|regex| (regex, namespace.exclusive))
                    .map_err(|source| RegistrationError::Regex { area, source })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn matches(&self, id: &str) -> bool {
        self.0.iter().any(|(regex, _)| regex.is_match(id))
    }

    fn owns(&self, id: &str) -> bool {
        self.0.iter().any(|(regex, exclusive)| *exclusive && regex.is_match(id))
    }
}

/// A registered application service, ready to be asked.
#[derive(Debug)]
pub struct Appservice {
    /// What its file says.
    pub registration: Registration,
    sender: OwnedUserId,
    users: Compiled,
    aliases: Compiled,
    rooms: Compiled,
}

impl Appservice {
    /// Takes a registration into service.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn new(registration: Registration, server_name: &ServerName) -> Result<Self, RegistrationError> {
        let sender = UserId::parse_with_server_name(registration.sender_localpart.as_str(), server_name)
            .map_err(|_| RegistrationError::Sender)?;
        Ok(Self {
            sender,
            users: Compiled::new("users", &registration.namespaces.users)?,
            aliases: Compiled::new("aliases", &registration.namespaces.aliases)?,
            rooms: Compiled::new("rooms", &registration.namespaces.rooms)?,
            registration,
        })
    }

    /// Its own user.
    #[must_use]
    pub fn sender(&self) -> &OwnedUserId {
        &self.sender
    }

    /// Whether this is its own user or in its namespace.
    #[must_use]
    pub fn is_interested_in_user(&self, user: &UserId) -> bool {
        *user == *self.sender || self.users.matches(user.as_str())
    }

    /// Whether the alias is in its namespace.
    #[must_use]
    pub fn is_interested_in_alias(&self, alias: &RoomAliasId) -> bool {
        self.aliases.matches(alias.as_str())
    }

    /// Whether the room id is in its namespace.
    #[must_use]
    pub fn is_interested_in_room(&self, room: &RoomId) -> bool {
        self.rooms.matches(room.as_str())
    }

    /// Whether nobody else may have this user id.
    #[must_use]
    pub fn owns_user(&self, user: &UserId) -> bool {
        *user == *self.sender || self.users.owns(user.as_str())
    }

    /// Whether nobody else may have this alias.
    #[must_use]
    pub fn owns_alias(&self, alias: &RoomAliasId) -> bool {
        self.aliases.owns(alias.as_str())
    }

    /// Whether `token` is what it shows to us, in constant time.
    #[must_use]
    pub fn knows_token(&self, token: &str) -> bool {
        self.registration.as_token.as_bytes().ct_eq(token.as_bytes()).into()
    }
}
