//! What a client asks of simplified sliding sync.

use std::collections::BTreeMap;

use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::Error;

/// How many lists a connection may have.
pub(super) const MAX_LISTS: usize = 64;
/// How many ranges a list may have.
const MAX_RANGES: usize = 64;
/// How many rooms may be subscribed to.
const MAX_SUBSCRIPTIONS: usize = 1_000;
/// How many kinds of state may be asked for, by list or subscription.
const MAX_REQUIRED_STATE: usize = 1_000;
/// The longest name of a connection, list or transaction, bytes.
const MAX_NAME_BYTES: usize = 255;

/// The body of a request.
// MSC: 4186.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SlidingRequest {
    /// Which of the device's connections this is.
    pub conn_id: Option<String>,
    /// Given back in the answer.
    pub txn_id: Option<String>,
    /// Windows on the list of rooms.
    pub lists: BTreeMap<String, List>,
    /// Rooms wanted wherever they stand.
    pub room_subscriptions: BTreeMap<OwnedRoomId, RoomDetails>,
    /// What is wanted beside rooms.
    pub extensions: Extensions,
}

/// What is wanted of each room.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RoomDetails {
    /// Pairs of event type and state key; `*`, `$ME` and `$LAZY` have their meanings.
    pub required_state: Vec<(String, String)>,
    /// Events of the timeline.
    pub timeline_limit: u64,
}

/// Windows on the list of rooms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct List {
    /// From and to, both inclusive, counted from 0.
    pub ranges: Vec<(u64, u64)>,
    /// One range, as later drafts write it.
    pub range: Option<(u64, u64)>,
    /// What is wanted of each room.
    #[serde(flatten)]
    pub details: RoomDetails,
    /// Which rooms are listed.
    pub filters: Option<Filters>,
}

/// Which rooms are listed; all that are given must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Filters {
    /// Direct chats, or none.
    pub is_dm: Option<bool>,
    /// Encrypted rooms, or none.
    pub is_encrypted: Option<bool>,
    /// Invites, or none.
    pub is_invite: Option<bool>,
    /// Only rooms of these types; `null` is a room without type.
    pub room_types: Option<Vec<Option<String>>>,
    /// No rooms of these types.
    pub not_room_types: Option<Vec<Option<String>>>,
    /// Only rooms with one of these tags.
    pub tags: Option<Vec<String>>,
    /// No rooms with one of these tags.
    pub not_tags: Option<Vec<String>>,
    /// Only rooms that one of these spaces names as a child.
    pub spaces: Option<Vec<OwnedRoomId>>,
}

/// What is wanted beside rooms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Extensions {
    /// To-device messages.
    pub to_device: ToDevice,
    /// Device lists and key counts.
    pub e2ee: Enabled,
    /// Account data.
    pub account_data: Scoped,
    /// Receipts.
    pub receipts: Scoped,
    /// Typing.
    pub typing: Scoped,
    /// Which threads the user follows.
    // MSC: 4308.
    #[serde(rename = "io.element.msc4308.thread_subscriptions")]
    pub thread_subscriptions: ThreadSubscriptions,
}

/// Which threads the user follows.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ThreadSubscriptions {
    /// Whether changes are wanted.
    pub enabled: Option<bool>,
    /// At most so many.
    pub limit: Option<u64>,
}

/// Whether an extension is wanted.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Enabled {
    /// Whether it is.
    pub enabled: Option<bool>,
}

/// To-device messages.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ToDevice {
    /// Whether they are wanted.
    pub enabled: Option<bool>,
    /// At most so many.
    pub limit: Option<u64>,
    /// `next_batch` of the last answer: the device has them up to here.
    pub since: Option<String>,
}

/// An extension that speaks of rooms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Scoped {
    /// Whether it is wanted.
    pub enabled: Option<bool>,
    /// Of the rooms of these lists; absent: of all lists.
    pub lists: Option<Vec<String>>,
    /// Of these subscribed rooms; absent, or `*`: of all.
    pub rooms: Option<Vec<String>>,
}

impl Enabled {
    pub(super) fn is_on(self) -> bool {
        self.enabled == Some(true)
    }
}

impl ToDevice {
    pub(super) fn is_on(&self) -> bool {
        self.enabled == Some(true)
    }
}

impl Scoped {
    pub(super) fn is_on(&self) -> bool {
        self.enabled == Some(true)
    }
}

impl List {
    /// Whether the place in the list is wanted.
    pub(super) fn holds(&self, place: u64) -> bool {
        self.ranges.iter().chain(&self.range).any(|(from, to)| (*from..=*to).contains(&place))
    }
}

impl SlidingRequest {
    /// The request is within its bounds.
    ///
    /// # Errors
    /// [`Error::InvalidParam`], naming what is too much.
    pub fn check(&self) -> Result<(), Error> {
        let too_long = |text: &str| text.len() > MAX_NAME_BYTES;
        if self.conn_id.as_deref().is_some_and(too_long)
            || self.txn_id.as_deref().is_some_and(too_long)
            || self.lists.keys().any(|name| too_long(name))
        {
            return Err(Error::invalid("names of connections, transactions and lists have at most 255 bytes"));
        }
        if self.lists.len() > MAX_LISTS {
            return Err(Error::invalid(format!("a connection has at most {MAX_LISTS} lists")));
        }
        if self.room_subscriptions.len() > MAX_SUBSCRIPTIONS {
            return Err(Error::invalid(format!("a connection has at most {MAX_SUBSCRIPTIONS} subscriptions")));
        }
        for list in self.lists.values() {
            if list.ranges.len() > MAX_RANGES {
                return Err(Error::invalid(format!("a list has at most {MAX_RANGES} ranges")));
            }
            if list.ranges.iter().chain(&list.range).any(|(from, to)| from > to) {
                return Err(Error::invalid("a range ends before it begins"));
            }
        }
        let mut details = self.lists.values().map(|list| &list.details).chain(self.room_subscriptions.values());
        if details.any(|details| details.required_state.len() > MAX_REQUIRED_STATE) {
            return Err(Error::invalid(format!("`required_state` has at most {MAX_REQUIRED_STATE} entries")));
        }
        Ok(())
    }
}
