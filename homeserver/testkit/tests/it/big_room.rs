//! A room with very many members, joined through another server.
//!
//! `MATRON_BIG_ROOM=10000 cargo test -p matron-testkit --test it big_room -- --nocapture` says how long it takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use matron_room::{Pdu, RoomVersion};
use matron_storage::{Key, Order, Table};
use matron_testkit::{Adversary, Draft, Reply, TestNet};
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

/// How many members the test command takes.
const MEMBERS: usize = 400;

fn wire(event: &Pdu) -> Value {
    serde_json::from_str(event.json().get()).unwrap()
}

/// A public room of the other server with so many members.
fn room_of(owner: &Adversary, members: usize) -> (OwnedRoomId, Vec<Pdu>) {
    let version = RoomVersion::find("10").unwrap();
    let room = OwnedRoomId::try_from(format!("!big:{}", owner.name())).unwrap();
    let user = |number: usize| OwnedUserId::try_from(format!("@user{number}:{}", owner.name())).unwrap();
    let creator = user(0);
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
    let join = json!({"membership": "join"});
    add(&creator, "m.room.create", "", json!({"creator": creator, "room_version": "10"}), &[]);
    add(&creator, "m.room.member", creator.as_str(), join.clone(), &[0]);
    add(&creator, "m.room.power_levels", "", json!({"users": {creator.as_str(): 100}}), &[0, 1]);
    add(&creator, "m.room.join_rules", "", json!({"join_rule": "public"}), &[0, 1, 2]);
    for number in 1..members {
        let member = user(number);
        add(&member, "m.room.member", member.as_str(), join.clone(), &[0, 2, 3]);
    }
    (room, state)
}

/// The other server lets everyone in: what it answers to a `send_join` of this user.
fn let_in(
    owner: &Adversary,
    (room, state): (&OwnedRoomId, &[Pdu]),
    user: &str,
    mut answer: impl FnMut() -> Value + Send + 'static,
) {
    let last = state.last().unwrap();
    let authority: Vec<_> = [0, 2, 3].map(|at| state[at].event_id().to_owned()).to_vec();
    let template = json!({
        "room_version": "10",
        "event": {
            "type": "m.room.member", "room_id": room, "sender": user, "state_key": user,
            "content": {"membership": "join"}, "depth": last.depth() + 1,
            "prev_events": [last.event_id()], "auth_events": authority,
        },
    });
    owner.answers(move |question| {
        if question.is("make_join") {
            Reply::Json(template.clone())
        } else if question.is("send_join") {
            Reply::Json(answer())
        } else if question.is("send") {
            Reply::Json(json!({"pdus": {}}))
        } else {
            Reply::Status(404)
        }
    });
}

/// The whole room, as `send_join` gives it.
fn whole(state: &[Pdu]) -> Value {
    let told: Vec<Value> = state.iter().map(wire).collect();
    let chain: Vec<Value> = told.iter().take(4).cloned().collect();
    json!({"state": told, "auth_chain": chain, "origin": "owner.example", "members_omitted": false})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_with_very_many_members_is_joined_and_spoken_in() {
    let members = std::env::var("MATRON_BIG_ROOM").ok().and_then(|text| text.parse().ok()).unwrap_or(MEMBERS);
    let net = TestNet::new();
    let south = net.server("south.example");
    let bob = south.person("bob").await;
    let owner = net.adversary("owner.example");
    let (room, state) = room_of(&owner, members);
    let answer = whole(&state);
    let_in(&owner, (&room, &state), &bob.id, move || answer.clone());
    let began = std::time::Instant::now();
    let (status, answer) = bob.try_join(room.as_str(), "owner.example").await;
    assert_eq!(status, 200, "{answer}");
    let joined = began.elapsed();
    bob.say(room.as_str(), "hello").await;
    let spoken = began.elapsed();
    assert_eq!(south.room(&room).joined().len(), members + 1);
    eprintln!("{members} members: joined after {} ms, spoken after {} ms", joined.as_millis(), spoken.as_millis());

    // The state is stored whole once, and the one after the join as what it changes.
    let groups = south.core.store.scan(Table::RoomStateGroup, &Key::new().prefix(), Order::Ascending, 100).unwrap();
    let mut sizes: Vec<usize> = groups.iter().map(|(_, row)| row.len()).collect();
    sizes.sort_unstable();
    let largest = sizes.pop().unwrap();
    assert!(sizes.iter().sum::<usize>() < largest / 2, "{sizes:?} beside {largest}");
}

#[tokio::test]
async fn a_room_larger_than_this_server_takes_is_not_joined_in_part() {
    let net = TestNet::new();
    let south = net.server("south.example");
    let bob = south.person("bob").await;
    let owner = net.adversary("owner.example");
    let (room, state) = room_of(&owner, 3);
    let mut answer = whole(&state);
    answer["auth_chain"].as_array_mut().unwrap().extend(std::iter::repeat_n(json!({}), 100_000));
    let_in(&owner, (&room, &state), &bob.id, move || answer.clone());
    let (status, answer) = bob.try_join(room.as_str(), "owner.example").await;
    assert_ne!(status, 200, "{answer}");
    assert!(south.core.find_room(&room).unwrap().is_none());
}

#[tokio::test]
async fn a_join_that_failed_half_way_is_no_hindrance_to_the_next() {
    let net = TestNet::new();
    let south = net.server("south.example");
    let bob = south.person("bob").await;
    let owner = net.adversary("owner.example");
    let (room, state) = room_of(&owner, MEMBERS);
    // At first without the rule that lets the user in: the events are known then, and the room is not.
    let mut part = whole(&state);
    part["state"].as_array_mut().unwrap().remove(3);
    let mut answers = vec![whole(&state), part];
    let_in(&owner, (&room, &state), &bob.id, move || answers.pop().unwrap());
    let (status, answer) = bob.try_join(room.as_str(), "owner.example").await;
    assert_eq!(status, 403, "{answer}");
    assert!(south.core.find_room(&room).unwrap().is_none());
    assert!(south.core.load_event(state[5].event_id()).unwrap().is_some());

    let (status, answer) = bob.try_join(room.as_str(), "owner.example").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(south.room(&room).joined().len(), MEMBERS + 1);
    bob.say(room.as_str(), "hello").await;
}

#[tokio::test]
async fn a_join_goes_on_when_the_client_hangs_up() {
    let net = TestNet::new();
    let south = net.server("south.example");
    let bob = south.person("bob").await;
    let owner = net.adversary("owner.example");
    let (room, state) = room_of(&owner, MEMBERS);
    let asked = Arc::new(AtomicBool::new(false));
    let (answer, told) = (whole(&state), Arc::clone(&asked));
    let_in(&owner, (&room, &state), &bob.id, move || {
        told.store(true, Ordering::SeqCst);
        answer.clone()
    });
    let mut joining = Box::pin(bob.try_join(room.as_str(), "owner.example"));
    // The other server takes the user for joined as soon as it was asked.
    while !asked.load(Ordering::SeqCst) {
        let _ = futures_util::poll!(&mut joining);
        tokio::task::yield_now().await;
    }
    drop(joining);
    let here = async {
        while south.core.find_room(&room).unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), here).await.expect("the room did not come");
    assert_eq!(south.room(&room).joined().len(), MEMBERS + 1);
}
