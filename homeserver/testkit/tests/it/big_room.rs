//! A room with very many members, joined through another server.
//!
//! `MATRON_BIG_ROOM=10000 cargo test -p matron-testkit --test it big_room -- --nocapture` says how long it takes.

use std::sync::Arc;

use matron_room::{Pdu, RoomVersion};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_with_very_many_members_is_joined_and_spoken_in() {
    let members = std::env::var("MATRON_BIG_ROOM").ok().and_then(|text| text.parse().ok()).unwrap_or(MEMBERS);
    let net = TestNet::new();
    let south = net.server("south.example");
    let bob = south.person("bob").await;
    let owner = net.adversary("owner.example");
    let (room, state) = room_of(&owner, members);
    let told: Arc<Vec<Value>> = Arc::new(state.iter().map(wire).collect());
    let last = state.last().unwrap();
    let authority: Vec<_> = [0, 2, 3].map(|at| state[at].event_id().to_owned()).to_vec();
    let template = json!({
        "room_version": "10",
        "event": {
            "type": "m.room.member", "room_id": room, "sender": bob.id, "state_key": bob.id,
            "content": {"membership": "join"}, "depth": last.depth() + 1,
            "prev_events": [last.event_id()], "auth_events": authority,
        },
    });
    let chain: Vec<Value> = told.iter().take(4).cloned().collect();
    owner.answers(move |question| {
        if question.is("make_join") {
            Reply::Json(template.clone())
        } else if question.is("send_join") {
            Reply::Json(
                json!({"state": *told, "auth_chain": chain, "origin": "owner.example", "members_omitted": false}),
            )
        } else if question.is("send") {
            Reply::Json(json!({"pdus": {}}))
        } else {
            Reply::Status(404)
        }
    });
    let began = std::time::Instant::now();
    let (status, answer) = bob.try_join(room.as_str(), "owner.example").await;
    assert_eq!(status, 200, "{answer}");
    let joined = began.elapsed();
    bob.say(room.as_str(), "hello").await;
    let spoken = began.elapsed();
    assert_eq!(south.room(&room).joined().len(), members + 1);
    eprintln!("{members} members: joined after {} ms, spoken after {} ms", joined.as_millis(), spoken.as_millis());
}
