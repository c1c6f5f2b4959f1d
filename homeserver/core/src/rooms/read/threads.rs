//! `GET /rooms/{roomId}/threads`: the threads of a room, the latest active first.

use matron_storage::{Key, KeyReader, Table};
use ruma::{OwnedEventId, RoomId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Core, Error, Requester};

/// The most threads on one page.
const MAX_LIMIT: usize = 100;
/// Threads on a page if the client names no number.
const DEFAULT_LIMIT: usize = 20;

/// What a client asks.
#[derive(Clone, Debug, Default)]
pub struct ThreadsRequest {
    /// Only threads that the user wrote in.
    pub participated: bool,
    /// At most so many.
    pub limit: Option<u64>,
    /// Where to go on.
    pub from: Option<String>,
}

/// A page of threads.
#[derive(Debug, Serialize)]
pub struct ThreadsPage {
    /// The roots, with their threads bundled.
    pub chunk: Vec<Box<RawValue>>,
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
}

impl Core {
    /// A page of the room's threads, as the user may see them.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::InvalidParam`] for a token that is none.
    pub fn room_threads(
        &self,
        requester: &Requester,
        room: &RoomId,
        request: &ThreadsRequest,
    ) -> Result<ThreadsPage, Error> {
        let user = &requester.user_id;
        self.sight_of(user, room)?;
        let limit = request.limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(MAX_LIMIT));
        let limit = limit.clamp(1, MAX_LIMIT);
        let before = match &request.from {
            Some(from) => from
                .strip_prefix('h')
                .and_then(|position| position.parse().ok())
                .ok_or_else(|| Error::invalid("this is not a token of this server"))?,
            None => u64::MAX,
        };
        let mut threads: Vec<(u64, OwnedEventId)> = Vec::new();
        for (key, value) in self.scan_all(Table::RoomThread, &Key::new().text(room))? {
            let mut reader = KeyReader::new(&key);
            reader.text();
            let root = reader.text().and_then(|root| OwnedEventId::try_from(root).ok());
            let position = value.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
            if let (Some(root), Some(position)) = (root, position)
                && position < before
            {
                threads.push((position, root));
            }
        }
        threads.sort_unstable_by(|one, other| other.cmp(one));
        let mut events = Vec::new();
        let mut last = None;
        let mut next_batch = None;
        for (position, root) in threads {
            let Some(event) = self.load_event(&root)?.filter(|event| event.pdu.room_id() == room) else { continue };
            if !self.can_see_event(user, &event)? {
                continue;
            }
            if request.participated {
                let wrote = event.pdu.sender() == user
                    || self
                        .relations_to(room, &root)?
                        .iter()
                        .any(|(_, row)| row.rel_type == "m.thread" && row.sender == *user);
                if !wrote {
                    continue;
                }
            }
            if events.len() >= limit {
                next_batch = last.map(|last| format!("h{last}"));
                break;
            }
            last = Some(position);
            events.push(event);
        }
        Ok(ThreadsPage { chunk: self.for_client(requester, &events)?, next_batch })
    }
}
