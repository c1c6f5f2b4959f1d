//! Prints what it takes to join a large room and to merge two branches of it that parted long ago.
//!
//! `cargo run --release -p matron-testkit --example merge_bench -- [members] [state events on each branch]`
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for a developer's eyes")]

use std::time::Instant;

use matron_room::{Pdu, RoomVersion};
use matron_testkit::{Adversary, Crowd, Draft, TestNet, TestServer};
use serde_json::json;

/// How many events one transaction carries.
const AT_ONCE: usize = 50;

#[tokio::main]
async fn main() {
    let mut sizes = std::env::args().skip(1).map(|size| size.parse().unwrap());
    let (members, length) = (sizes.next().unwrap_or(10_000), sizes.next().unwrap_or(1_000));
    let net = TestNet::new();
    let south = net.server("south.example");
    let bob = south.person("bob").await;
    let owner = net.adversary("owner.example");
    let version = RoomVersion::find("11").unwrap();
    let crowd = Crowd::of(&owner, version, members);
    let room = &crowd.room;
    let answer = crowd.whole();
    crowd.let_in(&bob.id, move || answer.clone());

    let began = Instant::now();
    let (status, answer) = bob.try_join(room.as_str(), "owner.example").await;
    assert_eq!(status, 200, "{answer}");
    println!("{members} members: joined after {:?}", began.elapsed());

    let joined = south.ends(room).pop_first().unwrap();
    let joined = south.core.load_event(&joined).unwrap().unwrap().pdu.clone();
    let left = branch(&owner, &crowd, &joined, "left", length);
    let right = branch(&owner, &crowd, &joined, "right", length);
    hear(&owner, &south, "the first branch", &left).await;
    hear(&owner, &south, "the second branch, beside the first", &right).await;
    let ends = [left.last().unwrap(), right.last().unwrap()];
    let merge = Draft::message(version, room, &crowd.member(0), "merged")
        .after(ends)
        .authorised_by(crowd.authority(0))
        .seal(owner.key(), owner.name());
    hear(&owner, &south, "the message that merges them", std::slice::from_ref(&merge)).await;
    assert!(south.ends(room).contains(merge.event_id()));
}

/// A branch from the room as it was when it was joined: the same pieces of state on each, with other values.
fn branch(owner: &Adversary, crowd: &Crowd, joined: &Pdu, name: &str, length: usize) -> Vec<Pdu> {
    let member = usize::from(name == "right");
    let mut last = joined.clone();
    let mut events = Vec::with_capacity(length);
    for number in 0..length {
        let content = json!({"value": format!("{name} {number}")});
        last = Draft::new(last.room_version(), joined.room_id(), &crowd.member(member), "org.example.bench", content)
            .state_key(&number.to_string())
            .after([&last])
            .authorised_by(crowd.authority(member))
            .seal(owner.key(), owner.name());
        events.push(last.clone());
    }
    events
}

/// The server receives the events; says how long each took.
async fn hear(owner: &Adversary, server: &TestServer, what: &str, events: &[Pdu]) {
    let began = Instant::now();
    for events in events.chunks(AT_ONCE) {
        let errors = owner.push(server, events).await;
        for event in events {
            assert_eq!(errors[event.event_id().as_str()], json!({}), "{errors}");
        }
    }
    let each = began.elapsed() / u32::try_from(events.len()).unwrap();
    println!("{what}: {} events, {each:?} each, {:?} together", events.len(), began.elapsed());
}
