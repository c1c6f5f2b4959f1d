mod crowded;
mod resealed;

use std::{sync::Arc, time::Duration};

use matron_storage::Batch;
use ruma::{OwnedEventId, OwnedRoomId, ServerName};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Subject;
use crate::{
    ports::PeerError,
    rooms::send::NewEvent,
    test_world::{World, json_answer, stall},
};

fn server(name: &str) -> &ServerName {
    name.try_into().unwrap()
}

/// The world with its outbox at work.
struct Running {
    world: World,
    stop: watch::Sender<bool>,
    worker: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(world: World) -> Self {
        let (stop, stopped) = watch::channel(false);
        let core = Arc::clone(&world.core);
        let worker = tokio::spawn(async move { core.run_outbox(stopped).await });
        Self { world, stop, worker }
    }

    async fn stop(self) -> World {
        self.stop.send(true).unwrap();
        self.worker.await.unwrap();
        self.world
    }

    /// The bodies that were sent to the server.
    fn sent(&self, to: &str) -> Vec<Value> {
        let asked = self.world.peers.asked.lock();
        asked
            .iter()
            .filter(|request| request.destination == to && request.path_and_query.contains("/send/"))
            .filter_map(|request| request.body.clone())
            .collect()
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..24_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to this: {what}");
}

fn units(bodies: &[Value], kind: &str) -> Vec<Value> {
    bodies
        .iter()
        .flat_map(|body| body["edus"].as_array().cloned().unwrap_or_default())
        .filter(|unit| unit["edu_type"] == kind)
        .map(|unit| unit["content"].clone())
        .collect()
}

async fn message(world: &World, user: &ruma::UserId, room: &ruma::RoomId, body: &str) -> OwnedEventId {
    let content = json!({"msgtype": "m.text", "body": body});
    let new = NewEvent::message(room.to_owned(), user.to_owned(), "m.room.message", content);
    world.core.send_event(new).await.unwrap()
}

async fn queue_events(world: &World, to: &str, events: &[OwnedEventId]) {
    for event in events {
        let mut batch = Batch::new();
        let index = batch.reserve_position();
        world.core.write_outbox_event(&mut batch, server(to), event, index).unwrap();
        world.core.commit(batch).await.unwrap();
    }
}

#[tokio::test]
async fn only_the_last_word_on_typing_and_presence_is_told() {
    let world = World::new();
    let alice = world.user("alice").await;
    let room = OwnedRoomId::try_from("!ward:us.example").unwrap();
    for typing in [true, false, true, false] {
        let word = json!({"room_id": room, "user_id": alice, "typing": typing});
        world.core.tell_in_passing(server("them.example"), Subject::Typing(room.clone(), alice.clone()), word);
    }
    for presence in ["online", "unavailable"] {
        let word = json!({"user_id": alice, "presence": presence});
        world.core.tell_in_passing(server("them.example"), Subject::Presence(alice.clone()), word);
    }
    world.answer(|_| json_answer(&json!({"pdus": {}})));
    let running = Running::start(world);
    until("something is sent", || !running.sent("them.example").is_empty()).await;
    let sent = running.sent("them.example");
    assert_eq!(units(&sent, "m.typing"), [json!({"room_id": room, "user_id": alice, "typing": false})]);
    let push = json!({"push": [{"user_id": alice, "presence": "unavailable"}]});
    assert_eq!(units(&sent, "m.presence"), [push]);
    running.stop().await;
}

#[tokio::test]
async fn typing_does_not_outlive_an_outage_and_messages_do() {
    let world = World::new();
    let alice = world.user("alice").await;
    let room = world.room(&[&alice]).await;
    let event = message(&world, &alice, &room, "hello").await;
    queue_events(&world, "them.example", std::slice::from_ref(&event)).await;
    let typing = || Subject::Typing(room.clone(), alice.clone());
    world.core.tell_in_passing(server("them.example"), typing(), json!({"typing": true}));
    let running = Running::start(world);
    let core = Arc::clone(&running.world.core);
    until("the peer is waited for", || core.outbox.waiting_count() == 1).await;
    core.tell_in_passing(server("them.example"), typing(), json!({"typing": true}));
    running.world.answer(|_| json_answer(&json!({"pdus": {}})));
    running.world.peers.asked.lock().clear();
    core.retry_peer(server("them.example")).await.unwrap();
    until("the message is sent", || !running.sent("them.example").is_empty()).await;
    let sent = running.sent("them.example");
    assert_eq!(sent[0]["pdus"].as_array().unwrap().len(), 1);
    assert!(units(&sent, "m.typing").is_empty());
    running.stop().await;
}

#[tokio::test]
async fn of_many_receipts_the_last_is_told_for_each_reader() {
    let world = World::new();
    let alice = world.user("alice").await;
    let bob = world.user("bob").await;
    let room = world.room(&[&alice, &bob]).await;
    let mut last = None;
    for number in 0..5 {
        let event = message(&world, &alice, &room, &number.to_string()).await;
        for reader in [&alice, &bob] {
            world.core.read_up_to(reader, &room, "m.read", &event, None).await.unwrap();
            let mut batch = Batch::new();
            world.core.queue_receipt(&mut batch, server("them.example"), &room, reader, None);
            world.core.commit(batch).await.unwrap();
        }
        last = Some(event);
    }
    world.answer(|_| json_answer(&json!({"pdus": {}})));
    let running = Running::start(world);
    until("something is sent", || !running.sent("them.example").is_empty()).await;
    let told = units(&running.sent("them.example"), "m.receipt");
    assert_eq!(told.len(), 1);
    for reader in [&alice, &bob] {
        assert_eq!(told[0][room.as_str()]["m.read"][reader.as_str()]["event_ids"], json!([last]));
    }
    let core = Arc::clone(&running.world.core);
    until("the queue is empty", || core.queue_length(server("them.example"), 10).unwrap() == 0).await;
    running.stop().await;
}

#[tokio::test]
async fn after_an_outage_each_event_is_sent_once_and_no_room_waits_for_another() {
    let world = World::new();
    let alice = world.user("alice").await;
    let busy = world.room(&[&alice]).await;
    let quiet = world.room(&[&alice]).await;
    let mut expected = Vec::new();
    for number in 0..260 {
        expected.push(message(&world, &alice, &busy, &number.to_string()).await);
    }
    queue_events(&world, "them.example", &expected).await;
    let news = message(&world, &alice, &quiet, "news").await;
    queue_events(&world, "them.example", std::slice::from_ref(&news)).await;
    world.answer(|_| json_answer(&json!({"pdus": {}})));
    let running = Running::start(world);
    let core = Arc::clone(&running.world.core);
    until("the queue is empty", || core.queue_length(server("them.example"), 10).unwrap() == 0).await;
    let sent = running.sent("them.example");
    let bodies = |room: &ruma::RoomId| -> Vec<Value> {
        let events = sent.iter().flat_map(|body| body["pdus"].as_array().unwrap());
        events.filter(|event| event["room_id"] == room.as_str()).map(|event| event["content"]["body"].clone()).collect()
    };
    let numbers: Vec<Value> = (0..260).map(|number: i32| number.to_string().into()).collect();
    assert_eq!(bodies(&busy), numbers, "in the order of the graph, each once");
    assert_eq!(bodies(&quiet), ["news"]);
    assert_eq!(sent[0]["pdus"][0]["room_id"], quiet.as_str(), "the room that spoke last comes first");
    running.stop().await;
}

#[tokio::test]
async fn waiting_goes_on_over_a_restart_and_ends_when_the_peer_is_heard_from() {
    let world = World::new();
    let alice = world.user("alice").await;
    let room = world.room(&[&alice]).await;
    let event = message(&world, &alice, &room, "hello").await;
    queue_events(&world, "them.example", &[event]).await;
    let running = Running::start(world);
    let core = Arc::clone(&running.world.core);
    until("the peer is waited for", || core.outbox.waiting_count() == 1).await;
    let report = core.peer_report(server("them.example")).unwrap();
    assert_eq!((report.failures, report.queue), (1, 1));
    assert!(report.waiting_until_ms.is_some() && !report.reason.is_empty());
    let world = running.stop().await;
    // What a new process would know.
    *world.core.outbox.schedule.lock() = super::schedule::Schedule::default();
    world.answer(|_| json_answer(&json!({"pdus": {}})));
    world.peers.asked.lock().clear();
    let running = Running::start(world);
    until("the wait is known again", || core.outbox.waiting_count() == 1).await;
    assert!(running.sent("them.example").is_empty());
    running.world.advance_ms(1_000);
    core.peer_is_back(server("them.example"));
    until("the queue is empty", || core.queue_length(server("them.example"), 10).unwrap() == 0).await;
    until("the peer is well", || core.peer_report(server("them.example")).unwrap().failures == 0).await;
    assert!(core.peer_report(server("them.example")).unwrap().last_success_ms > 0);
    running.stop().await;
}

#[tokio::test]
async fn peers_that_never_answer_take_no_place_of_the_living() {
    let world = World::new();
    let alice = world.user("alice").await;
    let room = world.room(&[&alice]).await;
    let event = message(&world, &alice, &room, "hello").await;
    for number in 0..200 {
        let name = format!("dead{number}.example");
        queue_events(&world, &name, std::slice::from_ref(&event)).await;
        let failed = super::peer::Backoff::default().after_failure(0, "it is down");
        world.core.keep_backoff(server(&name), &failed).await.unwrap();
    }
    world.answer(|request| {
        if request.destination.as_str().starts_with("dead") { stall() } else { json_answer(&json!({"pdus": {}})) }
    });
    let running = Running::start(world);
    until("the dead are tried", || running.world.peers.asked.lock().len() >= 16).await;
    queue_events(&running.world, "living.example", &[event]).await;
    running.world.core.wake_outbox(server("living.example"));
    until("the living is served", || !running.sent("living.example").is_empty()).await;
    running.stop().await;
}

#[tokio::test]
async fn a_peer_that_can_speak_but_not_be_reached_is_not_tried_with_each_word() {
    let world = World::new();
    let alice = world.user("alice").await;
    let room = world.room(&[&alice]).await;
    let event = message(&world, &alice, &room, "hello").await;
    queue_events(&world, "them.example", &[event]).await;
    world.answer(|_| Err(PeerError::Connect("refused".to_owned())));
    let running = Running::start(world);
    let core = Arc::clone(&running.world.core);
    until("the peer is waited for", || core.outbox.waiting_count() == 1).await;
    for _ in 0..100 {
        core.peer_is_back(server("them.example"));
        tokio::task::yield_now().await;
    }
    assert_eq!(running.sent("them.example").len(), 1, "its clock stands still: one try a second");
    running.stop().await;
}
