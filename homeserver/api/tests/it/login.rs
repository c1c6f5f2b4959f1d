//! Sessions: begun, refreshed, ended.

use http::Method;
use matron_core::{Settings, settings::RateLimit};
use serde_json::{Value, json};

use crate::server::{Server, open_settings, user_of};

const PASSWORD: &str = "a long password";

fn by_password(user: &str, password: &str) -> Value {
    json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": user }, "password": password })
}

fn proof(user: &str, session: &Value) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user },
        "password": PASSWORD,
        "session": session,
    })
}

#[tokio::test]
async fn a_password_opens_a_session_under_every_spelling_of_the_user() {
    let server = Server::new();
    server.user("alice").await;
    for user in ["alice", "@alice:us.example", "Alice"] {
        server.post("", "/v3/login", by_password(user, PASSWORD)).await.ok();
    }
    let legacy = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
    server.post("", "/r0/login", legacy).await.ok();
    server.post("", "/v3/login", by_password("alice", "wrong")).await.refused(403, "M_FORBIDDEN");
    server.post("", "/v3/login", by_password("nobody", PASSWORD)).await.refused(403, "M_FORBIDDEN");
    server.post("", "/v3/login", by_password("@alice:them.example", PASSWORD)).await.refused(403, "M_FORBIDDEN");
    server.post("", "/v3/login", json!({ "type": "x" })).await.refused(400, "M_UNKNOWN");
    let flows = server.get("", "/v3/login").await.ok();
    assert_eq!(flows["flows"][0]["type"], "m.login.password");
}

#[tokio::test]
async fn guessing_passwords_is_slow_for_one_user_and_no_hindrance_for_others() {
    let settings = Settings { rate_limit: Some(RateLimit { per_second: 1000.0, burst: 1000 }), ..open_settings() };
    let server = Server::with(settings, Vec::new());
    server.user("alice").await;
    server.user("bob").await;
    for _ in 0..10 {
        server.post("", "/v3/login", by_password("alice", "wrong")).await.refused(403, "M_FORBIDDEN");
    }
    let refused = server.post("", "/v3/login", by_password("alice", PASSWORD)).await.refused(429, "M_LIMIT_EXCEEDED");
    server.post("", "/v3/login", by_password("bob", PASSWORD)).await.ok();
    server.advance_ms(refused["retry_after_ms"].as_u64().unwrap());
    server.post("", "/v3/login", by_password("alice", PASSWORD)).await.ok();
}

#[tokio::test]
async fn logging_in_on_a_known_device_ends_its_old_session() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let mut login = by_password("alice", PASSWORD);
    login["device_id"] = json!(alice.device);
    let again = user_of(&server.post("", "/v3/login", login).await.ok());
    assert_eq!(again.device, alice.device);
    server.get(&alice.token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    server.get(&again.token, "/v3/account/whoami").await.ok();
}

#[tokio::test]
async fn tokens_are_needed_and_may_come_in_the_query_where_allowed() {
    let server = Server::new();
    let alice = server.user("alice").await;
    server.get("", "/v3/account/whoami").await.refused(401, "M_MISSING_TOKEN");
    let unknown = server.get("nonsense", "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    assert_eq!(unknown["soft_logout"], false);
    server.get("", &format!("/v3/account/whoami?access_token={}", alice.token)).await.ok();
}

#[tokio::test]
async fn logging_out_ends_one_session_or_all() {
    let server = Server::new();
    let one = server.user("alice").await;
    let two = user_of(&server.post("", "/v3/login", by_password("alice", PASSWORD)).await.ok());
    let three = user_of(&server.post("", "/v3/login", by_password("alice", PASSWORD)).await.ok());
    server.post(&one.token, "/v3/logout", json!({})).await.ok();
    server.get(&one.token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    let devices = server.get(&two.token, "/v3/devices").await.ok();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 2);
    server.send(&two.token, Method::POST, "/v3/logout/all", None).await.ok();
    for token in [&two.token, &three.token] {
        server.get(token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    }
}

#[tokio::test]
async fn a_refresh_token_gives_the_next_tokens_once() {
    let server = Server::new();
    server.user("alice").await;
    let mut login = by_password("alice", PASSWORD);
    login["refresh_token"] = json!(true);
    let first = server.post("", "/v3/login", login).await.ok();
    let lifetime = first["expires_in_ms"].as_u64().unwrap();
    let token = first["access_token"].as_str().unwrap();
    server.get(token, "/v3/account/whoami").await.ok();
    server.advance_ms(lifetime + 1);
    let expired = server.get(token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    assert_eq!(expired["soft_logout"], true);

    let refresh = |token: &Value| server.post("", "/v3/refresh", json!({ "refresh_token": token }));
    let second = refresh(&first["refresh_token"]).await.ok();
    let token = second["access_token"].as_str().unwrap();
    server.get(token, "/v3/account/whoami").await.ok();
    let third = refresh(&second["refresh_token"]).await.ok();
    server.get(third["access_token"].as_str().unwrap(), "/v3/account/whoami").await.ok();
    refresh(&first["refresh_token"]).await.refused(401, "M_UNKNOWN_TOKEN");
    refresh(&json!("nonsense")).await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn an_answer_to_refreshing_that_was_lost_does_not_end_the_session() {
    let server = Server::new();
    server.user("alice").await;
    let mut login = by_password("alice", PASSWORD);
    login["refresh_token"] = json!(true);
    let first = server.post("", "/v3/login", login).await.ok();
    let refresh = |token: &Value| server.post("", "/v3/refresh", json!({ "refresh_token": token }));
    refresh(&first["refresh_token"]).await.ok();
    // The client never saw the answer: it still has the first tokens, and tries again.
    server.get(first["access_token"].as_str().unwrap(), "/v3/account/whoami").await.ok();
    let again = refresh(&first["refresh_token"]).await.ok();
    server.get(again["access_token"].as_str().unwrap(), "/v3/account/whoami").await.ok();
    // Once the new token was used, the old ones are gone.
    server.get(first["access_token"].as_str().unwrap(), "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    refresh(&first["refresh_token"]).await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_login_token_needs_proof_and_works_once() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let asked = server.post(&alice.token, "/v1/login/get_token", json!({})).await;
    assert_eq!(asked.status, 401);
    let auth = proof("alice", &asked.body["session"]);
    let given = server.post(&alice.token, "/v1/login/get_token", json!({ "auth": auth })).await.ok();
    let login = json!({ "type": "m.login.token", "token": given["login_token"] });
    assert_eq!(server.post("", "/v3/login", login.clone()).await.ok()["user_id"], alice.id.as_str());
    server.post("", "/v3/login", login).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn deleting_a_device_needs_the_password_of_its_owner_for_that_device() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let other = user_of(&server.post("", "/v3/login", by_password("alice", PASSWORD)).await.ok());
    let bob = server.user("bob").await;
    let path = format!("/v3/devices/{}", other.device);
    let asked = server.delete(&alice.token, &path).await;
    assert_eq!(asked.status, 401);
    assert_eq!(asked.body["flows"], json!([{ "stages": ["m.login.password"] }]));
    let session = &asked.body["session"];
    let with = async |path: &str, auth: Value| {
        server.send(&alice.token, Method::DELETE, path, Some(json!({ "auth": auth }))).await
    };
    // Another's name, a wrong password, another device under the same session.
    with(&path, proof(&bob.id, session)).await.refused(403, "M_FORBIDDEN");
    let mut wrong = proof("alice", session);
    wrong["password"] = json!("wrong");
    let wrong = with(&path, wrong).await;
    assert_eq!((wrong.status.as_u16(), &wrong.body["errcode"]), (401, &json!("M_FORBIDDEN")));
    with(&format!("/v3/devices/{}", alice.device), proof("alice", session)).await.refused(403, "M_FORBIDDEN");
    with(&path, proof("alice", session)).await.ok();
    server.get(&other.token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    server.get(&alice.token, &path).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_changed_password_ends_other_sessions_unless_they_may_stay() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let other = user_of(&server.post("", "/v3/login", by_password("alice", PASSWORD)).await.ok());
    let change = |password: &str, new: &str, stay: bool| {
        let auth = json!({ "type": "m.login.password", "user": "alice", "password": password });
        let body = json!({ "new_password": new, "logout_devices": !stay, "auth": auth });
        server.post(&alice.token, "/v3/account/password", body)
    };
    change(PASSWORD, "another password", true).await.ok();
    server.get(&other.token, "/v3/account/whoami").await.ok();
    change("another password", PASSWORD, false).await.ok();
    server.get(&other.token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    server.get(&alice.token, "/v3/account/whoami").await.ok();
    server.post("", "/v3/login", by_password("alice", "another password")).await.refused(403, "M_FORBIDDEN");
    change(PASSWORD, "", false).await.refused(400, "M_WEAK_PASSWORD");
}

#[tokio::test]
async fn a_deactivated_account_is_closed_for_good() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = server.room(&[&bob, &alice]).await;
    let auth = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
    server.post(&alice.token, "/v3/account/deactivate", json!({ "auth": auth })).await.ok();
    server.get(&alice.token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    server.post("", "/v3/login", by_password("alice", PASSWORD)).await.refused(403, "M_USER_DEACTIVATED");
    server.post("", "/v3/register", json!({ "username": "alice" })).await.refused(400, "M_USER_IN_USE");
    server.get(&bob.token, &format!("/v3/profile/{}", alice.id)).await.refused(404, "M_NOT_FOUND");
    let members = server.get(&bob.token, &format!("/v3/rooms/{room}/joined_members")).await.ok();
    assert_eq!(members["joined"].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn operators_lock_and_suspend_and_others_may_not() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let root = server.user("root").await;
    let lock = format!("/v1/admin/lock/{}", alice.id);
    server.put(&root.token, &lock, json!({ "locked": true })).await.refused(403, "M_FORBIDDEN");
    server.core.set_admin(&ruma::UserId::parse(&*root.id).unwrap(), true).await.unwrap();
    server.put(&root.token, &lock, json!({ "locked": true })).await.ok();
    let locked = server.get(&alice.token, "/v3/account/whoami").await.refused(401, "M_USER_LOCKED");
    assert_eq!(locked["soft_logout"], true);
    assert_eq!(server.get(&root.token, &lock).await.ok(), json!({ "locked": true }));
    server.put(&root.token, &lock, json!({ "locked": false })).await.ok();
    server.get(&alice.token, "/v3/account/whoami").await.ok();
    let suspend = format!("/v1/admin/suspend/{}", alice.id);
    server.put(&root.token, &suspend, json!({ "suspended": true })).await.ok();
    let path = format!("/v3/profile/{}/displayname", alice.id);
    server.put(&alice.token, &path, json!({ "displayname": "x" })).await.refused(403, "M_USER_SUSPENDED");
}

#[tokio::test]
async fn a_suspended_user_redacts_nothing_but_their_own() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = server.room(&[&alice, &bob]).await;
    let (own, others) = (server.say(&alice, &room, "mine").await, server.say(&bob, &room, "not mine").await);
    let redact = |event: &str| {
        let path = format!("/v3/rooms/{room}/redact/{event}/{}", event.trim_start_matches('$'));
        let (server, alice) = (&server, &alice);
        async move { server.put(&alice.token, &path, json!({})).await }
    };
    let root = server.user("root").await;
    server.core.set_admin(&ruma::UserId::parse(&*root.id).unwrap(), true).await.unwrap();
    let suspend = format!("/v1/admin/suspend/{}", alice.id);
    server.put(&root.token, &suspend, json!({ "suspended": true })).await.ok();
    redact(&others).await.refused(403, "M_USER_SUSPENDED");
    redact(&own).await.ok();
    let by_send = format!("/v3/rooms/{room}/send/m.room.redaction/1");
    server.put(&alice.token, &by_send, json!({ "redacts": others })).await.refused(403, "M_USER_SUSPENDED");
    server.put(&root.token, &suspend, json!({ "suspended": false })).await.ok();
    redact(&others).await.ok();
}
