//! `/sync`, and the parts of its answers that the load looks at.

use std::collections::BTreeMap;

use clap::ValueEnum;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Homeserver, RequestError, User, encoded};

/// `set_presence` of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Presence {
    /// The server tells others of it, which is part of the load.
    Online,
    /// No presence in the figures.
    Offline,
    Unavailable,
}

impl Presence {
    /// As the specification writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What a sync asks for.
#[derive(Debug, Clone)]
pub(crate) struct SyncRequest {
    pub(crate) presence: Presence,
    /// The whole filter, or none.
    pub(crate) filter: Option<String>,
    /// How long the server may wait for news.
    pub(crate) timeout_ms: u32,
}

impl SyncRequest {
    /// A client's sync of messages alone, which waits for nothing: lazy members, timelines of at most `limit` events.
    pub(crate) fn of_messages(presence: Presence, limit: u32) -> Self {
        let filter = json!({
            "presence": {"not_types": ["*"]},
            "room": {
                "timeline": {"limit": limit},
                "state": {"lazy_load_members": true},
                "ephemeral": {"not_types": ["*"]},
            },
        });
        Self { presence, filter: Some(filter.to_string()), timeout_ms: 0 }
    }

    /// Path and query of the sync after `since`, or of the first one.
    pub(crate) fn path(&self, since: Option<&str>) -> String {
        let Self { presence, filter, timeout_ms } = self;
        let mut path = format!("/_matrix/client/v3/sync?timeout={timeout_ms}&set_presence={}", presence.as_str());
        for (name, value) in [("since", since), ("filter", filter.as_deref())] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encoded(value)));
            }
        }
        path
    }
}

/// An answer to `/sync`.
#[derive(Deserialize)]
pub(crate) struct Answer {
    pub(crate) next_batch: String,
    #[serde(default)]
    pub(crate) rooms: Rooms,
}

#[derive(Default, Deserialize)]
pub(crate) struct Rooms {
    #[serde(default)]
    pub(crate) join: BTreeMap<String, Room>,
}

#[derive(Default, Deserialize)]
pub(crate) struct Room {
    #[serde(default)]
    pub(crate) timeline: Timeline,
}

#[derive(Default, Deserialize)]
pub(crate) struct Timeline {
    #[serde(default)]
    pub(crate) events: Vec<Event>,
    /// Events between the last answer and this timeline were left out.
    #[serde(default)]
    pub(crate) limited: bool,
    pub(crate) prev_batch: Option<String>,
}

/// An event, of which only a message's text is read.
#[derive(Deserialize)]
pub(crate) struct Event {
    #[serde(default)]
    content: Content,
}

#[derive(Default, Deserialize)]
struct Content {
    // Nothing keeps other events from having something else than a text here.
    body: Option<Value>,
}

impl Event {
    /// The text of a message.
    pub(crate) fn text(&self) -> Option<&str> {
        self.content.body.as_ref()?.as_str()
    }
}

impl Homeserver {
    /// One sync, after `since` or the first one.
    pub(crate) async fn sync(
        &self,
        user: &User,
        request: &SyncRequest,
        since: Option<&str>,
    ) -> Result<Answer, RequestError> {
        Ok(self.parsed(Method::GET, &request.path(since), Some(&user.access_token), None).await?.0)
    }

    /// The token after which a user has heard everything, also what the first sync itself set off.
    pub(crate) async fn catch_up(&self, user: &User, request: &SyncRequest) -> Result<String, RequestError> {
        let first = self.sync(user, request, None).await?;
        Ok(self.sync(user, request, Some(&first.next_batch)).await?.next_batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_names_everything_it_asks_for() {
        let request = SyncRequest { presence: Presence::Offline, filter: Some("{}".to_owned()), timeout_ms: 5 };
        assert_eq!(request.path(None), "/_matrix/client/v3/sync?timeout=5&set_presence=offline&filter=%7B%7D");
        let path = SyncRequest { filter: None, ..request }.path(Some("s1/2"));
        assert_eq!(path, "/_matrix/client/v3/sync?timeout=5&set_presence=offline&since=s1%2F2");
    }

    #[test]
    fn an_answer_is_read_whatever_its_events_hold() {
        let answer: Answer = serde_json::from_value(json!({
            "next_batch": "s2",
            "rooms": {"join": {"!a:b": {"timeline": {"limited": true, "prev_batch": "t1", "events": [
                {"content": {"body": "hello"}}, {"content": {"body": 7}}, {"content": {}}, {"type": "m.room.create"},
            ]}}}},
        }))
        .unwrap();
        let timeline = &answer.rooms.join["!a:b"].timeline;
        assert!(timeline.limited);
        let texts: Vec<_> = timeline.events.iter().map(Event::text).collect();
        assert_eq!(texts, [Some("hello"), None, None, None]);
        let quiet: Answer = serde_json::from_value(json!({"next_batch": "s3"})).unwrap();
        assert!(quiet.rooms.join.is_empty());
    }
}
