//! Reading back, and who may.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Server, enc, ids, list};

#[tokio::test]
async fn pages_in_both_directions_hold_each_event_once() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let room = alice.public_room().await;
    for number in 0..23 {
        alice.say(&room, &number.to_string()).await;
    }
    let whole = ids(&alice.history(&room, 1000).await);
    assert_eq!(ids(&alice.history(&room, 4).await), whole);
    let mut backward = Vec::new();
    let mut from = String::new();
    loop {
        let page = alice.get(&format!("/rooms/{}/messages?dir=b&limit=5{from}", enc(&room))).await;
        backward.extend(ids(list(&page, "/chunk")));
        match page["end"].as_str() {
            Some(end) => from = format!("&from={end}"),
            None => break,
        }
    }
    backward.reverse();
    assert_eq!(backward, whole);
}

#[tokio::test]
async fn who_left_reads_what_was_said_before_and_nothing_after() {
    let server = Server::start();
    let (alice, bob, eve) = (server.user("alice").await, server.user("bob").await, server.user("eve").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    alice.say(&room, "before").await;
    bob.leave(&room).await;
    let after = alice.say(&room, "after").await;
    let seen = json!(bob.history(&room, 100).await).to_string();
    assert!(seen.contains("before") && !seen.contains("after"));
    let (status, _) = bob.ask(Method::GET, &format!("/rooms/{}/event/{}", enc(&room), enc(&after)), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    for path in ["messages?dir=b", "state", "members", "aliases"] {
        let (status, answer) = eve.ask(Method::GET, &format!("/rooms/{}/{path}", enc(&room)), None).await;
        assert_eq!((status, &answer["errcode"]), (StatusCode::FORBIDDEN, &json!("M_FORBIDDEN")), "{path}");
    }
}

#[tokio::test]
async fn history_for_members_only_begins_at_the_joining() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.public_room().await;
    alice.state(&room, "m.room.history_visibility", "", json!({"history_visibility": "joined"})).await;
    let hidden = alice.say(&room, "hidden").await;
    bob.join(&room).await;
    alice.say(&room, "shown").await;
    let seen = json!(bob.history(&room, 100).await).to_string();
    assert!(seen.contains("shown") && !seen.contains("hidden"));
    let (status, _) = bob.ask(Method::GET, &format!("/rooms/{}/context/{}", enc(&room), enc(&hidden)), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_context_of_an_event_is_its_neighbours_and_leads_on() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let room = alice.public_room().await;
    let mut said = Vec::new();
    for number in 0..9 {
        said.push(alice.say(&room, &number.to_string()).await);
    }
    let context = alice.get(&format!("/rooms/{}/context/{}?limit=4", enc(&room), enc(&said[4]))).await;
    assert_eq!(context["event"]["event_id"], json!(said[4]));
    assert_eq!(ids(list(&context, "/events_before")), [said[3].clone(), said[2].clone()]);
    assert_eq!(ids(list(&context, "/events_after")), [said[5].clone(), said[6].clone()]);
    let older = format!("/rooms/{}/messages?dir=b&limit=1&from={}", enc(&room), context["start"].as_str().unwrap());
    assert_eq!(ids(list(&alice.get(&older).await, "/chunk")), [said[1].clone()]);
    let newer = format!("/rooms/{}/messages?dir=f&limit=1&from={}", enc(&room), context["end"].as_str().unwrap());
    assert_eq!(ids(list(&alice.get(&newer).await, "/chunk")), [said[7].clone()]);
    let alone = alice.get(&format!("/rooms/{}/context/{}?limit=0", enc(&room), enc(&said[4]))).await;
    assert_eq!((list(&alone, "/events_before").len(), list(&alone, "/events_after").len()), (0, 0));
}

#[tokio::test]
async fn a_filter_lets_only_what_it_names_through() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    alice.say(&room, "from alice").await;
    let wanted = bob.say(&room, "from bob").await;
    let filter = json!({"types": ["m.room.*"], "not_types": ["m.room.member"], "senders": [bob.user], "lazy_load_members": true});
    let page = bob.get(&format!("/rooms/{}/messages?dir=b&filter={}", enc(&room), enc(&filter.to_string()))).await;
    assert_eq!(ids(list(&page, "/chunk")), [wanted]);
    let members: Vec<&Value> = list(&page, "/state").iter().map(|event| &event["state_key"]).collect();
    assert_eq!(members, [&json!(bob.user)]);
}

#[tokio::test]
async fn a_time_leads_to_the_event_that_is_closest() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let room = alice.public_room().await;
    let said = alice.say(&room, "last").await;
    let ask =
        |ts: u64, dir: &str| format!("/_matrix/client/v1/rooms/{}/timestamp_to_event?ts={ts}&dir={dir}", enc(&room));
    let last = alice.get(&ask(1 << 50, "b")).await;
    assert_eq!(last["event_id"], json!(said));
    let first = alice.get(&ask(1, "f")).await;
    assert_eq!(first["event_id"], alice.history(&room, 1).await[0]["event_id"]);
    let (status, answer) = alice.ask(Method::GET, &ask(1, "b"), None).await;
    assert_eq!((status, &answer["errcode"]), (StatusCode::NOT_FOUND, &json!("M_NOT_FOUND")));
}

#[tokio::test]
async fn words_are_found_in_rooms_that_one_may_read() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.public_room().await;
    let said = alice.say(&room, "The potassium is high").await;
    alice.say(&room, "The sodium is fine").await;
    let body = json!({"search_categories": {"room_events": {
        "search_term": "high potassium", "keys": ["content.body"], "event_context": {"before_limit": 1, "after_limit": 1},
    }}});
    let found = alice.ok(Method::POST, "/search", body.clone()).await;
    let found = &found["search_categories"]["room_events"];
    assert_eq!(found["count"], 1);
    assert_eq!(found["results"][0]["result"]["event_id"], json!(said));
    assert_eq!(list(&found["results"][0], "/context/events_after").len(), 1);
    let nothing = bob.ok(Method::POST, "/search", body).await;
    assert_eq!(nothing["search_categories"]["room_events"]["count"], 0);
}

#[tokio::test]
async fn malformed_questions_are_refused_and_break_nothing() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let room = enc(&alice.public_room().await);
    for (path, errcode) in [
        (format!("/rooms/{room}/messages"), "M_MISSING_PARAM"),
        (format!("/rooms/{room}/messages?dir=x"), "M_INVALID_PARAM"),
        (format!("/rooms/{room}/messages?dir=b&from=nonsense"), "M_INVALID_PARAM"),
        (format!("/rooms/{room}/messages?dir=b&from=s1_2"), "M_INVALID_PARAM"),
        (format!("/rooms/{room}/messages?dir=b&filter=%7B"), "M_INVALID_PARAM"),
        (format!("/rooms/{room}/messages?dir=b&limit=-1"), "M_INVALID_PARAM"),
        (format!("/_matrix/client/v1/rooms/{room}/threads?from=x"), "M_INVALID_PARAM"),
        (format!("/_matrix/client/v1/rooms/{room}/threads?include=x"), "M_INVALID_PARAM"),
        (format!("/_matrix/client/v1/rooms/{room}/hierarchy?from=x"), "M_INVALID_PARAM"),
        ("/publicRooms?since=x".to_owned(), "M_INVALID_PARAM"),
        ("/sync?since=t5".to_owned(), "M_INVALID_PARAM"),
    ] {
        let (status, answer) = alice.ask(Method::GET, &path, None).await;
        assert_eq!((status, &answer["errcode"]), (StatusCode::BAD_REQUEST, &json!(errcode)), "{path}");
    }
    // Tokens at the edges of their range are tokens.
    for token in ["t0", "t18446744073709551615", "s0_0_0"] {
        for dir in ["b", "f"] {
            alice.get(&format!("/rooms/{room}/messages?dir={dir}&from={token}")).await;
            alice.get(&format!("/rooms/{room}/messages?dir={dir}&to={token}")).await;
        }
    }
}
