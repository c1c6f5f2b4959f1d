//! An address is a way into a room: policy stands in it.

use matron_policy::ROOM_POLICY_TYPE;
use matron_room::{DraftPdu, Membership, RoomVersion, SigningKey};
use ruma::{OwnedUserId, UserId};
use serde_json::json;

use super::tests::{IdentityServer, invite};
use crate::{
    Error,
    federation::handshake::ThirdPartyExchange,
    governance::{
        RemoteVerdict,
        tests::{Governed, decision_of},
    },
    rooms::{StateKey, create::CreateRoom},
};

fn user(id: &str) -> OwnedUserId {
    id.try_into().unwrap()
}

#[tokio::test]
async fn into_a_bounded_room_nobody_is_invited_of_whom_only_an_address_is_known() {
    let house = Governed::new(None).await;
    let server = IdentityServer::serve(&house.world);
    let core = house.core();
    let room = house.ward().await;

    let refusal = core.invite_by_address(&house.bot, &room, &invite("ben@example.com"), None, false).await.unwrap_err();
    let told = core.explain(&decision_of(&refusal)).unwrap().unwrap();
    assert_eq!(told.room_id.as_deref(), Some(room.as_str()));
    assert!(told.explanation.contains("known by an address alone"), "{}", told.explanation);
    assert!(!told.explanation.contains("ben@"), "{}", told.explanation);
    assert!(server.lock().binding(&house.bot).invites.is_empty(), "nothing was stored, and no letter sent");

    // A client that writes the state itself is told the same, and so is another server.
    let content = json!({"display_name": "b...", "public_key": "AAAA", "key_validity_url": "https://id.example/"});
    let written = core.set_state(&house.bot, &room, "m.room.third_party_invite", "t", content.clone(), None).await;
    assert!(matches!(written, Err(Error::PolicyDenied { .. })), "{written:?}");
    let mut draft = DraftPdu::new(Some(room.clone()), user("@bot:them.example"), "m.room.third_party_invite", content)
        .with_state_key("t");
    draft.origin_server_ts_ms = core.now_ms();
    draft.depth = 9;
    draft.prev_events = vec![ruma::OwnedEventId::try_from("$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap()];
    draft.auth_events = draft.prev_events.clone();
    let key = SigningKey::from_seed("them", &[3; 32]).unwrap();
    let pdu = draft.seal(RoomVersion::find("12").unwrap(), &key, "them.example".try_into().unwrap()).unwrap();
    assert_eq!(house.judge(&room, &pdu), RemoteVerdict::Withhold);
}

#[tokio::test]
async fn whose_the_address_is_comes_in_if_policy_lets_them() {
    let house = Governed::new(None).await;
    let server = IdentityServer::serve(&house.world);
    let core = house.core();
    let room = house.ward().await;
    let ben = house.clinician("ben").await;
    let bind = |user: &UserId| server.lock().bound.insert("ben@example.com".to_owned(), user.to_string());
    let address = invite("ben@example.com");
    let try_to_invite = || core.invite_by_address(&house.bot, &room, &address, None, false);

    bind(&user("@eve:outside.example"));
    let refusal = try_to_invite().await.unwrap_err();
    let told = core.explain(&decision_of(&refusal)).unwrap().unwrap();
    assert!(told.explanation.contains("no organisation of the federation"), "{}", told.explanation);
    bind(&ben);
    try_to_invite().await.unwrap();
    assert_eq!(core.standing(&ben, &room).unwrap().unwrap().membership, Membership::Invite);
}

#[tokio::test]
async fn an_invite_from_before_the_policy_is_exchanged_for_those_alone_whom_policy_lets_in() {
    let house = Governed::new(None).await;
    let server = IdentityServer::serve(&house.world);
    let core = house.core();
    let request = CreateRoom { preset: Some("private_chat".to_owned()), ..CreateRoom::default() };
    let room = core.create_room(&house.bot, request).await.unwrap();
    core.invite_by_address(&house.bot, &room, &invite("ben@example.com"), None, false).await.unwrap();
    house.set_policy(&room, &house.bot, 60_000).await.unwrap();
    let ben = house.clinician("ben").await;
    let eve = user("@eve:outside.example");

    let signed = server.lock().binding(&eve).invites.remove(0).signed;
    let exchange = ThirdPartyExchange {
        kind: "m.room.member".to_owned(),
        room_id: room.clone(),
        sender: house.bot.clone(),
        state_key: eve.clone(),
        content: json!({"membership": "invite", "third_party_invite": {"signed": signed}}),
    };
    let refusal = core.exchange_third_party_invite(eve.server_name(), &room, exchange).await.unwrap_err();
    let told = core.explain(&decision_of(&refusal)).unwrap().unwrap();
    assert!(told.explanation.contains("no organisation of the federation"), "{}", told.explanation);
    let current = core.find_room(&room).unwrap().unwrap().current();
    assert!(current.contains_key(&StateKey::new(ROOM_POLICY_TYPE, "")));
    assert!(!current.contains_key(&StateKey::new("m.room.member", eve.as_str())));

    let bound = server.lock().binding(&ben);
    core.third_party_bound(bound).await.unwrap();
    assert_eq!(core.standing(&ben, &room).unwrap().unwrap().membership, Membership::Invite);
}
