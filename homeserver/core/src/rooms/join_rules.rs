//! Who may join a room, as its `m.room.join_rules` says.

use matron_room::JoinRule;
use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::Value;

/// A room's join rules. A condition of another form than the specification's is none, and the others count all the same.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Value")]
pub(crate) struct JoinRules {
    /// The rule, if it is one.
    pub(crate) rule: Option<JoinRule>,
    allowed: Vec<OwnedRoomId>,
}

impl From<Value> for JoinRules {
    fn from(content: Value) -> Self {
        let rule = content.get("join_rule").and_then(Value::as_str).and_then(JoinRule::parse);
        let conditions = content.get("allow").and_then(Value::as_array).into_iter().flatten();
        let rooms = conditions
            .filter(|condition| condition.get("type").and_then(Value::as_str) == Some("m.room_membership"))
            .filter_map(|condition| OwnedRoomId::try_from(condition.get("room_id")?.as_str()?).ok());
        Self { rule, allowed: rooms.collect() }
    }
}

impl JoinRules {
    /// The rooms whose members may join; none unless the rule is a restricted one.
    pub(crate) fn allowed_rooms(&self) -> &[OwnedRoomId] {
        match self.rule {
            Some(JoinRule::Restricted | JoinRule::KnockRestricted) => &self.allowed,
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_slip_in_one_condition_leaves_the_others() {
        let allow = json!([
            7,
            {"type": "m.room_membership"},
            {"type": "m.room_membership", "room_id": "no room"},
            {"type": "org.example.moon", "room_id": "!moon:a.example"},
            {"room_id": "!untyped:a.example"},
            {"type": "m.room_membership", "room_id": "!ward:a.example"},
        ]);
        let read = |rule: &str| JoinRules::from(json!({"join_rule": rule, "allow": allow}));
        assert_eq!(read("restricted").allowed_rooms(), ["!ward:a.example"]);
        assert_eq!(read("knock_restricted").allowed_rooms(), ["!ward:a.example"]);
        assert!(read("public").allowed_rooms().is_empty(), "what stands there from before says nothing");
        assert!(JoinRules::from(json!({"join_rule": "restricted", "allow": {}})).allowed_rooms().is_empty());
        assert!(JoinRules::from(json!({"join_rule": 1})).rule.is_none());
    }
}
