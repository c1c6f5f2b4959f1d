//! Presence and typing, as users and other servers see them.

use ruma::{ServerName, UserId};
use serde_json::json;

use super::Presence;
use crate::{Error, test_world::World};

const SECOND_MS: u64 = 1_000;

fn presence_told(world: &World, user: &UserId, since: u64) -> Vec<(String, String)> {
    let updates = world.core.presence_since(user, since, world.core.ephemeral_serial()).unwrap();
    updates
        .into_iter()
        .map(|update| (update.user_id.to_string(), update.content["presence"].as_str().unwrap().to_owned()))
        .collect()
}

fn told(user: &UserId, presence: &str) -> Vec<(String, String)> {
    vec![(user.to_string(), presence.to_owned())]
}

#[tokio::test]
async fn presence_is_told_once_to_those_who_share_a_room() {
    let world = World::new();
    let (alice, bob, eve) = (world.user("alice").await, world.user("bob").await, world.user("eve").await);
    world.room(&[&alice, &bob]).await;
    let since = world.core.ephemeral_serial();
    let mut waiter = world.core.notifier.subscribe(&bob);
    world.core.set_presence(&alice, Presence::Online, Some("on call".to_owned())).await.unwrap();
    waiter.changed().await;
    for user in [&alice, &bob] {
        assert_eq!(presence_told(&world, user, since), told(&alice, "online"));
    }
    assert!(presence_told(&world, &eve, since).is_empty());
    assert!(presence_told(&world, &bob, world.core.ephemeral_serial()).is_empty());
    assert_eq!(world.core.presence_of(&bob, &alice).unwrap()["status_msg"], "on call");
    assert!(matches!(world.core.presence_of(&eve, &alice), Err(Error::Forbidden(_))));
}

#[tokio::test]
async fn who_syncs_is_online_who_idles_unavailable_and_who_vanishes_offline() {
    let world = World::new();
    let alice = world.user("alice").await;
    let guard = world.core.begin_sync_presence(&alice, None).await.unwrap();
    assert_eq!(world.core.presence_of(&alice, &alice).unwrap()["presence"], "online");
    world.advance_ms(61 * SECOND_MS);
    world.core.presence_tick().await;
    let status = world.core.presence_of(&alice, &alice).unwrap();
    assert_eq!((&status["presence"], &status["currently_active"]), (&json!("online"), &json!(false)));
    world.advance_ms(5 * 60 * SECOND_MS);
    world.core.presence_tick().await;
    assert_eq!(world.core.presence_of(&alice, &alice).unwrap()["presence"], "unavailable");
    drop(guard);
    world.core.presence_tick().await;
    assert_eq!(world.core.presence_of(&alice, &alice).unwrap()["presence"], "unavailable");
    world.advance_ms(31 * SECOND_MS);
    world.core.presence_tick().await;
    assert_eq!(world.core.presence_of(&alice, &alice).unwrap()["presence"], "offline");
}

#[tokio::test]
async fn who_asks_to_stay_offline_does() {
    let world = World::new();
    let alice = world.user("alice").await;
    assert!(world.core.begin_sync_presence(&alice, Some(Presence::Offline)).await.unwrap().is_none());
    assert_eq!(world.core.presence_of(&alice, &alice).unwrap()["presence"], "offline");
}

#[tokio::test]
async fn a_status_message_survives_going_away() {
    let world = World::new();
    let alice = world.user("alice").await;
    world.core.set_presence(&alice, Presence::Online, Some("on call".to_owned())).await.unwrap();
    world.advance_ms(60 * SECOND_MS);
    world.core.presence_tick().await;
    let _guard = world.core.begin_sync_presence(&alice, None).await.unwrap();
    let status = world.core.presence_of(&alice, &alice).unwrap();
    assert_eq!((&status["presence"], &status["status_msg"]), (&json!("online"), &json!("on call")));
}

#[tokio::test]
async fn strangers_presence_is_shown_to_nobody_and_bounded() {
    let world = World::new();
    let far: &ServerName = "far.example".try_into().unwrap();
    let push = json!({ "push": [{ "user_id": "@u:far.example", "presence": "online", "last_active_ago": 5 }] });
    world.core.receive_presence(far, push).await.unwrap();
    assert!(world.core.presence.inner.lock().users.is_empty());
    for number in 0..2_000 {
        let push = json!({ "push": [{ "user_id": format!("@{number}:far.example"), "presence": "online" }] });
        world.core.receive_presence(far, push).await.unwrap();
    }
    assert!(world.core.presence.inner.lock().early.len() <= 1_000, "what waits for a join is bounded");
    let broken = world.core.receive_presence(far, json!({ "push": [{ "presence": "dancing" }] })).await;
    assert!(matches!(broken, Err(Error::BadJson(_))));
}

#[tokio::test]
async fn typing_is_told_and_ends_by_itself() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&[&alice, &bob]).await;
    let since = world.core.ephemeral_serial();
    let mut waiter = world.core.notifier.subscribe(&bob);
    world.core.set_typing(&alice, &room, true, Some(5 * SECOND_MS)).await.unwrap();
    waiter.changed().await;
    let (serial, users) = world.core.typing_in(&room);
    assert!(serial > since);
    assert_eq!(users, std::slice::from_ref(&alice));
    assert_eq!(world.core.typing_rooms_since(since, world.core.ephemeral_serial()).len(), 1);
    world.core.set_typing(&alice, &room, true, Some(5 * SECOND_MS)).await.unwrap();
    assert_eq!(world.core.typing_serial(&room), serial, "saying it again is no news");
    world.advance_ms(5 * SECOND_MS);
    world.core.presence_tick().await;
    waiter.changed().await;
    let (ended, users) = world.core.typing_in(&room);
    assert!(ended > serial);
    assert!(users.is_empty());
}

#[tokio::test]
async fn who_is_not_in_the_room_does_not_type_there() {
    let world = World::new();
    let (alice, eve) = (world.user("alice").await, world.user("eve").await);
    let room = world.room(&[&alice]).await;
    assert!(matches!(world.core.set_typing(&eve, &room, true, None).await, Err(Error::Forbidden(_))));
    let liar: &ServerName = "liar.example".try_into().unwrap();
    let edu = json!({ "room_id": room, "user_id": alice, "typing": true });
    world.core.receive_typing(liar, edu).unwrap();
    assert!(world.core.typing_in(&room).1.is_empty());
}
