//! What a server may read of a room.

use std::collections::BTreeSet;

use matron_core::Error;
use matron_room::Membership;
use serde_json::{Value, json};

use super::world::{Trust, open_settings, shared, two, until, visibility};

#[tokio::test]
async fn a_server_outside_reads_nothing_of_a_room() {
    let (wires, north, south) = two();
    let west = Trust::start(&wires, "west.example", 3, open_settings());
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let private = north.room(&anna, "private_chat", "11", shared()).await;
    let secret = north.say(&anna, &private, "a secret").await;
    let public = north.room(&anna, "public_chat", "11", shared()).await;
    south.join(&ben, &public, &north).await.unwrap();
    let message = north.say(&anna, &public, "hello").await;

    let (room, event) = (private.as_str(), secret.as_str());
    let paths = [
        format!("/_matrix/federation/v1/event/{event}"),
        format!("/_matrix/federation/v1/event_auth/{room}/{event}"),
        format!("/_matrix/federation/v1/state/{room}?event_id={event}"),
        format!("/_matrix/federation/v1/state_ids/{room}?event_id={event}"),
        format!("/_matrix/federation/v1/backfill/{room}?v={event}&limit=10"),
        format!("/_matrix/federation/v1/timestamp_to_event/{room}?ts=0&dir=f"),
    ];
    for path in paths {
        for outsider in [&south, &west] {
            let refused = outsider.ask(&north, path.clone()).await.unwrap_err();
            assert_eq!(refused, (403, "M_FORBIDDEN".to_owned()), "{path}");
        }
    }
    let refused = west.ask(&north, format!("/_matrix/federation/v1/hierarchy/{room}")).await.unwrap_err();
    assert_eq!(refused, (404, "M_NOT_FOUND".to_owned()));

    // Being in one room opens no event of another.
    let public = public.as_str();
    for path in [
        format!("/_matrix/federation/v1/event_auth/{public}/{event}"),
        format!("/_matrix/federation/v1/state/{public}?event_id={event}"),
        format!("/_matrix/federation/v1/state_ids/{public}?event_id={event}"),
    ] {
        assert_eq!(south.ask(&north, path.clone()).await.unwrap_err(), (404, "M_NOT_FOUND".to_owned()), "{path}");
    }
    let across =
        south.ask(&north, format!("/_matrix/federation/v1/backfill/{public}?v={event}&limit=10")).await.unwrap();
    assert_eq!(across["pdus"], json!([]));
    let own = south.ask(&north, format!("/_matrix/federation/v1/event/{message}")).await.unwrap();
    assert_eq!(own["pdus"][0]["content"]["body"], "hello");
}

#[tokio::test]
async fn a_server_sees_skeletons_of_what_was_said_before_it_came_and_nothing_of_what_follows_its_leaving() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let room = north.room(&anna, "public_chat", "11", visibility("joined")).await;
    let before = north.say(&anna, &room, "before").await;
    south.join(&ben, &room, &north).await.unwrap();
    let during = north.say(&anna, &room, "during").await;
    until("the south hears", || south.has(&during)).await;
    south.core.leave_room(&ben, &room, None).await.unwrap();
    until("ben is gone", || north.membership(&ben, &room) == Membership::Leave).await;
    let after = north.say(&anna, &room, "after").await;

    let body = |answer: Value| answer["pdus"][0]["content"]["body"].clone();
    let event = |id: &ruma::EventId| format!("/_matrix/federation/v1/event/{id}");
    assert_eq!(body(south.ask(&north, event(&during)).await.unwrap()), "during");
    assert!(south.ask(&north, event(&after)).await.is_err());
    assert!(south.ask(&north, event(&before)).await.is_err(), "the south is not in the room");
    south.join(&ben, &room, &north).await.unwrap();
    assert_eq!(body(south.ask(&north, event(&before)).await.unwrap()), Value::Null);
    let all = south.ask(&north, format!("/_matrix/federation/v1/backfill/{room}?v={after}&limit=100")).await.unwrap();
    let bodies: Vec<&str> =
        all["pdus"].as_array().unwrap().iter().filter_map(|pdu| pdu["content"]["body"].as_str()).collect();
    assert_eq!(bodies, ["during"]);
}

#[tokio::test]
async fn state_and_its_authority_are_given_as_they_were_before_an_event() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let room = north.room(&anna, "public_chat", "11", shared()).await;
    south.join(&ben, &room, &north).await.unwrap();
    let message = north.say(&anna, &room, "hello").await;
    let state = south.ask(&north, format!("/_matrix/federation/v1/state/{room}?event_id={message}")).await.unwrap();
    let ids = south.ask(&north, format!("/_matrix/federation/v1/state_ids/{room}?event_id={message}")).await.unwrap();
    assert_eq!(state["pdus"].as_array().unwrap().len(), ids["pdu_ids"].as_array().unwrap().len());
    assert_eq!(state["auth_chain"].as_array().unwrap().len(), ids["auth_chain_ids"].as_array().unwrap().len());
    let kinds: BTreeSet<&str> =
        state["pdus"].as_array().unwrap().iter().filter_map(|pdu| pdu["type"].as_str()).collect();
    assert!(kinds.is_superset(&BTreeSet::from(["m.room.create", "m.room.member", "m.room.power_levels"])));
    let chain = south.ask(&north, format!("/_matrix/federation/v1/event_auth/{room}/{message}")).await.unwrap();
    assert!(chain["auth_chain"].as_array().unwrap().iter().any(|pdu| pdu["type"] == "m.room.create"));
}

#[tokio::test]
async fn a_server_that_the_access_control_list_keeps_out_is_refused_everywhere() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let acl = json!([{"type": "m.room.server_acl", "content": {"allow": ["*"], "deny": ["south.example"]}}]);
    let room = north.room(&anna, "public_chat", "11", acl).await;
    let message = north.say(&anna, &room, "hello").await;
    let refused = south.join(&ben, &room, &north).await.unwrap_err();
    assert!(matches!(refused, Error::Forbidden(_)), "{refused:?}");
    for path in [
        format!("/_matrix/federation/v1/make_leave/{room}/{ben}"),
        format!("/_matrix/federation/v1/event/{message}"),
        format!("/_matrix/federation/v1/backfill/{room}?v={message}"),
    ] {
        assert_eq!(south.ask(&north, path.clone()).await.unwrap_err(), (403, "M_FORBIDDEN".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn the_event_nearest_to_a_time_is_found() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let room = north.room(&anna, "public_chat", "11", shared()).await;
    let message = north.say(&anna, &room, "hello").await;
    south.join(&ben, &room, &north).await.unwrap();
    let ts = north.core.load_event(&message).unwrap().unwrap().pdu.origin_server_ts_ms();
    let near = |ts: u64, dir: &str| format!("/_matrix/federation/v1/timestamp_to_event/{room}?ts={ts}&dir={dir}");
    let first = south.ask(&north, near(0, "f")).await.unwrap();
    assert!(first["origin_server_ts"].as_u64().unwrap() <= ts);
    let exact = south.ask(&north, near(ts, "b")).await.unwrap();
    assert_eq!(exact["origin_server_ts"], ts);
    assert_eq!(south.ask(&north, near(0, "b")).await.unwrap_err().0, 404);
    assert_eq!(south.ask(&north, near(u64::MAX, "f")).await.unwrap_err().0, 404);
}
