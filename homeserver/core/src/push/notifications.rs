//! `GET /notifications`: what notified the user, newest first, from the timelines as they are now.

use std::collections::HashSet;

use matron_room::client_event;
use matron_storage::{Key, KeyRange, Order, Table};
use ruma::{OwnedRoomId, UserId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::counts::timeline_event;
use crate::{
    Core, Error,
    rooms::{record::EventRef, visibility::Reader},
};

/// How far back one room is looked through.
const MAX_EVENTS_PER_ROOM: usize = 500;

/// The largest page.
const MAX_PAGE: usize = 100;

/// One notification.
#[derive(Clone, Debug, Serialize)]
pub struct Notification {
    /// The actions of the rule that matched.
    pub actions: Vec<serde_json::Value>,
    /// The event.
    pub event: Box<RawValue>,
    /// The profile of the device whose rule matched; devices have no rules of their own.
    pub profile_tag: &'static str,
    /// Whether the user has read it.
    pub read: bool,
    /// In which room.
    pub room_id: OwnedRoomId,
    /// When it came, ms since the epoch.
    pub ts: u64,
}

/// A page of them.
#[derive(Clone, Debug, Serialize)]
pub struct NotificationPage {
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
    /// Newest first.
    pub notifications: Vec<Notification>,
}

impl Core {
    /// What notified the user, newest first.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for a `from` that no page gave.
    pub fn notifications(
        &self,
        user: &UserId,
        from: Option<&str>,
        limit: usize,
        only_highlights: bool,
    ) -> Result<NotificationPage, Error> {
        let before = match from {
            Some(token) => token.parse().map_err(|_| Error::invalid("`from` is not a token of a page"))?,
            None => u64::MAX,
        };
        let limit = limit.clamp(1, MAX_PAGE);
        let rules = self.compiled_rules(user)?;
        let mut found: Vec<(EventRef, std::sync::Arc<super::Actions>, bool)> = Vec::new();
        let mut reader = Reader::new(user);
        for room in self.joined_rooms(user)? {
            let Some(open) = self.find_room(&room)? else { continue };
            let context = self.push_context(&mut open.lock())?;
            let read = self.read_positions(user, &room)?;
            let ignored = self.ignored_users(user)?;
            let own = |event: &EventRef| *event.pdu.sender() == *user && !event.pdu.is_state();
            let mut said = HashSet::new();
            if before != u64::MAX {
                for event in self.newest_events(&room, u64::MAX)?.iter().filter(|event| own(event)) {
                    if event.record.timeline >= before {
                        said.insert(self.thread_of(event)?);
                    }
                }
            }
            for event in self.newest_events(&room, before)? {
                // Nobody was notified of what was said before they came, and may not be shown it.
                if event.record.timeline <= read.joined {
                    break;
                }
                if own(&event) {
                    said.insert(self.thread_of(&event)?);
                }
                if event.is_emptied()
                    || !event.is_shown(self.now_ms())
                    || ignored.contains(event.pdu.sender())
                    || !self.reader_can_see(&mut reader, &event)?
                {
                    continue;
                }
                let Some(actions) = self.actions_for(user, &rules, &context, &event)? else { continue };
                if only_highlights && !actions.highlight {
                    continue;
                }
                let thread = self.thread_of(&event)?;
                let is_read = said.contains(&thread) || read.covers(event.record.timeline, thread.as_deref());
                found.push((event, actions, is_read));
            }
        }
        found.sort_by_key(|(event, _, _)| std::cmp::Reverse(event.record.timeline));
        let more = found.len() > limit;
        found.truncate(limit);
        let next_token = found.last().filter(|_| more).map(|(event, _, _)| event.record.timeline.to_string());
        let notifications = found
            .into_iter()
            .map(|(event, actions, read)| Notification {
                actions: actions.raw.clone(),
                event: client_event(&event.pdu, &matron_room::Unsigned::default()),
                profile_tag: "",
                read,
                room_id: event.pdu.room_id().to_owned(),
                ts: event.record.received_ms,
            })
            .collect();
        Ok(NotificationPage { next_token, notifications })
    }

    fn newest_events(&self, room: &ruma::RoomId, before: u64) -> Result<Vec<EventRef>, Error> {
        let prefix = Key::new().text(room);
        let range = KeyRange::between(prefix.clone().number(1 << 63), prefix.number(before));
        let rows = self.store.scan(Table::RoomTimeline, &range, Order::Descending, MAX_EVENTS_PER_ROOM)?;
        let ids: Vec<_> = rows.iter().filter_map(|(_, value)| timeline_event(value)).collect();
        self.load_events(ids.iter().map(|id| &**id))
    }
}
