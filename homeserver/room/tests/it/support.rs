//! A room in memory, of one server's making, for tests.

use std::collections::{BTreeMap, BTreeSet};

use matron_room::{
    AuthError, AuthEvent, CreateNonce, DraftPdu, Pdu, RoomVersion, SigningKey, StateMap, auth_types_for, check_auth,
    check_state_independent, resolve,
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, UserId, owned_room_id, server_name};
use serde_json::{Value, json};

/// The key of the specification's test vectors.
pub(crate) fn spec_key() -> SigningKey {
    SigningKey::from_key_file("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap()
}

/// The user of this name on the test server.
pub(crate) fn user(name: &str) -> String {
    format!("@{name}:domain")
}

/// A room version by its id.
pub(crate) fn version(id: &str) -> &'static RoomVersion {
    RoomVersion::find(id).unwrap()
}

/// A room whose every event is kept with the state after it.
#[derive(Debug, Clone)]
pub(crate) struct TestRoom {
    pub(crate) version: &'static RoomVersion,
    pub(crate) room_id: Option<OwnedRoomId>,
    pub(crate) events: BTreeMap<OwnedEventId, Pdu>,
    pub(crate) order: Vec<OwnedEventId>,
    pub(crate) state_after: BTreeMap<OwnedEventId, StateMap>,
    key: SigningKey,
    clock_ms: u64,
}

impl TestRoom {
    /// A public room of this version with its creator joined and power levels set.
    pub(crate) fn new(version: &'static RoomVersion, creator: &str) -> Self {
        let mut room = Self::empty(version);
        room.found(creator, json!({}));
        let creator_id = user(creator);
        let mut users = json!({});
        if !version.rules.authorization.explicitly_privilege_room_creators {
            users = json!({ creator_id.clone(): 100 });
        }
        room.send_last(creator, "m.room.power_levels", Some(""), json!({ "users": users })).unwrap();
        room.send_last(creator, "m.room.join_rules", Some(""), json!({ "join_rule": "public" })).unwrap();
        room
    }

    /// A room without events.
    pub(crate) fn empty(version: &'static RoomVersion) -> Self {
        let room_id = (!version.has_hashed_room_id()).then(|| owned_room_id!("!room:domain"));
        Self {
            version,
            room_id,
            events: BTreeMap::new(),
            order: Vec::new(),
            state_after: BTreeMap::new(),
            key: spec_key(),
            clock_ms: 1_000,
        }
    }

    /// The create event and its sender's join are in the room.
    pub(crate) fn found(&mut self, creator: &str, extra: Value) {
        let mut content = json!({ "room_version": self.version.as_str(), "creator": user(creator) });
        content.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        self.send(&[], creator, "m.room.create", Some(""), content).unwrap();
        self.send_last(creator, "m.room.member", Some(&user(creator)), json!({ "membership": "join" })).unwrap();
    }

    /// The event that came last.
    pub(crate) fn last(&self) -> OwnedEventId {
        self.order.last().unwrap().clone()
    }

    /// Sends after the event that came last.
    pub(crate) fn send_last(
        &mut self,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Result<Pdu, AuthError> {
        let last = self.order.last().cloned();
        self.send(last.as_slice(), sender, kind, state_key, content)
    }

    /// Sends after these events, if the rules allow.
    pub(crate) fn send(
        &mut self,
        prev: &[OwnedEventId],
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Result<Pdu, AuthError> {
        let before = self.state_before(prev);
        let sender = user(sender);
        let raw = serde_json::value::to_raw_value(&content).unwrap();
        let auth_events = auth_types_for(kind, &sender, state_key, &raw, self.version)
            .into_iter()
            .filter_map(|key| before.get(&key).cloned())
            .collect();
        self.clock_ms += 1;
        let mut draft = DraftPdu::new(self.room_id.clone(), sender.try_into().unwrap(), kind, content);
        draft.state_key = state_key.map(str::to_owned);
        draft.prev_events = prev.to_vec();
        draft.auth_events = auth_events;
        draft.depth = prev.iter().filter_map(|id| self.events.get(id)).map(Pdu::depth).max().unwrap_or(0) + 1;
        draft.origin_server_ts_ms = self.clock_ms;
        draft.nonce = Some(CreateNonce::from_random([7; 16]));
        let pdu = draft.seal(self.version, &self.key, server_name!("domain")).unwrap();
        self.accept(pdu.clone(), &before)?;
        Ok(pdu)
    }

    /// The event is in the room if the rules allow it.
    fn accept(&mut self, pdu: Pdu, before: &StateMap) -> Result<(), AuthError> {
        check_state_independent(&pdu, |id| self.events.get(id).cloned().map(AuthEvent::Accepted))?;
        check_auth(&pdu, |kind, key| self.find(before, kind, key))?;
        if self.room_id.is_none() {
            self.room_id = Some(pdu.room_id().to_owned());
        }
        let id = pdu.event_id().to_owned();
        let mut after = before.clone();
        if let Some(key) = pdu.state_key() {
            after.insert((pdu.kind().to_owned(), key.to_owned()), id.clone());
        }
        self.state_after.insert(id.clone(), after);
        self.events.insert(id.clone(), pdu);
        self.order.push(id);
        Ok(())
    }

    /// The same events, received by another server in this order (which must be topological).
    pub(crate) fn replay(&self, order: &[OwnedEventId]) -> Self {
        let mut other = Self::empty(self.version);
        for id in order {
            let pdu = self.events.get(id).unwrap().clone();
            let before = other.state_before(pdu.prev_events());
            other.accept(pdu, &before).unwrap();
        }
        other
    }

    /// The state before an event that follows these.
    pub(crate) fn state_before(&self, prev: &[OwnedEventId]) -> StateMap {
        let sets: Vec<StateMap> = prev.iter().map(|id| self.state_after.get(id).unwrap().clone()).collect();
        if sets.is_empty() {
            return StateMap::new();
        }
        self.resolve(&sets)
    }

    /// The resolution of these states.
    pub(crate) fn resolve(&self, sets: &[StateMap]) -> StateMap {
        let chains = sets.iter().map(|set| self.auth_chain(set.values())).collect();
        resolve(self.version, sets, chains, |id| self.events.get(id).cloned()).unwrap()
    }

    /// The auth chain of these events.
    pub(crate) fn auth_chain<'a>(&self, ids: impl Iterator<Item = &'a OwnedEventId>) -> BTreeSet<OwnedEventId> {
        let mut chain = BTreeSet::new();
        let mut stack: Vec<OwnedEventId> =
            ids.flat_map(|id| self.events.get(id).unwrap().auth_event_ids_with_create()).collect();
        while let Some(id) = stack.pop() {
            if chain.insert(id.clone()) {
                stack.extend(self.events.get(&id).unwrap().auth_event_ids_with_create());
            }
        }
        chain
    }

    /// The event of a state under a key.
    pub(crate) fn find(&self, state: &StateMap, kind: &str, key: &str) -> Option<Pdu> {
        self.event(state.get(&(kind.to_owned(), key.to_owned()))?)
    }

    /// An event by id.
    pub(crate) fn event(&self, id: &EventId) -> Option<Pdu> {
        self.events.get(id).cloned()
    }

    /// The membership of a user in a state.
    pub(crate) fn membership(&self, state: &StateMap, name: &str) -> Option<String> {
        let pdu = self.find(state, "m.room.member", &user(name))?;
        pdu.membership().map(str::to_owned)
    }

    /// The user joins after these events.
    pub(crate) fn join(&mut self, prev: &[OwnedEventId], name: &str) -> Result<Pdu, AuthError> {
        self.send(prev, name, "m.room.member", Some(&user(name)), json!({ "membership": "join" }))
    }
}

/// A user's id as a type.
pub(crate) fn user_id(name: &str) -> ruma::OwnedUserId {
    UserId::parse(user(name)).unwrap()
}
