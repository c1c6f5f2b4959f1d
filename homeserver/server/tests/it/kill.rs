//! `kill -9` at any time loses nothing that was acknowledged and leaves nothing half done.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;

use crate::support::{Home, Server, request};

/// How often the server is killed.
const KILLS: u64 = 20;
/// How many clients write at once.
const WRITERS: usize = 3;

/// What the server has acknowledged: transaction id to event id.
type Acknowledged = Arc<Mutex<BTreeMap<String, String>>>;

#[test]
fn no_acknowledged_message_is_lost_in_twenty_kills() {
    let home = Home::new();
    let server = home.start();
    let token = server.register("amira", "a long password");
    let room = server.create_room(&token);
    let acknowledged = Acknowledged::default();
    let mut server = server;
    for round in 0..KILLS {
        kill_while_writing(server, &room, &token, round, &acknowledged);
        server = home.start();
        check(&server, &room, &token, &acknowledged);
    }
    let written = acknowledged.lock().unwrap().len();
    assert!(written > usize::try_from(KILLS).unwrap(), "only {written} messages were written between the kills");
}

/// Clients write until the server dies under them.
fn kill_while_writing(server: Server, room: &str, token: &str, round: u64, acknowledged: &Acknowledged) {
    let before = acknowledged.lock().unwrap().len();
    let dead = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (address, room, token) = (server.address.clone(), room.to_owned(), token.to_owned());
            let (dead, acknowledged) = (Arc::clone(&dead), Arc::clone(acknowledged));
            thread::spawn(move || {
                for number in 0_u32.. {
                    if dead.load(Ordering::Relaxed) {
                        break;
                    }
                    let txn = format!("r{round}w{writer}n{number}");
                    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{txn}", encoded(&room));
                    let body = json!({"msgtype": "m.text", "body": txn});
                    let Ok(reply) = request(&address, "PUT", &path, Some(&token), Some(&body)) else { break };
                    assert_eq!(reply.status, 200, "{}", reply.body);
                    let event_id = reply.json()["event_id"].as_str().unwrap().to_owned();
                    acknowledged.lock().unwrap().insert(txn, event_id);
                }
            })
        })
        .collect();
    // At least one write, then a moment that differs from round to round.
    crate::support::wait_until("a write is acknowledged", || acknowledged.lock().unwrap().len() > before);
    thread::sleep(Duration::from_millis(round * 7 % 60));
    server.kill();
    dead.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
}

fn check(server: &Server, room: &str, token: &str, acknowledged: &Acknowledged) {
    let timeline = timeline(server, room, token);
    for (txn, event_id) in &*acknowledged.lock().unwrap() {
        assert_eq!(timeline.get(event_id), Some(txn), "{txn} was acknowledged as {event_id} and is not in the room");
    }
    // A message that was written but not acknowledged may be there: whole, and once.
    let mut bodies: Vec<_> = timeline.values().collect();
    bodies.sort();
    let count = bodies.len();
    bodies.dedup();
    assert_eq!(bodies.len(), count, "a message is in the room twice");
    // The newest transaction of each kind answers with the event that it made, not with another.
    let newest = acknowledged.lock().unwrap().iter().next_back().map(|(txn, event)| (txn.clone(), event.clone()));
    if let Some((txn, event_id)) = newest {
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{txn}", encoded(room));
        let again = server.put(&path, Some(token), &json!({"msgtype": "m.text", "body": txn}));
        assert_eq!(again.json()["event_id"], json!(event_id), "a transaction was forgotten");
    }
}

/// Every message of the room: event id to body.
fn timeline(server: &Server, room: &str, token: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut from = String::new();
    loop {
        let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=500{from}", encoded(room));
        let reply = server.get(&path, Some(token));
        assert_eq!(reply.status, 200, "{}", reply.body);
        let page = reply.json();
        for event in page["chunk"].as_array().unwrap() {
            if event["type"] == "m.room.message" {
                let id = event["event_id"].as_str().unwrap().to_owned();
                let body = event["content"]["body"].as_str().expect("a message without its content").to_owned();
                assert!(found.insert(id, body).is_none(), "an event came twice");
            }
        }
        match page["end"].as_str() {
            Some(end) if !page["chunk"].as_array().unwrap().is_empty() => from = format!("&from={end}"),
            _ => return found,
        }
    }
}

fn encoded(room: &str) -> String {
    room.replace('!', "%21").replace(':', "%3A").replace('/', "%2F").replace('+', "%2B")
}
