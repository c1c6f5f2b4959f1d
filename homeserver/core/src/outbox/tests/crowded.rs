//! Thousands of destinations that do not answer, and one that does. How soon is counted in tries, not by a clock.

use std::sync::Arc;

use matron_storage::{Batch, Key, Table};
use ruma::OwnedEventId;
use serde_json::json;

use super::{Running, message, server, until};
use crate::{
    house::to_json,
    outbox::{peer::Backoff, standing::Standing},
    ports::PeerError,
    test_world::{NOW_MS, World, json_answer, stall},
};

const CROWD: usize = 2_000;
/// The last of all by its name.
const LIVING: &str = "zz.example";

fn dead(number: usize) -> String {
    format!("dead{number}.example")
}

/// The destination failed so often; its wait is over if `until_ms` is.
fn failed(failures: u32, last_success_ms: u64, until_ms: u64) -> Backoff {
    let reason = "it is down".to_owned();
    Backoff { failures, until_ms, last_success_ms, failing_since_ms: NOW_MS - 1, reason }
}

/// The event waits for each of these destinations, which have this past.
async fn queue_for(world: &World, names: &[String], event: &OwnedEventId, past: &Backoff) {
    for names in names.chunks(500) {
        let mut batch = Batch::new();
        for name in names {
            let index = batch.reserve_position();
            world.core.write_outbox_event(&mut batch, server(name), event, index).unwrap();
            batch.put(Table::OutboxState, Key::new().text(name), to_json(past).unwrap());
        }
        world.core.commit(batch).await.unwrap();
    }
}

async fn world_with_event() -> (World, OwnedEventId) {
    let world = World::new();
    let alice = world.user("alice").await;
    let room = world.room(&[&alice]).await;
    let event = message(&world, &alice, &room, "hello").await;
    (world, event)
}

/// Only the living answer; the others never do.
fn the_dead_stall(world: &World) {
    world.answer(|request| {
        if request.destination.as_str().starts_with("dead") { stall() } else { json_answer(&json!({"pdus": {}})) }
    });
}

impl Running {
    /// How many tries were made before the living was reached.
    async fn tries_before(&self, living: &str) -> usize {
        let place = || self.world.peers.asked.lock().iter().position(|request| request.destination == living);
        until("the living is reached", || place().is_some()).await;
        place().unwrap()
    }

    async fn tried(&self, count: usize) {
        until("the dead are tried", || self.world.peers.asked.lock().len() >= count).await;
    }
}

#[tokio::test]
async fn a_peer_that_was_well_does_not_wait_behind_names_that_never_answered() {
    let (world, event) = world_with_event().await;
    let names: Vec<String> = (0..CROWD).map(dead).collect();
    let (fresh, tried) = names.split_at(CROWD / 2);
    queue_for(&world, fresh, &event, &Backoff::default()).await;
    queue_for(&world, tried, &event, &failed(1, 0, NOW_MS)).await;
    queue_for(&world, &[LIVING.to_owned()], &event, &failed(90, NOW_MS - 86_400_000, NOW_MS)).await;
    the_dead_stall(&world);
    let running = Running::start(world);
    let of_the_dead = Standing::New.places() + Standing::Silent.places();
    assert!(running.tries_before(LIVING).await <= of_the_dead);
    running.tried(of_the_dead + 1).await;
    assert_eq!(running.world.peers.asked.lock().len(), of_the_dead + 1, "the dead take their places alone");
    running.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_heard_from_waits_behind_nobody() {
    for (was_reached, never) in [(NOW_MS - 86_400_000, false), (0, true)] {
        let (world, event) = world_with_event().await;
        // The worst of crowds: each was well once, and stalls now.
        let names: Vec<String> = (0..CROWD).map(dead).collect();
        queue_for(&world, &names, &event, &failed(1, if never { 0 } else { NOW_MS - 1 }, NOW_MS)).await;
        // It waits for minutes, or stands last in the line.
        let until_ms = if never { NOW_MS } else { NOW_MS + 800_000 };
        queue_for(&world, &[LIVING.to_owned()], &event, &failed(20, was_reached, until_ms)).await;
        the_dead_stall(&world);
        let places = if never { Standing::Silent } else { Standing::Lapsed }.places();
        let running = Running::start(world);
        running.tried(places).await;
        running.world.advance_ms(1_000);
        running.world.core.peer_is_back(server(LIVING));
        assert_eq!(running.tries_before(LIVING).await, places, "it is the next");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_name_that_failed_once_is_tried_before_those_that_failed_often() {
    let (world, event) = world_with_event().await;
    let names: Vec<String> = (0..CROWD).map(dead).collect();
    queue_for(&world, &names, &event, &failed(5, 0, NOW_MS)).await;
    queue_for(&world, &[LIVING.to_owned()], &event, &failed(1, 0, NOW_MS)).await;
    world.answer(|request| {
        if request.destination == LIVING { json_answer(&json!({"pdus": {}})) } else { Err(PeerError::Timeout) }
    });
    let running = Running::start(world);
    assert!(running.tries_before(LIVING).await <= Standing::Silent.places());
    let core = Arc::clone(&running.world.core);
    until("every other was tried once", || core.outbox.waiting_count() == CROWD).await;
    assert!(running.world.peers.asked.lock().len() <= CROWD + 2);
    running.stop().await;
}

#[tokio::test]
async fn a_backlog_is_not_sent_from_the_places_of_those_that_failed() {
    let (world, event) = world_with_event().await;
    let names: Vec<String> = (0..40).map(|number| format!("back{number}.example")).collect();
    let past = failed(3, NOW_MS - 1, NOW_MS);
    for _ in 0..4 {
        // More than one transaction for each.
        let many: Vec<String> = names.iter().flat_map(|name| std::iter::repeat_n(name.clone(), 40)).collect();
        queue_for(&world, &many, &event, &past).await;
    }
    let mut taken = std::collections::BTreeSet::new();
    world.answer(
        move |request| {
            if taken.insert(request.destination.clone()) { json_answer(&json!({"pdus": {}})) } else { stall() }
        },
    );
    let running = Running::start(world);
    running.tried(2 * names.len()).await;
    running.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_well_waits_behind_no_peers_that_are_never_done() {
    let (world, event) = world_with_event().await;
    let busy: Vec<String> = (0..Standing::Well.places()).map(|number| format!("busy{number}.example")).collect();
    let well = Backoff { last_success_ms: NOW_MS - 1, ..Backoff::default() };
    queue_for(&world, &busy, &event, &well).await;
    queue_for(&world, &[LIVING.to_owned()], &event, &well).await;
    // Whoever takes something is given more before it is asked whether there is more.
    let core = Arc::clone(&world.core);
    let again = event.clone();
    world.answer(move |request| {
        if request.destination != LIVING {
            let mut batch = Batch::new();
            let index = batch.reserve_position();
            core.write_outbox_event(&mut batch, &request.destination, &again, index).unwrap();
            drop(core.store.submit(batch).wait());
        }
        json_answer(&json!({"pdus": {}}))
    });
    let running = Running::start(world);
    until("the peer that is well is reached", || {
        running.world.peers.asked.lock().iter().any(|request| request.destination == LIVING)
    })
    .await;
    running.stop().await;
}
