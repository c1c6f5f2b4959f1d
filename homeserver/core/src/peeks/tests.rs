use std::sync::Arc;

use matron_storage::{Batch, Table};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::{json, value::RawValue};

use super::{LIFETIME_MS, MAX_PEEKS, MAX_PER_DEVICE, MAX_PER_USER, Peek, Registry, rows_of};
use crate::{
    Error, Requester, Settings,
    house::to_json,
    rooms::{membership::JoinOptions, send::NewEvent},
    sync::{SyncAnswer, SyncRequest, SyncToken},
    test_world::World,
};

/// Far longer than any of this takes.
const TIMEOUT_MS: u64 = 120_000;

/// A room, and somebody outside with a device.
struct Street {
    world: World,
    alice: OwnedUserId,
    eve: Requester,
    room: OwnedRoomId,
}

impl Street {
    async fn new() -> Self {
        let world = World::with(Settings { peeking: true, insecure_fast_password_hash: true, ..Settings::default() });
        let (alice, eve) = (world.user("alice").await, world.user("eve").await);
        let eve = world.device(&eve, "PHONE").await;
        let room = world.room(&[&alice]).await;
        Self { world, alice, eve, room }
    }

    /// One that is open to the world.
    async fn open() -> Self {
        let street = Self::new().await;
        street.set_visible("world_readable").await;
        street
    }

    async fn set_visible(&self, to: &str) {
        self.set("m.room.history_visibility", json!({ "history_visibility": to })).await;
    }

    async fn set(&self, kind: &str, content: serde_json::Value) -> OwnedEventId {
        let new = NewEvent::state(self.room.clone(), self.alice.clone(), kind, "", content);
        self.world.core.send_event(new).await.unwrap()
    }

    async fn say(&self, body: &str) {
        let content = json!({ "msgtype": "m.text", "body": body });
        let new = NewEvent::message(self.room.clone(), self.alice.clone(), "m.room.message", content);
        self.world.core.send_event(new).await.unwrap();
    }

    async fn sync(&self, who: &Requester, since: Option<SyncToken>, timeout_ms: u64) -> (SyncAnswer, SyncToken) {
        let request = SyncRequest { since, timeout_ms, ..SyncRequest::default() };
        let answer = self.world.core.sync(who, request).await.unwrap();
        let next = answer.next_batch.parse().unwrap();
        (answer, next)
    }

    /// Syncs until the room is told of as one that is looked into.
    async fn seen(&self, mut since: SyncToken) -> (String, SyncToken) {
        loop {
            let (answer, next) = self.sync(&self.eve, Some(since), TIMEOUT_MS).await;
            if let Some(told) = answer.rooms.peek.get(&self.room) {
                return (text(&told.timeline.events), next);
            }
            since = next;
        }
    }

    /// What one more sync tells of the room as one that was left, and that it is told once.
    async fn ending(&self, since: SyncToken) -> String {
        let (answer, next) = self.sync(&self.eve, Some(since), 0).await;
        assert!(answer.rooms.peek.is_empty());
        let told = text(&answer.rooms.leave[&self.room].timeline.events);
        let (again, _) = self.sync(&self.eve, Some(since), 0).await;
        assert!(again.rooms.leave.contains_key(&self.room), "a client that repeats itself hears it again");
        let (after, _) = self.sync(&self.eve, Some(next), 0).await;
        assert!(after.rooms.leave.is_empty() && after.rooms.peek.is_empty());
        assert!(self.world.core.peeks_of(&self.eve).is_empty());
        told
    }
}

fn text(events: &[Box<RawValue>]) -> String {
    events.iter().map(|event| event.get()).collect::<Vec<_>>().join("\n")
}

fn is_bad_state<T>(answer: &Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Custom { status: 400, errcode: "M_BAD_STATE", .. }))
}

#[tokio::test]
async fn a_device_looks_into_an_open_room_and_no_other_device_is_told_of_it() {
    let street = Street::new().await;
    let core = &street.world.core;
    let tablet = street.world.device(&street.eve.user_id, "TABLET").await;
    let (_, before) = street.sync(&street.eve, None, 0).await;
    assert!(matches!(core.begin_peek(&street.eve, &street.room).await, Err(Error::Forbidden(_))));
    street.say("among us").await;
    street.set("m.room.topic", json!({ "topic": "yesterday's" })).await;
    street.set("m.room.topic", json!({ "topic": "today's" })).await;
    street.set_visible("world_readable").await;
    let until_ms = core.begin_peek(&street.eve, &street.room).await.unwrap();
    assert_eq!(until_ms, core.now_ms() + LIFETIME_MS);
    street.say("hello world").await;

    let (answer, next) = street.sync(&street.eve, Some(before), 0).await;
    let told = &answer.rooms.peek[&street.room];
    let all = text(&told.state.events) + &text(&told.timeline.events);
    assert!(all.contains("m.room.create") && all.contains("today's") && all.contains("hello world"), "{all}");
    assert!(told.timeline.limited && !all.contains("among us") && !all.contains("yesterday's"), "{all}");
    assert!(answer.rooms.join.is_empty());
    let (idle, _) = street.sync(&street.eve, Some(next), 0).await;
    assert!(idle.rooms.peek.is_empty());

    let ((heard, _), ()) = tokio::join!(street.seen(next), street.say("more"));
    let (from_none, _) = street.sync(&tablet, None, 0).await;
    assert!(heard.contains("more") && !heard.contains("hello world"));
    assert!(from_none.rooms.peek.is_empty());
    assert!(street.sync(&tablet, Some(before), 0).await.0.rooms.peek.is_empty());
    let (whole, _) = street.sync(&street.eve, None, 0).await;
    assert!(text(&whole.rooms.peek[&street.room].timeline.events).contains("hello world"));
}

#[tokio::test]
async fn a_look_that_the_device_ends_is_told_to_be_over_once_with_what_was_said_before() {
    let street = Street::open().await;
    let core = &street.world.core;
    assert!(is_bad_state(&core.end_peek(&street.eve, &street.room).await));
    core.begin_peek(&street.eve, &street.room).await.unwrap();
    let (_, since) = street.sync(&street.eve, None, 0).await;
    street.say("in time").await;
    core.end_peek(&street.eve, &street.room).await.unwrap();
    street.say("too late").await;
    assert!(is_bad_state(&core.end_peek(&street.eve, &street.room).await));
    let told = street.ending(since).await;
    assert!(told.contains("in time") && !told.contains("too late"), "{told}");
}

#[tokio::test]
async fn a_look_is_over_when_the_room_is_closed_and_what_is_said_then_stays_inside() {
    let street = Street::open().await;
    street.world.core.begin_peek(&street.eve, &street.room).await.unwrap();
    let (_, since) = street.sync(&street.eve, None, 0).await;
    street.set_visible("joined").await;
    street.say("among us").await;
    street.set("m.room.topic", json!({ "topic": "among us too" })).await;
    let told = street.ending(since).await;
    assert!(told.contains("m.room.history_visibility") && !told.contains("among us"), "{told}");
}

#[tokio::test]
async fn a_look_that_is_not_renewed_ends_by_itself() {
    let street = Street::open().await;
    let core = &street.world.core;
    core.begin_peek(&street.eve, &street.room).await.unwrap();
    let (_, since) = street.sync(&street.eve, None, 0).await;
    street.world.advance_ms(LIFETIME_MS - 1);
    let until_ms = core.begin_peek(&street.eve, &street.room).await.unwrap();
    assert_eq!(until_ms, core.now_ms() + LIFETIME_MS);
    street.world.advance_ms(LIFETIME_MS - 1);
    let (still, since) = {
        street.say("still here").await;
        let (answer, next) = street.sync(&street.eve, Some(since), 0).await;
        (text(&answer.rooms.peek[&street.room].timeline.events), next)
    };
    assert!(still.contains("still here") && !still.contains("m.room.create"), "what is renewed does not begin anew");
    street.world.advance_ms(1);
    street.ending(since).await;
}

#[tokio::test]
async fn who_joins_looks_no_more_and_finds_the_room_among_the_joined() {
    let street = Street::open().await;
    let core = &street.world.core;
    core.begin_peek(&street.eve, &street.room).await.unwrap();
    let (_, since) = street.sync(&street.eve, None, 0).await;
    core.join_room(&street.eve.user_id, &street.room, JoinOptions::default()).await.unwrap();
    let (answer, _) = street.sync(&street.eve, Some(since), 0).await;
    assert!(answer.rooms.peek.is_empty() && answer.rooms.leave.is_empty());
    assert!(answer.rooms.join.contains_key(&street.room));
    assert!(is_bad_state(&core.begin_peek(&street.eve, &street.room).await));
    core.leave_room(&street.eve.user_id, &street.room, None).await.unwrap();
    assert!(core.peeks_of(&street.eve).is_empty());
}

#[tokio::test]
async fn the_end_of_a_look_takes_back_neither_an_invite_nor_a_knock() {
    for is_invited in [true, false] {
        let street = Street::open().await;
        let core = &street.world.core;
        let eve = &street.eve.user_id;
        core.begin_peek(&street.eve, &street.room).await.unwrap();
        let (_, since) = street.sync(&street.eve, None, 0).await;
        if is_invited {
            core.invite(&street.alice, &street.room, eve, None, false).await.unwrap();
        } else {
            street.set("m.room.join_rules", json!({ "join_rule": "knock" })).await;
            core.knock(eve, &street.room, JoinOptions::default()).await.unwrap();
        }
        core.end_peek(&street.eve, &street.room).await.unwrap();
        let (answer, next) = street.sync(&street.eve, Some(since), 0).await;
        assert!(answer.rooms.peek.is_empty() && answer.rooms.leave.is_empty());
        assert_eq!(answer.rooms.invite.contains_key(&street.room), is_invited);
        assert_eq!(answer.rooms.knock.contains_key(&street.room), !is_invited);
        let (after, _) = street.sync(&street.eve, Some(next), 0).await;
        assert!(after.rooms.leave.is_empty());
    }
}

#[tokio::test]
async fn looks_survive_a_restart_and_go_with_their_device_or_when_nobody_may_look_any_more() {
    let street = Street::open().await;
    let core = &street.world.core;
    let restart = || {
        *core.peeks.registry.lock() = Registry::default();
        core.start_peeks().unwrap();
        core.peeks_of(&street.eve)
    };
    core.begin_peek(&street.eve, &street.room).await.unwrap();
    let before = core.peeks_of(&street.eve);
    assert_eq!(restart(), before);
    let (_, since) = street.sync(&street.eve, None, 0).await;
    street.say("after the restart").await;
    assert!(street.seen(since).await.0.contains("after the restart"));
    core.delete_devices(&street.eve.user_id, &[street.eve.device_id.clone().unwrap()]).await.unwrap();
    assert!(core.peeks_of(&street.eve).is_empty() && restart().is_empty());
    assert!(core.peeks.registry.lock().into_room.is_empty());
}

#[tokio::test]
async fn a_device_looks_into_so_many_rooms_and_no_more() {
    let street = Street::open().await;
    let core = &street.world.core;
    for number in 0..=MAX_PER_DEVICE {
        let room = street.world.room(&[&street.alice]).await;
        let content = json!({ "history_visibility": "world_readable" });
        let new = NewEvent::state(room.clone(), street.alice.clone(), "m.room.history_visibility", "", content);
        core.send_event(new).await.unwrap();
        let begun = core.begin_peek(&street.eve, &room).await;
        if number < MAX_PER_DEVICE {
            begun.unwrap();
        } else {
            assert!(matches!(begun, Err(Error::LimitExceeded { .. })));
        }
    }
}

#[tokio::test]
async fn a_user_takes_so_many_places_with_all_devices_and_no_more_and_what_is_over_makes_way() {
    let street = Street::open().await;
    let core = &street.world.core;
    let user = &street.eve.user_id;
    let now_ms = core.now_ms();
    let room = |number: usize| OwnedRoomId::try_from(format!("!{number}:us.example")).unwrap();
    let put = |from: usize, until_ms: u64, over: Option<u64>| {
        for number in from..from + MAX_PER_DEVICE {
            let device = (user.clone(), format!("D{from}").into());
            core.peeks.registry.lock().put(&device, &room(number), Peek { began: 1, until_ms, over });
        }
    };
    for device in 0..MAX_PER_USER / MAX_PER_DEVICE {
        put(device * MAX_PER_DEVICE, now_ms + 1 + u64::from(device != 1), None);
    }
    let begin = || core.begin_peek(&street.eve, &street.room);
    assert!(matches!(begin().await, Err(Error::LimitExceeded { .. })));
    street.world.advance_ms(1);
    begin().await.unwrap();
    let left = |device: &str| core.peeks_of(&Requester { device_id: Some(device.into()), ..street.eve.clone() }).len();
    assert_eq!((left("PHONE"), left("D0"), left("D20")), (1, MAX_PER_DEVICE, 0));

    // The same with the places of all.
    let mut registry = Registry::default();
    for number in 0..MAX_PEEKS {
        let device = (OwnedUserId::try_from(format!("@u{number}:us.example")).unwrap(), "D".into());
        let over = (number % 200 == 7).then_some(3);
        registry.put(&device, &room(0), Peek { began: 1, until_ms: now_ms + 10, over });
    }
    let one = (user.clone(), "PHONE".into());
    assert_eq!(registry.check_place(&one, now_ms).unwrap().len(), MAX_PEEKS / 200);
    registry.put(&one, &room(1), Peek { began: 1, until_ms: now_ms + 10, over: None });
    assert_eq!(registry.count, MAX_PEEKS - MAX_PEEKS / 200 + 1);
}

#[tokio::test]
async fn the_longest_over_makes_way_first_also_if_it_ended_early() {
    let street = Street::open().await;
    let core = &street.world.core;
    core.begin_peek(&street.eve, &street.room).await.unwrap();
    core.end_peek(&street.eve, &street.room).await.unwrap();
    let device = (street.eve.user_id.clone(), "TABLET".into());
    let mut registry = core.peeks.registry.lock();
    registry.put(&device, &street.room, Peek { began: 1, until_ms: core.now_ms() + 1, over: None });
    let made_way = registry.make_way(core.now_ms() + 1, |_| true);
    let devices: Vec<_> = made_way.iter().map(|((_, device), _)| device.as_str()).collect();
    assert_eq!(devices, ["PHONE", "TABLET"]);
}

#[tokio::test]
async fn a_look_that_made_way_and_begins_anew_meanwhile_is_kept() {
    let street = Street::open().await;
    let core = &street.world.core;
    let user = &street.eve.user_id;
    let row = |number: usize| rows_of(user, "TABLET".into()).text(format!("!{number}:us.example"));
    let tablet = (user.clone(), "TABLET".into());
    let over = Peek { began: 1, until_ms: core.now_ms(), over: Some(2) };
    let mut batch = Batch::new();
    for number in 0..MAX_PER_USER {
        let room = OwnedRoomId::try_from(format!("!{number}:us.example")).unwrap();
        core.peeks.registry.lock().put(&tablet, &room, over);
        batch.put(Table::Misc, row(number), to_json(&over).unwrap());
    }
    core.commit(batch).await.unwrap();
    let (theirs, key) = (Arc::clone(core), row(7));
    street.world.meanwhile(move |store| {
        let anew = Peek { began: 3, over: None, ..over };
        theirs.peeks.registry.lock().put(&tablet, &OwnedRoomId::try_from("!7:us.example").unwrap(), anew);
        let mut batch = Batch::new();
        batch.put(Table::Misc, key, to_json(&anew).unwrap());
        store.submit(batch).wait().unwrap();
    });
    core.begin_peek(&street.eve, &street.room).await.unwrap();
    let left: Vec<_> = (0..MAX_PER_USER)
        .filter(|number| core.store.get(Table::Misc, row(*number).as_bytes()).unwrap().is_some())
        .collect();
    assert_eq!(left, [7]);
}

#[tokio::test]
async fn a_look_is_over_and_said_to_be_when_the_last_of_this_server_leaves() {
    let street = Street::open().await;
    let core = &street.world.core;
    core.begin_peek(&street.eve, &street.room).await.unwrap();
    let (_, since) = street.sync(&street.eve, None, 0).await;
    core.leave_room(&street.alice, &street.room, None).await.unwrap();
    street.ending(since).await;
}

#[tokio::test]
async fn nobody_looks_where_the_operator_does_not_want_it() {
    let world = World::new();
    let eve = world.user("eve").await;
    let eve = world.device(&eve, "PHONE").await;
    let room = world.room(&[&world.user("alice").await]).await;
    assert!(matches!(world.core.begin_peek(&eve, &room).await, Err(Error::Unrecognized)));
    assert!(matches!(world.core.end_peek(&eve, &room).await, Err(Error::Unrecognized)));
    // What is left of a time when they could.
    let key = rows_of(&eve.user_id, eve.device_id.as_ref().unwrap()).text(&room);
    let mut batch = Batch::new();
    batch.put(Table::Misc, key.clone(), to_json(&Peek { began: 1, until_ms: u64::MAX, over: None }).unwrap());
    world.core.commit(batch).await.unwrap();
    world.core.start_peeks().unwrap();
    assert!(world.core.store.get(Table::Misc, key.as_bytes()).unwrap().is_none());
}
