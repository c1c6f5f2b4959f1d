//! Rooms with a policy server: whoever sends asks it, and nobody is shown what it does not recommend.

use std::sync::Arc;

use matron_core::{policy_server::KEY_ID, ports::http_method::Method, rooms::Status};
use matron_policy::ROOM_POLICY_TYPE;
use matron_room::{RoomVersion, SigningKey, UncheckedPdu, VerifyKey};
use matron_testkit::{Adversary, Draft, Foothold, Governance, Person, Reply, TestNet, TestServer, part};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::{Value, json, value::to_raw_value};

async fn name_policy_server(person: &Person, room: &str, via: &str, key: &str) {
    let path = format!("/v3/rooms/{}/state/m.room.policy/", part(room));
    person.put(&path, json!({"via": via, "public_keys": {"ed25519": key}})).await;
}

async fn key_of(person: &Person) -> String {
    let published = person.get("/.well-known/matrix/policy_server").await;
    published["public_keys"]["ed25519"].as_str().unwrap().to_owned()
}

async fn try_say(person: &Person, room: &str, text: &str) -> (u16, Value) {
    let path = format!("/v3/rooms/{}/send/m.room.message/{}", part(room), part(text));
    person.send("PUT", &path, &json!({"msgtype": "m.text", "body": text})).await
}

fn id(text: &str) -> OwnedEventId {
    text.try_into().unwrap()
}

fn is_recommended(server: &TestServer, event: &str, via: &str, key: &str) -> bool {
    let key = VerifyKey::from_base64(key).unwrap();
    let event = server.core.load_event(&id(event)).unwrap();
    event.is_some_and(|event| event.pdu.is_signed_by(via, KEY_ID, &key))
}

fn json_of(event: &matron_room::Pdu) -> Value {
    serde_json::from_str(event.json().get()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_recommended_before_anyone_sees_it_and_nothing_is_sent_without() {
    let net = TestNet::new();
    let (north, south) = (net.server("north.example"), net.server("south.example"));
    let (alice, bob) = (north.person("alice").await, south.person("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let key = key_of(&alice).await;
    name_policy_server(&alice, &room, "north.example", &key).await;
    let ours = alice.say(&room, "from the policy server").await;
    net.settle(&[&north, &south]).await;
    let theirs = bob.say(&room, "from elsewhere").await;
    net.settle(&[&north, &south]).await;
    for (event, what) in [(&ours, "its own"), (&theirs, "another's")] {
        for server in [&north, &south] {
            assert!(is_recommended(server, event, "north.example", &key), "{what} on {}", server.name);
            assert_eq!(server.status(&id(event)), Some(Status::Accepted));
        }
    }
    net.cut_off(&north, true);
    let (status, answer) = try_say(&bob, &room, "while it is away").await;
    assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("policy server"), "{answer}");
    net.heal();
    assert_eq!(try_say(&bob, &room, "while it is away").await.0, 200, "the same transaction is tried anew");
    // Whoever may, ends it without asking.
    net.cut_off(&north, true);
    alice.put(&format!("/v3/rooms/{}/state/m.room.policy/", part(&room)), json!({})).await;
    net.heal();
    net.settle(&[&north, &south]).await;
    net.cut_off(&north, true);
    assert_eq!(try_say(&bob, &room, "nobody is asked").await.0, 200);
}

/// A room of north's with south and an adversary in it.
async fn shared(net: &Arc<TestNet>) -> (TestServer, TestServer, Arc<Adversary>, Foothold, Person, Person) {
    let (north, south) = (net.server("north.example"), net.server("south.example"));
    let (alice, bob) = (north.person("alice").await, south.person("bob").await);
    let adversary = net.adversary("adversary.example");
    adversary.answers(|_| Reply::Json(json!({})));
    let room = alice.room(json!({"preset": "public_chat"})).await;
    assert_eq!(bob.try_join(room.as_str(), "north.example").await.0, 200);
    let foothold = adversary.join(&north, &room, "mallory").await;
    net.settle(&[&north, &south]).await;
    (north, south, adversary, foothold, alice, bob)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_without_a_recommendation_is_asked_for_and_else_shown_to_nobody() {
    let net = TestNet::new();
    let (north, south, adversary, foothold, alice, _bob) = shared(&net).await;
    let key = key_of(&alice).await;
    name_policy_server(&alice, foothold.room.as_str(), "north.example", &key).await;
    net.settle(&[&north, &south]).await;
    let asked_for = foothold.message("asked for").seal(adversary.key(), adversary.name());
    adversary.push(&south, [&asked_for]).await;
    assert_eq!(south.status(asked_for.event_id()), Some(Status::Accepted));
    assert!(is_recommended(&south, asked_for.event_id().as_str(), "north.example", &key));
    let forged = foothold.message("forged").seal(adversary.key(), adversary.name());
    let forged = forged.with_foreign_signature("north.example", KEY_ID, &"A".repeat(86)).unwrap();
    net.cut_off(&north, true);
    let alone = foothold.message("alone").seal(adversary.key(), adversary.name());
    adversary.push(&south, [&forged, &alone]).await;
    assert_eq!(south.status(forged.event_id()), Some(Status::SoftFailed));
    assert_eq!(south.status(alone.event_id()), Some(Status::SoftFailed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_servers_refusal_reaches_the_sender_and_another_key_is_not_believed() {
    let net = TestNet::new();
    let (_north, south, adversary, foothold, alice, bob) = shared(&net).await;
    let room = foothold.room.as_str();
    let signs_with = |seed: u8| SigningKey::from_seed("policy_server", &[seed; 32]).unwrap();
    name_policy_server(&alice, room, "adversary.example", &signs_with(1).verify_key().to_base64()).await;
    net.settle(&[&south]).await;
    bob.sync_until("", |answer| {
        let room = &answer["rooms"]["join"][room];
        let events = room["timeline"]["events"].as_array()?.iter().chain(room["state"]["events"].as_array()?);
        events.into_iter().find(|event| event["type"] == "m.room.policy").map(|_| ())
    })
    .await;
    adversary.answers(|_| Reply::Status(400));
    assert_eq!(try_say(&bob, room, "refused").await.0, 400);
    let version = foothold.version;
    let sign = move |seed: u8, body: &Value| -> Reply {
        let event = UncheckedPdu::parse(&to_raw_value(body).unwrap(), version).unwrap().trust_own();
        let signature = event.signature_by(&signs_with(seed)).unwrap();
        Reply::Json(json!({"adversary.example": {KEY_ID: signature}}))
    };
    adversary.answers(move |question| sign(2, &question.body));
    assert_eq!(try_say(&bob, room, "another key").await.0, 403);
    adversary.answers(move |question| sign(1, &question.body));
    let (status, answer) = try_say(&bob, room, "the right key").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(south.status(&id(answer["event_id"].as_str().unwrap())), Some(Status::Accepted));
    adversary.answers(|_| Reply::Json(json!({})));
    assert_eq!(try_say(&bob, room, "no signature").await.0, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_for_the_policy_servers_sake_is_told_so_and_who_may_not_join_at_all_is_not() {
    let net = TestNet::new();
    let (north, _south, adversary, foothold, alice, _bob) = shared(&net).await;
    let room = foothold.room.as_str();
    let key = SigningKey::from_seed("policy_server", &[1; 32]).unwrap().verify_key().to_base64();
    name_policy_server(&alice, room, "adversary.example", &key).await;
    for (answer, told) in [(400, "refuses"), (404, "does not answer")] {
        adversary.answers(move |_| Reply::Status(answer));
        let west = net.server(&format!("west{answer}.example"));
        let dora = west.person("dora").await;
        let (status, answer) = dora.try_join(room, "north.example").await;
        let sentence = answer["error"].as_str().unwrap();
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
        assert!(sentence.contains("policy server") && sentence.contains(told), "{answer}");
    }
    // As it could join before the room was closed.
    let eve = OwnedUserId::try_from("@eve:adversary.example").unwrap();
    let content = json!({"membership": "join"});
    let join = Draft::new(foothold.version, &foothold.room, &eve, "m.room.member", content.clone())
        .authorised_by(foothold.authority(&eve, "m.room.member", Some(eve.as_str()), &content))
        .state_key(eve.as_str())
        .after([&foothold.join])
        .seal(adversary.key(), adversary.name());
    alice.put(&format!("/v3/rooms/{}/state/m.room.policy/", part(room)), json!({})).await;
    let path = format!("/v3/rooms/{}/state/m.room.join_rules/", part(room));
    alice.put(&path, json!({"join_rule": "invite"})).await;
    name_policy_server(&alice, room, "adversary.example", &key).await;
    let path = format!("/_matrix/federation/v2/send_join/{}/{}", part(room), part(join.event_id().as_str()));
    let (status, answer) = adversary.ask(&north.name, Method::Put, &path, Some(json_of(&join))).await;
    assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
    assert!(!answer["error"].as_str().unwrap().contains("policy server"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_through_the_policy_server_is_recommended_to_all_by_that() {
    let net = TestNet::new();
    let (north, south) = (net.server("north.example"), net.server("south.example"));
    let (alice, bob) = (north.person("alice").await, south.person("bob").await);
    let room = alice.room(json!({"preset": "public_chat"})).await;
    assert_eq!(bob.try_join(room.as_str(), "north.example").await.0, 200);
    let key = key_of(&alice).await;
    name_policy_server(&alice, room.as_str(), "north.example", &key).await;
    net.settle(&[&north, &south]).await;
    let adversary = net.adversary("adversary.example");
    adversary.answers(|_| Reply::Json(json!({})));
    // It asks nobody for a recommendation of its join.
    let foothold = adversary.join(&north, &room, "mallory").await;
    let join = foothold.join.event_id().as_str();
    assert!(is_recommended(&north, join, "north.example", &key));
    net.settle(&[&north, &south]).await;
    assert!(is_recommended(&south, join, "north.example", &key));
    assert_eq!(south.status(foothold.join.event_id()), Some(Status::Accepted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_alters_an_event_cannot_have_the_true_one_refused() {
    let net = TestNet::new();
    let (north, _south, adversary, foothold, alice, _bob) = shared(&net).await;
    let key = key_of(&alice).await;
    name_policy_server(&alice, foothold.room.as_str(), "north.example", &key).await;
    let event = json_of(&foothold.message("true").seal(adversary.key(), adversary.name()));
    let mut altered = event.clone();
    altered["content"]["body"] = "false".into();
    let mut bare = event.clone();
    bare["signatures"] = json!({});
    let ask =
        async |body: Value| adversary.ask(&north.name, Method::Post, "/_matrix/policy/v1/sign", Some(body)).await.0;
    for (body, status) in [(altered, 400), (bare, 400), (event, 200)] {
        assert_eq!(ask(body.clone()).await, status, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_policy_servers_own_people_said_before_it_was_named_is_recommended_too() {
    let net = TestNet::new();
    for version in ["11", "12"] {
        let north = net.server(&format!("north{version}.example"));
        let alice = north.person("alice").await;
        let adversary = net.adversary(&format!("adversary{version}.example"));
        adversary.answers(|_| Reply::Json(json!({})));
        let room = alice.room(json!({"preset": "public_chat", "room_version": version})).await;
        let foothold = adversary.join(&north, &room, "mallory").await;
        let said = id(&alice.say(room.as_str(), "before").await);
        name_policy_server(&alice, room.as_str(), north.name.as_str(), &key_of(&alice).await).await;
        let said = json_of(&north.core.load_event(&said).unwrap().unwrap().pdu);
        // From version 12 on a create event does not name its room.
        for event in [said, json_of(foothold.state_of("m.room.create", ""))] {
            let (status, answer) =
                adversary.ask(&north.name, Method::Post, "/_matrix/policy/v1/sign", Some(event)).await;
            assert_eq!(status, 200, "version {version}: {answer}");
            assert!(answer[north.name.as_str()][KEY_ID].is_string(), "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_that_the_policy_server_refuses_is_shown_to_nobody_who_comes_later() {
    let net = TestNet::new();
    let (north, south) = (net.server("north.example"), net.server("south.example"));
    let (alice, bob) = (north.person("alice").await, south.person("bob").await);
    let adversary = net.adversary("adversary.example");
    adversary.answers(|_| Reply::Json(json!({})));
    let room = alice.room(json!({"preset": "public_chat"})).await;
    adversary.join(&north, &room, "mallory").await;
    alice.say(room.as_str(), "an old word").await;
    // More than some pages of it.
    for number in 0..250 {
        alice.say(room.as_str(), &format!("spam {number}")).await;
    }
    alice.say(room.as_str(), "a good word").await;
    let signing = SigningKey::from_seed("policy_server", &[1; 32]).unwrap();
    name_policy_server(&alice, room.as_str(), "adversary.example", &signing.verify_key().to_base64()).await;
    let silent = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let version = north.room(&room).version();
    let is_silent = Arc::clone(&silent);
    adversary.answers(move |question| {
        if is_silent.load(std::sync::atomic::Ordering::SeqCst) {
            return Reply::Close;
        }
        if !question.path.ends_with("/sign") {
            return Reply::Json(json!({}));
        }
        if question.body["content"]["body"].as_str().is_some_and(|body| body.starts_with("spam")) {
            return Reply::Status(400);
        }
        let event = UncheckedPdu::parse(&to_raw_value(&question.body).unwrap(), version).unwrap().trust_own();
        Reply::Json(json!({"adversary.example": {KEY_ID: event.signature_by(&signing).unwrap()}}))
    });
    assert_eq!(bob.try_join(room.as_str(), "north.example").await.0, 200);
    let said = async || -> Vec<String> {
        let (mut texts, mut from) = (Vec::new(), String::new());
        for _ in 0..20 {
            let path = format!("/v3/rooms/{}/messages?dir=b&limit=10{from}", part(room.as_str()));
            let page = bob.get(&path).await;
            let said = page["chunk"].as_array().unwrap().iter().filter_map(|event| event["content"]["body"].as_str());
            texts.extend(said.map(str::to_owned));
            let Some(end) = page["end"].as_str() else { break };
            from = format!("&from={}", part(end));
        }
        texts
    };
    // What nobody recommends now may be recommended later: it is not decided.
    silent.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(said().await.is_empty());
    silent.store(false, std::sync::atomic::Ordering::SeqCst);
    net.clock().advance_ms(60_000);
    assert_eq!(said().await, ["a good word", "an old word"]);
    net.settle(&[&north, &south]).await;
}

/// A message of somebody at the adversary's, as it would stand in the room.
fn message(room: &OwnedRoomId, adversary: &Adversary, kind: &str, content: Value) -> matron_room::Pdu {
    let some = vec![id("$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")];
    let sender = ruma::OwnedUserId::try_from("@mallory:adversary.example").unwrap();
    Draft::new(RoomVersion::find("12").unwrap(), room, &sender, kind, content)
        .after_ids(some.clone())
        .authorised_by(some)
        .depth(9)
        .seal(adversary.key(), adversary.name())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wards_policy_server_refuses_what_its_rules_forbid_and_the_rules_outlive_it() {
    let net = TestNet::new();
    let mut governance = Governance::of(&[("N1", "north.example"), ("A1", "adversary.example")]);
    let policy = governance.settings("N1", "north.example");
    let north = net.server_with("north.example", |settings| settings.policy = policy);
    let register = governance.register(matron_testkit::START_MS);
    governance.tell(&north, &register).await;
    let bot = north.person("bot").await;
    let room = bot.room(Governance::ward(&["N1", "A1"], 60_000)).await;
    let adversary = net.adversary("adversary.example");
    let sign = "/_matrix/policy/v1/sign";
    let plain = message(&room, &adversary, "m.room.message", json!({"msgtype": "m.text", "body": "x"}));
    let ask = async |body: Value| adversary.ask(&north.name, Method::Post, sign, Some(body)).await;
    // No policy server is named yet.
    assert_eq!(ask(json_of(&plain)).await.0, 404);
    let key = key_of(&bot).await;
    name_policy_server(&bot, room.as_str(), "north.example", &key).await;
    for (body, status, errcode) in [
        (json_of(&plain), 400, "M_FORBIDDEN"),
        (json_of(&message(&room, &adversary, "m.room.encrypted", Governance::ciphertext("x"))), 400, "M_FORBIDDEN"),
        (json!({"room_id": room}), 400, "M_BAD_JSON"),
        (json!({"room_id": "!elsewhere:adversary.example"}), 404, "M_NOT_FOUND"),
        (json!({}), 404, "M_NOT_FOUND"),
    ] {
        let (said, answer) = ask(body.clone()).await;
        assert_eq!((said, &answer["errcode"]), (status, &json!(errcode)), "{body}: {answer}");
    }
    // Who has no part in the room does not learn that it is there.
    let stranger = net.adversary("stranger.example");
    let (said, answer) = stranger.ask(&north.name, Method::Post, sign, Some(json_of(&plain))).await;
    assert_eq!((said, &answer["errcode"]), (404, &json!("M_NOT_FOUND")), "{answer}");
    let mut altered = json_of(&plain);
    altered["content"]["body"] = "y".into();
    assert_eq!(ask(altered).await.0, 400);
    let before = north.core.audit_entries(0, 1_000).unwrap().len();
    assert_eq!(ask(json_of(&plain)).await.0, 400);
    assert_eq!(north.core.audit_entries(0, 1_000).unwrap().len(), before, "a decision that stands is not made again");
    // The fact that was missing may have arrived.
    net.clock().advance_ms(30_000);
    assert_eq!(ask(json_of(&plain)).await.0, 400);
    assert_eq!(north.core.audit_entries(0, 1_000).unwrap().len(), before + 1, "it is made anew after a while");
    // The room lets its policy server go; the deployment's rules stay.
    bot.put(&format!("/v3/rooms/{}/state/m.room.policy/", part(room.as_str())), json!({})).await;
    assert_eq!(ask(json_of(&plain)).await.0, 404);
    let (status, answer) = try_say(&bot, room.as_str(), "not encrypted").await;
    assert_eq!(status, 403, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recommendation_is_repeated_no_longer_than_the_rules_stand_by_which_it_was_given() {
    let net = TestNet::new();
    let mut governance = Governance::of(&[("N1", "north.example"), ("A1", "adversary.example")]);
    let policy = governance.settings("N1", "north.example");
    let north = net.server_with("north.example", |settings| settings.policy = policy);
    let register = governance.register(matron_testkit::START_MS);
    governance.tell(&north, &register).await;
    let bot = north.person("bot").await;
    let adversary = net.adversary("adversary.example");
    adversary.answers(|_| Reply::Json(json!({})));
    let room = bot.room(json!({"preset": "public_chat"})).await;
    let foothold = adversary.join(&north, &room, "mallory").await;
    let key = key_of(&bot).await;
    name_policy_server(&bot, room.as_str(), "north.example", &key).await;
    let event = json_of(&foothold.message("plain").seal(adversary.key(), adversary.name()));
    let ask = async || adversary.ask(&north.name, Method::Post, "/_matrix/policy/v1/sign", Some(event.clone())).await;
    let (status, given) = ask().await;
    assert_eq!(status, 200, "{given}");
    assert_eq!(ask().await, (200, given));
    let ward = Governance::ward(&["N1", "A1"], 60_000);
    let state = ward["initial_state"].as_array().unwrap();
    let content = &state.iter().find(|event| event["type"] == ROOM_POLICY_TYPE).unwrap()["content"];
    bot.put(&format!("/v3/rooms/{}/state/{ROOM_POLICY_TYPE}", part(room.as_str())), content.clone()).await;
    assert_eq!(ask().await.0, 400, "what is not encrypted has no place in the room any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_the_policy_server_too_often_is_told_to_wait() {
    let net = TestNet::new();
    let north = net.server("north.example");
    let adversary = net.adversary("adversary.example");
    let mut last = 0;
    for _ in 0..600 {
        let body = json!({"room_id": "!none:north.example"});
        last = adversary.ask(&north.name, Method::Post, "/_matrix/policy/v1/sign", Some(body)).await.0;
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
    net.clock().advance_ms(2_000);
    let body = json!({"room_id": "!none:north.example"});
    assert_eq!(adversary.ask(&north.name, Method::Post, "/_matrix/policy/v1/sign", Some(body)).await.0, 404);
}
