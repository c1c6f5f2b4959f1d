//! Which state events an event must name as its authority.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection>.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{resolve::StateKey, version::RoomVersion};

#[derive(Deserialize, Default)]
struct MemberContent {
    #[serde(default)]
    membership: serde_json::Value,
    #[serde(default)]
    third_party_invite: serde_json::Value,
    #[serde(default)]
    join_authorised_via_users_server: serde_json::Value,
}

/// The state that authorises an event of this description, as far as the room has it, without repetition.
///
/// A malformed member content adds nothing; the authorisation rules refuse it anyway.
pub fn auth_types_for(
    kind: &str,
    sender: &str,
    state_key: Option<&str>,
    content: &RawValue,
    version: &RoomVersion,
) -> Vec<StateKey> {
    if kind == "m.room.create" {
        return Vec::new();
    }
    let rules = &version.rules.authorization;
    let mut types: Vec<StateKey> = Vec::with_capacity(6);
    let mut add = |kind: &str, state_key: &str| {
        let key = (kind.to_owned(), state_key.to_owned());
        if !types.contains(&key) {
            types.push(key);
        }
    };
    if !rules.room_create_event_id_as_room_id {
        add("m.room.create", "");
    }
    add("m.room.power_levels", "");
    add("m.room.member", sender);
    if let (true, Some(target)) = (kind == "m.room.member", state_key) {
        add("m.room.member", target);
        let content: MemberContent = serde_json::from_str(content.get()).unwrap_or_default();
        let membership = content.membership.as_str().unwrap_or_default();
        if matches!(membership, "join" | "invite" | "knock") {
            add("m.room.join_rules", "");
        }
        if membership == "invite"
            && let Some(token) = content.third_party_invite.pointer("/signed/token").and_then(|token| token.as_str())
        {
            add("m.room.third_party_invite", token);
        }
        if membership == "join"
            && rules.restricted_join_rule
            && let Some(user) = content.join_authorised_via_users_server.as_str()
        {
            add("m.room.member", user);
        }
    }
    types
}
