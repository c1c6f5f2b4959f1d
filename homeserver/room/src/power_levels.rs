//! Who may do what, read once from the create and power levels events.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels>; creators: version 12.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::pdu::Pdu;

/// A user's power: a number, or a version 12 creator's, which is above all numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UserLevel {
    /// A number.
    Level(i64),
    /// More than any number.
    Infinite,
}

impl UserLevel {
    /// Whether the power suffices for this level.
    pub fn reaches(self, needed: i64) -> bool {
        self >= Self::Level(needed)
    }
}

/// The effective power levels of a room. Missing and malformed fields have the specification's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerLevels {
    creators: BTreeSet<OwnedUserId>,
    creators_infinite: bool,
    users: BTreeMap<OwnedUserId, i64>,
    users_default: i64,
    events: BTreeMap<String, i64>,
    events_default: i64,
    state_default: i64,
    ban: i64,
    invite: i64,
    kick: i64,
    redact: i64,
    notifications: BTreeMap<String, i64>,
}

#[derive(Deserialize)]
struct CreateContent {
    creator: Option<Value>,
    additional_creators: Option<Value>,
}

impl PowerLevels {
    /// The levels that follow from the create event and, if the room has one, the power levels event.
    pub fn from(create: &Pdu, power_levels: Option<&Pdu>) -> Self {
        let rules = &create.room_version().rules.authorization;
        let creators = creators_of(create);
        let creators_infinite = rules.explicitly_privilege_room_creators;
        let strict = rules.integer_power_levels;
        let Some(event) = power_levels else {
            let users = match creators_infinite {
                true => BTreeMap::new(),
                false => creators
                    .iter()
                    .map(|creator| (creator.clone(), 100))
                    .collect(),
            };
            return Self {
                users,
                ..Self::with_defaults(creators, creators_infinite, 0, 50)
            };
        };
        let content: Map<String, Value> = event.content_as().unwrap_or_default();
        let number = |field: &str, default: i64| {
            content
                .get(field)
                .and_then(|v| level(v, strict))
                .unwrap_or(default)
        };
        let numbers = |field: &str| -> BTreeMap<String, i64> {
            let entries = content
                .get(field)
                .and_then(Value::as_object)
                .into_iter()
                .flatten();
            entries
                .filter_map(|(key, value)| Some((key.clone(), level(value, strict)?)))
                .collect()
        };
        let users = numbers("users")
            .into_iter()
            .filter_map(|(user, value)| Some((user.try_into().ok()?, value)));
        Self {
            users: users.collect(),
            users_default: number("users_default", 0),
            events: numbers("events"),
            ban: number("ban", 50),
            invite: number("invite", 0),
            kick: number("kick", 50),
            redact: number("redact", 50),
            notifications: numbers("notifications"),
            ..Self::with_defaults(
                creators,
                creators_infinite,
                number("events_default", 0),
                number("state_default", 50),
            )
        }
    }

    fn with_defaults(
        creators: BTreeSet<OwnedUserId>,
        creators_infinite: bool,
        events_default: i64,
        state_default: i64,
    ) -> Self {
        Self {
            creators,
            creators_infinite,
            users: BTreeMap::new(),
            users_default: 0,
            events: BTreeMap::new(),
            events_default,
            state_default,
            ban: 50,
            invite: 0,
            kick: 50,
            redact: 50,
            notifications: BTreeMap::new(),
        }
    }

    /// The room's creators: one before version 12, since then any number.
    pub fn creators(&self) -> &BTreeSet<OwnedUserId> {
        &self.creators
    }

    /// The user's power.
    pub fn user(&self, user: &UserId) -> UserLevel {
        if self.creators_infinite && self.creators.contains(user) {
            return UserLevel::Infinite;
        }
        UserLevel::Level(self.users.get(user).copied().unwrap_or(self.users_default))
    }

    /// The users with a level of their own, creators of version 12 not among them.
    pub fn users(&self) -> &BTreeMap<OwnedUserId, i64> {
        &self.users
    }

    /// The level that sending an event of this type needs.
    pub fn needed_for(&self, kind: &str, is_state: bool) -> i64 {
        let default = if is_state {
            self.state_default
        } else {
            self.events_default
        };
        self.events.get(kind).copied().unwrap_or(default)
    }

    /// The level that banning needs.
    pub fn ban(&self) -> i64 {
        self.ban
    }

    /// The level that inviting needs.
    pub fn invite(&self) -> i64 {
        self.invite
    }

    /// The level that kicking needs.
    pub fn kick(&self) -> i64 {
        self.kick
    }

    /// The level that redacting others' events needs.
    pub fn redact(&self) -> i64 {
        self.redact
    }

    /// The level that notifying with this key (such as `room`) needs.
    pub fn notification(&self, key: &str) -> i64 {
        self.notifications.get(key).copied().unwrap_or(50)
    }

    /// Whether the user may send events of this type.
    pub fn can_send(&self, user: &UserId, kind: &str, is_state: bool) -> bool {
        self.user(user).reaches(self.needed_for(kind, is_state))
    }

    /// Whether the user may invite.
    pub fn can_invite(&self, user: &UserId) -> bool {
        self.user(user).reaches(self.invite)
    }

    /// Whether the user may kick the other: enough power, and more than the other has.
    pub fn can_kick(&self, user: &UserId, target: &UserId) -> bool {
        self.user(user).reaches(self.kick) && self.user(user) > self.user(target)
    }

    /// Whether the user may ban the other: enough power, and more than the other has.
    pub fn can_ban(&self, user: &UserId, target: &UserId) -> bool {
        self.user(user).reaches(self.ban) && self.user(user) > self.user(target)
    }

    /// Whether the user may lift the other's ban: may ban, may kick, and has more power than the other.
    pub fn can_unban(&self, user: &UserId, target: &UserId) -> bool {
        self.can_ban(user, target) && self.can_kick(user, target)
    }

    /// Whether the user may redact an event of this sender: any of one's own server's, else by power (since version 3).
    ///
    /// Servers apply a redaction when either holds; whether the redaction event may be sent is another question, see
    /// [`PowerLevels::can_send`].
    pub fn can_redact(&self, user: &UserId, event_sender: &UserId) -> bool {
        user.server_name() == event_sender.server_name() || self.user(user).reaches(self.redact)
    }

    /// Whether the user may notify with this key, such as `room`.
    pub fn can_notify(&self, user: &UserId, key: &str) -> bool {
        self.user(user).reaches(self.notification(key))
    }
}

/// The creators by the rules of the version.
fn creators_of(create: &Pdu) -> BTreeSet<OwnedUserId> {
    let rules = &create.room_version().rules.authorization;
    let content: Option<CreateContent> = create.content_as().ok();
    let mut creators = BTreeSet::new();
    if rules.use_room_create_sender {
        creators.insert(create.sender().to_owned());
    } else if let Some(creator) = content
        .as_ref()
        .and_then(|content| user_id(content.creator.as_ref()?))
    {
        creators.insert(creator);
    }
    if rules.additional_room_creators {
        let more = content
            .as_ref()
            .and_then(|content| content.additional_creators.as_ref()?.as_array());
        creators.extend(more.into_iter().flatten().filter_map(user_id));
    }
    creators
}

fn user_id(value: &Value) -> Option<OwnedUserId> {
    value.as_str()?.try_into().ok()
}

/// A power level; before version 10 it may also be a string that spells an integer.
fn level(value: &Value, strict: bool) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) if !strict => text.trim().parse().ok(),
        _ => None,
    }
}
