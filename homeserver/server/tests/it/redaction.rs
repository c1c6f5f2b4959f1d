//! The most talkative log holds no password, no token and no content.

use serde_json::json;

use crate::support::Home;

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
    server.stop();
    let log = server.rest_of_log();
    // The log is talkative: what is not in it was left out, not left unsaid.
    assert!(log.contains("/_matrix/client/v3/login") && log.contains("/_matrix/client/v3/createRoom"), "{log}");
    let mut secrets = vec![password, content, &token, &by_query, "shared-secret-never-to-be-seen"];
    secrets.extend(login["refresh_token"].as_str());
    secrets.extend(keys.iter().map(String::as_str));
    for secret in secrets {
        let leak = log.lines().find(|line| line.contains(secret));
        assert!(leak.is_none(), "the log tells a secret: {leak:?}");
    }
}
