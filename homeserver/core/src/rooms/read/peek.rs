//! What is said in a room from now on, for those who only look at it.
//!
//! SPEC: v1.19 Client-Server API, "Room previews" (`GET /events` with a `room_id`).

use std::{sync::Arc, time::Duration};

use ruma::RoomId;
use serde_json::value::RawValue;

use super::token::{Direction, Gap, Stretch};
use crate::{Core, Error, Requester, accounts::EventFilter, sync::MAX_TIMEOUT_MS};

/// The most events that one answer tells.
const MAX_EVENTS: usize = 100;

/// What came after a token, oldest first.
#[derive(Debug)]
pub struct Peeked {
    /// Where it begins.
    pub start: Gap,
    /// Where to go on.
    pub end: Gap,
    /// The events, as `/messages` tells them.
    pub chunk: Vec<Box<RawValue>>,
}

impl Core {
    /// What came after the token in a world-readable room, without one what comes from now on; waits if there is nothing.
    ///
    /// # Errors
    /// [`Error::Forbidden`] unless the room is open to the world, also when it is closed while this waits.
    pub async fn peek(
        self: &Arc<Self>,
        requester: &Requester,
        room: &RoomId,
        from: Option<Gap>,
        timeout_ms: u64,
    ) -> Result<Peeked, Error> {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(timeout_ms.min(MAX_TIMEOUT_MS));
        let mut waiter = self.notifier.subscribe_room(room);
        let start = from.unwrap_or(Gap::after(crate::sync::timeline::timeline_of(self.position())));
        loop {
            if self.sight_of(&requester.user_id, room)? != Gap::END {
                return Err(Error::forbidden("you are not in this room"));
            }
            let stretch = Stretch { room, from: start, to: Gap::END };
            let found =
                self.events_in(&requester.user_id, stretch, Direction::Forward, MAX_EVENTS, &EventFilter::default())?;
            let last = found.events.last().map(|event| Gap::after(event.record.timeline));
            let end = found.stopped_at.or(last).unwrap_or(start);
            if end != start || tokio::time::Instant::now() >= deadline {
                return Ok(Peeked { start, end, chunk: self.for_client(requester, &found.events)? });
            }
            tokio::select! {
                () = waiter.changed() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{rooms::send::NewEvent, test_world::World};

    /// Far longer than any of this takes.
    const TIMEOUT_MS: u64 = 120_000;

    #[tokio::test]
    async fn who_looks_at_an_open_room_hears_what_is_said_there_until_it_is_closed() {
        let world = World::new();
        let core = &world.core;
        let (alice, eve) = (world.user("alice").await, world.user("eve").await);
        let eve = world.device(&eve, "PHONE").await;
        let room = world.room(&[&alice]).await;
        let visible = |to: &str| {
            let content = json!({ "history_visibility": to });
            core.send_event(NewEvent::state(room.clone(), alice.clone(), "m.room.history_visibility", "", content))
        };
        let say = |body: &str| {
            let content = json!({ "msgtype": "m.text", "body": body });
            core.send_event(NewEvent::message(room.clone(), alice.clone(), "m.room.message", content))
        };
        assert!(matches!(core.peek(&eve, &room, None, 0).await, Err(Error::Forbidden(_))));
        visible("world_readable").await.unwrap();
        let now = core.peek(&eve, &room, None, 0).await.unwrap();
        assert!(now.chunk.is_empty() && now.end == now.start);
        let (heard, said) = tokio::join!(core.peek(&eve, &room, Some(now.end), TIMEOUT_MS), say("hello"));
        let (heard, said) = (heard.unwrap(), said.unwrap());
        assert!(heard.chunk.len() == 1 && heard.chunk[0].get().contains(said.as_str()));
        say("again").await.unwrap();
        let next = core.peek(&eve, &room, Some(heard.end), TIMEOUT_MS).await.unwrap();
        assert!(next.chunk.len() == 1 && next.chunk[0].get().contains("again"));
        let (closed, _) = tokio::join!(core.peek(&eve, &room, Some(next.end), TIMEOUT_MS), visible("shared"));
        assert!(matches!(closed, Err(Error::Forbidden(_))));
    }
}
