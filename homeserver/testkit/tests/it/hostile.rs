//! A server with a valid key that keeps no rule: nothing breaks, nothing grows without bound, honest rooms go on.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use matron_core::{ports::http_method::Method, rooms::Status};
use matron_testkit::{Adversary, Dice, Draft, Foothold, Person, Reply, TestNet, TestServer, part};
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Value, json};

/// How many questions may follow from one event.
const MOST_QUESTIONS: usize = 700;

struct Siege {
    net: Arc<TestNet>,
    north: TestServer,
    south: TestServer,
    alice: Person,
    bob: Person,
    room: OwnedRoomId,
    evil: Arc<Adversary>,
    foothold: Foothold,
}

impl Siege {
    /// Two honest servers and the adversary in one room that anyone may join.
    async fn new(version: &str) -> Self {
        let net = TestNet::new();
        let (north, south) = (net.server("north.example"), net.server("south.example"));
        let (alice, bob) = (north.person("alice").await, south.person("bob").await);
        let room = alice.room(json!({"preset": "public_chat", "room_version": version})).await;
        let (status, answer) = bob.try_join(room.as_str(), "north.example").await;
        assert_eq!(status, 200, "{answer}");
        let evil = net.adversary("evil.example");
        // What it is sent it takes, and is not asked for more.
        evil.answers(|_| Reply::Json(json!({})));
        let foothold = evil.join(&north, &room, "mallory").await;
        net.settle(&[&north, &south]).await;
        net.set_patience(Duration::from_millis(400));
        Self { net, north, south, alice, bob, room, evil, foothold }
    }

    /// What honest people say is heard, soon.
    async fn goes_on(&self, text: &str) {
        let said: OwnedEventId = self.bob.say(self.room.as_str(), text).await.try_into().unwrap();
        let heard = async {
            while self.north.status(&said).is_none() {
                self.net.clock().advance_ms(1000);
                self.south.core.wake_outbox(&self.south.name);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), heard).await.expect(text);
        assert_eq!(self.north.status(&said), Some(Status::Accepted), "{text}");
    }

    fn unknown_event(dice: &mut Dice) -> OwnedEventId {
        let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
        let id: String = (0..43).map(|_| char::from(*dice.pick(letters))).collect();
        OwnedEventId::try_from(format!("${id}")).unwrap()
    }

    fn dangling(&self, dice: &mut Dice, text: &str) -> matron_room::Pdu {
        let draft = self.foothold.message(text).after_ids(vec![Self::unknown_event(dice)]).depth(40);
        draft.seal(self.evil.key(), self.evil.name())
    }
}

fn wire(event: &matron_room::Pdu) -> Value {
    serde_json::from_str(event.json().get()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_in_answer_to_our_questions_harms_nothing() {
    let siege = Siege::new("11").await;
    let mut dice = Dice::new(1);
    let ids: Vec<_> = (0..5000).map(|_| Siege::unknown_event(&mut dice)).collect();
    let own = wire(&siege.foothold.join);
    let other_room = siege.alice.room(json!({"preset": "public_chat", "room_version": "11"})).await;
    let elsewhere: Vec<Value> =
        siege.evil.join(&siege.north, &other_room, "mallory").await.state.iter().map(wire).collect();
    let events = |events: &[Value]| json!({"pdus": events, "auth_chain": events, "events": events});
    let replies = [
        ("nothing", Reply::Stall),
        ("a closed connection", Reply::Close),
        ("500", Reply::Status(500)),
        ("404", Reply::Status(404)),
        ("half a text", Reply::Bytes(b"{\"pdus\":[".to_vec())),
        ("deep nesting", Reply::Bytes(b"[".repeat(200_000))),
        ("no text", Reply::Bytes(vec![0xff; 2_000_000])),
        ("null", Reply::Json(Value::Null)),
        ("an empty object", Reply::Json(json!({}))),
        ("other types", Reply::Json(json!({"pdus": 5, "events": {}, "auth_chain": "x", "pdu_ids": [1, null, {}]}))),
        ("ids of nothing", Reply::Json(json!({"pdu_ids": ids, "auth_chain_ids": ids}))),
        ("the same event", Reply::Json(events(&vec![own; 500]))),
        ("events of another room", Reply::Json(events(&elsewhere))),
        ("things that are no events", Reply::Json(events(&[json!({"room_id": siege.room}), json!(7), json!([])]))),
    ];
    for (what, reply) in replies {
        siege.evil.take_questions();
        siege.evil.answers(move |question| if question.is("send") { Reply::Json(json!({})) } else { reply.clone() });
        let pushed: Vec<_> = (0..3).map(|number| siege.dangling(&mut dice, &format!("{what} {number}"))).collect();
        let began = std::time::Instant::now();
        let (status, answer) =
            siege.evil.transact(&siege.north.name, pushed.iter().map(wire).collect(), Vec::new()).await;
        assert!(status == 200 || status == 0, "{what}: {status} {answer}");
        siege.goes_on(&format!("in spite of {what}")).await;
        let asked = siege.evil.take_questions().len();
        println!("{what}: {} questions, {} ms", asked, began.elapsed().as_millis());
        assert!(asked < 3 * MOST_QUESTIONS, "{what}: {asked} questions");
        for event in &pushed {
            assert_ne!(siege.north.status(event.event_id()), Some(Status::Accepted), "{what}");
        }
        // Whatever patience was lost is found again.
        siege.net.clock().advance_ms(10 * 60_000);
    }
}

#[tokio::test]
async fn nobody_speaks_in_anothers_name() {
    let siege = Siege::new("10").await;
    let (evil, foothold) = (&siege.evil, &siege.foothold);
    for person in [&siege.alice, &siege.bob] {
        let user = person.user();
        let authority = foothold.authority(&user, "m.room.message", None, &json!({}));
        let draft = Draft::message(foothold.version, &siege.room, &user, "forged").after([&foothold.join]);
        let forged = draft.authorised_by(authority).seal(evil.key(), user.server_name());
        let told = evil.push(&siege.north, [&forged]).await;
        assert!(told[forged.event_id().as_str()]["error"].is_string(), "{told}");
        assert_eq!(siege.north.status(forged.event_id()), None);
        // Signed by itself, in the name of another server's user.
        let authority = foothold.authority(&user, "m.room.message", None, &json!({}));
        let draft = Draft::message(foothold.version, &siege.room, &user, "forged").after([&foothold.join]);
        let forged = draft.authorised_by(authority).seal(evil.key(), evil.name());
        evil.push(&siege.north, [&forged]).await;
        assert_eq!(siege.north.status(forged.event_id()), None);
    }
    // Its own event, changed after it was hashed: only the skeleton is taken.
    let mut changed = wire(&foothold.message("before").seal(evil.key(), evil.name()));
    changed["content"]["body"] = json!("smuggled words");
    let (status, _) = evil.transact(&siege.north.name, vec![changed], Vec::new()).await;
    assert_eq!(status, 200);
    let (_, answer) = siege
        .alice
        .send("GET", &format!("/v3/rooms/{}/messages?dir=b&limit=100", part(siege.room.as_str())), &Value::Null)
        .await;
    assert!(!answer.to_string().contains("smuggled words"), "{answer}");
    siege.goes_on("forgeries").await;
}

#[tokio::test]
async fn lies_about_authority_are_refused_and_do_not_stick_to_honest_events() {
    let siege = Siege::new("10").await;
    let (evil, foothold) = (&siege.evil, &siege.foothold);
    // The authority of another room.
    let other = siege.alice.room(json!({"preset": "public_chat", "room_version": "10"})).await;
    let elsewhere = evil.join(&siege.north, &other, "mallory").await;
    let foreign = elsewhere.authority(&elsewhere.user, "m.room.message", None, &json!({}));
    let lie = foothold.message("by the rules of another room").authorised_by(foreign).seal(evil.key(), evil.name());
    evil.push(&siege.north, [&lie]).await;
    assert_ne!(siege.north.status(lie.event_id()), Some(Status::Accepted));
    // The authority of what was rejected.
    let levels = json!({"users": { foothold.user.as_str(): 100 }});
    let coup = foothold.state("m.room.power_levels", "", levels).seal(evil.key(), evil.name());
    evil.push(&siege.north, [&coup]).await;
    assert_eq!(siege.north.status(coup.event_id()), Some(Status::Rejected));
    let mut authority = foothold.authority(&foothold.user, "m.room.message", None, &json!({}));
    authority.retain(|id| id != foothold.state_of("m.room.power_levels", "").event_id());
    authority.push(coup.event_id().to_owned());
    let lie = foothold.message("by my own rules").after([&coup]).authorised_by(authority).seal(evil.key(), evil.name());
    evil.push(&siege.north, [&lie]).await;
    assert_eq!(siege.north.status(lie.event_id()), Some(Status::Rejected));
    assert_eq!(
        siege.north.state(&siege.room).get(&("m.room.power_levels".to_owned(), String::new())).map(|id| &**id),
        Some(foothold.state_of("m.room.power_levels", "").event_id()),
    );

    // Honest events, shown first by the adversary and without what authorises them.
    siege.net.partition(&[vec![&siege.north], vec![&siege.south]]);
    let carol = siege.south.person("carol").await;
    let (status, answer) = carol.try_join(siege.room.as_str(), "south.example").await;
    assert_eq!(status, 200, "{answer}");
    let said: OwnedEventId = carol.say(siege.room.as_str(), "I am honest").await.try_into().unwrap();
    let joined = siege.south.state(&siege.room)[&("m.room.member".to_owned(), carol.id.clone())].clone();
    let honest = |id: &OwnedEventId| siege.south.core.load_event(id).unwrap().unwrap().pdu.clone();
    let (join, message) = (honest(&joined), honest(&said));
    let shown = vec![wire(&message)];
    evil.answers(move |question| match question.is("event_auth") || question.is("state") {
        true => Reply::Json(json!({"auth_chain": shown, "pdus": shown})),
        false => Reply::Status(404),
    });
    let (status, _) = evil.transact(&siege.north.name, vec![wire(&message)], Vec::new()).await;
    assert_eq!(status, 200);
    assert_ne!(siege.north.status(&said), Some(Status::Rejected), "an honest event is damned by a liar");
    siege.net.heal();
    siege.net.settle(&[&siege.north, &siege.south]).await;
    assert_eq!(siege.north.status(join.event_id()), Some(Status::Accepted));
    assert_eq!(siege.north.status(&said), Some(Status::Accepted));
    assert_eq!(siege.north.state(&siege.room), siege.south.state(&siege.room));
}

#[tokio::test]
async fn forks_undo_nothing_that_the_room_decided() {
    let siege = Siege::new("11").await;
    let (evil, foothold) = (&siege.evil, &siege.foothold);
    let room = part(siege.room.as_str());
    let topic = |text: &str| json!({ "topic": text });
    siege.alice.put(&format!("/v3/rooms/{room}/state/m.room.topic"), topic("decided")).await;
    let banned = siege.south.core.create_user("banned", None, false).await.unwrap();
    siege.alice.post(&format!("/v3/rooms/{room}/ban"), json!({"user_id": banned})).await;
    siege.net.settle(&[&siege.north, &siege.south]).await;
    let decided = siege.north.state(&siege.room);
    for round in 0..5 {
        let forks: Vec<_> = (0..30)
            .map(|number| {
                let text = format!("fork {round} {number}");
                let draft = if number % 3 == 0 {
                    foothold.state(
                        "m.room.member",
                        foothold.user.as_str(),
                        json!({"membership": "join", "displayname": text}),
                    )
                } else {
                    foothold.message(&text)
                };
                draft.seal(evil.key(), evil.name())
            })
            .collect();
        for server in [&siege.north, &siege.south] {
            evil.push(server, &forks).await;
            assert!(server.ends(&siege.room).len() <= 20, "{} ends", server.ends(&siege.room).len());
        }
        for (key, id) in decided.iter().filter(|(key, _)| key.1 != foothold.user.as_str()) {
            assert_eq!(siege.north.state(&siege.room).get(key), Some(id), "round {round}: {key:?} was undone");
            assert_eq!(siege.south.state(&siege.room).get(key), Some(id), "round {round}: {key:?} was undone");
        }
        siege.goes_on(&format!("round {round}")).await;
    }
    for person in [&siege.alice, &siege.bob, &siege.alice] {
        person.say(siege.room.as_str(), &format!("in the end, {}", person.id)).await;
        siege.net.settle(&[&siege.north, &siege.south]).await;
    }
    assert_eq!(siege.north.ends(&siege.room), siege.south.ends(&siege.room));
    assert_eq!(siege.north.state(&siege.room), siege.south.state(&siege.room));
}

#[tokio::test]
async fn sizes_depths_and_repetitions_are_bounded() {
    let siege = Siege::new("12").await;
    let (evil, foothold, north) = (&siege.evil, &siege.foothold, &siege.north.name);
    let since = siege.alice.now().await;
    let message = foothold.message("many times").seal(evil.key(), evil.name());

    let (status, answer) = evil.transact(north, vec![wire(&message); 51], Vec::new()).await;
    assert_eq!((status, answer["errcode"].as_str()), (400, Some("M_INVALID_PARAM")), "{answer}");
    let typing = json!({"edu_type": "m.typing", "content": {}});
    let (status, _) = evil.transact(north, Vec::new(), vec![typing.clone(); 101]).await;
    assert_eq!(status, 400);
    let (status, answer) = evil.transact(north, vec![json!({"x": "y".repeat(60 << 20)})], Vec::new()).await;
    assert!(status == 413 || status == 0, "{status} {answer}");
    for body in [json!({"pdus": 5}), json!({"edus": [7]}), json!([]), json!("x"), json!({"pdus": [[[]]], "edus": []})] {
        let (status, answer) =
            evil.ask(north, Method::Put, "/_matrix/federation/v1/send/odd", Some(body.clone())).await;
        assert!(status == 200 || status == 400, "{body}: {status} {answer}");
    }
    // Everything of it is of the wrong kind.
    let odd = [
        json!({"room_id": siege.room}),
        json!({"room_id": siege.room, "type": 5, "sender": [], "content": "x", "depth": -1, "prev_events": {}, "auth_events": 1}),
        json!({"room_id": "!".repeat(300), "type": "m.room.message"}),
        json!({"room_id": siege.room, "depth": 1.5e300}),
        Value::Null,
    ];
    let (status, _) = evil.transact(north, odd.to_vec(), vec![typing; 100]).await;
    assert_eq!(status, 200);
    let mut large = wire(&message);
    large["content"]["body"] = json!("x".repeat(70_000));
    let (status, _) = evil.transact(north, vec![large], Vec::new()).await;
    assert_eq!(status, 200);

    // The same event, many times, at once and again.
    let pdus = vec![wire(&message); 50];
    let at_once = (0..6).map(|_| evil.transact_as(north, "same", pdus.clone(), Vec::new()));
    for (status, answer) in join_all(at_once).await {
        assert!(status == 200 || status == 429 || status == 0, "{status} {answer}");
    }
    evil.push(&siege.north, [&message]).await;
    assert_eq!(siege.north.status(message.event_id()), Some(Status::Accepted));
    let (told, _) = siege.alice.timeline_since(siege.room.as_str(), &since).await;
    assert_eq!(told.iter().filter(|event| event["event_id"] == message.event_id().as_str()).count(), 1);

    // Deeper than any graph can be.
    let deepest = (1 << 53) - 1;
    let deep = foothold.message("as deep as it gets").depth(deepest).seal(evil.key(), evil.name());
    evil.push(&siege.north, [&deep]).await;
    siege.alice.say(siege.room.as_str(), "still here").await;
    siege.goes_on("after the deepest event").await;
}

#[tokio::test]
async fn what_is_malformed_in_a_transaction_does_not_cost_the_rest() {
    let siege = Siege::new("11").await;
    let (evil, foothold) = (&siege.evil, &siege.foothold);
    let message = foothold.message("among junk").seal(evil.key(), evil.name());
    let mut bent = wire(&foothold.message("bent").seal(evil.key(), evil.name()));
    bent["prev_events"] = json!("not a list");
    let junk = [json!(7), json!([]), Value::Null, json!({}), json!({"edu_type": 5}), json!({"content": []})];
    let pdus: Vec<Value> = junk.iter().cloned().chain([bent, wire(&message)]).collect();
    let typing = json!({"edu_type": "m.typing", "content": {
        "room_id": siege.room, "user_id": foothold.user, "typing": true,
    }});
    let edus: Vec<Value> = junk.iter().cloned().chain([typing]).collect();
    let since = siege.alice.now().await;
    let (status, answer) = evil.transact(&siege.north.name, pdus, edus).await;
    assert_eq!((status, &answer["pdus"][message.event_id().as_str()]), (200, &json!({})), "{answer}");
    assert_eq!(siege.north.status(message.event_id()), Some(Status::Accepted));
    let path = format!("/rooms/join/{}/ephemeral/events/0/content/user_ids/0", siege.room);
    siege
        .alice
        .sync_until(&since, |answer| answer.pointer(&path).filter(|user| **user == json!(foothold.user)).map(|_| ()))
        .await;
    siege.goes_on("after the junk").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_events_that_lead_nowhere_keeps_nobody_from_speaking() {
    let siege = Siege::new("11").await;
    let mut dice = Dice::new(3);
    siege.evil.answers(|question| if question.is("send") { Reply::Json(json!({})) } else { Reply::Stall });
    siege.net.set_patience(Duration::from_secs(2));
    let flood: Vec<Vec<Value>> = (0..30)
        .map(|wave| (0..50).map(|number| wire(&siege.dangling(&mut dice, &format!("{wave} {number}")))).collect())
        .collect();
    let waves = flood.into_iter().map(|pdus| siege.evil.transact(&siege.north.name, pdus, Vec::new()));
    let began = std::time::Instant::now();
    let (answers, ()) = tokio::join!(join_all(waves), async {
        for number in 0..5 {
            siege.goes_on(&format!("in the flood {number}")).await;
        }
    });
    println!("the flood took {} ms", began.elapsed().as_millis());
    for (status, answer) in answers {
        assert!(matches!(status, 0 | 200 | 429), "{status} {answer}");
    }
    siege.goes_on("after the flood").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_a_liar_offers_is_not_entered() {
    let siege = Siege::new("11").await;
    let mut dice = Dice::new(5);
    let fake = OwnedRoomId::try_from("!fake:evil.example").unwrap();
    let template = json!({
        "room_version": "11",
        "event": {
            "type": "m.room.member", "room_id": fake, "sender": siege.bob.id, "state_key": siege.bob.id,
            "content": {"membership": "join"}, "depth": 5, "origin_server_ts": 1,
            "prev_events": [Siege::unknown_event(&mut dice)], "auth_events": [Siege::unknown_event(&mut dice)],
        },
    });
    let honest: Vec<Value> = siege.foothold.state.iter().map(wire).collect();
    let answers = [
        ("nothing", Reply::Stall),
        ("junk", Reply::Bytes(b"[".repeat(100_000))),
        ("an empty object", Reply::Json(json!({}))),
        ("an empty room", Reply::Json(json!({"state": [], "auth_chain": []}))),
        ("another room", Reply::Json(json!({"state": honest, "auth_chain": honest}))),
        ("no events", Reply::Json(json!({"state": [1, {}, []], "auth_chain": [null]}))),
        ("many things", Reply::Json(json!({"state": vec![json!({"room_id": fake}); 20_000], "auth_chain": []}))),
    ];
    for (what, answer) in answers {
        let template = template.clone();
        siege.evil.answers(
            move |question| {
                if question.is("make_join") { Reply::Json(template.clone()) } else { answer.clone() }
            },
        );
        let (status, told) = siege.bob.try_join(fake.as_str(), "evil.example").await;
        assert!((400..500).contains(&status) || status == 502 || status == 504, "{what}: {status} {told}");
        assert!(told["errcode"].is_string(), "{what}: {told}");
        assert!(!siege.south.core.is_joined(&siege.bob.user(), &fake).unwrap(), "{what}");
    }
    siege.goes_on("after the liar's rooms").await;
}
