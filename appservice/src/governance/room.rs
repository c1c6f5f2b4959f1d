//! The bounded clinical room: what is asked for, checked, and the `createRoom` body that makes it.

use std::collections::BTreeSet;

use matron_policy::{ROOM_POLICY_TYPE, RoomPolicy};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::bounds::Bounds;

/// Most people that one request may invite.
const MAX_INVITES: usize = 500;
/// Most organisations that one room may belong to.
const MAX_ORGANISATIONS: usize = 100;
/// Longest room name, in characters.
const MAX_NAME_CHARS: usize = 200;
/// Shortest lifetime, in milliseconds: below a second nobody reads anything.
const MIN_LIFETIME_MS: u64 = 1_000;
/// Longest lifetime, in milliseconds: ten years.
const MAX_LIFETIME_MS: u64 = 10 * 366 * 24 * 3600 * 1000;
/// Megolm sessions live no longer than this, in milliseconds, however long messages do.
const MAX_ROTATION_MS: u64 = 7 * 24 * 3600 * 1000;
/// Messages of one Megolm session.
const ROTATION_MSGS: u64 = 100;

/// A bounded clinical room, as asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClinicalRoomSpec {
    /// The room's name.
    pub name: String,
    /// Codes of the organisations that it belongs to.
    pub organisations: Vec<String>,
    /// User ids of the clinicians to invite.
    #[serde(default)]
    pub invite: Vec<String>,
    /// Lifetime of messages, in milliseconds.
    pub lifetime_ms: u64,
    /// Room version; the homeserver's default where absent.
    #[serde(default)]
    pub room_version: Option<String>,
    /// The lab feed that speaks in this room from now on.
    #[serde(default)]
    pub lab_feed: Option<String>,
    /// Server names of the organisations, besides those that the configuration and the invited give.
    #[serde(default)]
    pub servers: Vec<String>,
    /// Whether everybody in the room may invite (policy still bounds whom); otherwise only the bot.
    #[serde(default)]
    pub clinicians_may_invite: bool,
}

/// Why a specification is not that of a bounded clinical room.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SpecError {
    /// Empty, or over 200 characters.
    #[error("the name is empty or too long")]
    Name,
    /// None, too many, a malformed code, or one that the register does not know.
    #[error("the organisations are none, too many, malformed or unknown")]
    Organisations,
    /// Too many, or not user ids.
    #[error("the invited are too many or no user ids")]
    Invite,
    /// Outside 1 s to 10 years.
    #[error("the lifetime is out of range")]
    Lifetime,
    /// Not a server name.
    #[error("a server name is malformed")]
    Servers,
    /// Not a room version.
    #[error("the room version is malformed")]
    RoomVersion,
}

impl SpecError {
    /// What the asker reads.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Name => "A room's name has 1 to 200 characters.",
            Self::Organisations => {
                "A bounded room names 1 to 100 organisations by their codes, all of them in the register."
            }
            Self::Invite => "At most 500 user ids of the form @name:server can be invited.",
            Self::Lifetime => "lifetime_ms is between one second and ten years.",
            Self::Servers => "A server name is malformed.",
            Self::RoomVersion => "The room version is malformed.",
        }
    }
}

/// The server of a user id, or `None` where it is no user id.
pub(crate) fn server_of(user_id: &str) -> Option<&str> {
    let (localpart, server) = user_id.strip_prefix('@')?.split_once(':')?;
    let sound = !localpart.is_empty() && user_id.len() <= 255 && is_server_name(server);
    sound.then_some(server)
}

fn is_server_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 230
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
}

/// True where the room's creators hold power without being listed (room version 12 and later).
pub(crate) fn creators_are_privileged(room_version: &str) -> bool {
    room_version.parse::<u32>().is_ok_and(|version| version >= 12) || room_version.starts_with("org.matrix.hydra.")
}

impl ClinicalRoomSpec {
    /// Nothing about the specification makes an unbounded room.
    ///
    /// # Errors
    /// [`SpecError`], one per rule.
    pub fn check(&self) -> Result<(), SpecError> {
        let chars = self.name.chars().count();
        if chars == 0 || chars > MAX_NAME_CHARS || self.name.chars().any(char::is_control) {
            return Err(SpecError::Name);
        }
        if self.invite.len() > MAX_INVITES || self.invite.iter().any(|id| server_of(id).is_none()) {
            return Err(SpecError::Invite);
        }
        if !(MIN_LIFETIME_MS..=MAX_LIFETIME_MS).contains(&self.lifetime_ms) {
            return Err(SpecError::Lifetime);
        }
        if self.organisations.len() > MAX_ORGANISATIONS || self.policy().check().is_err() {
            return Err(SpecError::Organisations);
        }
        if self.servers.len() > MAX_ORGANISATIONS * 4 || self.servers.iter().any(|server| !is_server_name(server)) {
            return Err(SpecError::Servers);
        }
        let version_is_sound = self.room_version.as_ref().is_none_or(|version| {
            !version.is_empty()
                && version.len() <= 32
                && version.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        });
        if version_is_sound { Ok(()) } else { Err(SpecError::RoomVersion) }
    }

    /// The `createRoom` body. `bot` creates; `room_version` is the one that the room will have.
    ///
    /// Nobody is invited yet: invitations follow one by one, so that one refused name does not undo the room.
    #[must_use]
    pub fn create_body(&self, bot: &str, room_version: &str, bounds: &Bounds) -> Value {
        // A room of one server never leaves it.
        let federate = bounds.servers.len() > 1;
        let allow: BTreeSet<&str> = bounds.servers.iter().map(|server| without_port(server)).collect();
        let mut body = json!({
            "name": self.name,
            "preset": "private_chat",
            "visibility": "private",
            "creation_content": {"m.federate": federate},
            "power_level_content_override": self.power_levels(bot, room_version),
            "initial_state": [
                state("m.room.join_rules", json!({"join_rule": "invite"})),
                state("m.room.history_visibility", json!({"history_visibility": "joined"})),
                state("m.room.guest_access", json!({"guest_access": "forbidden"})),
                state("m.room.encryption", json!({
                    "algorithm": "m.megolm.v1.aes-sha2",
                    "rotation_period_ms": self.lifetime_ms.min(MAX_ROTATION_MS),
                    "rotation_period_msgs": ROTATION_MSGS,
                })),
                // MSC: 1763, message retention.
                state("m.room.retention", json!({"max_lifetime": self.lifetime_ms})),
                state("m.room.server_acl", json!({
                    "allow": allow, "deny": [], "allow_ip_literals": allow.iter().any(|s| is_ip(s)),
                })),
                state(ROOM_POLICY_TYPE, self.policy().to_content()),
            ],
        });
        if let (Some(policy_server), Some(events)) =
            (&bounds.policy_server, body.get_mut("initial_state").and_then(Value::as_array_mut))
        {
            events.push(state("m.room.policy", policy_server.clone()));
        }
        if let (Some(version), Some(fields)) = (&self.room_version, body.as_object_mut()) {
            fields.insert("room_version".to_owned(), Value::from(version.as_str()));
        }
        body
    }

    fn policy(&self) -> RoomPolicy {
        RoomPolicy::of_organisations(self.organisations.iter().cloned()).with_max_lifetime_ms(self.lifetime_ms)
    }

    fn power_levels(&self, bot: &str, room_version: &str) -> Value {
        // SPEC: room version 12, creators must not be listed.
        let users = if creators_are_privileged(room_version) { json!({}) } else { json!({bot: 100}) };
        json!({
            "users": users,
            "users_default": 0,
            "events_default": 0,
            "state_default": 100,
            "ban": 100,
            "kick": 100,
            "redact": 100,
            "invite": if self.clinicians_may_invite { 0 } else { 100 },
            "notifications": {"room": 100},
            "events": {
                "m.room.power_levels": 100,
                "m.room.encryption": 100,
                "m.room.retention": 100,
                "m.room.server_acl": 100,
                "m.room.history_visibility": 100,
                "m.room.join_rules": 100,
                "m.room.tombstone": if creators_are_privileged(room_version) { 150 } else { 100 },
                ROOM_POLICY_TYPE: 100,
            },
        })
    }
}

fn state(event_type: &str, content: Value) -> Value {
    json!({"type": event_type, "state_key": "", "content": content})
}

/// SPEC: server ACLs match server names without their ports.
fn without_port(server: &str) -> &str {
    match server.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => server,
    }
}

fn is_ip(host: &str) -> bool {
    host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ClinicalRoomSpec {
        serde_json::from_value(json!({
            "name": "Ward 3", "organisations": ["north", "south"],
            "invite": ["@ada:north.example", "@ben:south.example:8448"], "lifetime_ms": 30_000,
        }))
        .unwrap()
    }

    fn bounds(servers: &[&str]) -> Bounds {
        let servers = servers.iter().map(|server| (*server).to_owned()).collect();
        Bounds { servers, policy_server: None }
    }

    fn content(body: &Value, event_type: &str) -> Value {
        let events = body["initial_state"].as_array().unwrap();
        events.iter().find(|event| event["type"] == event_type).unwrap()["content"].clone()
    }

    #[test]
    fn a_clinical_room_is_encrypted_bounded_and_ephemeral() {
        let body = spec().create_body("@matron:north.example", "11", &bounds(&["north.example", "south.example:8448"]));
        assert_eq!(content(&body, "m.room.encryption")["rotation_period_ms"], 30_000);
        assert_eq!(content(&body, "m.room.retention")["max_lifetime"], 30_000);
        assert_eq!(content(&body, "m.room.join_rules")["join_rule"], "invite");
        assert_eq!(content(&body, "m.room.server_acl")["allow"], json!(["north.example", "south.example"]));
        assert_eq!(body["creation_content"]["m.federate"], true);
        assert_eq!(body["power_level_content_override"]["users"]["@matron:north.example"], 100);
        assert_eq!(body["power_level_content_override"]["state_default"], 100);
    }

    #[test]
    fn creator_is_not_listed_in_room_version_12() {
        let body = spec().create_body("@matron:north.example", "12", &bounds(&["north.example"]));
        assert_eq!(body["power_level_content_override"]["users"], json!({}));
        assert!(creators_are_privileged("org.matrix.hydra.11"));
        assert!(!creators_are_privileged("11"));
    }

    #[test]
    fn a_room_of_one_server_does_not_federate() {
        let body = spec().create_body("@matron:north.example", "12", &bounds(&["north.example"]));
        assert_eq!(body["creation_content"]["m.federate"], false);
        let mut two = bounds(&["north.example", "south.example"]);
        two.policy_server = Some(json!({"via": "north.example"}));
        let body = spec().create_body("@matron:north.example", "12", &two);
        assert_eq!(body["creation_content"]["m.federate"], true);
        assert_eq!(content(&body, "m.room.policy")["via"], "north.example");
    }

    #[test]
    fn the_rooms_policy_is_one_that_the_policy_engine_reads() {
        let body = spec().create_body("@matron:north.example", "12", &bounds(&["north.example"]));
        let policy = RoomPolicy::parse(&content(&body, ROOM_POLICY_TYPE)).unwrap();
        assert_eq!(policy.max_lifetime_ms, Some(30_000));
        assert!(policy.credential_required && policy.encryption_required);
    }

    #[test]
    fn specifications_that_bound_nothing_are_refused() {
        let broken = |change: fn(&mut ClinicalRoomSpec)| {
            let mut spec = spec();
            change(&mut spec);
            spec.check().unwrap_err()
        };
        assert_eq!(broken(|s| s.organisations.clear()), SpecError::Organisations);
        assert_eq!(broken(|s| s.organisations.push("a b".to_owned())), SpecError::Organisations);
        assert_eq!(broken(|s| s.lifetime_ms = 0), SpecError::Lifetime);
        assert_eq!(broken(|s| s.lifetime_ms = u64::MAX), SpecError::Lifetime);
        assert_eq!(broken(|s| s.invite.push("ada".to_owned())), SpecError::Invite);
        assert_eq!(broken(|s| s.name.clear()), SpecError::Name);
        assert_eq!(broken(|s| s.servers.push("a b".to_owned())), SpecError::Servers);
        assert_eq!(broken(|s| s.room_version = Some("1\n".to_owned())), SpecError::RoomVersion);
        assert_eq!(spec().check(), Ok(()));
    }

    #[test]
    fn unknown_fields_are_refused() {
        let text = r#"{"name":"a","organisations":["x"],"lifetime_ms":1000,"public":true}"#;
        assert!(serde_json::from_str::<ClinicalRoomSpec>(text).is_err());
    }
}
