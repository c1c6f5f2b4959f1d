//! Profiles and the user directory.

use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn profile_fields_are_set_shown_and_removed_by_their_owner() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let field = |name: &str| format!("/v3/profile/{}/{name}", alice.id);
    assert_eq!(server.get("", &field("displayname")).await.ok(), json!({}));
    server.put(&alice.token, &field("displayname"), json!({ "displayname": "Dr. Alice" })).await.ok();
    server.put(&alice.token, &field("m.tz"), json!({ "m.tz": "Europe/London" })).await.ok();
    server.put(&bob.token, &field("displayname"), json!({ "displayname": "x" })).await.refused(403, "M_FORBIDDEN");
    server.put(&alice.token, &field("displayname"), json!({ "displayname": 1 })).await.refused(400, "M_INVALID_PARAM");
    server.put(&alice.token, &field("displayname"), json!({})).await.refused(400, "M_MISSING_PARAM");
    assert_eq!(server.get("", &field("displayname")).await.ok(), json!({ "displayname": "Dr. Alice" }));
    let whole = server.get("", &format!("/v3/profile/{}", alice.id)).await.ok();
    assert_eq!(whole, json!({ "displayname": "Dr. Alice", "m.tz": "Europe/London" }));
    server.delete(&alice.token, &field("m.tz")).await.ok();
    server.get("", &field("m.tz")).await.refused(404, "M_NOT_FOUND");
    server.get("", "/v3/profile/@nobody:us.example").await.refused(404, "M_NOT_FOUND");
    let long = json!({ "x": "y".repeat(70_000) });
    server.put(&alice.token, &field("x"), long).await.refused(400, "M_PROFILE_TOO_LARGE");
    server.put(&alice.token, &field(&"x".repeat(300)), json!({})).await.refused(400, "M_MISSING_PARAM");
}

#[tokio::test]
async fn rooms_show_the_new_name() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let room = server.room(&[&alice]).await;
    let path = format!("/v3/profile/{}/displayname", alice.id);
    server.put(&alice.token, &path, json!({ "displayname": "Dr. Alice" })).await.ok();
    let member = server.get(&alice.token, &format!("/v3/rooms/{room}/state/m.room.member/{}", alice.id)).await.ok();
    assert_eq!(member["displayname"], "Dr. Alice");
}

#[tokio::test]
async fn the_directory_finds_members_of_open_rooms_and_of_shared_ones_only() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let search = || async {
        let body = json!({ "search_term": "ALI", "limit": 5 });
        let found = server.post(&bob.token, "/v3/user_directory/search", body).await.ok();
        assert_eq!(found["limited"], false);
        found["results"].as_array().unwrap().len()
    };
    assert_eq!(search().await, 0);
    let made = server.post(&alice.token, "/v3/createRoom", json!({ "preset": "private_chat" })).await.ok();
    let private = made["room_id"].as_str().unwrap();
    assert_eq!(search().await, 0);
    let rules = format!("/v3/rooms/{private}/state/m.room.join_rules");
    server.put(&alice.token, &rules, json!({ "join_rule": "public" })).await.ok();
    assert_eq!(search().await, 1);
    server.put(&alice.token, &rules, json!({ "join_rule": "invite" })).await.ok();
    assert_eq!(search().await, 0);
    server.post(&alice.token, &format!("/v3/rooms/{private}/invite"), json!({ "user_id": bob.id })).await.ok();
    server.post(&bob.token, &format!("/v3/rooms/{private}/join"), json!({})).await.ok();
    assert_eq!(search().await, 1);
}
