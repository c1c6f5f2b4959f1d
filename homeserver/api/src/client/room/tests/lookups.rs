//! Endpoints that look up one thing.

use http::{Method, StatusCode};
use serde_json::json;

use super::{Server, enc, list};

#[tokio::test]
async fn mutual_rooms_are_those_both_are_joined_to() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let shared = alice.public_room().await;
    bob.join(&shared).await;
    alice.public_room().await;
    alice.create(json!({"invite": [bob.user.clone()]})).await;
    for path in ["v1/mutual_rooms", "unstable/uk.half-shot.msc2666/user/mutual_rooms"] {
        let path = format!("/_matrix/client/{path}?user_id=");
        let answer = alice.get(&format!("{path}{}", enc(&bob.user))).await;
        assert_eq!(answer, json!({"joined": [shared], "count": 1}));
        let answer = alice.get(&format!("{path}{}", enc("@nobody:us.example"))).await;
        assert_eq!(answer, json!({"joined": [], "count": 0}));
        for wrong in [enc(&alice.user), "alice".to_owned(), enc("@Ä:us.example"), format!("{}&from=x", enc(&bob.user))]
        {
            let (status, answer) = alice.ask(Method::GET, &format!("{path}{wrong}"), None).await;
            assert_eq!((status, &answer["errcode"]), (StatusCode::BAD_REQUEST, &json!("M_INVALID_PARAM")), "{wrong}");
        }
    }
}

#[tokio::test]
async fn many_mutual_rooms_come_in_pages() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    for _ in 0..101 {
        let room = alice.public_room().await;
        bob.join(&room).await;
    }
    let path = format!("/_matrix/client/v1/mutual_rooms?user_id={}", enc(&bob.user));
    let first = alice.get(&path).await;
    assert_eq!((first["joined"].as_array().unwrap().len(), &first["count"]), (100, &json!(101)));
    let second = alice.get(&format!("{path}&from={}", enc(first["next_batch"].as_str().unwrap()))).await;
    assert_eq!((second["joined"].as_array().unwrap().len(), &second["count"]), (1, &json!(101)));
    assert_eq!(second.get("next_batch"), None);
}

#[tokio::test]
async fn an_event_is_found_without_its_room_by_those_who_may_see_it() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = alice.create(json!({})).await;
    let said = alice.say(&room, "mine").await;
    let path = format!("/events/{}", enc(&said));
    assert_eq!(alice.get(&path).await["content"]["body"], "mine");
    let (status, answer) = bob.ask(Method::GET, &path, None).await;
    assert_eq!((status, &answer["errcode"]), (StatusCode::NOT_FOUND, &json!("M_NOT_FOUND")));
}

#[tokio::test]
async fn without_turn_servers_the_answer_is_empty() {
    let server = Server::start();
    let alice = server.user("alice").await;
    assert_eq!(alice.get("/voip/turnServer").await, json!({}));
}

#[tokio::test]
async fn an_event_can_be_scheduled_listed_put_off_and_sent() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    let delay = "?org.matrix.msc4140.delay=60000";
    let path = format!("/rooms/{}/send/m.room.message/t1{delay}", enc(&room));
    let scheduled = alice.ok(Method::PUT, &path, json!({"body": "later"})).await;
    assert_eq!(alice.ok(Method::PUT, &path, json!({"body": "later"})).await, scheduled, "the same transaction");
    let id = scheduled["delay_id"].as_str().unwrap();
    let state = format!("/rooms/{}/state/x.call/{}{delay}", enc(&room), enc(&alice.user));
    let left = alice.ok(Method::PUT, &state, json!({})).await["delay_id"].as_str().unwrap().to_owned();

    let base = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";
    let all = alice.get(base).await;
    assert_eq!(all["delayed_events"].as_array().unwrap().len(), 2);
    assert_eq!(all["delayed_events"][0]["content"]["body"], "later");
    alice.ok(Method::POST, &format!("{base}/{id}"), json!({"action": "restart"})).await;
    alice.ok(Method::POST, &format!("{base}/{id}"), json!({"action": "send"})).await;
    alice.ok(Method::POST, &format!("{base}/{left}/cancel"), json!({})).await;
    assert_eq!(alice.get(base).await, json!({"delayed_events": []}));
    let history = alice.history(&room, 100).await;
    assert_eq!(history.last().unwrap()["content"]["body"], "later");
    let (status, answer) = alice.ask(Method::POST, &format!("{base}/{id}/send"), Some(json!({}))).await;
    assert_eq!((status, &answer["errcode"]), (StatusCode::NOT_FOUND, &json!("M_NOT_FOUND")));
    let (status, _) = alice.ask(Method::POST, &format!("{base}/{id}/explode"), Some(json!({}))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_old_initial_sync_tells_the_account_data_that_the_user_made_and_no_rules_that_nobody_changed() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let kinds = async || {
        let answer = alice.get("/initialSync").await;
        list(&answer, "/account_data")
            .iter()
            .map(|event| event["type"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(kinds().await.is_empty());
    let path = format!("/user/{}/account_data/org.example.made", enc(&alice.user));
    alice.ok(Method::PUT, &path, json!({"cats": "or rats"})).await;
    assert_eq!(kinds().await, ["org.example.made"]);
    alice.ok(Method::PUT, "/pushrules/global/override/.m.rule.master/enabled", json!({"enabled": true})).await;
    assert_eq!(kinds().await, ["m.push_rules", "org.example.made"]);
    let told = alice.sync(None, &json!({})).await;
    assert!(list(&told, "/account_data/events").iter().any(|event| event["type"] == "m.push_rules"));
}
