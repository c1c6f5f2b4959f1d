//! The question: who wants to do what, and where.

use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::facts::{Fact, RoomEncryption};
use crate::names;
use crate::revision::Digest;
use crate::room_policy::RoomPolicy;
use crate::wording::{Form, Words};

/// What kind of party asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A person with an account on this server.
    Clinician,
    /// An organisation's governance bot: local by configuration, remote if the register names it.
    Bot,
    /// A machine that an organisation runs, such as a lab feed: local by configuration, remote if the register names it.
    AppService,
    /// A user of another server.
    Remote,
    /// Not known.
    Unknown,
}

/// The party that asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Matrix user id.
    pub user_id: String,
    /// Server name of the user id; empty if the user id is malformed.
    pub server: String,
    /// What kind of party it is.
    pub kind: PrincipalKind,
}

impl Principal {
    /// The party with this user id.
    #[must_use]
    pub fn new(user_id: &str, kind: PrincipalKind) -> Self {
        let server = names::server_of(user_id).unwrap_or_default().to_owned();
        Self { user_id: user_id.to_owned(), server, kind }
    }
}

/// Where it is to happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// In the room with this id.
    Room(String),
    /// On the server, in no room or in a room that does not exist yet.
    Server,
}

/// Circumstances of the request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Whether the event is one of those that bring the room into being: sent by its creator, at once after the
    /// create event. The first policy state of a room is set, not changed.
    pub room_being_created: bool,
}

/// What is to be done.
///
/// Build it from an event with [`Action::of_event`]; so a membership event always becomes the right arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Create a room. `federates` is `m.federate`.
    CreateRoom {
        /// Whether the room may reach other servers.
        federates: bool,
    },
    /// Invite somebody.
    Invite {
        /// User id of the invited.
        invitee: String,
    },
    /// Join, or change one's own profile in the room. The credential is that of the join event itself.
    Join,
    /// Ask to be let in.
    Knock,
    /// Leave, or decline an invite. Always possible.
    Leave,
    /// Kick, ban or unban somebody. Always possible, as far as the room's power levels go.
    Remove {
        /// User id of the removed.
        target: String,
    },
    /// Stay a member: asked when facts change, to find whom to evict.
    Remain,
    /// Send a message-like event.
    Send {
        /// Type of the event as sent: `m.room.encrypted` if encrypted.
        event_type: String,
        /// In what form it is written: encrypted, or not.
        form: Form,
    },
    /// Send a state event other than a membership.
    SendState(StateChange),
    /// Redact an event. Always possible for messages.
    Redact(RedactTarget),
    /// Do this, with words of one's own: a `reason`, or more. What is always possible is so without words.
    WithWords {
        /// What is said.
        words: Words,
        /// What is done.
        act: Box<Action>,
    },
    /// Upload a file.
    UploadMedia {
        /// Its size, in bytes.
        size_bytes: u64,
    },
    /// Read the room's messages.
    Read,
    /// At the door: a server invites a local user. Of a room that lies elsewhere no more is known than the invite's
    /// stripped state says; ask about [`Action::Join`] again with the whole state before the room is entered.
    FederatedInvite {
        /// User id of the invited.
        invitee: String,
    },
    /// At the door: a remote user asks to join through this server (`make_join`, `send_join`).
    FederatedJoin,
    /// At the door: a remote user asks to knock through this server.
    FederatedKnock,
    /// An event arrives from outside. The principal is its sender.
    FederatedEvent(Box<Action>),
}

impl Action {
    /// The act itself, whichever way it came.
    #[must_use]
    pub fn essence(&self) -> &Self {
        let mut act = self;
        while let Self::FederatedEvent(inner) | Self::WithWords { act: inner, .. } = act {
            act = inner;
        }
        act
    }

    /// The words that go with the act, whichever way it came.
    #[must_use]
    pub fn words(&self) -> Option<Words> {
        let mut act = self;
        loop {
            match act {
                Self::WithWords { words, .. } => return Some(*words),
                Self::FederatedEvent(inner) => act = inner,
                _ => return None,
            }
        }
    }

    /// Whether it comes from another server.
    #[must_use]
    pub fn is_federated(&self) -> bool {
        match self {
            Self::FederatedInvite { .. } | Self::FederatedJoin | Self::FederatedKnock | Self::FederatedEvent(_) => true,
            Self::WithWords { act, .. } => act.is_federated(),
            _ => false,
        }
    }

    /// The act's name: one word of the closed list, for logs and audit.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateRoom { .. } => "create_room",
            Self::Invite { .. } => "invite",
            Self::Join => "join",
            Self::Knock => "knock",
            Self::Leave => "leave",
            Self::Remove { .. } => "remove",
            Self::Remain => "remain",
            Self::Send { .. } => "send",
            Self::SendState(_) => "send_state",
            Self::Redact(_) => "redact",
            Self::WithWords { act, .. } => act.name(),
            Self::UploadMedia { .. } => "upload_media",
            Self::Read => "read",
            Self::FederatedInvite { .. } => "federated_invite",
            Self::FederatedJoin => "federated_join",
            Self::FederatedKnock => "federated_knock",
            Self::FederatedEvent(_) => "federated_event",
        }
    }

    /// The type of the event, if there is one that is not told by the act.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        match self.essence() {
            Self::Send { event_type, .. } => Some(event_type),
            Self::SendState(change) => Some(&change.event_type),
            _ => None,
        }
    }

    /// The other person whom the act concerns.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        match self.essence() {
            Self::Invite { invitee } | Self::FederatedInvite { invitee } => Some(invitee),
            Self::Remove { target } => Some(target),
            _ => None,
        }
    }
}

/// What is redacted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedactTarget {
    /// A message.
    Message,
    /// A state event of this type: redacting it changes the room.
    State(String),
    /// The event is not known here.
    Unknown,
}

/// A state event, reduced to what rules look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// Type of the event.
    pub event_type: String,
    /// What it would do.
    pub effect: StateEffect,
}

/// What a state event would do, as far as policy cares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateEffect {
    /// `org.matron.room.policy` with this content.
    RoomPolicy(Fact<Box<RoomPolicy>>),
    /// `m.room.encryption` with this content.
    Encryption(Fact<RoomEncryption>),
    /// `m.room.retention` with this `max_lifetime`, in milliseconds.
    Retention(Fact<u64>),
    /// `m.room.join_rules` with this rule.
    JoinRule(Fact<String>),
    /// `m.room.history_visibility` with this value.
    HistoryVisibility(Fact<String>),
    /// `m.room.guest_access`: whether guests may join.
    GuestAccess(bool),
    /// `m.room.server_acl`, `m.room.policy` or `m.room.tombstone`: who the room's servers are.
    Guarded,
    /// `m.room.third_party_invite`: whoever proves to have an address may be invited. Taking one back is none.
    AddressInvite,
    /// Anything else.
    Other,
}

/// One question to policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asks.
    pub principal: Principal,
    /// What is to be done.
    pub action: Action,
    /// Where.
    pub resource: Resource,
    /// Circumstances.
    pub context: Context,
}

impl Request {
    /// A request in a room, in no special circumstances.
    #[must_use]
    pub fn in_room(principal: Principal, action: Action, room_id: &str) -> Self {
        Self { principal, action, resource: Resource::Room(room_id.to_owned()), context: Context::default() }
    }

    /// The digest of the request, to which a permit is bound.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&canonical::naming(self))
    }
}
