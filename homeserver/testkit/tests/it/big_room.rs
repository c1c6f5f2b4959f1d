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

use matron_room::RoomVersion;
use matron_storage::{Key, Order, Table};
use matron_testkit::{Adversary, Crowd, TestNet};
use serde_json::json;

/// How many members the test command takes.
const MEMBERS: usize = 400;

fn crowd(owner: &Arc<Adversary>, members: usize) -> Crowd {
    Crowd::of(owner, RoomVersion::find("10").unwrap(), members)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_with_very_many_members_is_joined_and_spoken_in() {
    let members = std::env::var("MATRON_BIG_ROOM").ok().and_then(|text| text.parse().ok()).unwrap_or(MEMBERS);
    let net = TestNet::new();
    let south = net.server("south.example");
    let bob = south.person("bob").await;
    let owner = net.adversary("owner.example");
    let crowd = crowd(&owner, members);
    let room = &crowd.room;
    let answer = crowd.whole();
    crowd.let_in(&bob.id, move || answer.clone());
    let began = std::time::Instant::now();
    let (status, answer) = bob.try_join(room.as_str(), "owner.example").await;
    assert_eq!(status, 200, "{answer}");
    let joined = began.elapsed();
    bob.say(room.as_str(), "hello").await;
    let spoken = began.elapsed();
    assert_eq!(south.room(room).joined().len(), members + 1);
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
    let crowd = crowd(&owner, 3);
    let room = &crowd.room;
    let mut answer = crowd.whole();
    answer["auth_chain"].as_array_mut().unwrap().extend(std::iter::repeat_n(json!({}), 100_000));
    crowd.let_in(&bob.id, move || answer.clone());
    let (status, answer) = bob.try_join(room.as_str(), "owner.example").await;
    assert_ne!(status, 200, "{answer}");
    assert!(south.core.find_room(room).unwrap().is_none());
}

#[tokio::test]
async fn a_join_that_failed_half_way_is_no_hindrance_to_the_next() {
    let net = TestNet::new();
    let south = net.server("south.example");
    let bob = south.person("bob").await;
    let owner = net.adversary("owner.example");
    let crowd = crowd(&owner, MEMBERS);
    let room = &crowd.room;
    // At first without the rule that lets the user in: the events are known then, and the room is not.
    let mut part = crowd.whole();
    part["state"].as_array_mut().unwrap().remove(3);
    let mut answers = vec![crowd.whole(), part];
    crowd.let_in(&bob.id, move || answers.pop().unwrap());
    let (status, answer) = bob.try_join(room.as_str(), "owner.example").await;
    assert_eq!(status, 403, "{answer}");
    assert!(south.core.find_room(room).unwrap().is_none());
    assert!(south.core.load_event(crowd.state[5].event_id()).unwrap().is_some());

    let (status, answer) = bob.try_join(room.as_str(), "owner.example").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(south.room(room).joined().len(), MEMBERS + 1);
    bob.say(room.as_str(), "hello").await;
}

#[tokio::test]
async fn a_join_goes_on_when_the_client_hangs_up() {
    let net = TestNet::new();
    let south = net.server("south.example");
    let bob = south.person("bob").await;
    let owner = net.adversary("owner.example");
    let crowd = crowd(&owner, MEMBERS);
    let room = &crowd.room;
    let asked = Arc::new(AtomicBool::new(false));
    let (answer, told) = (crowd.whole(), Arc::clone(&asked));
    crowd.let_in(&bob.id, move || {
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
        while south.core.find_room(room).unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), here).await.expect("the room did not come");
    assert_eq!(south.room(room).joined().len(), MEMBERS + 1);
}
