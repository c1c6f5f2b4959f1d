//! History that is missing in the middle of a timeline.

use matron_core::{ports::http_method::Method, rooms::Status};
use matron_testkit::{Reply, TestNet, part};
use serde_json::{Value, json};

fn ids(events: &Value) -> Vec<String> {
    events.as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

fn bodies(events: &Value) -> Vec<String> {
    let body = |event: &Value| event["content"]["body"].as_str().unwrap_or("something else").to_owned();
    events.as_array().unwrap().iter().map(body).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_in_the_middle_is_fetched_when_somebody_pages_back_over_it() {
    let net = TestNet::new();
    let north = net.server("north.example");
    let alice = north.person("alice").await;
    let adversary = net.adversary("adversary.example");
    let room = alice.room(json!({"preset": "public_chat"})).await;
    let foothold = adversary.join(&north, &room, "mallory").await;
    let sealed = |draft: matron_testkit::Draft| draft.seal(adversary.key(), adversary.name());
    let one = sealed(foothold.message("one"));
    let two = sealed(foothold.message("two").after([&one]));
    let three = sealed(foothold.message("three").after([&two]));
    let four = sealed(foothold.message("four").after([&three]));
    let state: Vec<_> = foothold.state.iter().map(|event| event.event_id().to_owned()).collect();
    let wire = |event: &matron_room::Pdu| -> Value { serde_json::from_str(event.json().get()).unwrap() };
    let pages = [(two.event_id().to_owned(), vec![wire(&one)]), (three.event_id().to_owned(), vec![wire(&two)])];
    adversary.answers(move |question| {
        if question.is("state_ids") {
            Reply::Json(json!({"pdu_ids": state, "auth_chain_ids": []}))
        } else if question.is("backfill") {
            let page = pages.iter().find(|(before, _)| question.query.contains(&part(before.as_str())));
            Reply::Json(json!({"pdus": page.map_or_else(Vec::new, |(_, events)| events.clone())}))
        } else if question.is("get_missing_events") {
            Reply::Json(json!({"events": []}))
        } else if question.is("send") {
            Reply::Json(json!({"pdus": {}}))
        } else {
            Reply::Status(404)
        }
    });
    let since = alice.now().await;
    adversary.push(&north, [&three, &four]).await;
    assert_eq!(north.status(three.event_id()), Some(Status::Accepted));
    let sync = alice.get(&format!("/v3/sync?timeout=0&since={since}")).await;
    let timeline = &sync["rooms"]["join"][room.as_str()]["timeline"];
    assert_eq!(timeline["limited"], true);
    assert_eq!(ids(&timeline["events"]), [three.event_id().as_str(), four.event_id().as_str()]);
    let before = timeline["prev_batch"].as_str().unwrap();
    let page = async |from: &str, limit: u32| {
        let path = format!("/v3/rooms/{}/messages?dir=b&limit={limit}&from={from}", part(room.as_str()));
        alice.get(&path).await
    };
    let found = page(before, 3).await;
    let wanted = [two.event_id().as_str(), one.event_id().as_str(), foothold.join.event_id().as_str()];
    assert_eq!(ids(&found["chunk"]), wanted);
    // It stands there for good: whoever reads again, from whichever side, finds it in its place.
    adversary.take_questions();
    let now = alice.now().await;
    let found = page(&now, 5).await;
    let wanted: Vec<&str> = [&four, &three, &two, &one, &foothold.join].map(|event| event.event_id().as_str()).to_vec();
    assert_eq!(ids(&found["chunk"]), wanted);
    assert!(!adversary.take_questions().iter().any(|question| question.is("backfill")));
    // Nobody is told by a sync of what is long past.
    let sync = alice.get(&format!("/v3/sync?timeout=0&since={}", sync["next_batch"].as_str().unwrap())).await;
    assert_eq!(sync["rooms"]["join"].get(room.as_str()), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_another_room_is_no_history() {
    let net = TestNet::new();
    let north = net.server("north.example");
    let alice = north.person("alice").await;
    let adversary = net.adversary("adversary.example");
    let (room, other) =
        (alice.room(json!({"preset": "public_chat"})).await, alice.room(json!({"preset": "public_chat"})).await);
    let foothold = adversary.join(&north, &room, "mallory").await;
    let elsewhere = adversary.join(&north, &other, "mallory").await;
    adversary.answers(|_| Reply::Status(404));
    // It names as its past an event that is known here, of a room whose state is another.
    let leaning = foothold.message("leaning").after([&elsewhere.join]).seal(adversary.key(), adversary.name());
    adversary.push(&north, [&leaning]).await;
    assert_eq!(north.status(leaning.event_id()), None, "without the state before it, it is nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_before_an_event_as_a_peer_gives_it_is_not_resolved_again_with_what_the_event_follows() {
    let net = TestNet::new();
    let north = net.server("north.example");
    let alice = north.person("alice").await;
    let adversary = net.adversary("adversary.example");
    // What nobody disputes is no authority in the resolution of this version.
    let room = alice.room(json!({"preset": "public_chat", "room_version": "12"})).await;
    let foothold = adversary.join(&north, &room, "mallory").await;
    let trent = adversary.join(&north, &room, "trent").await;
    let unknown = "$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".try_into().unwrap();
    let known = foothold.message("known").after([&trent.join]).seal(adversary.key(), adversary.name());
    // On the other branch, which nobody gives, the room was closed and opened before it: merged, the join does not stand.
    let judged = foothold.message("judged").after([&known]).after_ids(vec![known.event_id().to_owned(), unknown]);
    let judged = judged.seal(adversary.key(), adversary.name());
    let state: Vec<_> = foothold.state.iter().map(|event| event.event_id().to_owned()).collect();
    adversary.answers(move |question| {
        if question.is("state_ids") {
            Reply::Json(json!({"pdu_ids": state, "auth_chain_ids": []}))
        } else if question.is("get_missing_events") {
            Reply::Json(json!({"events": []}))
        } else if question.is("send") {
            Reply::Json(json!({"pdus": {}}))
        } else {
            Reply::Status(404)
        }
    });
    adversary.push(&north, [&known, &judged]).await;
    let member = |event: &matron_room::Pdu| {
        let event = north.core.load_event(event.event_id()).unwrap().unwrap();
        assert_eq!(event.record.status, Status::Accepted);
        let before = north.core.load_state_group(event.record.state_before).unwrap();
        before.keys().any(|key| &*key.kind == "m.room.member" && key.key.starts_with("@trent:"))
    };
    assert!(member(&known));
    assert!(!member(&judged), "what its origin resolved is resolved to something else");
    // Nor does the room believe it: one message with an invented past must not put anybody out, or lift a ban.
    let is_trent = |(kind, key): &(String, String)| kind == "m.room.member" && key.starts_with("@trent:");
    assert!(north.state(&room).keys().any(is_trent), "what an event's origin says of the past is the room's state");
    alice.say(room.as_str(), "goes on").await;
    assert!(north.state(&room).keys().any(is_trent));
    assert_eq!(north.ends(&room).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_before_a_server_came_is_not_missing_to_it() {
    let net = TestNet::new();
    let north = net.server("north.example");
    let alice = north.person("alice").await;
    let (asker, other) = (net.adversary("asker.example"), net.adversary("other.example"));
    let room = alice.room(json!({"preset": "public_chat"})).await;
    let trent = other.join(&north, &room, "trent").await;
    asker.join(&north, &room, "mallory").await;
    let seal = |draft: matron_testkit::Draft| draft.seal(other.key(), other.name());
    // Said by who had not heard of the join: no way leads from here to where the asker came in.
    let beside = seal(trent.message("beside").after([&trent.join]));
    let next = seal(trent.message("next").after([&beside]));
    other.push(&north, [&beside, &next]).await;
    let said: ruma::OwnedEventId = alice.say(room.as_str(), "said").await.try_into().unwrap();
    let ask = async |latest: &ruma::EventId| {
        let path = format!("/_matrix/federation/v1/get_missing_events/{}", part(room.as_str()));
        // It has said something that nobody here knows, and knows of nothing that is the newest here.
        let unheard = "$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        let body = json!({"earliest_events": [unheard], "latest_events": [latest], "limit": 10, "min_depth": 0});
        let (status, answer) = asker.ask(&north.name, Method::Post, &path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        bodies(&answer["events"])
    };
    assert_eq!(ask(next.event_id()).await, ["beside"]);
    assert_eq!(ask(&said).await, ["beside", "next"]);
    assert_eq!(ask(trent.join.event_id()).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_led_to_an_event_is_told_to_who_has_only_what_followed_it() {
    let net = TestNet::new();
    let north = net.server("north.example");
    let alice = north.person("alice").await;
    let (asker, other) = (net.adversary("asker.example"), net.adversary("other.example"));
    let room = alice.room(json!({"preset": "public_chat"})).await;
    let trent = other.join(&north, &room, "trent").await;
    let mallory = asker.join(&north, &room, "mallory").await;
    // A change of name is no arrival.
    let renamed = json!({"membership": "join", "displayname": "Mallory"});
    let seal = |draft: matron_testkit::Draft| draft.seal(other.key(), other.name());
    let one = seal(trent.message("one").after([&mallory.join]));
    let two = seal(trent.message("two").after([&one]));
    let three = seal(trent.message("three").after([&two]));
    let four = seal(trent.message("four").after([&three]));
    let beside = seal(trent.message("beside").after([&two]));
    let rename = mallory.state("m.room.member", mallory.join.sender().as_str(), renamed).after([&four]);
    let rename = rename.seal(asker.key(), asker.name());
    other.push(&north, [&one, &two, &three, &four, &beside]).await;
    asker.push(&north, [&rename]).await;
    assert_eq!(north.status(rename.event_id()), Some(Status::Accepted));
    let ask = async |latest: &matron_room::Pdu, earliest: &matron_room::Pdu| {
        let path = format!("/_matrix/federation/v1/get_missing_events/{}", part(room.as_str()));
        let body = json!({
            "earliest_events": [earliest.event_id()], "latest_events": [latest.event_id()], "limit": 10,
        });
        let (status, answer) = asker.ask(&north.name, Method::Post, &path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        bodies(&answer["events"])
    };
    // It took the newest with a state that it was given, and asks now for what led to an older one.
    assert_eq!(ask(&three, &four).await, ["one", "two"]);
    assert_eq!(ask(&three, &rename).await, ["one", "two"]);
    assert_eq!(ask(&beside, &four).await, ["one", "two"]);
    assert_eq!(ask(&four, &two).await, ["three"]);
}
