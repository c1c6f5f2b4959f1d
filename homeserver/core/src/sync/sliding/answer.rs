//! The shape of a sliding sync's answer. Events are spliced, never parsed.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{OwnedRoomId, OwnedUserId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{sync::answer::DeviceLists, threads::SubscriptionChanges};

/// A whole answer.
#[derive(Debug, Default, Serialize)]
pub struct SlidingAnswer {
    /// Where the next request goes on.
    pub pos: String,
    /// What the request named itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn_id: Option<String>,
    /// How long the lists are.
    pub lists: BTreeMap<String, ListAnswer>,
    /// What is new in rooms.
    pub rooms: BTreeMap<OwnedRoomId, SlidingRoom>,
    /// What is new beside them.
    pub extensions: ExtensionsAnswer,
}

impl SlidingAnswer {
    /// Whether a client that waits need not be woken for it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.extensions.is_empty()
    }
}

/// How long a list is.
#[derive(Debug, Default, Serialize)]
pub struct ListAnswer {
    /// All rooms in it, those outside the windows included.
    pub count: u64,
}

/// What is new in a room.
#[derive(Debug, Default, Serialize)]
pub struct SlidingRoom {
    /// The room's name, if it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The room's picture, if it changed; `null`: it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar: Option<Option<String>>,
    /// Whether what the client holds of the room is to be replaced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub initial: bool,
    /// Whether it is a direct chat, if that changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_dm: Option<bool>,
    /// What the invited or knocking may see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invite_state: Option<Vec<Box<RawValue>>>,
    /// Unread events that notify.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification_count: Option<u64>,
    /// Unread events that stand out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highlight_count: Option<u64>,
    /// The newest events, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<Box<RawValue>>,
    /// The state that was asked for, as it is at the end of the timeline.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_state: Vec<Box<RawValue>>,
    /// Where to read on backwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
    /// Whether there are more before the timeline.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub limited: bool,
    /// Whether the timeline begins before what the client was told already.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unstable_expanded_timeline: bool,
    /// How many are joined, if it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joined_count: Option<u64>,
    /// How many are invited, if it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invited_count: Option<u64>,
    /// How many events of the timeline are new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_live: Option<u64>,
    /// Orders rooms: larger is more recent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bump_stamp: Option<u64>,
    /// Whose names make up the room's, if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heroes: Option<Vec<Hero>>,
}

/// A member whose name makes up the room's.
#[derive(Clone, Debug, Serialize)]
pub struct Hero {
    /// Who.
    pub user_id: OwnedUserId,
    /// The name in the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub displayname: Option<String>,
    /// The picture in the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
}

/// What is new beside rooms.
#[derive(Debug, Default, Serialize)]
pub struct ExtensionsAnswer {
    /// To-device messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_device: Option<ToDeviceAnswer>,
    /// Device lists and key counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e2ee: Option<E2eeAnswer>,
    /// Account data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_data: Option<AccountDataAnswer>,
    /// Receipts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts: Option<ByRoom>,
    /// Typing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typing: Option<ByRoom>,
    /// Which threads the user follows.
    // MSC: 4308.
    #[serde(rename = "io.element.msc4308.thread_subscriptions", skip_serializing_if = "Option::is_none")]
    pub thread_subscriptions: Option<ThreadsAnswer>,
}

/// Which threads the user follows, as far as that changed.
#[derive(Debug, Serialize)]
pub struct ThreadsAnswer {
    /// The latest changes.
    #[serde(flatten)]
    pub changes: SubscriptionChanges,
    /// Where the others are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
}

impl ExtensionsAnswer {
    /// Whether a client that waits need not be woken for it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.to_device.as_ref().is_none_or(|to_device| to_device.events.is_empty())
            && self.e2ee.as_ref().is_none_or(|e2ee| e2ee.device_lists.is_none())
            && self.account_data.is_none()
            && self.receipts.is_none()
            && self.typing.is_none()
            && self.thread_subscriptions.is_none()
    }
}

/// To-device messages.
#[derive(Debug, Default, Serialize)]
pub struct ToDeviceAnswer {
    /// What to give as `since` next time.
    pub next_batch: String,
    /// The messages.
    pub events: Vec<Box<RawValue>>,
}

/// Device lists and key counts.
#[derive(Debug, Default, Serialize)]
pub struct E2eeAnswer {
    /// Whose keys changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_lists: Option<DeviceLists>,
    /// How many one-time keys are left.
    pub device_one_time_keys_count: Arc<BTreeMap<String, u64>>,
    /// Which fallback keys are unused.
    pub device_unused_fallback_key_types: Arc<[String]>,
}

/// Account data.
#[derive(Debug, Default, Serialize)]
pub struct AccountDataAnswer {
    /// Outside rooms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub global: Vec<Box<RawValue>>,
    /// Of rooms.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rooms: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>,
}

/// One event for each room.
#[derive(Debug, Default, Serialize)]
pub struct ByRoom {
    /// The events.
    pub rooms: BTreeMap<OwnedRoomId, Box<RawValue>>,
}
