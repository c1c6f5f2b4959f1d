//! Events of one transaction that follow each other share their way to the disk; nothing else about them changes.

use std::{sync::Arc, time::Duration};

use matron_core::rooms::Status;
use matron_room::Pdu;
use matron_testkit::{Adversary, Draft, Foothold, Person, Reply, TestNet, TestServer};
use ruma::OwnedRoomId;
use serde_json::{Value, json};

struct Scene {
    _net: Arc<TestNet>,
    north: TestServer,
    alice: Person,
    room: OwnedRoomId,
    peer: Arc<Adversary>,
    foothold: Foothold,
}

impl Scene {
    async fn new() -> Self {
        let net = TestNet::new();
        let north = net.server("north.example");
        let alice = north.person("alice").await;
        let room = alice.room(json!({"preset": "public_chat", "room_version": "11"})).await;
        let peer = net.adversary("peer.example");
        peer.answers(|_| Reply::Json(json!({})));
        let foothold = peer.join(&north, &room, "bob").await;
        Self { _net: net, north, alice, room, peer, foothold }
    }

    /// A message behind another event.
    fn says(&self, text: &str, after: &Pdu) -> Pdu {
        self.foothold.message(text).after([after]).seal(self.peer.key(), self.peer.name())
    }

    fn is(&self, event: &Pdu) -> Option<Status> {
        self.north.status(event.event_id())
    }

    /// The texts of the messages that Alice has been told since then, in their order.
    async fn heard(&self, since: &mut String) -> Vec<String> {
        let (events, next) = self.alice.timeline_since(self.room.as_str(), since).await;
        *since = next;
        events.iter().filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
    }
}

fn wire(event: &Pdu) -> Value {
    serde_json::from_str(event.json().get()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_each_other_in_a_transaction_is_judged_as_if_it_came_alone() {
    let scene = Scene::new().await;
    let mut since = scene.alice.now().await;
    let sealed = |draft: Draft| draft.seal(scene.peer.key(), scene.peer.name());

    let one = scene.says("one", &scene.foothold.join);
    let two = scene.says("two", &one);
    // Signed by nobody who could.
    let forged = scene.foothold.message("forged").after([&two]).seal(scene.peer.key(), &scene.north.name);
    // Nothing authorises it.
    let bare = sealed(scene.foothold.message("bare").after([&two]).authorised_by(Vec::new()));
    let three = scene.says("three", &two);
    // A fork: it does not follow the end.
    let beside = scene.says("beside", &one);
    let both = sealed(scene.foothold.message("both").after([&three, &beside]));
    // State in between, and what follows it.
    let named = json!({"membership": "join", "displayname": "Robert"});
    let user = scene.foothold.user.clone();
    let renamed = sealed(scene.foothold.state("m.room.member", user.as_str(), named).after([&both]));
    let four = scene.says("four", &renamed);
    let five = scene.says("five", &four);

    let events = [&one, &two, &two, &forged, &bare, &three, &one, &beside, &both, &renamed, &four, &five];
    let answer = scene.peer.push(&scene.north, events).await;
    for event in [&one, &two, &three, &beside, &both, &renamed, &four, &five] {
        assert_eq!(answer[event.event_id().as_str()], json!({}), "{answer}");
        assert_eq!(scene.is(event), Some(Status::Accepted), "{}", event.json());
    }
    assert!(answer[forged.event_id().as_str()]["error"].is_string(), "{answer}");
    assert_eq!(scene.is(&forged), None);
    assert_eq!(scene.is(&bare), Some(Status::Rejected));
    let heard = scene.heard(&mut since).await;
    assert_eq!(heard, ["one", "two", "three", "beside", "both", "four", "five"]);

    // Ours follows theirs, and theirs ours.
    let ours = scene.alice.say(scene.room.as_str(), "ours").await;
    let six = sealed(scene.foothold.message("six").after_ids(vec![ours.try_into().unwrap()]).depth(60));
    let seven = scene.says("seven", &six);
    scene.peer.push(&scene.north, [&six, &seven]).await;
    assert_eq!(scene.heard(&mut since).await, ["ours", "six", "seven"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_hangs_up_leaves_no_event_half_told() {
    let scene = Scene::new().await;
    let mut since = scene.alice.now().await;
    let mut last = scene.foothold.join.clone();
    let (mut expected, mut heard) = (Vec::new(), Vec::new());
    for round in 0..20_u64 {
        let mut events = Vec::new();
        for number in 0..10 {
            let text = format!("{round}.{number}");
            last = scene.says(&text, &last);
            events.push(wire(&last));
            expected.push(text);
        }
        let mut sending = Box::pin(scene.peer.transact(&scene.north.name, events.clone(), Vec::new()));
        for _ in 0..round {
            // Long enough to set out, mostly too short to be answered.
            if futures_util::poll!(&mut sending).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(sending);
        // It asks again, as peers do: whatever is on its way then is taken once.
        let (status, answer) = scene.peer.transact(&scene.north.name, events, Vec::new()).await;
        assert_eq!(status, 200, "{answer}");
    }
    let all = async {
        while heard.len() < expected.len() {
            heard.extend(scene.heard(&mut since).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("somebody was not told");
    assert_eq!(heard, expected);
}
