//! History behind what a room's policy server refuses: it is looked for in bounded steps, and refused pages are not its end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use matron_core::{policy_server::KEY_ID, ports::http_method::Method, rooms::Status};
use matron_room::{RoomVersion, SigningKey, UncheckedPdu};
use matron_testkit::{Adversary, Question, Reply, TestNet, TestServer, part};
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Value, json, value::to_raw_value};

/// How many refused events lie before what south knows.
const SPAM: usize = 250;

/// South has joined a room of north's; an old word lies in it behind much that its policy server refuses.
struct Scene {
    net: Arc<TestNet>,
    north: TestServer,
    south: TestServer,
    policy: Arc<Adversary>,
    sign: Sign,
    room: OwnedRoomId,
    old: OwnedEventId,
    /// The oldest event that south has: everything before is refused, up to the old word.
    oldest: String,
}

/// The policy server's judgement.
#[derive(Clone)]
struct Sign {
    key: SigningKey,
    version: &'static RoomVersion,
    net: Arc<TestNet>,
    /// How many refusals were given.
    refused: Arc<AtomicUsize>,
    /// Each takes a second.
    is_slow: Arc<AtomicBool>,
}

impl Sign {
    fn answer(&self, question: &Question) -> Reply {
        if question.body["content"]["body"].as_str().is_some_and(|body| body.starts_with("spam")) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            if self.is_slow.load(Ordering::SeqCst) {
                self.net.clock().advance_ms(1_000);
            }
            return Reply::Status(400);
        }
        let event = UncheckedPdu::parse(&to_raw_value(&question.body).unwrap(), self.version).unwrap().trust_own();
        Reply::Json(json!({"policy.example": {KEY_ID: event.signature_by(&self.key).unwrap()}}))
    }
}

impl Scene {
    async fn new() -> Self {
        let net = TestNet::new();
        let (north, south) = (net.server("north.example"), net.server("south.example"));
        let (alice, bob) = (north.person("alice").await, south.person("bob").await);
        let policy = net.adversary("policy.example");
        policy.answers(|_| Reply::Json(json!({})));
        let room = alice.room(json!({"preset": "public_chat"})).await;
        policy.join(&north, &room, "judge").await;
        let old = alice.say(room.as_str(), "an old word").await.try_into().unwrap();
        for number in 0..SPAM {
            alice.say(room.as_str(), &format!("spam {number}")).await;
        }
        let key = SigningKey::from_seed("policy_server", &[1; 32]).unwrap();
        let path = format!("/v3/rooms/{}/state/m.room.policy/", part(room.as_str()));
        let named = json!({"via": "policy.example", "public_keys": {"ed25519": key.verify_key().to_base64()}});
        let named = alice.put(&path, named).await;
        let oldest = named["event_id"].as_str().unwrap().to_owned();
        let version = north.room(&room).version();
        let sign = Sign { key, version, net: Arc::clone(&net), refused: Arc::default(), is_slow: Arc::default() };
        let judge = sign.clone();
        policy.answers(
            move |question| {
                if question.path.ends_with("/sign") { judge.answer(question) } else { Reply::Json(json!({})) }
            },
        );
        assert_eq!(bob.try_join(room.as_str(), "north.example").await.0, 200);
        let scene = Self { net, north, south, policy, sign, room, old, oldest };
        assert_eq!(scene.look(1).await, 1, "the event that names the policy server");
        scene
    }

    /// South looks for history once, in pages of so many events; gives how many it found.
    async fn look(&self, limit: usize) -> usize {
        self.south.core.backfill(&self.room, limit).await.unwrap()
    }

    fn refused(&self) -> usize {
        self.sign.refused.load(Ordering::SeqCst)
    }

    fn assert_found(&self, found: usize) {
        assert!(found > 0);
        assert_eq!(self.south.status(&self.old), Some(Status::Accepted));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_behind_refused_pages_ends_after_so_many_and_after_half_a_minute_and_the_next_goes_on() {
    let scene = Scene::new().await;
    // Somebody else of the room waits while one looks.
    scene.sign.is_slow.store(true, Ordering::SeqCst);
    assert_eq!(scene.look(50).await, 0);
    assert_eq!(scene.refused(), 50, "the time was over with the first page");
    scene.sign.is_slow.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(scene.look(10).await, 0);
        assert_eq!(scene.refused(), 100, "ten pages; and what was refused is not asked about again");
    }
    scene.assert_found(scene.look(50).await);
    assert_eq!(scene.refused(), SPAM);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_has_nothing_behind_refused_pages_does_not_end_the_rooms_history() {
    let scene = Scene::new().await;
    // The policy server has one page to tell, as it had it from north, and nothing before that.
    let ask = async |path: String| {
        let (status, answer) = scene.policy.ask(&scene.north.name, Method::Get, &path, None).await;
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let (room, oldest) = (part(scene.room.as_str()), part(&scene.oldest));
    let page = ask(format!("/_matrix/federation/v1/backfill/{room}?v={oldest}&limit=51")).await;
    let state: Value = ask(format!("/_matrix/federation/v1/state_ids/{room}?event_id={oldest}")).await;
    let (sign, told) = (scene.sign.clone(), AtomicBool::new(false));
    scene.policy.answers(move |question| {
        if question.is("backfill") {
            let first = !told.swap(true, Ordering::SeqCst);
            Reply::Json(if first { page.clone() } else { json!({"pdus": []}) })
        } else if question.is("state_ids") {
            Reply::Json(state.clone())
        } else if question.path.ends_with("/sign") {
            sign.answer(question)
        } else {
            Reply::Json(json!({}))
        }
    });
    scene.net.cut_off(&scene.north, true);
    scene.policy.take_questions();
    assert_eq!(scene.look(50).await, 0);
    let asked = scene.policy.take_questions();
    assert_eq!(asked.iter().filter(|question| question.is("backfill")).count(), 2);
    scene.net.heal();
    scene.assert_found(scene.look(50).await);
}
