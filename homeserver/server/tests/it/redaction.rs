//! The most talkative log holds no password, no token and no content.

use serde_json::json;

use crate::{
    support::{Home, Server},
    wire::{Wire, request},
};

#[test]
fn a_trace_level_log_holds_no_secrets_and_no_content() {
    let home = Home::new();
    home.configure(json!({
        "logging": {"level": "trace"},
        "registration": {"mode": "open", "shared_secret": "shared-secret-never-to-be-seen"},
    }));
    let mut server = home.start();
    let password = "correct-horse-battery-staple";
    let token = server.register("amira", password);
    let room = server.create_room(&token);
    let room = room.replace('!', "%21").replace(':', "%3A");
    let content = "the-potassium-is-six-point-one";
    let sent = server.put(
        &format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/1"),
        Some(&token),
        &json!({"msgtype": "m.text", "body": content}),
    );
    assert_eq!(sent.status, 200, "{}", sent.body);
    let login = server.post(
        "/_matrix/client/v3/login",
        None,
        &json!({"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "amira"}, "password": password,
                "refresh_token": true}),
    );
    assert_eq!(login.status, 200, "{}", login.body);
    let login = login.json();
    let by_query = login["access_token"].as_str().unwrap().to_owned();
    let _ = server.get(&format!("/_matrix/client/v3/sync?timeout=0&access_token={by_query}"), None);
    let _ = server.get("/_matrix/client/v3/sync?timeout=0", Some(&token));
    let keys: Vec<String> = ["signing.key", "master.key"]
        .into_iter()
        .map(|file| std::fs::read_to_string(home.data().join(file)).unwrap())
        .map(|text| text.split_whitespace().next_back().unwrap().to_owned())
        .collect();
    let more = say_many_secrets(&server, &token, &room);
    server.stop();
    let log = server.rest_of_log();
    // The log is talkative: what is not in it was left out, not left unsaid.
    assert!(log.contains("/_matrix/client/v3/login") && log.contains("/_matrix/client/v3/createRoom"), "{log}");
    let mut secrets = vec![password, content, &token, &by_query, "shared-secret-never-to-be-seen"];
    secrets.extend(login["refresh_token"].as_str());
    secrets.extend(keys.iter().map(String::as_str));
    secrets.extend(more.iter().map(String::as_str));
    for secret in secrets {
        let leak = log.lines().find(|line| line.contains(secret));
        assert!(leak.is_none(), "the log tells a secret: {leak:?}");
    }
}

/// Puts a word of its own everywhere where people and programs put what nobody else may know; the words.
fn say_many_secrets(server: &Server, token: &str, room: &str) -> Vec<String> {
    let me = "%40amira%3Amatron.test";
    let device = server.get("/_matrix/client/v3/account/whoami", Some(token)).json();
    let device = device["device_id"].as_str().unwrap().to_owned();
    let mut words: Vec<String> = Vec::new();
    let mut word = |what: &str| {
        words.push(format!("never-to-be-seen-{what}"));
        words.last().unwrap().clone()
    };
    let requests = [
        (
            "POST",
            "/login".to_owned(),
            json!({"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "amira"}, "password": word("wrong-password")}),
        ),
        ("POST", "/login".to_owned(), json!({"type": "m.login.token", "token": word("login-token")})),
        ("POST", "/refresh".to_owned(), json!({"refresh_token": word("refresh-token")})),
        (
            "POST",
            "/register".to_owned(),
            json!({"username": "ben", "password": word("new-password"), "auth": {"type": "m.login.registration_token", "token": word("registration-token")}}),
        ),
        (
            "POST",
            "/account/password".to_owned(),
            json!({"new_password": word("next-password"), "auth": {"type": "m.login.password", "password": word("old-password")}}),
        ),
        (
            "POST",
            "/createRoom".to_owned(),
            json!({"name": word("room-name"), "topic": word("topic"), "initial_state": [{"type": "x.y", "content": {"a": word("initial-state")}}]}),
        ),
        (
            "POST",
            "/search".to_owned(),
            json!({"search_categories": {"room_events": {"search_term": word("search-term")}}}),
        ),
        ("POST", "/user_directory/search".to_owned(), json!({"search_term": word("directory-term")})),
        ("PUT", format!("/profile/{me}/displayname"), json!({"displayname": word("display-name")})),
        ("PUT", format!("/presence/{me}/status"), json!({"presence": "online", "status_msg": word("status")})),
        ("PUT", format!("/user/{me}/account_data/m.secret_storage.key.a"), json!({"a": word("account-data")})),
        ("PUT", format!("/user/{me}/rooms/{room}/tags/u.a"), json!({"order": 0.5, "b": word("tag")})),
        ("PUT", format!("/rooms/{room}/state/org.matron.patient/a"), json!({"nhs_number": word("patient-id")})),
        ("POST", format!("/rooms/{room}/invite"), json!({"user_id": "@nobody:matron.test", "reason": word("reason")})),
        ("POST", format!("/rooms/{room}/report"), json!({"reason": word("report")})),
        (
            "PUT",
            format!("/sendToDevice/m.room.encrypted/{device}"),
            json!({"messages": {"@amira:matron.test": {"*": {"ciphertext": word("to-device")}}}}),
        ),
        ("PUT", format!("/devices/{device}"), json!({"display_name": word("device-name")})),
        (
            "POST",
            "/keys/upload".to_owned(),
            json!({"one_time_keys": {"signed_curve25519:A": {"key": word("one-time-key")}}}),
        ),
        (
            "POST",
            "/room_keys/version".to_owned(),
            json!({"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": word("backup-key")}}),
        ),
        (
            "POST",
            "/pushers/set".to_owned(),
            json!({"kind": "http", "app_id": "a", "pushkey": word("pushkey"), "app_display_name": "a", "device_display_name": "d", "lang": "en", "data": {"url": "https://127.0.0.1/_matrix/push/v1/notify"}}),
        ),
        (
            "POST",
            format!("/rooms/{room}/send/m.room.message"),
            json!({"msgtype": "m.text", "body": word("second-message"), "formatted_body": word("html")}),
        ),
        (
            "POST",
            format!("/rooms/{room}/send/m.room.message"),
            json!({"msgtype": 1, "m.relates_to": word("bad-message")}),
        ),
    ];
    for (method, path, body) in requests {
        let path = format!("/_matrix/client/v3{path}");
        let reply = match method {
            "POST" => server.post(&path, Some(token), &body),
            _ => server.put(&path, Some(token), &body),
        };
        assert!(reply.status < 500, "{method} {path}: {}", reply.body);
    }
    let mut wire = Wire::new(&server.address);
    let bearer = format!("Bearer {token}");
    let upload = format!("/_matrix/media/v3/upload?filename={}", word("file-name"));
    let uploaded = wire.exchange(&request("POST", &upload, Some(&bearer), Some(word("media").as_bytes()))).unwrap();
    assert_eq!(uploaded.status, 200);
    for path in [
        format!("/_matrix/client/v3/sync?since={}", word("since")),
        format!("/_matrix/client/v3/sync?filter={}", word("filter")),
        format!("/_matrix/client/v3/{}", word("path")),
        format!("/_matrix/federation/v1/openid/userinfo?access_token={}", word("openid-token")),
    ] {
        assert!(wire.exchange(&request("GET", &path, Some(&bearer), None)).unwrap().status < 500);
    }
    let bad = format!("Bearer {}", word("bad-token"));
    assert_eq!(wire.exchange(&request("GET", "/_matrix/client/v3/sync", Some(&bad), None)).unwrap().status, 401);
    let signature = format!("X-Matrix origin=\"matron.test\",key=\"ed25519:a\",sig=\"{}\"", word("signature"));
    let path = "/_matrix/federation/v1/send/a";
    assert_eq!(wire.exchange(&request("PUT", path, Some(&signature), Some(b"{}"))).unwrap().status, 401);
    words
}
