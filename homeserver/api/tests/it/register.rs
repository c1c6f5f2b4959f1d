//! Registering.

use matron_core::{
    Settings,
    settings::{Registration, RegistrationMode},
};
use serde_json::{Value, json};

use crate::server::{Server, open_settings, user_of};

#[tokio::test]
async fn registering_asks_for_a_stage_and_then_gives_a_session() {
    let server = Server::new();
    let body = json!({ "username": "Alice", "password": "a long password" });
    let asked = server.post("", "/r0/register", body.clone()).await;
    assert_eq!(asked.status, 401);
    assert_eq!(asked.body["flows"], json!([{ "stages": ["m.login.dummy"] }]));
    let session = asked.body["session"].as_str().unwrap();
    let mut body = body;
    body["auth"] = json!({ "type": "m.login.dummy", "session": session });
    let alice = server.post("", "/v3/register", body).await.ok();
    assert_eq!(alice["user_id"], "@alice:us.example");
    let alice = user_of(&alice);
    let who = server.get(&alice.token, "/v3/account/whoami").await.ok();
    assert_eq!(who, json!({ "user_id": "@alice:us.example", "device_id": alice.device, "is_guest": false }));
}

#[tokio::test]
async fn names_are_checked_before_anything_is_asked() {
    let server = Server::new();
    server.user("alice").await;
    let register = |name: &str| server.post("", "/v3/register", json!({ "username": name }));
    register("alice").await.refused(400, "M_USER_IN_USE");
    register("ALICE").await.refused(400, "M_USER_IN_USE");
    for name in ["", "a b", "é", "a!b", "a:b", "@a", "a\"b", "a?b"] {
        register(name).await.refused(400, "M_INVALID_USERNAME");
    }
    register(&"a".repeat(300)).await.refused(400, "M_INVALID_USERNAME");
    server.get("", "/v3/register/available?username=alice").await.refused(400, "M_USER_IN_USE");
    assert_eq!(server.get("", "/v3/register/available?username=bob").await.ok(), json!({ "available": true }));
}

#[tokio::test]
async fn a_chosen_device_and_no_session_are_honoured() {
    let server = Server::new();
    let dummy = json!({ "type": "m.login.dummy" });
    let body = json!({ "username": "a", "device_id": "WARD", "initial_device_display_name": "Ward", "auth": dummy });
    let a = user_of(&server.post("", "/v3/register", body).await.ok());
    assert_eq!(server.get(&a.token, "/v3/devices/WARD").await.ok()["display_name"], "Ward");
    let body = json!({ "username": "b", "inhibit_login": true, "auth": dummy });
    let b = server.post("", "/v3/register", body).await.ok();
    assert_eq!(b["access_token"], Value::Null);
    assert_eq!(b["device_id"], Value::Null);
    let nameless = server.post("", "/v3/register", json!({ "auth": dummy })).await.ok();
    assert!(nameless["user_id"].as_str().unwrap().ends_with(":us.example"));
}

#[tokio::test]
async fn closed_registration_stays_closed_but_the_shared_secret_opens_it() {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let registration = Registration { shared_secret: Some("secret".to_owned()), ..Registration::default() };
    let server = Server::with(Settings { registration, ..open_settings() }, Vec::new());
    server.post("", "/v3/register", json!({ "username": "a" })).await.refused(403, "M_FORBIDDEN");
    server.post("", "/v3/register?kind=guest", json!({})).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");

    let path = "/_synapse/admin/v1/register";
    let nonce = server.get("", path).await.ok()["nonce"].as_str().unwrap().to_owned();
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(b"secret").unwrap();
    mac.update(format!("{nonce}\0root\0a long password\0admin").as_bytes());
    let mac: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let body = json!({ "nonce": nonce, "username": "root", "password": "a long password", "admin": true, "mac": mac });
    let root = user_of(&server.post("", path, body.clone()).await.ok());
    server.post("", path, body.clone()).await.refused(400, "M_UNKNOWN");
    let nonce = server.get("", path).await.ok()["nonce"].clone();
    let mut forged = body;
    forged["nonce"] = nonce;
    forged["username"] = json!("mallory");
    server.post("", path, forged).await.refused(403, "M_FORBIDDEN");
    server.get(&root.token, &format!("/v3/admin/whois/{}", root.id)).await.ok();
}

#[tokio::test]
async fn a_registration_token_is_used_up() {
    let registration = Registration { mode: RegistrationMode::Token, ..Registration::default() };
    let server = Server::with(Settings { registration, ..open_settings() }, Vec::new());
    let token = server.core.create_registration_token(None, Some(1), None).await.unwrap();
    let valid = |token: &str| format!("/v1/register/m.login.registration_token/validity?token={token}");
    assert_eq!(server.get("", &valid(&token)).await.ok(), json!({ "valid": true }));
    let register = |name: &str, token: &str| {
        let auth = json!({ "type": "m.login.registration_token", "token": token });
        server.post("", "/v3/register", json!({ "username": name, "password": "p", "auth": auth }))
    };
    let refused = register("a", "wrong").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.body["errcode"], "M_UNAUTHORIZED");
    register("a", &token).await.ok();
    assert_eq!(register("b", &token).await.status, 401);
    assert_eq!(server.get("", &valid(&token)).await.ok(), json!({ "valid": false }));
}

#[tokio::test]
async fn a_session_remembers_what_was_asked_and_answers_again() {
    let server = Server::new();
    let first =
        json!({ "username": "alice", "password": "p", "device_id": "WARD", "initial_device_display_name": "Ward" });
    let session = server.post("", "/v3/register", first).await.body["session"].clone();
    let auth = json!({ "auth": { "type": "m.login.dummy", "session": session } });
    let alice = user_of(&server.post("", "/v3/register", auth.clone()).await.ok());
    assert_eq!((alice.id.as_str(), alice.device.as_str()), ("@alice:us.example", "WARD"));
    assert_eq!(server.get(&alice.token, "/v3/devices/WARD").await.ok()["display_name"], "Ward");
    let again = user_of(&server.post("", "/v3/register", auth).await.ok());
    assert_eq!(again.id, alice.id);
    let quiet = json!({ "username": "bob", "inhibit_login": true });
    let session = server.post("", "/v3/register", quiet).await.body["session"].clone();
    let auth = json!({ "auth": { "type": "m.login.dummy", "session": session } });
    assert_eq!(server.post("", "/v3/register", auth).await.ok()["access_token"], Value::Null);
}

#[tokio::test]
async fn a_guest_becomes_a_user() {
    let registration = Registration { guests: true, mode: RegistrationMode::Open, ..Registration::default() };
    let server = Server::with(Settings { registration, ..open_settings() }, Vec::new());
    let guest = user_of(&server.post("", "/v3/register?kind=guest", json!({})).await.ok());
    let name = guest.id.trim_start_matches('@').split(':').next().unwrap();
    let mut body = json!({
        "username": name, "password": "p", "guest_access_token": "wrong", "auth": { "type": "m.login.dummy" },
    });
    server.post("", "/v3/register", body.clone()).await.refused(401, "M_UNKNOWN_TOKEN");
    body["guest_access_token"] = json!(guest.token);
    let user = user_of(&server.post("", "/v3/register", body).await.ok());
    assert_eq!(user.id, guest.id);
    assert_eq!(server.get(&user.token, "/v3/account/whoami").await.ok()["is_guest"], false);
}

#[tokio::test]
async fn of_many_who_want_one_name_one_gets_it() {
    let server = Server::new();
    let body = json!({ "username": "alice", "password": "p", "auth": { "type": "m.login.dummy" } });
    let all = futures_util::future::join_all((0..8).map(|_| server.post("", "/v3/register", body.clone()))).await;
    assert_eq!(all.iter().filter(|answer| answer.status == 200).count(), 1);
    for answer in all.into_iter().filter(|answer| answer.status != 200) {
        answer.refused(400, "M_USER_IN_USE");
    }
}

#[tokio::test]
async fn guests_are_let_in_where_they_are_wanted() {
    let registration = Registration { guests: true, ..Registration::default() };
    let server = Server::with(Settings { registration, ..open_settings() }, Vec::new());
    let guest = user_of(&server.post("", "/v3/register?kind=guest", json!({})).await.ok());
    assert_eq!(server.get(&guest.token, "/v3/account/whoami").await.ok()["is_guest"], true);
    let path = format!("/v3/user/{}/account_data/x", guest.id);
    server.put(&guest.token, &path, json!({})).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
}

#[tokio::test]
async fn guests_join_where_they_may_and_leave_when_they_no_longer_may() {
    let registration = Registration { guests: true, mode: RegistrationMode::Open, ..Registration::default() };
    let server = Server::with(Settings { registration, ..open_settings() }, Vec::new());
    let alice = server.user("alice").await;
    let guest = user_of(&server.post("", "/v3/register?kind=guest", json!({})).await.ok());
    let room = server.room(&[&alice]).await;
    let join = format!("/v3/rooms/{room}/join");
    server.post(&guest.token, &join, json!({})).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    let access = format!("/v3/rooms/{room}/state/m.room.guest_access");
    server.put(&alice.token, &access, json!({ "guest_access": "can_join" })).await.ok();
    server.post(&guest.token, &join, json!({})).await.ok();
    server.put(&alice.token, &access, json!({ "guest_access": "forbidden" })).await.ok();
    let left = async {
        let members = format!("/v3/rooms/{room}/joined_members");
        while server.get(&alice.token, &members).await.ok()["joined"].as_object().unwrap().len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), left).await.expect("the guest leaves");
}
