//! What is known when the question is asked. What is not known is a value too.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::credential::{CREDENTIAL_FIELD, Credential, CredentialStatus};
use crate::names;
use crate::register::VerifiedRegister;
use crate::request::PrincipalKind;
use crate::revocation::Revocations;
use crate::room_policy::{ROOM_POLICY_TYPE, RoomPolicy};

/// Something that may be known, known to be missing, or not to be had at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact<T> {
    /// It is this.
    Known(T),
    /// There is none.
    Absent,
    /// Nobody can say.
    Unavailable(Unavailable),
}

/// Why a fact is not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unavailable {
    /// It exists and cannot be read.
    Malformed,
    /// Another server or service did not answer.
    NoAnswer,
    /// It could not be loaded from storage.
    NotLoaded,
    /// It was never asked for.
    NotAsked,
}

impl<T> Fact<T> {
    /// The value, if it is known.
    #[must_use]
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Absent | Self::Unavailable(_) => None,
        }
    }

    /// Known if there is a value, absent if not.
    #[must_use]
    pub fn from_option(value: Option<T>) -> Self {
        value.map_or(Self::Absent, Self::Known)
    }
}

/// An organisation, as the register names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganisationFact {
    /// Its code.
    pub code: String,
    /// Its name.
    pub name: String,
    /// The jurisdiction in which it is.
    pub jurisdiction: String,
}

/// In what state the federation register is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegisterStatus {
    /// Verified and current.
    Fresh {
        /// Its version.
        version: u64,
    },
    /// Verified and expired.
    Stale {
        /// When it expired, in milliseconds since 1970.
        expired_at_ms: u64,
    },
    /// There is none.
    None,
}

/// What is known of the person who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonFacts {
    /// The organisation to which the person's server belongs.
    pub organisation: Fact<OrganisationFact>,
    /// In what state the person's credential is.
    pub credential: CredentialStatus,
}

/// What is known of the room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomFacts {
    /// Its policy.
    pub policy: Fact<RoomPolicy>,
    /// How it is encrypted.
    pub encryption: Fact<RoomEncryption>,
    /// `max_lifetime` of its `m.room.retention`, in milliseconds.
    pub lifetime_ms: Fact<u64>,
}

/// `m.room.encryption`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomEncryption {
    /// The algorithm.
    pub algorithm: String,
    /// How long a room key is used, in milliseconds.
    pub rotation_period_ms: Option<u64>,
}

/// The person who is invited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitee {
    /// Matrix user id.
    pub user_id: String,
    /// The organisation to which the invitee's server belongs.
    pub organisation: Fact<OrganisationFact>,
}

/// All that is known when the question is asked. It can be kept with its [`crate::Request`], to ask another policy later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The time, in milliseconds since 1970.
    pub now_ms: u64,
    /// The register's state.
    pub register: RegisterStatus,
    /// The person who asks.
    pub person: PersonFacts,
    /// The room.
    pub room: RoomFacts,
    /// The person who is invited, for invites.
    pub invitee: Fact<Invitee>,
}

impl Facts {
    /// The facts of a plain Matrix server: no register, no credential, a room without policy.
    #[must_use]
    pub fn ordinary(now_ms: u64) -> Self {
        Self {
            now_ms,
            register: RegisterStatus::None,
            person: PersonFacts { organisation: Fact::Absent, credential: CredentialStatus::Missing },
            room: RoomFacts::none(),
            invitee: Fact::Absent,
        }
    }
}

impl PersonFacts {
    /// What register, revocations and a member event's content say of a user.
    ///
    /// `member_content` is the content of the event that is judged, or of the user's member event in the room,
    /// or an object with [`CREDENTIAL_FIELD`] from the user's profile.
    #[must_use]
    pub fn gather(
        user_id: &str,
        member_content: Option<&Value>,
        register: Option<&VerifiedRegister>,
        revocations: &Revocations,
        now_ms: u64,
    ) -> Self {
        let carried = member_content.and_then(|content| content.get(CREDENTIAL_FIELD));
        Self {
            organisation: organisation_of(user_id, register),
            credential: Credential::status_of(carried, register, revocations, user_id, now_ms),
        }
    }
}

impl RoomFacts {
    /// The facts of a room without policy, encryption and lifetime, or of no room.
    #[must_use]
    pub fn none() -> Self {
        Self { policy: Fact::Absent, encryption: Fact::Absent, lifetime_ms: Fact::Absent }
    }

    /// What the room's state says; `content_of` gives the content of the state event of a type with an empty key.
    pub fn from_state(content_of: impl Fn(&str) -> Fact<Value>) -> Self {
        Self {
            policy: read(&content_of(ROOM_POLICY_TYPE), |content| RoomPolicy::parse(content).ok()),
            encryption: read(&content_of("m.room.encryption"), RoomEncryption::read),
            lifetime_ms: match content_of("m.room.retention") {
                Fact::Known(content) => lifetime_of(&content),
                Fact::Absent => Fact::Absent,
                Fact::Unavailable(why) => Fact::Unavailable(why),
            },
        }
    }
}

impl RoomEncryption {
    /// What the content of `m.room.encryption` says; `None` if it names no algorithm.
    #[must_use]
    pub fn read(content: &Value) -> Option<Self> {
        Some(Self {
            algorithm: content.get("algorithm")?.as_str()?.to_owned(),
            rotation_period_ms: content.get("rotation_period_ms").and_then(Value::as_u64),
        })
    }
}

impl Invitee {
    /// What the register says of an invited user.
    #[must_use]
    pub fn gather(user_id: &str, register: Option<&VerifiedRegister>) -> Self {
        Self { user_id: user_id.to_owned(), organisation: organisation_of(user_id, register) }
    }
}

impl VerifiedRegister {
    /// What kind of party a user is. The register's word goes before `local`, which says what this server knows
    /// of a user of its own (`None` for users of other servers).
    #[must_use]
    pub fn kind_of(&self, user_id: &str, local: Option<PrincipalKind>) -> PrincipalKind {
        if self.is_governance(user_id) {
            PrincipalKind::Bot
        } else if self.is_service(user_id) {
            PrincipalKind::AppService
        } else {
            local.unwrap_or(PrincipalKind::Remote)
        }
    }
}

/// `max_lifetime` of `m.room.retention`; absent if it sets none.
pub(crate) fn lifetime_of(content: &Value) -> Fact<u64> {
    match content.get("max_lifetime") {
        None | Some(Value::Null) => Fact::Absent,
        Some(value) => value.as_u64().map_or(Fact::Unavailable(Unavailable::Malformed), Fact::Known),
    }
}

fn organisation_of(user_id: &str, register: Option<&VerifiedRegister>) -> Fact<OrganisationFact> {
    let Some(register) = register else {
        return Fact::Unavailable(Unavailable::NotLoaded);
    };
    let organisation = names::server_of(user_id).and_then(|server| register.organisation_of_server(server));
    Fact::from_option(organisation.map(|organisation| OrganisationFact {
        code: organisation.code.clone(),
        name: organisation.name.clone(),
        jurisdiction: organisation.jurisdiction.clone(),
    }))
}

fn read<T>(content: &Fact<Value>, read: impl Fn(&Value) -> Option<T>) -> Fact<T> {
    match content {
        Fact::Known(content) => read(content).map_or(Fact::Unavailable(Unavailable::Malformed), Fact::Known),
        Fact::Absent => Fact::Absent,
        Fact::Unavailable(why) => Fact::Unavailable(*why),
    }
}
