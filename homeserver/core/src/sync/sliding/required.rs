//! Which state a client wants of a room, compiled once for all rooms of a request.

use std::collections::{BTreeMap, BTreeSet};

use ruma::UserId;

use super::request::RoomDetails;
use crate::rooms::{StateKey, StateMap};

const MEMBER: &str = "m.room.member";

/// The most events of a timeline.
const MAX_TIMELINE: u64 = 1_000;

/// The state keys wanted of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Keys {
    all: bool,
    some: BTreeSet<String>,
}

/// What is wanted of a room: all that the lists and subscriptions it is in ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RoomConfig {
    /// Events of the timeline.
    pub timeline_limit: u64,
    /// The members that the timeline needs.
    pub lazy: bool,
    everything: bool,
    types: BTreeMap<String, Keys>,
    /// State keys wanted whatever the type.
    any_type: BTreeSet<String>,
}

impl RoomConfig {
    /// Also wants this.
    pub(super) fn add(&mut self, details: &RoomDetails, user: &UserId) {
        self.timeline_limit = self.timeline_limit.max(details.timeline_limit.min(MAX_TIMELINE));
        for (kind, key) in &details.required_state {
            let key = if key == "$ME" { user.as_str() } else { key.as_str() };
            match (kind.as_str(), key) {
                (MEMBER, "$LAZY") => self.lazy = true,
                (_, "$LAZY") => {}
                ("*", "*") => self.everything = true,
                ("*", key) => {
                    self.any_type.insert(key.to_owned());
                }
                (kind, key) => {
                    let keys = self.types.entry(kind.to_owned()).or_default();
                    if key == "*" {
                        keys.all = true;
                    } else {
                        keys.some.insert(key.to_owned());
                    }
                }
            }
        }
    }

    /// Whether this piece of state is wanted, whoever sent the timeline.
    pub(super) fn wants(&self, key: &StateKey) -> bool {
        if self.any_type.contains(&*key.key) {
            return true;
        }
        if self.types.get(&*key.kind).is_some_and(|keys| keys.all || keys.some.contains(&*key.key)) {
            return true;
        }
        // Who asks for everything and for lazy members gets the members lazily.
        self.everything && !(self.lazy && &*key.kind == MEMBER)
    }

    /// The keys of the wanted pieces of this state.
    pub(super) fn keys_in(&self, state: &StateMap) -> Vec<StateKey> {
        if self.everything || !self.any_type.is_empty() {
            return state.keys().filter(|key| self.wants(key)).cloned().collect();
        }
        let mut found = Vec::new();
        for (kind, keys) in &self.types {
            if keys.all {
                let from = StateKey::new(kind, "");
                found.extend(state.range(from..).map(|(key, _)| key).take_while(|key| *key.kind == **kind).cloned());
            } else {
                found
                    .extend(keys.some.iter().map(|key| StateKey::new(kind, key)).filter(|key| state.contains_key(key)));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ruma::{owned_event_id, user_id};

    use super::*;

    fn config(required: &[(&str, &str)]) -> RoomConfig {
        let mut config = RoomConfig::default();
        let required_state = required.iter().map(|(kind, key)| ((*kind).to_owned(), (*key).to_owned())).collect();
        config.add(&RoomDetails { required_state, timeline_limit: 5_000 }, user_id!("@me:x"));
        config
    }

    fn wanted(required: &[(&str, &str)]) -> Vec<String> {
        let mut state = StateMap::new();
        for (kind, key) in
            [("m.room.name", ""), ("m.room.member", "@me:x"), ("m.room.member", "@you:x"), ("m.space.child", "!a")]
        {
            state.insert(StateKey::new(kind, key), Arc::new(owned_event_id!("$e")));
        }
        let mut keys = config(required).keys_in(&state);
        keys.sort();
        keys.iter().map(|key| format!("{} {}", key.kind, key.key)).collect()
    }

    #[test]
    fn wildcards_and_names_choose_state() {
        assert_eq!(wanted(&[("m.room.name", "")]), ["m.room.name "]);
        assert_eq!(wanted(&[("m.room.member", "$ME")]), ["m.room.member @me:x"]);
        assert_eq!(wanted(&[("m.room.member", "*")]).len(), 2);
        assert_eq!(wanted(&[("*", "*")]).len(), 4);
        assert_eq!(wanted(&[("*", "")]), ["m.room.name "]);
        assert_eq!(wanted(&[("*", "!a")]), ["m.space.child !a"]);
        assert_eq!(wanted(&[("m.room.member", "$LAZY")]).len(), 0);
        assert_eq!(wanted(&[("*", "*"), ("m.room.member", "$LAZY")]), ["m.room.name ", "m.space.child !a"]);
        assert_eq!(wanted(&[("m.room.topic", "")]).len(), 0);
    }

    #[test]
    fn a_timeline_is_bounded() {
        assert_eq!(config(&[]).timeline_limit, 1_000);
    }
}
