//! What happens in a room from now on, for those who only look at it.
//!
//! SPEC: v1.19 Client-Server API, "Room previews" (`GET /events` with a `room_id`): "the same as the normal `/events`". Who is
//! there, types and has read what is told where the operator lets people peek.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use ruma::RoomId;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use super::token::{Direction, Gap, Stretch};
use crate::{
    Core, Error, Requester,
    accounts::EventFilter,
    rooms::Room,
    sync::{MAX_TIMEOUT_MS, SyncToken, timeline::timeline_of},
};

/// The most events of the timeline that one answer tells.
const MAX_EVENTS: usize = 100;

/// How far somebody was told who looks at a room: `t`, the gap, `_` and the serial of typing and presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeekToken {
    /// Where they stand in the timeline, and with receipts.
    pub gap: Gap,
    /// Typing and presence, up to here; absent from tokens of `/messages` and the like.
    pub ephemeral: Option<u64>,
}

impl fmt::Display for PeekToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.gap)?;
        self.ephemeral.map_or(Ok(()), |serial| write!(formatter, "_{serial}"))
    }
}

impl FromStr for PeekToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.starts_with('t')
            && let Some((gap, serial)) = text.split_once('_')
        {
            let serial = serial.parse().map_err(|_| Error::invalid("this is not a token of this server"))?;
            return Ok(Self { gap: Gap::parse(gap)?, ephemeral: Some(serial) });
        }
        let ephemeral = text.parse::<SyncToken>().ok().map(|token| token.ephemeral);
        Ok(Self { gap: Gap::parse(text)?, ephemeral })
    }
}

/// What came after a token, oldest first.
#[derive(Debug)]
pub struct Peeked {
    /// Where it begins.
    pub start: PeekToken,
    /// Where to go on.
    pub end: PeekToken,
    /// The events, as `/messages` tells them, and then what is never written to the room.
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
        room_id: &RoomId,
        from: Option<PeekToken>,
        timeout_ms: u64,
    ) -> Result<Peeked, Error> {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(timeout_ms.min(MAX_TIMEOUT_MS));
        let mut waiter = self.notifier.subscribe_room(room_id);
        let serial = self.ephemeral_serial();
        let start =
            from.unwrap_or(PeekToken { gap: Gap::after(timeline_of(self.position())), ephemeral: Some(serial) });
        let told_to = start.ephemeral.unwrap_or(serial);
        loop {
            let closed = || Error::forbidden("you are not in this room");
            let room = self.find_room(room_id)?.ok_or_else(closed)?;
            if self.sight_of(&requester.user_id, room_id)? != Gap::END {
                return Err(closed());
            }
            // INVARIANT: sampled before anything is read, so that whatever comes later is told next time.
            let serial = self.ephemeral_serial();
            let to = Gap::after(timeline_of(self.position())).max(start.gap);
            let stretch = Stretch { room: room_id, from: start.gap, to };
            let found =
                self.events_in(&requester.user_id, stretch, Direction::Forward, MAX_EVENTS, &EventFilter::default())?;
            let mut chunk = self.for_client(requester, &found.events)?;
            let end = match found.stopped_at {
                Some(gap) => PeekToken { gap, ephemeral: Some(told_to) },
                None => PeekToken { gap: to, ephemeral: Some(serial) },
            };
            if found.stopped_at.is_none() && self.settings.peeking {
                self.add_passing(requester, &room, (start.gap, to), (told_to, serial), &mut chunk)?;
            }
            if !chunk.is_empty() || found.stopped_at.is_some() || tokio::time::Instant::now() >= deadline {
                return Ok(Peeked { start, end, chunk });
            }
            tokio::select! {
                () = waiter.changed() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// Adds receipts between two gaps, typing and the members' presence between two serials.
    fn add_passing(
        &self,
        requester: &Requester,
        room: &Room,
        (from, to): (Gap, Gap),
        (since, serial): (u64, u64),
        chunk: &mut Vec<Box<RawValue>>,
    ) -> Result<(), Error> {
        let user = &requester.user_id;
        let ignored = self.ignored_users(user)?;
        let mut add = |event: Map<String, Value>| {
            let event =
                to_raw_value(&event).map_err(|error| Error::internal(format!("an event has no JSON form: {error}")));
            event.map(|event| chunk.push(event))
        };
        if let Some(receipts) = self.receipts_between(user, room.id(), from.position(), to.position(), &ignored)?
            && let Ok(mut event) = serde_json::from_str::<Map<String, Value>>(receipts.get())
        {
            event.insert("room_id".to_owned(), json!(room.id()));
            add(event)?;
        }
        let (typed, mut users) = self.typing_in(room.id());
        if typed > since && typed <= serial {
            users.retain(|user| !ignored.contains(user));
            let event = json!({ "type": "m.typing", "room_id": room.id(), "content": { "user_ids": users } });
            add(event.as_object().cloned().unwrap_or_default())?;
        }
        for update in self.presence_among(&room.joined(), since, serial) {
            if ignored.contains(&update.user_id) {
                continue;
            }
            let mut content = update.content;
            content["user_id"] = json!(update.user_id);
            let event = json!({ "type": "m.presence", "sender": update.user_id, "content": content });
            add(event.as_object().cloned().unwrap_or_default())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Settings, presence::Presence, rooms::send::NewEvent, test_world::World};

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
        assert!(now.chunk.is_empty());
        let (heard, said) = tokio::join!(core.peek(&eve, &room, Some(now.end), TIMEOUT_MS), say("hello"));
        let (heard, said) = (heard.unwrap(), said.unwrap());
        assert!(heard.chunk.len() == 1 && heard.chunk[0].get().contains(said.as_str()));
        say("again").await.unwrap();
        let next = core.peek(&eve, &room, Some(heard.end), TIMEOUT_MS).await.unwrap();
        assert!(next.chunk.len() == 1 && next.chunk[0].get().contains("again"));
        let (closed, _) = tokio::join!(core.peek(&eve, &room, Some(next.end), TIMEOUT_MS), visible("shared"));
        assert!(matches!(closed, Err(Error::Forbidden(_))));
    }

    #[tokio::test]
    async fn who_is_there_types_and_has_read_is_told_from_outside_only_where_the_operator_lets_people_peek() {
        for peeking in [true, false] {
            let world = World::with(Settings { peeking, insecure_fast_password_hash: true, ..Settings::default() });
            let core = &world.core;
            let (alice, bob, eve) = (world.user("alice").await, world.user("bob").await, world.user("eve").await);
            let eve = world.device(&eve, "PHONE").await;
            let room = world.room(&[&alice]).await;
            let content = json!({ "history_visibility": "world_readable" });
            let open = NewEvent::state(room.clone(), alice.clone(), "m.room.history_visibility", "", content);
            let said = core.send_event(open).await.unwrap();
            let start = core.peek(&eve, &room, None, 0).await.unwrap().end;
            let read = async || core.read_up_to(&alice, &room, "m.read", &said, None).await.unwrap();
            let types = async || core.set_typing(&alice, &room, true, None).await.unwrap();
            let comes = async || {
                core.set_presence(&bob, Presence::Online, None).await.unwrap();
                core.set_presence(&alice, Presence::Online, Some("on call".to_owned())).await.unwrap();
            };
            if !peeking {
                let ((), (), ()) = (read().await, types().await, comes().await);
                assert!(core.peek(&eve, &room, Some(start), 0).await.unwrap().chunk.is_empty());
                continue;
            }
            let hear = async |from| {
                let heard = core.peek(&eve, &room, Some(from), TIMEOUT_MS).await.unwrap();
                assert_eq!(heard.chunk.len(), 1, "{:?}", heard.chunk);
                (serde_json::from_str::<Value>(heard.chunk[0].get()).unwrap(), heard.end)
            };
            let ((receipt, next), ()) = tokio::join!(hear(start), read());
            assert_eq!((&receipt["type"], &receipt["room_id"]), (&json!("m.receipt"), &json!(room)));
            assert!(receipt["content"][said.as_str()]["m.read"][alice.as_str()]["ts"].is_u64());
            let ((typing, next), ()) = tokio::join!(hear(next), types());
            assert_eq!((&typing["type"], &typing["room_id"]), (&json!("m.typing"), &json!(room)));
            assert_eq!(typing["content"]["user_ids"], json!([alice]));
            let ((presence, next), ()) = tokio::join!(hear(next), comes());
            assert_eq!((&presence["type"], &presence["sender"]), (&json!("m.presence"), &json!(alice)));
            assert_eq!(presence["content"]["user_id"], json!(alice));
            assert_eq!(presence["content"]["status_msg"], "on call");
            let quiet = core.peek(&eve, &room, Some(next), 0).await.unwrap();
            assert!(quiet.chunk.is_empty(), "each is told once: {:?}", quiet.chunk);
        }
    }

    #[test]
    fn a_token_reads_back_as_it_was_written() {
        for text in ["t5", "t5_7", "t9223372036854775809_18446744073709551615"] {
            assert_eq!(text.parse::<PeekToken>().unwrap().to_string(), text);
        }
        let sync = "s7_3_2".parse::<PeekToken>().unwrap();
        assert_eq!((sync.gap.position().0, sync.ephemeral), (7, Some(2)));
        for text in ["", "t", "t_", "t1_", "t1_x", "t1_2_3", "x1_2", "s1"] {
            assert!(text.parse::<PeekToken>().is_err(), "{text}");
        }
    }
}
