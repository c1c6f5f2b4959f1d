//! Account data, tags, filters, OpenID.

use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn account_data_is_kept_per_user_and_per_room() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let global = format!("/v3/user/{}/account_data/org.example", alice.id);
    server.get(&alice.token, &global).await.refused(404, "M_NOT_FOUND");
    server.put(&alice.token, &global, json!({ "a": 1 })).await.ok();
    assert_eq!(server.get(&alice.token, &global).await.ok(), json!({ "a": 1 }));
    server.get(&bob.token, &global).await.refused(403, "M_FORBIDDEN");
    server.put(&bob.token, &global, json!({})).await.refused(403, "M_FORBIDDEN");
    server.put(&alice.token, &global, json!([])).await.refused(400, "M_BAD_JSON");
    let room = format!("/v3/user/{}/rooms/!r:us.example/account_data/org.example", alice.id);
    server.get(&alice.token, &room).await.refused(404, "M_NOT_FOUND");
    server.put(&alice.token, &room, json!({ "b": 2 })).await.ok();
    assert_eq!(server.get(&alice.token, &room).await.ok(), json!({ "b": 2 }));
    for kind in ["m.fully_read", "m.push_rules"] {
        let path = format!("/v3/user/{}/account_data/{kind}", alice.id);
        server.put(&alice.token, &path, json!({})).await.refused(405, "M_BAD_JSON");
    }
    let rules = server.get(&alice.token, &format!("/v3/user/{}/account_data/m.push_rules", alice.id)).await.ok();
    assert!(rules["global"]["override"].is_array());
}

#[tokio::test]
async fn changes_of_account_data_are_told_once() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let user = ruma::UserId::parse(&*alice.id).unwrap();
    let kinds = |since| {
        let mut kinds: Vec<String> =
            server.core.account_data_since(&user, since).unwrap().into_iter().map(|entry| entry.kind).collect();
        kinds.sort();
        kinds
    };
    assert_eq!(kinds(None), ["m.push_rules"]);
    let before = server.core.position();
    assert!(kinds(Some(before)).is_empty());
    server.put(&alice.token, &format!("/v3/user/{}/account_data/x", alice.id), json!({})).await.ok();
    assert_eq!(kinds(Some(before)), ["x"]);
    assert!(kinds(Some(server.core.position())).is_empty());
    assert_eq!(kinds(None), ["m.push_rules", "x"]);
}

#[tokio::test]
async fn tags_are_added_and_removed() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let tags = format!("/v3/user/{}/rooms/!r:us.example/tags", alice.id);
    server.put(&alice.token, &format!("{tags}/m.favourite"), json!({ "order": 0.5 })).await.ok();
    server.put(&alice.token, &format!("{tags}/u.ward"), json!({})).await.ok();
    let shown = server.get(&alice.token, &tags).await.ok();
    assert_eq!(shown, json!({ "tags": { "m.favourite": { "order": 0.5 }, "u.ward": {} } }));
    server.delete(&alice.token, &format!("{tags}/u.ward")).await.ok();
    assert_eq!(server.get(&alice.token, &tags).await.ok()["tags"].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn one_filter_has_one_id_and_wrong_ones_are_refused() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let path = format!("/v3/user/{}/filter", alice.id);
    let filter = json!({ "room": { "timeline": { "limit": 10, "types": ["m.room.*"] } } });
    let id = server.post(&alice.token, &path, filter.clone()).await.ok()["filter_id"].clone();
    assert_eq!(server.post(&alice.token, &path, filter.clone()).await.ok()["filter_id"], id);
    assert_eq!(server.get(&alice.token, &format!("{path}/{}", id.as_str().unwrap())).await.ok(), filter);
    server.get(&alice.token, &format!("{path}/nonsense")).await.refused(404, "M_NOT_FOUND");
    for wrong in [
        json!({ "room": "all" }),
        json!({ "room": { "timeline": { "limit": "ten" } } }),
        json!({ "room": { "rooms": ["not a room"] } }),
        json!({ "presence": { "senders": ["not a user"] } }),
        json!({ "event_format": "other" }),
    ] {
        server.post(&alice.token, &path, wrong).await.refused(400, "M_BAD_JSON");
    }
}

#[tokio::test]
async fn an_openid_token_proves_its_user_until_it_ends() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let path = format!("/v3/user/{}/openid/request_token", alice.id);
    let token = server.post(&alice.token, &path, json!({})).await.ok();
    assert_eq!(token["token_type"], "Bearer");
    let info =
        format!("/_matrix/federation/v1/openid/userinfo?access_token={}", token["access_token"].as_str().unwrap());
    assert_eq!(server.get("", &info).await.ok(), json!({ "sub": alice.id }));
    server.advance_ms(2 * 60 * 60 * 1000);
    server.get("", &info).await.refused(401, "M_UNKNOWN_TOKEN");
    server.get("", "/_matrix/federation/v1/openid/userinfo").await.refused(401, "M_MISSING_TOKEN");
}
