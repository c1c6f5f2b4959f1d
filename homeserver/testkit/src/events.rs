//! Events made by hand.

use matron_room::{DraftPdu, Pdu, RoomVersion, SigningKey};
use ruma::{OwnedEventId, RoomId, ServerName, UserId};
use serde_json::{Value, json};

use crate::START_MS;

/// An event in the making: every field as the test wants it, hashed and signed by whom the test wants.
#[derive(Clone)]
pub struct Draft {
    draft: DraftPdu,
    version: &'static RoomVersion,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Draft")
    }
}

impl Draft {
    /// An event that follows nothing and that nothing authorises.
    pub fn new(version: &'static RoomVersion, room: &RoomId, sender: &UserId, kind: &str, content: Value) -> Self {
        let mut draft = DraftPdu::new(Some(room.to_owned()), sender.to_owned(), kind, content);
        draft.origin_server_ts_ms = START_MS;
        Self { draft, version }
    }

    /// A message with this text.
    pub fn message(version: &'static RoomVersion, room: &RoomId, sender: &UserId, text: &str) -> Self {
        Self::new(version, room, sender, "m.room.message", json!({"msgtype": "m.text", "body": text}))
    }

    /// State under this key.
    #[must_use]
    pub fn state_key(mut self, key: &str) -> Self {
        self.draft = self.draft.with_state_key(key);
        self
    }

    /// It follows these, at a depth that says so.
    #[must_use]
    pub fn after<'a>(mut self, events: impl IntoIterator<Item = &'a Pdu>) -> Self {
        let mut depth = 0;
        self.draft.prev_events = events
            .into_iter()
            .map(|event| {
                depth = depth.max(event.depth());
                event.event_id().to_owned()
            })
            .collect();
        self.draft.depth = depth + 1;
        self
    }

    /// It says that it follows these.
    #[must_use]
    pub fn after_ids(mut self, events: Vec<OwnedEventId>) -> Self {
        self.draft.prev_events = events;
        self
    }

    /// It says that these authorise it.
    #[must_use]
    pub fn authorised_by(mut self, events: Vec<OwnedEventId>) -> Self {
        self.draft.auth_events = events;
        self
    }

    /// It says that it stands so deep.
    #[must_use]
    pub fn depth(mut self, depth: u64) -> Self {
        self.draft.depth = depth;
        self
    }

    /// It says that it was sent then, ms since the epoch.
    #[must_use]
    pub fn at_ms(mut self, at_ms: u64) -> Self {
        self.draft.origin_server_ts_ms = at_ms;
        self
    }

    /// The event, signed with this key in the name of this server.
    ///
    /// # Panics
    /// If the format of events does not allow it.
    #[must_use]
    pub fn seal(self, key: &SigningKey, server: &ServerName) -> Pdu {
        self.draft.seal(self.version, key, server).unwrap()
    }
}
