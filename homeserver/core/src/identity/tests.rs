use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use matron_room::{Membership, SigningKey, canonical_object};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{AddressInvite, IdentityCredentials, Unbound};
use crate::{
    Core, Error, Settings,
    federation::handshake::BoundThirdParty,
    ports::{IdentityProof, IdentityRequest, PeerError, PeerResponse},
    rooms::{StateKey, create::CreateRoom, membership::JoinOptions},
    test_world::{World, json_answer},
};

const SERVER: &str = "id.example";
const TOKEN: &str = "swordfish";

/// An identity server, as far as it is needed.
pub(crate) struct IdentityServer {
    key: SigningKey,
    /// Whose key it no longer stands by.
    pub(crate) revoked: bool,
    /// Address to user.
    pub(crate) bound: BTreeMap<String, String>,
    /// Invites that wait.
    stored: Vec<Value>,
}

impl IdentityServer {
    /// Answers the requests of this world from now on.
    pub(crate) fn serve(world: &World) -> Arc<Mutex<Self>> {
        let server = Self {
            key: SigningKey::from_seed("0", &[9; 32]).unwrap(),
            revoked: false,
            bound: BTreeMap::new(),
            stored: Vec::new(),
        };
        let server = Arc::new(Mutex::new(server));
        let answering = Arc::clone(&server);
        world.answer_identity(move |request| answering.lock().answer(request));
        server
    }

    fn answer(&mut self, request: &IdentityRequest) -> Result<PeerResponse, PeerError> {
        assert_eq!(request.server, SERVER);
        let (path, query) = request.path_and_query.split_once('?').unwrap_or((&request.path_and_query, ""));
        let with_token = request.proof == IdentityProof::UserToken(TOKEN.to_owned());
        let body = request.body.clone().unwrap_or_default();
        let hash = |address: &str| {
            let text = format!("{address} email pepper");
            URL_SAFE_NO_PAD.encode(Sha256::digest(text))
        };
        match path.strip_prefix("/_matrix/identity/v2").unwrap() {
            "/hash_details" if with_token => {
                json_answer(&json!({"lookup_pepper": "pepper", "algorithms": ["none", "sha256"]}))
            }
            "/lookup" if with_token => {
                assert_eq!((&body["algorithm"], &body["pepper"]), (&json!("sha256"), &json!("pepper")));
                let asked = body["addresses"][0].as_str().unwrap();
                let found = self.bound.iter().find(|(address, _)| hash(address) == asked);
                json_answer(&json!({"mappings": {asked: found.map(|(_, user)| user)}}))
            }
            "/store-invite" if with_token => {
                self.stored.push(body);
                let url = format!("https://{SERVER}/_matrix/identity/v2/pubkey/isvalid");
                let key = json!({"public_key": self.key.verify_key().to_base64(), "key_validity_url": url});
                let token = format!("token{}", self.stored.len());
                json_answer(&json!({"token": token, "display_name": "b...@e...", "public_keys": [key]}))
            }
            "/pubkey/isvalid" => {
                assert!(query.starts_with("public_key="), "{query}");
                json_answer(&json!({"valid": !self.revoked}))
            }
            "/3pid/bind" if with_token => {
                let (address, user) = (body["sid"].as_str().unwrap(), body["mxid"].as_str().unwrap());
                self.bound.insert(address.to_owned(), user.to_owned());
                json_answer(&json!({"medium": "email", "address": address, "mxid": user, "not_before": 0}))
            }
            "/3pid/unbind" if request.proof == IdentityProof::Signed => {
                let address = body["threepid"]["address"].as_str().unwrap();
                match self.bound.remove(address) {
                    Some(_) => json_answer(&json!({})),
                    None => Err(PeerError::Status { status: 404, body: Value::Null }),
                }
            }
            _ => Err(PeerError::Status { status: 401, body: json!({"errcode": "M_UNKNOWN_TOKEN", "error": "who?"}) }),
        }
    }

    /// The proof that a user has the address of the invite that was stored so many before the last.
    fn signed(&self, token: &str, more: Value, user: &UserId) -> Value {
        let mut signed = json!({"mxid": user, "token": token});
        signed.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut signed = canonical_object(&signed).unwrap();
        self.key.sign_json(&mut signed, SERVER).unwrap();
        serde_json::to_value(signed).unwrap()
    }

    /// What it tells a homeserver of a user who has now proved to have the address.
    pub(crate) fn binding(&self, user: &UserId) -> BoundThirdParty {
        let invites = self.stored.iter().enumerate().map(|(index, invite)| {
            let signed = self.signed(&format!("token{}", index + 1), json!({}), user);
            json!({"mxid": user, "room_id": invite["room_id"], "sender": invite["sender"], "signed": signed})
        });
        let bound = json!({
            "medium": "email", "address": "ben@example.com", "mxid": user, "invites": invites.collect::<Vec<_>>(),
        });
        serde_json::from_value(bound).unwrap()
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        insecure_fast_password_hash: true,
        identity_servers: vec!["ID.example".to_owned()],
        ..Settings::default()
    }
}

pub(crate) fn invite(address: &str) -> AddressInvite {
    invite_by(SERVER, TOKEN, address)
}

fn invite_by(server: &str, token: &str, address: &str) -> AddressInvite {
    let invite = json!({"id_server": server, "id_access_token": token, "medium": "email", "address": address});
    serde_json::from_value(invite).unwrap()
}

fn credentials(server: &str, address: &str) -> IdentityCredentials {
    let credentials = json!({"id_server": server, "id_access_token": TOKEN, "sid": address, "client_secret": "s3cret"});
    serde_json::from_value(credentials).unwrap()
}

async fn private_room(core: &Arc<Core>, creator: &UserId) -> OwnedRoomId {
    let request = CreateRoom { preset: Some("private_chat".to_owned()), ..CreateRoom::default() };
    core.create_room(creator, request).await.unwrap()
}

fn standing(core: &Core, user: &UserId, room: &RoomId) -> Option<Membership> {
    core.standing(user, room).unwrap().map(|standing| standing.membership)
}

fn state(core: &Core, room: &RoomId, kind: &str, key: &str) -> Option<Value> {
    let id = core.find_room(room).unwrap().unwrap().current().get(&StateKey::new(kind, key)).cloned()?;
    Some(core.load_event(&id).unwrap().unwrap().pdu.content_value())
}

#[track_caller]
fn assert_not_trusted<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Custom { errcode: "M_SERVER_NOT_TRUSTED", .. })), "{result:?}");
}

async fn three(world: &World) -> (OwnedUserId, OwnedUserId, OwnedUserId) {
    (world.user("anna").await, world.user("ben").await, world.user("carl").await)
}

#[tokio::test]
async fn only_an_identity_server_that_the_operator_names_is_spoken_with() {
    for settings in [Settings { insecure_fast_password_hash: true, ..Settings::default() }, settings()] {
        let world = World::with(settings);
        let anna = world.user("anna").await;
        let core = &world.core;
        let room = private_room(core, &anna).await;
        for server in ["other.example", "id.example:8090", "id.example.evil.example", "", "nonsense/"] {
            let invite = invite_by(server, TOKEN, "ben@example.com");
            assert_not_trusted(core.invite_by_address(&anna, &room, &invite, None, false).await);
            let request = CreateRoom { invite_3pid: vec![invite], ..CreateRoom::default() };
            assert_not_trusted(core.create_room(&anna, request).await);
            assert_not_trusted(core.bind_at_identity_server(&anna, &credentials(server, "ben@x")).await);
            assert_not_trusted(core.unbind_at_identity_server(&anna, "email", "ben@x", Some(server)).await);
        }
        assert_eq!(core.joined_rooms(&anna).unwrap().len(), 1, "no room is made for an invite that is refused");
        assert!(world.peers.asked_identity.lock().is_empty());
    }
}

#[tokio::test]
async fn a_name_with_wildcards_trusts_more_but_lets_nobody_at_private_addresses() {
    let world = World::with(Settings { identity_servers: vec!["*.nhs.example:*".to_owned()], ..settings() });
    let anna = world.user("anna").await;
    world.answer_identity(|_| json_answer(&json!({"mxid": "@anna:us.example", "medium": "email", "address": "a@x"})));
    world.core.bind_at_identity_server(&anna, &credentials("id.nhs.example:8090", "a")).await.unwrap();
    assert_not_trusted(world.core.bind_at_identity_server(&anna, &credentials("nhs.example", "a")).await);
    let asked = world.peers.asked_identity.lock();
    assert_eq!(asked.iter().map(|request| request.trusted).collect::<Vec<_>>(), [false]);
}

#[tokio::test]
async fn an_address_is_bound_and_unbound_where_it_was_bound() {
    let world = World::with(settings());
    let server = IdentityServer::serve(&world);
    let (anna, ..) = three(&world).await;
    let core = &world.core;
    let is_bound = |address: &str| server.lock().bound.contains_key(address);

    core.bind_at_identity_server(&anna, &credentials(SERVER, "anna=1")).await.unwrap();
    assert!(is_bound("anna=1"));
    assert!(core.threepids(&anna).unwrap().is_empty(), "to be found by an address is not to have it in the account");
    let unbind = |address: &'static str, server: Option<&'static str>| {
        core.unbind_at_identity_server(&anna, "email", address, server)
    };
    assert_eq!(unbind("ANNA=1", None).await.unwrap(), Unbound::Success);
    assert!(!is_bound("anna=1"));
    assert_eq!(unbind("anna=1", None).await.unwrap(), Unbound::NoSupport, "nobody knows where");

    // Bound by somebody else's hand.
    server.lock().bound.insert("anna=2".to_owned(), anna.to_string());
    assert_eq!(unbind("anna=2", None).await.unwrap(), Unbound::NoSupport);
    assert_eq!(unbind("anna=2", Some(SERVER)).await.unwrap(), Unbound::Success);
    assert_eq!(unbind("anna=2", Some(SERVER)).await.unwrap(), Unbound::NoSupport, "a 404 that is no Matrix error");

    core.bind_at_identity_server(&anna, &credentials(SERVER, "anna=3")).await.unwrap();
    core.bind_threepid(&anna, "email", "anna=4").await.unwrap();
    server.lock().bound.insert("anna=4".to_owned(), anna.to_string());
    let requester = world.device(&anna, "D").await;
    let proof = json!({"type": "m.login.password", "password": "a long password"});
    let closed = core.deactivate_own(&requester, false, Some(SERVER), Some(&proof)).await.unwrap();
    assert_eq!((closed, is_bound("anna=3"), is_bound("anna=4")), (Unbound::Success, false, false));
}

#[tokio::test]
async fn whoever_closes_an_account_is_not_kept_by_an_identity_server_that_is_away() {
    let world = World::with(settings());
    let server = IdentityServer::serve(&world);
    let (anna, ..) = three(&world).await;
    world.core.bind_at_identity_server(&anna, &credentials(SERVER, "anna=1")).await.unwrap();
    world.answer_identity(|_| Err(PeerError::Timeout));
    assert_eq!(world.core.deactivate(&anna, false).await.unwrap(), Unbound::NoSupport);
    assert!(world.core.account(&anna).unwrap().unwrap().deactivated);
    drop(server);
}

#[tokio::test]
async fn what_the_identity_server_refuses_is_passed_on_and_ends_no_session() {
    let world = World::with(settings());
    let _server = IdentityServer::serve(&world);
    let (anna, ..) = three(&world).await;
    let room = private_room(&world.core, &anna).await;
    let wrong = invite_by(SERVER, "wrong", "ben@example.com");
    match world.core.invite_by_address(&anna, &room, &wrong, None, false).await {
        Err(Error::PeerAnswer { status: 403, body }) => assert_eq!(body["errcode"], "M_UNAUTHORIZED"),
        other => panic!("{other:?}"),
    }
    world.answer_identity(|_| {
        Err(PeerError::Status { status: 403, body: json!({"errcode": "M_TERMS_NOT_SIGNED", "error": "read\nthem"}) })
    });
    match world.core.bind_at_identity_server(&anna, &credentials(SERVER, "a")).await {
        Err(Error::PeerAnswer { status: 403, body }) => {
            assert_eq!(*body, json!({"errcode": "M_TERMS_NOT_SIGNED", "error": "readthem"}));
        }
        other => panic!("{other:?}"),
    }
    for answer in [json!([]), json!({"mxid": "@ben:us.example", "medium": "email", "address": "a@x"})] {
        world.answer_identity(move |_| json_answer(&answer));
        let bound = world.core.bind_at_identity_server(&anna, &credentials(SERVER, "a")).await;
        assert!(matches!(bound, Err(Error::Peer(_))), "{bound:?}");
    }
}

#[tokio::test]
async fn a_token_shows_in_no_log() {
    let invite = invite(TOKEN);
    let asked = IdentityRequest {
        server: SERVER.try_into().unwrap(),
        trusted: true,
        method: crate::ports::http_method::Method::Get,
        path_and_query: String::new(),
        proof: invite.id_access_token.proof().unwrap(),
        body: None,
        timeout: std::time::Duration::ZERO,
        max_bytes: 0,
    };
    let shown = format!("{:?} {:?} {asked:?}", invite.id_access_token, credentials(SERVER, "a"));
    assert!(!shown.contains(TOKEN) && !shown.contains("s3cret"), "{shown}");
}

#[tokio::test]
async fn whoever_the_identity_server_knows_is_invited_at_once() {
    let world = World::with(settings());
    let server = IdentityServer::serve(&world);
    let (anna, ben, carl) = three(&world).await;
    server.lock().bound.insert("ben@example.com".to_owned(), ben.to_string());
    let core = &world.core;
    let room = private_room(core, &anna).await;
    core.invite_by_address(&anna, &room, &invite("Ben@Example.com"), None, false).await.unwrap();
    assert_eq!(standing(core, &ben, &room), Some(Membership::Invite));

    let request = CreateRoom { invite_3pid: vec![invite("ben@example.com")], ..CreateRoom::default() };
    let room = core.create_room(&anna, request).await.unwrap();
    assert_eq!(standing(core, &ben, &room), Some(Membership::Invite));

    // Who may not invite makes nobody ask.
    let asked = world.peers.asked_identity.lock().len();
    let outsider = core.invite_by_address(&carl, &room, &invite("ben@example.com"), None, false).await;
    assert!(matches!(outsider, Err(Error::Forbidden(_))), "{outsider:?}");
    for odd in ["", "two words", &"a".repeat(256)] {
        let odd = core.invite_by_address(&anna, &room, &invite(odd), None, false).await;
        assert!(matches!(odd, Err(Error::InvalidParam(_))), "{odd:?}");
    }
    assert_eq!(world.peers.asked_identity.lock().len(), asked);
}

#[tokio::test]
async fn whoever_proves_later_to_have_the_address_is_invited_then() {
    let world = World::with(settings());
    let server = IdentityServer::serve(&world);
    let (anna, ben, _) = three(&world).await;
    let core = &world.core;
    core.set_profile_field(&anna, "displayname", Some(json!("Anna"))).await.unwrap();
    let room = private_room(core, &anna).await;
    core.invite_by_address(&anna, &room, &invite("ben@example.com"), None, false).await.unwrap();
    let told = server.lock().stored[0].clone();
    let expected = json!({
        "medium": "email", "address": "ben@example.com", "room_id": room, "sender": anna, "sender_display_name": "Anna",
    });
    assert_eq!(told, expected, "and nothing of the room");
    let content = state(core, &room, "m.room.third_party_invite", "token1").unwrap();
    assert_eq!(content["display_name"], "b...@e...");
    assert_eq!(content["public_key"], content["public_keys"][0]["public_key"]);
    assert_eq!(content["key_validity_url"], content["public_keys"][0]["key_validity_url"]);
    assert!(!content.to_string().contains("ben@"));

    let bound = server.lock().binding(&ben);
    core.third_party_bound(bound).await.unwrap();
    let member = state(core, &room, "m.room.member", ben.as_str()).unwrap();
    assert_eq!(member["membership"], "invite");
    assert_eq!(member["third_party_invite"]["display_name"], "b...@e...");
    core.join_room(&ben, &room, JoinOptions::default()).await.unwrap();
    assert_eq!(standing(core, &ben, &room), Some(Membership::Join));
}

#[tokio::test]
async fn nobody_is_invited_by_a_key_that_was_taken_back_or_that_nobody_can_vouch_for() {
    let world = World::with(settings());
    let server = IdentityServer::serve(&world);
    let (anna, ben, _) = three(&world).await;
    let core = &world.core;
    let room = private_room(core, &anna).await;
    core.invite_by_address(&anna, &room, &invite("ben@example.com"), None, false).await.unwrap();
    server.lock().revoked = true;
    let bound = server.lock().binding(&ben);
    core.third_party_bound(bound).await.unwrap_err();
    assert_eq!(standing(core, &ben, &room), None);

    server.lock().revoked = false;
    world.answer_identity(|_| Err(PeerError::Timeout));
    let bound = server.lock().binding(&ben);
    core.third_party_bound(bound).await.unwrap_err();
    assert_eq!(standing(core, &ben, &room), None);

    server.lock().key = SigningKey::from_seed("0", &[8; 32]).unwrap();
    let bound = server.lock().binding(&ben);
    core.third_party_bound(bound).await.unwrap_err();
    assert_eq!(standing(core, &ben, &room), None);
}

#[tokio::test]
async fn who_has_an_account_is_told_to_nobody_who_says_that_an_address_was_bound() {
    let world = World::with(settings());
    let server = IdentityServer::serve(&world);
    let (anna, ben, _) = three(&world).await;
    let core = &world.core;
    let room = private_room(core, &anna).await;
    core.invite_by_address(&anna, &room, &invite("ben@example.com"), None, false).await.unwrap();
    let nobody = OwnedUserId::try_from("@nobody:us.example").unwrap();
    let gone = world.user("gone").await;
    core.deactivate(&gone, false).await.unwrap();
    let ask = async |user: &OwnedUserId, sender: Option<&OwnedUserId>| {
        let mut bound = server.lock().binding(user);
        match sender {
            Some(sender) => bound.invites.iter_mut().for_each(|invite| invite.sender = sender.clone()),
            None => bound.invites.clear(),
        }
        world.peers.asked.lock().clear();
        let answer = core.third_party_bound(bound).await;
        let asked = world.peers.asked.lock().iter().map(|asked| asked.destination.to_string()).collect::<Vec<_>>();
        (format!("{answer:?}"), asked)
    };
    let far = OwnedUserId::try_from("@eve:far.example").unwrap();
    for sender in [None, Some(&ben), Some(&far)] {
        let known = ask(&ben, sender).await;
        assert_eq!(known.1.len(), usize::from(sender == Some(&far)));
        for user in [&nobody, &gone] {
            assert_eq!(ask(user, sender).await, known, "{user} {sender:?}");
        }
    }
    // Nor is anybody invited who is nobody, though an identity server vouches for them.
    assert!(ask(&nobody, Some(&anna)).await.0.contains("Forbidden"));
    assert_eq!(standing(core, &nobody, &room), None);
}

#[tokio::test]
async fn an_invite_outlives_the_inviters_stay_but_not_the_account() {
    let world = World::with(settings());
    let server = IdentityServer::serve(&world);
    let (anna, ben, carl) = three(&world).await;
    let core = &world.core;
    for is_closed in [false, true] {
        let room = private_room(core, &anna).await;
        core.invite(&anna, &room, &carl, None, false).await.unwrap();
        core.join_room(&carl, &room, JoinOptions::default()).await.unwrap();
        server.lock().stored.clear();
        core.invite_by_address(&anna, &room, &invite("ben@example.com"), None, false).await.unwrap();
        if is_closed {
            core.deactivate(&anna, false).await.unwrap();
        } else {
            core.leave_room(&anna, &room, None).await.unwrap();
        }
        let bound = server.lock().binding(&ben);
        assert_eq!(core.third_party_bound(bound).await.is_err(), is_closed);
        assert_eq!(standing(core, &ben, &room), (!is_closed).then_some(Membership::Invite));
    }
}

#[tokio::test]
async fn into_a_room_that_this_server_has_left_nobody_is_invited_by_an_address() {
    let world = World::with(settings());
    let server = IdentityServer::serve(&world);
    let (anna, ben, _) = three(&world).await;
    let core = &world.core;
    let room = private_room(core, &anna).await;
    core.invite_by_address(&anna, &room, &invite("ben@example.com"), None, false).await.unwrap();
    core.leave_room(&anna, &room, None).await.unwrap();
    let bound = server.lock().binding(&ben);
    core.third_party_bound(bound).await.unwrap_err();
    assert_eq!(standing(core, &ben, &room), None);
    let proof = server.lock().signed("token1", json!({"sender": anna}), &ben);
    let refused =
        core.join_room(&ben, &room, JoinOptions { third_party_signed: Some(proof), ..JoinOptions::default() }).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(standing(core, &ben, &room), None);
}

#[tokio::test]
async fn a_client_may_bring_the_proof_with_the_join() {
    let world = World::with(settings());
    let server = IdentityServer::serve(&world);
    let (anna, ben, carl) = three(&world).await;
    let core = &world.core;
    let room = private_room(core, &anna).await;
    core.invite_by_address(&anna, &room, &invite("ben@example.com"), None, false).await.unwrap();
    let proof = |token: &str, sender: &UserId, user: &UserId| {
        let signed = server.lock().signed(token, json!({"sender": sender}), user);
        JoinOptions { third_party_signed: Some(signed), ..JoinOptions::default() }
    };
    for (user, proof) in [
        (&carl, proof("token1", &anna, &ben)),
        (&carl, proof("token2", &anna, &carl)),
        (&carl, proof("token1", &carl, &carl)),
    ] {
        let refused = core.join_room(user, &room, proof).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    }
    core.join_room(&ben, &room, proof("token1", &anna, &ben)).await.unwrap();
    assert_eq!(standing(core, &ben, &room), Some(Membership::Join));
}
