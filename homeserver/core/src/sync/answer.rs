//! The shape of a `/sync` answer (Client-Server API, "Syncing"). Events are spliced, never parsed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::{OwnedRoomId, OwnedUserId};
use serde::Serialize;
use serde_json::value::RawValue;

/// Events in a list.
#[derive(Debug, Default, Serialize)]
pub struct Events {
    /// The events.
    pub events: Vec<Box<RawValue>>,
}

impl Events {
    fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// A whole answer.
#[derive(Debug, Default, Serialize)]
pub struct SyncAnswer {
    /// Where the next sync goes on.
    pub next_batch: String,
    /// Account data outside rooms.
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub account_data: Events,
    /// Presence of others.
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub presence: Events,
    /// The rooms.
    #[serde(skip_serializing_if = "Rooms::is_empty")]
    pub rooms: Rooms,
    /// To-device messages.
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub to_device: Events,
    /// Whose keys changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_lists: Option<DeviceLists>,
    /// How many one-time keys are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_one_time_keys_count: Option<Arc<BTreeMap<String, u64>>>,
    /// Which fallback keys are unused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_unused_fallback_key_types: Option<Arc<[String]>>,
}

impl SyncAnswer {
    /// Whether a client that waits need not be woken for it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.account_data.is_empty()
            && self.presence.is_empty()
            && self.rooms.is_empty()
            && self.to_device.is_empty()
            && self.device_lists.is_none()
    }
}

/// Whose keys changed.
#[derive(Debug, Default, Serialize)]
pub struct DeviceLists {
    /// Fetch these anew.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<OwnedUserId>,
    /// Forget these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<OwnedUserId>,
}

/// The rooms, by the user's standing.
#[derive(Debug, Default, Serialize)]
pub struct Rooms {
    /// Joined.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub join: BTreeMap<OwnedRoomId, JoinedRoom>,
    /// Invited.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub invite: BTreeMap<OwnedRoomId, InvitedRoom>,
    /// Knocked.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub knock: BTreeMap<OwnedRoomId, KnockedRoom>,
    /// Left or banned.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub leave: BTreeMap<OwnedRoomId, LeftRoom>,
    /// Looked into from outside (MSC2753).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub peek: BTreeMap<OwnedRoomId, JoinedRoom>,
}

impl Rooms {
    fn is_empty(&self) -> bool {
        self.join.is_empty()
            && self.invite.is_empty()
            && self.knock.is_empty()
            && self.leave.is_empty()
            && self.peek.is_empty()
    }
}

/// The newest events of a room.
#[derive(Debug, Default, Serialize)]
pub struct Timeline {
    /// Oldest first.
    pub events: Vec<Box<RawValue>>,
    /// Whether there are more before these.
    pub limited: bool,
    /// Where to read on backwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
}

/// A joined room.
#[derive(Debug, Default, Serialize)]
pub struct JoinedRoom {
    /// Names and counts, when they changed.
    #[serde(skip_serializing_if = "Summary::is_empty")]
    pub summary: Summary,
    /// What changed up to the start of the timeline.
    pub state: Events,
    /// The newest events.
    pub timeline: Timeline,
    /// Receipts and typing.
    pub ephemeral: Events,
    /// Account data of the room.
    pub account_data: Events,
    /// Unread counts outside threads, or of all threads.
    pub unread_notifications: UnreadCounts,
    /// Unread counts by thread, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread_thread_notifications: Option<BTreeMap<String, UnreadCounts>>,
    /// Who came in, or is new to the client: their presence is told with it.
    #[serde(skip)]
    pub newcomers: BTreeSet<OwnedUserId>,
}

impl JoinedRoom {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timeline.events.is_empty()
            && self.state.is_empty()
            && self.ephemeral.is_empty()
            && self.account_data.is_empty()
            && !self.timeline.limited
    }
}

/// Unread counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UnreadCounts {
    /// Unread with a `notify` action.
    pub notification_count: u64,
    /// Of these, highlighted.
    pub highlight_count: u64,
}

/// Names and counts.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// For a name: at most five other members.
    #[serde(rename = "m.heroes", skip_serializing_if = "Option::is_none")]
    pub heroes: Option<Vec<OwnedUserId>>,
    /// How many are joined.
    #[serde(rename = "m.joined_member_count", skip_serializing_if = "Option::is_none")]
    pub joined: Option<u64>,
    /// How many are invited.
    #[serde(rename = "m.invited_member_count", skip_serializing_if = "Option::is_none")]
    pub invited: Option<u64>,
}

impl Summary {
    fn is_empty(&self) -> bool {
        self.heroes.is_none() && self.joined.is_none() && self.invited.is_none()
    }
}

/// An invite.
#[derive(Debug, Default, Serialize)]
pub struct InvitedRoom {
    /// What the invited may see.
    pub invite_state: Events,
}

/// A knock.
#[derive(Debug, Default, Serialize)]
pub struct KnockedRoom {
    /// What the knocker may see.
    pub knock_state: Events,
}

/// A room that was left.
#[derive(Debug, Default, Serialize)]
pub struct LeftRoom {
    /// What changed up to the start of the timeline.
    pub state: Events,
    /// The newest events, up to the leaving.
    pub timeline: Timeline,
    /// Account data of the room.
    pub account_data: Events,
}
