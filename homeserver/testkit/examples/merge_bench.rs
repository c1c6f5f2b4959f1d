//! Prints what it takes to join a large room and to merge two branches of it that parted long ago.
//!
//! `cargo run --release -p matron-testkit --example merge_bench -- [members] [state events on each branch]`
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for a developer's eyes")]

use std::{sync::Arc, time::Instant};

use matron_room::{Pdu, RoomVersion};
use matron_testkit::{Adversary, Draft, Reply, TestNet, TestServer};
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

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
    let (room, state) = room_of(&owner, members);
    let_in(&owner, &room, &state, &bob.id);

    let began = Instant::now();
    let (status, answer) = bob.try_join(room.as_str(), "owner.example").await;
    assert_eq!(status, 200, "{answer}");
    println!("{members} members: joined after {:?}", began.elapsed());

    let joined = south.ends(&room).pop_first().unwrap();
    let joined = south.core.load_event(&joined).unwrap().unwrap().pdu.clone();
    let left = branch(&owner, &joined, &state, "left", length);
    let right = branch(&owner, &joined, &state, "right", length);
    hear(&owner, &south, "the first branch", &left).await;
    hear(&owner, &south, "the second branch, beside the first", &right).await;
    let ends = [left.last().unwrap(), right.last().unwrap()];
    let merge = Draft::message(state[0].room_version(), &room, &user(&owner, 0), "merged")
        .after(ends)
        .authorised_by(authority(&state, 0))
        .seal(owner.key(), owner.name());
    hear(&owner, &south, "the message that merges them", std::slice::from_ref(&merge)).await;
    assert!(south.ends(&room).contains(merge.event_id()));
}

fn user(owner: &Adversary, number: usize) -> OwnedUserId {
    OwnedUserId::try_from(format!("@user{number}:{}", owner.name())).unwrap()
}

fn wire(event: &Pdu) -> Value {
    serde_json::from_str(event.json().get()).unwrap()
}

/// What allows a member of the room to speak and to set state: create event, power levels and own membership.
fn authority(state: &[Pdu], member: usize) -> Vec<ruma::OwnedEventId> {
    let own = if member == 0 { 1 } else { 3 + member };
    [0, 2, own].iter().map(|at| state[*at].event_id().to_owned()).collect()
}

/// A public room with so many members, of whom the first two may set state.
fn room_of(owner: &Adversary, members: usize) -> (OwnedRoomId, Vec<Pdu>) {
    let version = RoomVersion::find("11").unwrap();
    let room = OwnedRoomId::try_from(format!("!big:{}", owner.name())).unwrap();
    let mut state: Vec<Pdu> = Vec::new();
    let mut add = |sender: &OwnedUserId, kind: &str, key: &str, content: Value, authority: &[usize]| {
        let authority = authority.iter().map(|at| state[*at].event_id().to_owned()).collect();
        let draft = Draft::new(version, &room, sender, kind, content).state_key(key).authorised_by(authority);
        let draft = match state.last() {
            Some(last) => draft.after([last]),
            None => draft.depth(1),
        };
        state.push(draft.seal(owner.key(), owner.name()));
    };
    let (creator, second) = (user(owner, 0), user(owner, 1));
    let join = json!({"membership": "join"});
    let levels = json!({"users": {creator.as_str(): 100, second.as_str(): 100}});
    add(&creator, "m.room.create", "", json!({"room_version": "11"}), &[]);
    add(&creator, "m.room.member", creator.as_str(), join.clone(), &[0]);
    add(&creator, "m.room.power_levels", "", levels, &[0, 1]);
    add(&creator, "m.room.join_rules", "", json!({"join_rule": "public"}), &[0, 1, 2]);
    for number in 1..members {
        let member = user(owner, number);
        add(&member, "m.room.member", member.as_str(), join.clone(), &[0, 2, 3]);
    }
    (room, state)
}

fn let_in(owner: &Adversary, room: &OwnedRoomId, state: &[Pdu], user: &str) {
    let last = state.last().unwrap();
    let authority: Vec<_> = [0, 2, 3].map(|at| state[at].event_id().to_owned()).to_vec();
    let template = json!({
        "room_version": "11",
        "event": {
            "type": "m.room.member", "room_id": room, "sender": user, "state_key": user,
            "content": {"membership": "join"}, "depth": last.depth() + 1,
            "prev_events": [last.event_id()], "auth_events": authority,
        },
    });
    let told: Vec<Value> = state.iter().map(wire).collect();
    let chain: Vec<Value> = told.iter().take(4).cloned().collect();
    let answer = json!({"state": told, "auth_chain": chain, "origin": owner.name(), "members_omitted": false});
    let answer = Arc::new(answer.to_string().into_bytes());
    owner.answers(move |question| {
        if question.is("make_join") {
            Reply::Json(template.clone())
        } else if question.is("send_join") {
            Reply::Bytes(answer.to_vec())
        } else if question.is("send") {
            Reply::Json(json!({"pdus": {}}))
        } else {
            Reply::Status(404)
        }
    });
}

/// A branch from the room as it was when it was joined: the same pieces of state on each, with other values.
fn branch(owner: &Adversary, joined: &Pdu, state: &[Pdu], name: &str, length: usize) -> Vec<Pdu> {
    let member = usize::from(name == "right");
    let mut last = joined.clone();
    let mut events = Vec::with_capacity(length);
    for number in 0..length {
        let content = json!({"value": format!("{name} {number}")});
        last = Draft::new(last.room_version(), joined.room_id(), &user(owner, member), "org.example.bench", content)
            .state_key(&number.to_string())
            .after([&last])
            .authorised_by(authority(state, member))
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
