//! Filters: kept by the hash of their content, so that one filter is stored once.

use std::{borrow::Cow, num::NonZeroUsize, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use lru::LruCache;
use matron_storage::{Batch, Key, Order, Table};
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{Core, Error};

/// The largest filter, bytes.
const MAX_FILTER_BYTES: usize = 64 * 1024;

/// How many filters a user may keep.
const MAX_FILTERS: usize = 1_000;

/// What a client wants to be told (Client-Server API, "Filtering").
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Only these fields of events.
    pub event_fields: Option<Vec<String>>,
    /// `client` (default) or `federation`.
    pub event_format: Option<EventFormat>,
    /// Which presence.
    pub presence: EventFilter,
    /// Which account data outside rooms.
    pub account_data: EventFilter,
    /// Which rooms and what of them.
    pub room: RoomFilter,
}

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventFormat {
    /// For clients.
    #[default]
    Client,
    /// As servers see them.
    Federation,
}

/// Which rooms and what of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoomFilter {
    /// Not these rooms.
    pub not_rooms: Vec<OwnedRoomId>,
    /// Only these rooms.
    pub rooms: Option<Vec<OwnedRoomId>>,
    /// Which receipts and typing.
    pub ephemeral: EventFilter,
    /// Rooms that the user left, too.
    pub include_leave: bool,
    /// Which state.
    pub state: EventFilter,
    /// Which timeline.
    pub timeline: EventFilter,
    /// Which account data in rooms.
    pub account_data: EventFilter,
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventFilter {
    /// At most so many.
    pub limit: Option<u64>,
    /// Not from these.
    pub not_senders: Vec<OwnedUserId>,
    /// Not of these types; `*` stands for anything.
    pub not_types: Vec<String>,
    /// Only from these.
    pub senders: Option<Vec<OwnedUserId>>,
    /// Only of these types; `*` stands for anything.
    pub types: Option<Vec<String>>,
    /// Only the members that the events need.
    pub lazy_load_members: bool,
    /// Members again that the client was told before.
    pub include_redundant_members: bool,
    /// Not of these rooms.
    pub not_rooms: Vec<OwnedRoomId>,
    /// Only of these rooms.
    pub rooms: Option<Vec<OwnedRoomId>>,
    /// Only with (true) or without (false) a `url` in the content.
    pub contains_url: Option<bool>,
    /// Unread counts per thread.
    pub unread_thread_notifications: bool,
    /// MSC 3874 and the relations of `/messages`: only with these relations.
    pub related_by_rel_types: Option<Vec<String>>,
    /// Only related to by these senders.
    pub related_by_senders: Option<Vec<OwnedUserId>>,
}

impl RoomFilter {
    /// Whether the client wants this room.
    #[must_use]
    pub fn allows_room(&self, room: &ruma::RoomId) -> bool {
        !self.not_rooms.iter().any(|other| other == room)
            && self.rooms.as_ref().is_none_or(|rooms| rooms.iter().any(|other| other == room))
    }
}

impl EventFilter {
    /// Whether the client wants events of this type from this sender. `None`: account data has no sender.
    #[must_use]
    pub fn allows(&self, kind: &str, sender: Option<&UserId>) -> bool {
        self.allows_type(kind) && sender.is_none_or(|sender| self.allows_sender(sender))
    }

    /// Whether the client wants events of this type.
    #[must_use]
    pub fn allows_type(&self, kind: &str) -> bool {
        !self.not_types.iter().any(|pattern| matches_type(pattern, kind))
            && self.types.as_ref().is_none_or(|types| types.iter().any(|pattern| matches_type(pattern, kind)))
    }

    /// Whether the client wants events from this sender.
    #[must_use]
    pub fn allows_sender(&self, sender: &UserId) -> bool {
        !self.not_senders.iter().any(|other| other == sender)
            && self.senders.as_ref().is_none_or(|senders| senders.iter().any(|other| other == sender))
    }

    /// Whether the client wants events of this room.
    #[must_use]
    pub fn allows_room(&self, room: &ruma::RoomId) -> bool {
        !self.not_rooms.iter().any(|other| other == room)
            && self.rooms.as_ref().is_none_or(|rooms| rooms.iter().any(|other| other == room))
    }

    /// Whether the client wants events with this content, which `has_url` tells.
    #[must_use]
    pub fn allows_url(&self, has_url: bool) -> bool {
        self.contains_url.is_none_or(|wanted| wanted == has_url)
    }

    /// Whether every event passes, so that none needs to be looked at.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.not_senders.is_empty()
            && self.not_types.is_empty()
            && self.senders.is_none()
            && self.types.is_none()
            && self.not_rooms.is_empty()
            && self.rooms.is_none()
            && self.contains_url.is_none()
    }
}

/// `*` stands for any number of characters; without one, equality.
fn matches_type(pattern: &str, kind: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else { return false };
    let Some(mut rest) = kind.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = rest.get(at.saturating_add(part.len())..).unwrap_or_default(),
            None => return false,
        }
    }
    true
}

impl Filter {
    /// A filter from its JSON.
    ///
    /// # Errors
    /// `M_BAD_JSON` for a filter that the specification does not know.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let filter: Self =
            serde_json::from_str(json).map_err(|_| Error::bad_json("the filter has a value of the wrong form"))?;
        Ok(filter)
    }
}

/// Filters parsed lately: by their JSON, or by the user and the id of a kept one.
pub(super) type Filters = LruCache<String, Arc<Filter>>;

/// How many parsed filters are remembered.
pub(super) const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// The largest filter whose parsed form is remembered, bytes.
const REMEMBERED_BYTES: usize = 2 * 1024;

fn unknown_filter(error: Error) -> Error {
    match error {
        Error::NotFound(_) => Error::invalid("there is no such filter"),
        error => error,
    }
}

impl Core {
    /// The filter is kept; one content has one id.
    ///
    /// # Errors
    /// `M_BAD_JSON`; `M_TOO_LARGE`; `M_RESOURCE_LIMIT_EXCEEDED` for too many filters.
    pub async fn create_filter(&self, user: &UserId, filter: &RawValue) -> Result<String, Error> {
        let json = filter.get();
        if json.len() > MAX_FILTER_BYTES {
            return Err(Error::TooLarge("a filter has at most 64 KiB".into()));
        }
        Filter::parse(json)?;
        let digest = Sha256::digest(json.as_bytes());
        let id = URL_SAFE_NO_PAD.encode(digest.first_chunk::<12>().map_or(&digest[..], |chunk| &chunk[..]));
        let key = Key::new().text(user).text(&id);
        if self.store.get(Table::UserFilter, key.as_bytes())?.is_some() {
            return Ok(id);
        }
        let known =
            self.store.scan(Table::UserFilter, &Key::new().text(user).prefix(), Order::Ascending, MAX_FILTERS)?;
        if known.len() >= MAX_FILTERS {
            return Err(Error::Custom {
                status: 403,
                errcode: "M_RESOURCE_LIMIT_EXCEEDED",
                message: format!("a user may keep at most {MAX_FILTERS} filters").into(),
            });
        }
        let mut batch = Batch::new();
        batch.put(Table::UserFilter, key, json.as_bytes());
        self.commit(batch).await?;
        Ok(id)
    }

    /// The filter with this id, as it was given.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub fn filter_json(&self, user: &UserId, id: &str) -> Result<Box<RawValue>, Error> {
        let bytes = self.store.get(Table::UserFilter, Key::new().text(user).text(id).as_bytes())?;
        let bytes = bytes.ok_or_else(|| Error::not_found("there is no such filter"))?;
        serde_json::from_slice(&bytes).map_err(|_| Error::internal("user_filter holds something that is not JSON"))
    }

    /// The filter of a sync: the id of a kept one, or JSON. A warm filter is neither read nor parsed.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for an id that is not known; `M_BAD_JSON`.
    pub fn filter_of(&self, user: &UserId, filter: Option<&str>) -> Result<Arc<Filter>, Error> {
        let Some(filter) = filter.filter(|filter| !filter.is_empty()) else { return Ok(Arc::default()) };
        // A kept filter never changes: its id is the hash of its content.
        let is_json = filter.starts_with('{');
        let name = if is_json { Cow::Borrowed(filter) } else { Cow::Owned(format!("{user} {filter}")) };
        if let Some(parsed) = self.accounts.filters.lock().get(&*name) {
            return Ok(Arc::clone(parsed));
        }
        let kept = if is_json { None } else { Some(self.filter_json(user, filter).map_err(unknown_filter)?) };
        let json = kept.as_ref().map_or(filter, |kept| kept.get());
        let parsed = Arc::new(Filter::parse(json)?);
        if json.len() <= REMEMBERED_BYTES {
            self.accounts.filters.lock().put(name.into_owned(), Arc::clone(&parsed));
        }
        Ok(parsed)
    }
}
