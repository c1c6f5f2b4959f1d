//! Who may do what, read once from the create and power levels events.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels>; creators: version 12.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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
///
/// Cheap to make and to clone: the events' contents are read once per event and shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerLevels {
    founding: Arc<Founding>,
    levels: Arc<Levels>,
}

/// What a create event says about power.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Founding {
    creators: BTreeSet<OwnedUserId>,
    creators_infinite: bool,
    /// `m.federate`.
    pub(crate) federate: bool,
    /// Whether every field that the rules read has the right type.
    pub(crate) well_formed: bool,
}

/// What a power levels event says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Levels {
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
    /// Whether every level is an integer and every user a user id.
    pub(crate) well_formed: bool,
}

#[derive(Deserialize, Default)]
struct CreateContent {
    creator: Option<Value>,
    additional_creators: Option<Value>,
    #[serde(rename = "m.federate")]
    federate: Option<Value>,
}

impl Founding {
    /// Reads a create event.
    pub(crate) fn read(create: &Pdu) -> Self {
        let rules = &create.room_version().rules.authorization;
        let content: Option<CreateContent> = create.content_as().ok();
        let mut well_formed = content.is_some();
        let content = content.unwrap_or_default();
        let mut creators = BTreeSet::new();
        if rules.use_room_create_sender {
            creators.insert(create.sender().to_owned());
        } else {
            match content.creator.as_ref().and_then(user_id) {
                Some(creator) => well_formed &= creators.insert(creator),
                None => well_formed = false,
            }
        }
        if let Some(more) = content.additional_creators.filter(|_| rules.additional_room_creators) {
            let more = more.as_array().map(Vec::as_slice).unwrap_or_else(|| {
                well_formed = false;
                &[]
            });
            well_formed &= more.iter().all(|user| user_id(user).is_some());
            creators.extend(more.iter().filter_map(user_id));
        }
        let federate = match content.federate {
            None => true,
            Some(Value::Bool(federate)) => federate,
            Some(_) => {
                well_formed = false;
                true
            }
        };
        Self { creators, creators_infinite: rules.explicitly_privilege_room_creators, federate, well_formed }
    }
}

impl Levels {
    /// The levels of a room that has no such event.
    fn absent(founding: &Founding) -> Self {
        let users = match founding.creators_infinite {
            true => BTreeMap::new(),
            false => founding.creators.iter().map(|creator| (creator.clone(), 100)).collect(),
        };
        Self { users, ..Self::of_content(&Map::new(), true) }
    }

    /// Reads a power levels event.
    pub(crate) fn read(event: &Pdu) -> Self {
        let strict = event.room_version().rules.authorization.integer_power_levels;
        match event.content_as::<Map<String, Value>>() {
            Ok(content) => Self::of_content(&content, strict),
            Err(_malformed) => Self { well_formed: false, ..Self::of_content(&Map::new(), strict) },
        }
    }

    fn of_content(content: &Map<String, Value>, strict: bool) -> Self {
        let well_formed = Cell::new(true);
        let level = |value: &Value| {
            well_formed.set(well_formed.get() && is_plain(value));
            level(value, strict)
        };
        let number = |field: &str, default: i64| content.get(field).and_then(level).unwrap_or(default);
        let numbers = |field: &str| -> BTreeMap<String, i64> {
            let Some(value) = content.get(field) else {
                return BTreeMap::new();
            };
            let Some(entries) = value.as_object() else {
                well_formed.set(false);
                return BTreeMap::new();
            };
            entries.iter().filter_map(|(key, value)| Some((key.clone(), level(value)?))).collect()
        };
        let users = numbers("users").into_iter().filter_map(|(user, value)| match OwnedUserId::try_from(user) {
            Ok(user) => Some((user, value)),
            Err(_malformed) => {
                well_formed.set(false);
                None
            }
        });
        Self {
            users: users.collect(),
            users_default: number("users_default", 0),
            events: numbers("events"),
            events_default: number("events_default", 0),
            state_default: number("state_default", 50),
            ban: number("ban", 50),
            invite: number("invite", 0),
            kick: number("kick", 50),
            redact: number("redact", 50),
            notifications: numbers("notifications"),
            well_formed: well_formed.get(),
        }
    }
}

impl PowerLevels {
    /// The levels that follow from the create event and, if the room has one, the power levels event.
    pub fn from(create: &Pdu, power_levels: Option<&Pdu>) -> Self {
        let founding = Arc::clone(create.founding());
        let levels = match power_levels {
            Some(event) => Arc::clone(event.levels()),
            None => Arc::new(Levels::absent(&founding)),
        };
        Self { founding, levels }
    }

    /// The room's creators: one before version 12, since then any number.
    pub fn creators(&self) -> &BTreeSet<OwnedUserId> {
        &self.founding.creators
    }

    /// The user's power.
    pub fn user(&self, user: &UserId) -> UserLevel {
        if self.founding.creators_infinite && self.founding.creators.contains(user) {
            return UserLevel::Infinite;
        }
        UserLevel::Level(self.levels.users.get(user).copied().unwrap_or(self.levels.users_default))
    }

    /// The users with a level of their own, creators of version 12 not among them.
    pub fn users(&self) -> &BTreeMap<OwnedUserId, i64> {
        &self.levels.users
    }

    /// The level that sending an event of this type needs.
    pub fn needed_for(&self, kind: &str, is_state: bool) -> i64 {
        let default = if is_state { self.levels.state_default } else { self.levels.events_default };
        self.levels.events.get(kind).copied().unwrap_or(default)
    }

    /// The level that banning needs.
    pub fn ban(&self) -> i64 {
        self.levels.ban
    }

    /// The level that inviting needs.
    pub fn invite(&self) -> i64 {
        self.levels.invite
    }

    /// The level that kicking needs.
    pub fn kick(&self) -> i64 {
        self.levels.kick
    }

    /// The level that redacting others' events needs.
    pub fn redact(&self) -> i64 {
        self.levels.redact
    }

    /// The level that notifying with this key (such as `room`) needs.
    pub fn notification(&self, key: &str) -> i64 {
        self.levels.notifications.get(key).copied().unwrap_or(50)
    }

    /// Whether the user may send events of this type.
    pub fn can_send(&self, user: &UserId, kind: &str, is_state: bool) -> bool {
        self.user(user).reaches(self.needed_for(kind, is_state))
    }

    /// Whether the user may invite.
    pub fn can_invite(&self, user: &UserId) -> bool {
        self.user(user).reaches(self.levels.invite)
    }

    /// Whether the user may kick the other: enough power, and more than the other has.
    pub fn can_kick(&self, user: &UserId, target: &UserId) -> bool {
        self.user(user).reaches(self.levels.kick) && self.user(user) > self.user(target)
    }

    /// Whether the user may ban the other: enough power, and more than the other has.
    pub fn can_ban(&self, user: &UserId, target: &UserId) -> bool {
        self.user(user).reaches(self.levels.ban) && self.user(user) > self.user(target)
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
        user.server_name() == event_sender.server_name() || self.user(user).reaches(self.levels.redact)
    }

    /// Whether the user may notify with this key, such as `room`.
    pub fn can_notify(&self, user: &UserId, key: &str) -> bool {
        self.user(user).reaches(self.notification(key))
    }
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

/// Whether a level is an integer in the range of canonical JSON, which every version reads alike.
fn is_plain(value: &Value) -> bool {
    value.as_i64().is_some_and(|level| ruma::Int::try_from(level).is_ok())
}
