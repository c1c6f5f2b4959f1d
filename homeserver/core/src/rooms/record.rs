//! How an event lies in the store: a fixed header, then JSON: the whole event, or its skeleton when its
//! content is sealed beside it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use matron_room::{Pdu, RoomVersion};
use matron_storage::StoreError;
use ruma::{EventId, OwnedEventId};

use super::state_map::GroupId;
use crate::retention::outlives_words;

/// What was judged of an event. Callers match every arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Part of the room, shown to its members.
    Accepted = 0,
    /// Known for the graph or the auth chain only; not part of the timeline.
    Outlier = 1,
    /// Failed the authorisation rules; nothing may refer to it as state.
    Rejected = 2,
    /// Passed at its own place in the graph but not against the current state: kept for the graph, never shown.
    SoftFailed = 3,
    /// Refused by Matron's policy: kept for the graph, never shown, never an extremity.
    Withheld = 4,
    /// Policy lacks a fact; judged again when facts arrive.
    Held = 5,
}

impl Status {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Accepted,
            1 => Self::Outlier,
            2 => Self::Rejected,
            3 => Self::SoftFailed,
            4 => Self::Withheld,
            5 => Self::Held,
            _ => return None,
        })
    }
}

/// The header of a stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What was judged of it.
    pub status: Status,
    /// Where it stands in its room's timeline, in timeline order (`2^63` plus or minus a stream position); 0: nowhere.
    pub timeline: u64,
    /// When it came, ms.
    pub received_ms: u64,
    /// The state before it; [`GroupId::EMPTY`] if unknown (outliers) or the create event.
    pub state_before: GroupId,
    /// The bucket of the data key that seals its content; 0: the content is not sealed.
    pub bucket: u64,
    /// When its content dies, ms; 0: never.
    pub expires_ms: u64,
    /// The redaction that took its content.
    pub redacted_by: Option<OwnedEventId>,
    /// The room's version.
    pub version: &'static RoomVersion,
}

/// Where the timeline position stands in a record, for the committer to fill.
pub const TIMELINE_OFFSET: usize = 2;

const FORMAT: u8 = 1;

impl Record {
    /// Whether the life of what is sealed is over.
    #[must_use]
    pub fn has_ended(&self, now_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= now_ms
    }

    /// The bytes of the header and this JSON.
    #[must_use]
    pub fn encode(&self, json: &str) -> Vec<u8> {
        let redacted_by = self.redacted_by.as_ref().map_or("", |id| id.as_str());
        let version = self.version.as_str();
        let mut bytes = Vec::with_capacity(64 + redacted_by.len() + json.len());
        bytes.push(FORMAT);
        bytes.push(self.status as u8);
        bytes.extend_from_slice(&self.timeline.to_be_bytes());
        bytes.extend_from_slice(&self.received_ms.to_be_bytes());
        bytes.extend_from_slice(&self.state_before.0);
        bytes.extend_from_slice(&self.bucket.to_be_bytes());
        bytes.extend_from_slice(&self.expires_ms.to_be_bytes());
        for text in [redacted_by, version] {
            bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(json.as_bytes());
        bytes
    }

    /// The header, and the JSON behind it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for anything that [`Record::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &str), StoreError> {
        Self::read(bytes).ok_or_else(|| StoreError::Corrupt("event_pdu: a record is unreadable".to_owned()))
    }

    fn read(bytes: &[u8]) -> Option<(Self, &str)> {
        let (&[FORMAT, status], rest) = bytes.split_first_chunk::<2>()? else { return None };
        let (timeline, rest) = rest.split_first_chunk::<8>()?;
        let (received, rest) = rest.split_first_chunk::<8>()?;
        let (group, rest) = rest.split_first_chunk::<16>()?;
        let (bucket, rest) = rest.split_first_chunk::<8>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (redacted_by, rest) = text(rest)?;
        let (version, rest) = text(rest)?;
        let record = Self {
            status: Status::from_byte(status)?,
            timeline: u64::from_be_bytes(*timeline),
            received_ms: u64::from_be_bytes(*received),
            state_before: GroupId(*group),
            bucket: u64::from_be_bytes(*bucket),
            expires_ms: u64::from_be_bytes(*expires),
            redacted_by: if redacted_by.is_empty() { None } else { Some(redacted_by.try_into().ok()?) },
            version: RoomVersion::find(version)?,
        };
        Some((record, std::str::from_utf8(rest).ok()?))
    }
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// An event as it was stored and judged.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// The event; its skeleton if its content is gone.
    pub pdu: Pdu,
    /// How it lies in the store.
    pub record: Record,
    /// The content was redacted, purged, or its data key destroyed: `pdu` is a skeleton.
    pub content_gone: bool,
    /// Nothing relates to it, as far as memory goes.
    pub(crate) unrelated: Flag,
}

/// A fact found out later about something shared.
#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, value: bool) {
        self.0.store(value, Ordering::Release);
    }
}

impl Clone for Flag {
    /// A copy knows nothing yet: nobody could correct it.
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// A stored event, shared.
pub type EventRef = Arc<StoredEvent>;

impl StoredEvent {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &EventId {
        self.pdu.event_id()
    }

    /// Whether members may see it at `now_ms`: accepted, in the timeline, and its content has not expired.
    #[must_use]
    pub fn is_shown(&self, now_ms: u64) -> bool {
        self.record.status == Status::Accepted && self.record.timeline != 0 && !self.is_expired(now_ms)
    }

    /// Whether its content was taken: by a redaction, or by its end.
    #[must_use]
    pub fn is_emptied(&self) -> bool {
        self.content_gone || self.record.redacted_by.is_some()
    }

    /// Whether its life is over.
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.record.has_ended(now_ms) && !outlives_words(&self.pdu)
    }

    /// Whether it can be an auth event or part of a state.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.record.status != Status::Rejected
    }
}
