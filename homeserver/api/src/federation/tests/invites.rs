//! Invites and knocks between servers, also of somebody of whom only an address is known.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use matron_core::{
    Settings,
    appservices::Registration,
    rooms::{membership::JoinOptions, send::NewEvent},
};
use matron_room::{Membership, SigningKey};
use ruma::UserId;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::world::{Trust, Wires, open_settings, shared, two, until};

#[tokio::test]
async fn an_invite_crosses_and_is_accepted_refused_and_taken_back() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    for version in ["10", "12"] {
        let room = north.room(&anna, "private_chat", version, shared()).await;
        assert!(south.join(&ben, &room, &north).await.is_err(), "nobody comes uninvited");

        north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
        assert_eq!(south.standing(&ben, &room), Some(Membership::Invite));
        south.core.leave_room(&ben, &room, None).await.unwrap();
        assert_eq!(south.standing(&ben, &room), Some(Membership::Leave));
        assert_eq!(north.membership(&ben, &room), Membership::Leave);

        north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
        north.core.kick(&anna, &room, &ben, None).await.unwrap();
        until("the invite is gone", || south.standing(&ben, &room) == Some(Membership::Leave)).await;

        north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
        assert_eq!(south.standing(&ben, &room), Some(Membership::Invite));
        // No server is named: the inviter's is known.
        south.core.join_room(&ben, &room, JoinOptions::default()).await.unwrap();
        let message = south.say(&ben, &room, "thank you").await;
        until("the north hears ben", || north.has(&message)).await;
    }
}

#[tokio::test]
async fn an_application_service_hears_of_invites_to_rooms_that_its_server_is_not_in() {
    let wires = Arc::new(Wires::default());
    let north = Trust::start(&wires, "north.example", 1, open_settings());
    let registration = "{id: lab, url: 'https://lab.example', as_token: a, hs_token: h, sender_localpart: bot, \
                        namespaces: {users: [{exclusive: false, regex: '@lab_.*'}]}}";
    let services = vec![Registration::parse(registration).unwrap()];
    let south = Trust::start_with(&wires, "south.example", 2, open_settings(), services);
    let anna = north.user("anna").await;
    let (feed, ben) = (south.user("lab_feed").await, south.user("ben").await);
    let events = || -> Vec<Value> {
        let told = wires.told.lock().unwrap();
        told.iter().flat_map(|body| body["events"].as_array().unwrap().clone()).collect()
    };
    let room = north.room(&anna, "private_chat", "12", shared()).await;
    north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
    north.core.invite(&anna, &room, &feed, None, false).await.unwrap();
    until("the service is told", || !events().is_empty()).await;
    let invite = &events()[0];
    assert_eq!(
        (
            &invite["type"],
            &invite["state_key"],
            &invite["room_id"],
            &invite["sender"],
            &invite["content"]["membership"]
        ),
        (&json!("m.room.member"), &json!(feed), &json!(room), &json!(anna), &json!("invite")),
    );
    let shown = invite["unsigned"]["invite_room_state"].as_array().unwrap();
    assert!(shown.iter().any(|event| event["type"] == "m.room.create"), "{invite}");
    north.core.kick(&anna, &room, &feed, None).await.unwrap();
    until("the service is told that it was taken back", || events().len() > 1).await;
    let end = &events()[1];
    assert_eq!((&end["content"]["membership"], &end["sender"]), (&json!("leave"), &json!(anna)));
    assert!(end["unsigned"]["invite_room_state"].is_null(), "{end}");
    // Each once, and nothing of others.
    let next = north.room(&anna, "private_chat", "10", shared()).await;
    north.core.invite(&anna, &next, &feed, None, false).await.unwrap();
    until("the service is told again", || events().len() > 2).await;
    assert_eq!((events().len(), &events()[2]["room_id"]), (3, &json!(next)));
}

#[tokio::test]
async fn an_invite_of_a_server_that_is_gone_can_be_refused() {
    let (wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let room = north.room(&anna, "private_chat", "12", shared()).await;
    north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
    wires.cut.lock().unwrap().insert(north.core.server_name.clone());
    south.core.leave_room(&ben, &room, None).await.unwrap();
    assert_eq!(south.standing(&ben, &room), Some(Membership::Leave));
}

#[tokio::test]
async fn whoever_knocks_elsewhere_is_let_in_or_sent_away() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let (ben, bea) = (south.user("ben").await, south.user("bea").await);
    let knock = json!([{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]);
    let room = north.room(&anna, "private_chat", "11", knock).await;
    let via = || JoinOptions { via: vec![north.core.server_name.clone()], ..JoinOptions::default() };
    for user in [&ben, &bea] {
        south.core.knock(user, &room, via()).await.unwrap();
        assert_eq!(south.standing(user, &room), Some(Membership::Knock));
        assert_eq!(north.membership(user, &room), Membership::Knock);
    }
    north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
    assert_eq!(south.standing(&ben, &room), Some(Membership::Invite));
    north.core.kick(&anna, &room, &bea, None).await.unwrap();
    until("bea is sent away", || south.standing(&bea, &room) == Some(Membership::Leave)).await;
    south.core.join_room(&ben, &room, JoinOptions::default()).await.unwrap();
    assert_eq!(north.membership(&ben, &room), Membership::Join);
}

#[tokio::test]
async fn an_invite_of_an_address_becomes_one_of_the_user_whose_it_is() {
    let wires = Arc::new(Wires::default());
    let trusting = Settings { identity_servers: vec!["id.example".to_owned()], ..open_settings() };
    let north = Trust::start(&wires, "north.example", 1, trusting);
    let south = Trust::start(&wires, "south.example", 2, open_settings());
    let anna = north.user("anna").await;
    let (ben, bea) = (south.user("ben").await, south.user("bea").await);
    let identity = SigningKey::from_seed("0", &[9; 32]).unwrap();
    let public = identity.verify_key().to_base64();
    let room = north.room(&anna, "private_chat", "12", shared()).await;
    let invite = json!({
        "display_name": "b...@south.example", "key_validity_url": "https://id.example/valid", "public_key": public,
        "public_keys": [{"public_key": public}],
    });
    let new = |kind: &str, key: &str, content: Value| NewEvent::state(room.clone(), anna.clone(), kind, key, content);
    north.core.send_event(new("m.room.third_party_invite", "token", invite)).await.unwrap();

    let router = wires.routers.lock().unwrap().get(&south.core.server_name).cloned().unwrap();
    let bind = |user: &UserId, signed_by: &SigningKey| {
        let signature = signed_by.sign_bytes(format!(r#"{{"mxid":"{user}","token":"token"}}"#).as_bytes());
        let signed = json!({
            "mxid": user, "token": "token", "signatures": {"id.example": {"ed25519:0": signature}},
        });
        let invites = json!([{
            "medium": "email", "address": "b@south.example", "mxid": user, "room_id": room, "sender": anna,
            "signed": signed,
        }]);
        let body = json!({"medium": "email", "address": "b@south.example", "mxid": user, "invites": invites});
        // As identity servers do it; the Server-Server API says PUT.
        let request = Request::post("/_matrix/federation/v1/3pid/onbind").body(Body::from(body.to_string())).unwrap();
        let router = router.clone();
        async move { router.oneshot(request).await.unwrap().status().as_u16() }
    };
    // Whose signature is not the invite's gets nobody invited.
    assert_eq!(bind(&bea, &SigningKey::from_seed("0", &[8; 32]).unwrap()).await, 403);
    assert_eq!(south.standing(&bea, &room), None);
    // Nor does one whose key was taken back meanwhile: the inviting server asks.
    wires.key_is_revoked.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(bind(&bea, &identity).await, 403);
    assert_eq!(south.standing(&bea, &room), None);
    wires.key_is_revoked.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(bind(&ben, &identity).await, 200);
    assert_eq!(south.standing(&ben, &room), Some(Membership::Invite));
    let member = north.core.find_room(&room).unwrap().unwrap().current();
    let member = member.get(&matron_core::rooms::StateKey::new("m.room.member", ben.as_str())).unwrap().clone();
    let content = north.core.load_event(&member).unwrap().unwrap().pdu.content_value();
    assert_eq!(content["third_party_invite"]["display_name"], "b...@south.example");
    south.core.join_room(&ben, &room, JoinOptions::default()).await.unwrap();
    assert_eq!(north.membership(&ben, &room), Membership::Join);
    assert_eq!(bind(&anna, &identity).await, 400);
}
