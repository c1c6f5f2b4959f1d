//! An incremental sync never loses, repeats or reorders anything.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use super::{Client, Server, enc, ids, list};

/// A client that keeps what `/sync` tells it, and fills gaps as the specification says.
struct Reader {
    client: Client,
    since: Option<String>,
    filter: Value,
    timelines: BTreeMap<String, Vec<String>>,
    states: BTreeMap<String, BTreeMap<(String, String), String>>,
    gaps: usize,
}

impl Reader {
    fn new(client: Client, limit: u64) -> Self {
        Self {
            client,
            since: None,
            filter: json!({"room": {"timeline": {"limit": limit}}}),
            timelines: BTreeMap::new(),
            states: BTreeMap::new(),
            gaps: 0,
        }
    }

    fn apply(&mut self, room: &str, event: &Value) {
        if let Some(key) = event["state_key"].as_str() {
            let kind = event["type"].as_str().unwrap().to_owned();
            let id = event["event_id"].as_str().unwrap().to_owned();
            self.states.entry(room.to_owned()).or_default().insert((kind, key.to_owned()), id);
        }
    }

    async fn step(&mut self) {
        let answer = self.client.sync(self.since.as_deref(), &self.filter).await;
        let joined = answer["rooms"]["join"].as_object().cloned().unwrap_or_default();
        for (room, told) in &joined {
            for event in list(told, "/state/events") {
                self.apply(room, event);
            }
            let events = list(told, "/timeline/events");
            if told["timeline"]["limited"] == json!(true) {
                self.gaps += 1;
                let gap = self.fill(room, told["timeline"]["prev_batch"].as_str().unwrap()).await;
                self.timelines.entry(room.clone()).or_default().extend(gap);
            }
            self.timelines.entry(room.clone()).or_default().extend(ids(events));
            for event in events {
                self.apply(room, event);
            }
        }
        self.since = Some(answer["next_batch"].as_str().unwrap().to_owned());
    }

    /// What lies between the last answer and this one, oldest first.
    async fn fill(&self, room: &str, prev_batch: &str) -> Vec<String> {
        let to = self.since.as_ref().map(|since| format!("&to={since}")).unwrap_or_default();
        let mut found = Vec::new();
        let mut from = prev_batch.to_owned();
        loop {
            let path = format!("/rooms/{}/messages?dir=b&limit=7&from={from}{to}", enc(room));
            let answer = self.client.get(&path).await;
            found.extend(ids(list(&answer, "/chunk")));
            match answer["end"].as_str() {
                Some(end) => end.clone_into(&mut from),
                None => break,
            }
        }
        found.reverse();
        found
    }
}

pub(super) async fn current_state(client: &Client, room: &str) -> BTreeMap<(String, String), String> {
    let state = client.get(&format!("/rooms/{}/state", enc(room))).await;
    list(&state, "")
        .iter()
        .map(|event| {
            let text = |field: &str| event[field].as_str().unwrap().to_owned();
            ((text("type"), text("state_key")), text("event_id"))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_syncs_while_many_speak_hears_each_event_once_and_in_order() {
    const SENDERS: usize = 4;
    const EACH: usize = 30;
    let server = Server::start();
    let reader = server.user("reader").await;
    // Anyone may set state here.
    let open = json!({"preset": "public_chat", "power_level_content_override": {"state_default": 0}});
    let rooms = [reader.create(open.clone()).await, reader.create(open).await];
    let mut tasks = Vec::new();
    for number in 0..SENDERS {
        let sender = server.user(&format!("sender{number}")).await;
        for room in &rooms {
            sender.join(room).await;
        }
        let rooms = rooms.clone();
        tasks.push(tokio::spawn(async move {
            for turn in 0..EACH {
                let room = &rooms[(turn + number) % 2];
                if turn % 5 == 4 {
                    sender.state(room, "m.example.topic", &sender.user, json!({"turn": turn})).await;
                } else {
                    sender.say(room, &format!("{number} {turn}")).await;
                }
            }
        }));
    }
    let mut reader = Reader::new(reader, 3);
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        reader.step().await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    reader.step().await;
    reader.step().await;
    for room in &rooms {
        let whole = ids(&reader.client.history(room, 1000).await);
        assert_eq!(reader.timelines[room], whole);
        assert_eq!(reader.states[room], current_state(&reader.client, room).await);
    }
    let before = reader.since.clone();
    reader.step().await;
    let idle = reader.client.sync(before.as_deref(), &reader.filter).await;
    assert!(idle["rooms"].is_null(), "{idle}");
}

#[tokio::test]
async fn a_gap_between_two_syncs_is_told_as_limited_with_the_state_that_changed_in_it() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let mut reader = Reader::new(bob, 2);
    reader.step().await;
    let gaps = reader.gaps;
    alice.state(&room, "m.room.topic", "", json!({"topic": "lost in the gap"})).await;
    for number in 0..10 {
        alice.say(&room, &number.to_string()).await;
    }
    reader.step().await;
    assert_eq!(reader.gaps, gaps + 1);
    assert_eq!(reader.timelines[&room], ids(&alice.history(&room, 100).await));
    assert_eq!(reader.states[&room], current_state(&alice, &room).await);
}

#[tokio::test]
async fn the_old_event_stream_tells_all_that_was_said_oldest_first_however_much_it_is() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (busy, quiet) = (alice.public_room().await, alice.public_room().await);
    bob.join(&busy).await;
    bob.join(&quiet).await;
    // Who is there is told too, in another form than the specification gives for this stream: let it be told before.
    let first = bob.sync(None, &json!({})).await;
    bob.sync(first["next_batch"].as_str(), &json!({})).await;
    let mut from = bob.get("/events?timeout=0").await["end"].as_str().unwrap().to_owned();
    let mut said = BTreeMap::from([(busy.clone(), Vec::new()), (quiet.clone(), Vec::new())]);
    for number in 0..230 {
        let room = if number % 70 == 0 { &quiet } else { &busy };
        said.get_mut(room).unwrap().push(alice.say(room, &number.to_string()).await);
    }
    let mut heard = BTreeMap::new();
    let mut steps = 0;
    loop {
        let answer = bob.get(&format!("/events?timeout=0&from={from}")).await;
        let end = answer["end"].as_str().unwrap();
        if end == from {
            break;
        }
        steps += 1;
        for event in list(&answer, "/chunk").iter().filter(|event| event["type"] == "m.room.message") {
            let room = event["room_id"].as_str().unwrap().to_owned();
            heard.entry(room).or_insert_with(Vec::new).push(event["event_id"].as_str().unwrap().to_owned());
        }
        end.clone_into(&mut from);
    }
    assert_eq!(heard, said);
    assert!((3..10).contains(&steps), "{steps}");
}

#[tokio::test]
async fn a_room_that_is_joined_anew_is_told_from_its_state() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let first = bob.sync(None, &json!({})).await;
    bob.leave(&room).await;
    alice.state(&room, "m.room.topic", "", json!({"topic": "while away"})).await;
    let left = bob.sync(first["next_batch"].as_str(), &json!({})).await;
    let events = list(&left["rooms"]["leave"][&room], "/timeline/events");
    assert_eq!(events.last().unwrap()["content"]["membership"], "leave");
    assert!(!left.to_string().contains("while away"));
    bob.join(&room).await;
    let back = bob.sync(left["next_batch"].as_str(), &json!({"room": {"timeline": {"limit": 1}}})).await;
    let told = &back["rooms"]["join"][&room];
    assert!(list(told, "/state/events").iter().any(|event| event["content"]["topic"] == "while away"), "{told}");
}

#[tokio::test]
async fn a_waiting_sync_answers_when_something_is_said() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let since = bob.sync(None, &json!({})).await["next_batch"].as_str().unwrap().to_owned();
    // Bob's own coming online may wake him first.
    let since = bob.sync(Some(&since), &json!({})).await["next_batch"].as_str().unwrap().to_owned();
    let waiting = tokio::spawn({
        let (bob, room) = (bob.clone(), room.clone());
        async move {
            let mut since = since;
            loop {
                let answer = bob.get(&format!("/sync?timeout=20000&since={since}")).await;
                let events = list(&answer["rooms"]["join"][&room], "/timeline/events").to_vec();
                if !events.is_empty() {
                    return ids(&events);
                }
                answer["next_batch"].as_str().unwrap().clone_into(&mut since);
            }
        }
    });
    tokio::task::yield_now().await;
    let said = alice.say(&room, "now").await;
    assert_eq!(waiting.await.unwrap(), [said]);
}

#[tokio::test]
async fn a_transaction_that_is_sent_again_is_one_event_and_its_sender_knows_it() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let room = alice.public_room().await;
    let since = alice.sync(None, &json!({})).await["next_batch"].as_str().unwrap().to_owned();
    let path = format!("/rooms/{}/send/m.room.message/txn1", enc(&room));
    let first = alice.ok(Method::PUT, &path, json!({"body": "once"})).await;
    let again = alice.ok(Method::PUT, &path, json!({"body": "once"})).await;
    assert_eq!(first, again);
    let answer = alice.sync(Some(&since), &json!({})).await;
    let events = list(&answer["rooms"]["join"][&room], "/timeline/events");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["unsigned"]["transaction_id"], "txn1");
}

#[tokio::test]
async fn receipts_reach_the_others_and_private_ones_only_their_owner() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let said = alice.say(&room, "read this").await;
    let since = |answer: &Value| answer["next_batch"].as_str().unwrap().to_owned();
    let alices = since(&alice.sync(None, &json!({})).await);
    let bobs = since(&bob.sync(None, &json!({})).await);
    bob.ok(Method::POST, &format!("/rooms/{}/receipt/m.read.private/{}", enc(&room), enc(&said)), json!({})).await;
    let own = bob.sync(Some(&bobs), &json!({})).await;
    let told = list(&own["rooms"]["join"][&room], "/ephemeral/events");
    assert!(told[0]["content"][&said]["m.read.private"][&bob.user]["ts"].is_u64());
    let others = alice.sync(Some(&alices), &json!({})).await;
    assert!(!others.to_string().contains("m.read.private"));
    bob.ok(Method::POST, &format!("/rooms/{}/receipt/m.read/{}", enc(&room), enc(&said)), json!({})).await;
    let others = alice.sync(Some(&alices), &json!({})).await;
    let told = list(&others["rooms"]["join"][&room], "/ephemeral/events");
    assert!(told[0]["content"][&said]["m.read"][&bob.user]["ts"].is_u64());
}

#[tokio::test]
async fn what_was_said_while_one_was_away_stays_hidden_where_history_is_for_members() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.public_room().await;
    alice.state(&room, "m.room.history_visibility", "", json!({"history_visibility": "joined"})).await;
    bob.join(&room).await;
    let since = bob.sync(None, &json!({})).await["next_batch"].as_str().unwrap().to_owned();
    alice.say(&room, "to all").await;
    bob.leave(&room).await;
    alice.say(&room, "behind the back").await;
    bob.join(&room).await;
    alice.say(&room, "to all again").await;
    let answer = bob.sync(Some(&since), &json!({})).await.to_string();
    assert!(answer.contains("to all again") && answer.contains("to all\""), "{answer}");
    assert!(!answer.contains("behind the back"));
}
