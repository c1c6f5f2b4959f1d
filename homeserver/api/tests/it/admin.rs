//! The admin API, as Synapse's tools use it.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{Answer, Server, User, user_of};

async fn operator(server: &Server) -> User {
    server.user("operator").await;
    server.core.set_admin("@operator:us.example".try_into().unwrap(), true).await.unwrap();
    let login = json!({ "type": "m.login.password", "user": "operator", "password": "a long password" });
    user_of(&server.post("", "/v3/login", login).await.ok())
}

fn admin(path: &str) -> String {
    format!("/_synapse/admin{path}")
}

async fn delete(server: &Server, token: &str, path: &str, body: Value) -> Answer {
    server.send(token, Method::DELETE, &admin(path), Some(body)).await
}

#[tokio::test]
async fn nobody_but_operators_may_use_it() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let gets = [
        "/v2/users",
        "/v2/users/@alice:us.example",
        "/v2/users/@alice:us.example/devices",
        "/v1/users/@alice:us.example/admin",
        "/v1/users/@alice:us.example/media",
        "/v1/users/@alice:us.example/joined_rooms",
        "/v1/rooms",
        "/v1/rooms/!a:us.example",
        "/v1/rooms/!a:us.example/members",
        "/v1/rooms/!a:us.example/block",
        "/v2/rooms/!a:us.example/delete_status",
        "/v2/rooms/delete_status/x",
        "/v1/purge_history_status/x",
        "/v1/room/!a:us.example/media",
        "/v1/server_version",
    ];
    for path in gets {
        server.get("", &admin(path)).await.refused(401, "M_MISSING_TOKEN");
        server.get(&alice.token, &admin(path)).await.refused(403, "M_FORBIDDEN");
    }
    let posts = [
        "/v1/deactivate/@alice:us.example",
        "/v1/reset_password/@alice:us.example",
        "/v2/users/@alice:us.example/delete_devices",
        "/v1/purge_history/!a:us.example",
        "/v1/rooms/!a:us.example/delete",
        "/v1/media/quarantine/us.example/x",
        "/v1/media/unquarantine/us.example/x",
        "/v1/room/!a:us.example/media/quarantine",
        "/v1/user/@alice:us.example/media/quarantine",
        "/v1/media/delete?before_ts=1",
    ];
    for path in posts {
        server.post(&alice.token, &admin(path), json!({})).await.refused(403, "M_FORBIDDEN");
    }
    for path in ["/v2/users/@alice:us.example", "/v1/suspend/@alice:us.example", "/v1/rooms/!a:us.example/block"] {
        server.put(&alice.token, &admin(path), json!({})).await.refused(403, "M_FORBIDDEN");
    }
    for path in ["/v1/rooms/!a:us.example", "/v2/rooms/!a:us.example", "/v1/media/us.example/x"] {
        delete(&server, &alice.token, path, json!({})).await.refused(403, "M_FORBIDDEN");
    }
}

#[tokio::test]
async fn accounts_are_listed_made_changed_and_closed() {
    let server = Server::new();
    let operator = operator(&server).await;
    let token = &operator.token;
    let body = json!({ "password": "a long password", "displayname": "Bob of Ward 3", "admin": false });
    let made = server.put(token, &admin("/v2/users/@bob:us.example"), body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert_eq!(
        (made.body["name"].as_str(), made.body["creation_ts"].as_u64()),
        (Some("@bob:us.example"), Some(1_800_000_000))
    );
    let listed = server.get(token, &admin("/v2/users?limit=1")).await.ok();
    assert_eq!((listed["total"].as_u64(), listed["next_token"].as_str()), (Some(2), Some("1")));
    assert_eq!(listed["users"][0]["creation_ts"], 1_800_000_000_000_u64);
    let found = server.get(token, &admin("/v2/users?name=ward")).await.ok();
    assert_eq!(found["users"][0]["name"], "@bob:us.example");

    let login = json!({ "type": "m.login.password", "user": "bob", "password": "a long password" });
    let bob = user_of(&server.post("", "/v3/login", login).await.ok());
    let devices = server.get(token, &admin("/v2/users/@bob:us.example/devices")).await.ok();
    assert_eq!((devices["total"].as_u64(), devices["devices"][0]["device_id"].as_str()), (Some(1), Some(&*bob.device)));
    let device = format!("/v2/users/@bob:us.example/devices/{}", bob.device);
    server.put(token, &admin(&device), json!({ "display_name": "Trolley 7" })).await.ok();
    assert_eq!(server.get(token, &admin(&device)).await.ok()["display_name"], "Trolley 7");
    delete(&server, token, &device, json!({})).await.ok();
    server.get(&bob.token, "/v3/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");

    let reset = json!({ "new_password": "another long one" });
    server.post(token, &admin("/v1/reset_password/@bob:us.example"), reset).await.ok();
    let login = json!({ "type": "m.login.password", "user": "bob", "password": "another long one" });
    let bob = user_of(&server.post("", "/v3/login", login).await.ok());
    let suspended = server.put(token, &admin("/v1/suspend/@bob:us.example"), json!({ "suspend": true })).await.ok();
    assert_eq!(suspended["user_@bob:us.example_suspended"], true);
    server
        .put(&bob.token, "/v3/profile/@bob:us.example/displayname", json!({ "displayname": "x" }))
        .await
        .refused(403, "M_USER_SUSPENDED");
    server.put(token, &admin("/v2/users/@bob:us.example"), json!({ "locked": true })).await.ok();
    server.get(&bob.token, "/v3/account/whoami").await.refused(401, "M_USER_LOCKED");

    server.post(token, &admin("/v1/deactivate/@bob:us.example"), json!({ "erase": true })).await.ok();
    let shown = server.get(token, &admin("/v2/users/@bob:us.example")).await.ok();
    assert_eq!((shown["deactivated"].as_bool(), shown["erased"].as_bool()), (Some(true), Some(true)));
    assert_eq!(server.get(token, &admin("/v2/users")).await.ok()["total"], 1);
    assert_eq!(server.get(token, &admin("/v2/users?deactivated=true&locked=true")).await.ok()["total"], 2);

    server
        .put(token, &admin("/v1/users/@operator:us.example/admin"), json!({ "admin": false }))
        .await
        .refused(400, "M_INVALID_PARAM");
    server.get(token, &admin("/v2/users/@nobody:us.example")).await.refused(404, "M_NOT_FOUND");
    server.get(token, &admin("/v2/users/@bob:them.example")).await.refused(400, "M_INVALID_PARAM");
    server.get(token, &admin("/v2/users/nonsense")).await.refused(400, "M_INVALID_PARAM");
    assert!(server.get(token, &admin("/v1/server_version")).await.ok()["server_version"].is_string());
    let whois = server.get(token, &admin("/v1/whois/@operator:us.example")).await.ok();
    assert_eq!(whois["user_id"], "@operator:us.example");
}

#[tokio::test]
async fn rooms_are_listed_and_described() {
    let server = Server::new();
    let operator = operator(&server).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let small = server.room(&[&alice]).await;
    let large = server.room(&[&alice, &bob]).await;
    let named = json!({ "name": "Ward 3" });
    server.put(&alice.token, &format!("/v3/rooms/{large}/state/m.room.name"), named).await.ok();
    let listed = server.get(&operator.token, &admin("/v1/rooms?order_by=joined_members&limit=1")).await.ok();
    assert_eq!((listed["total_rooms"].as_u64(), listed["next_batch"].as_u64()), (Some(2), Some(1)));
    assert_eq!(
        (listed["rooms"][0]["room_id"].as_str(), listed["rooms"][0]["joined_members"].as_u64()),
        (Some(&*large), Some(2))
    );
    let rest = server.get(&operator.token, &admin("/v1/rooms?order_by=joined_members&from=1")).await.ok();
    assert_eq!((rest["rooms"][0]["room_id"].as_str(), rest["prev_batch"].as_u64()), (Some(&*small), Some(0)));
    let found = server.get(&operator.token, &admin("/v1/rooms?search_term=ward")).await.ok();
    assert_eq!(found["total_rooms"], 1);
    let room = server.get(&operator.token, &admin(&format!("/v1/rooms/{large}"))).await.ok();
    assert_eq!((room["creator"].as_str(), room["joined_local_devices"].as_u64()), (Some(&*alice.id), Some(2)));
    assert_eq!((room["version"].as_str(), room["forgotten"].as_bool()), (Some("10"), Some(false)));
    let members = server.get(&operator.token, &admin(&format!("/v1/rooms/{large}/members"))).await.ok();
    assert_eq!(members, json!({ "members": [alice.id, bob.id], "total": 2 }));
    server.get(&operator.token, &admin("/v1/rooms/!no:us.example")).await.refused(404, "M_NOT_FOUND");
    server.get(&operator.token, &admin("/v1/rooms?order_by=nonsense")).await.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn a_room_is_removed_with_what_was_said_in_it_and_stays_closed() {
    let server = Server::new();
    let operator = operator(&server).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = server.room(&[&alice, &bob]).await;
    let said = server.say(&alice, &room, "something").await;
    let alias = json!({ "room_id": room });
    server.put(&alice.token, "/v3/directory/room/%23ward:us.example", alias).await.ok();
    let body = json!({ "block": true, "message": "This room is closed.", "new_room_user_id": operator.id, "room_name": "Why" });
    let removed = delete(&server, &operator.token, &format!("/v1/rooms/{room}"), body).await.ok();
    assert_eq!(removed["kicked_users"], json!([alice.id, bob.id]));
    assert_eq!(
        (&removed["failed_to_kick_users"], &removed["local_aliases"]),
        (&json!([]), &json!(["#ward:us.example"]))
    );
    let invited = server.get(&alice.token, "/v3/sync").await.ok();
    assert!(invited["rooms"]["invite"].get(removed["new_room_id"].as_str().unwrap()).is_some());
    let id: &ruma::EventId = said.as_str().try_into().unwrap();
    assert!(server.core.load_event(id).unwrap().unwrap().content_gone);
    server.post(&bob.token, &format!("/v3/rooms/{room}/join"), json!({})).await.refused(403, "M_FORBIDDEN");
    server.get(&alice.token, "/v3/directory/room/%23ward:us.example").await.refused(404, "M_NOT_FOUND");
    let block = admin(&format!("/v1/rooms/{room}/block"));
    assert_eq!(server.get(&operator.token, &block).await.ok(), json!({ "block": true, "user_id": operator.id }));
    server.put(&operator.token, &block, json!({ "block": false })).await.ok();
    assert_eq!(server.get(&operator.token, &block).await.ok(), json!({ "block": false }));
    delete(&server, &operator.token, "/v1/rooms/!no:us.example", json!({})).await.refused(404, "M_NOT_FOUND");
}

async fn finished(server: &Server, token: &str, path: &str) -> Value {
    loop {
        let status = server.get(token, path).await.ok();
        if status["status"] != "active" && status["status"] != "purging" {
            return status;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_removal_can_be_begun_and_looked_at() {
    let server = Server::new();
    let operator = operator(&server).await;
    let alice = server.user("alice").await;
    let room = server.room(&[&alice]).await;
    let begun = delete(&server, &operator.token, &format!("/v2/rooms/{room}"), json!({})).await.ok();
    let path = admin(&format!("/v2/rooms/delete_status/{}", begun["delete_id"].as_str().unwrap()));
    let status = finished(&server, &operator.token, &path).await;
    assert_eq!(
        (status["status"].as_str(), &status["shutdown_room"]["kicked_users"]),
        (Some("complete"), &json!([alice.id]))
    );
    let all = server.get(&operator.token, &admin(&format!("/v2/rooms/{room}/delete_status"))).await.ok();
    assert_eq!(all["results"][0]["delete_id"], begun["delete_id"]);
    server.get(&operator.token, &admin("/v2/rooms/delete_status/nonsense")).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn history_is_purged_up_to_an_event() {
    let server = Server::new();
    let operator = operator(&server).await;
    let alice = server.user("alice").await;
    let room = server.room(&[&alice]).await;
    let old = server.say(&alice, &room, "old").await;
    let new = server.say(&alice, &room, "new").await;
    let path = admin(&format!("/v1/purge_history/{room}"));
    let purge = |body: Value| server.post(&operator.token, &path, body);
    purge(json!({})).await.refused(400, "M_MISSING_PARAM");
    for (local, gone) in [(false, false), (true, true)] {
        let begun = purge(json!({ "purge_up_to_event_id": new, "delete_local_events": local })).await.ok();
        let path = admin(&format!("/v1/purge_history_status/{}", begun["purge_id"].as_str().unwrap()));
        assert_eq!(finished(&server, &operator.token, &path).await["status"], "complete");
        let event = |id: &str| server.core.load_event(id.try_into().unwrap()).unwrap().unwrap();
        assert_eq!((event(&old).content_gone, event(&new).content_gone), (gone, false));
    }
    let shown = server.get(&alice.token, &format!("/v3/rooms/{room}/messages?dir=b")).await.ok();
    assert!(!shown.to_string().contains("\"old\"") && shown.to_string().contains("\"new\""), "{shown}");
    server.get(&operator.token, &admin("/v1/purge_history_status/nonsense")).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn files_are_quarantined_and_deleted() {
    let server = Server::new();
    let operator = operator(&server).await;
    let alice = server.user("alice").await;
    let upload = || async {
        let request = http::Request::post("/_matrix/media/v3/upload")
            .header("authorization", format!("Bearer {}", alice.token))
            .header("content-type", "text/plain")
            .body(axum::body::Body::from("a file"))
            .unwrap();
        let uri = server.raw(request).await.ok()["content_uri"].as_str().unwrap().to_owned();
        uri.strip_prefix("mxc://us.example/").unwrap().to_owned()
    };
    let (one, two) = (upload().await, upload().await);
    let get = |id: &str| {
        let path = format!("/v1/media/download/us.example/{id}");
        let token = alice.token.clone();
        let server = &server;
        async move { server.get(&token, &path).await.status }
    };
    assert_eq!(get(&one).await, StatusCode::OK);
    server.post(&operator.token, &admin(&format!("/v1/media/quarantine/us.example/{one}")), json!({})).await.ok();
    assert_eq!((get(&one).await, get(&two).await), (StatusCode::NOT_FOUND, StatusCode::OK));
    server.post(&operator.token, &admin(&format!("/v1/media/unquarantine/us.example/{one}")), json!({})).await.ok();
    assert_eq!(get(&one).await, StatusCode::OK);
    let user = admin("/v1/user/@alice:us.example/media/quarantine");
    assert_eq!(server.post(&operator.token, &user, json!({})).await.ok()["num_quarantined"], 2);
    let listed = server.get(&operator.token, &admin("/v1/users/@alice:us.example/media")).await.ok();
    assert_eq!((listed["total"].as_u64(), listed["media"][0]["media_type"].as_str()), (Some(2), Some("text/plain")));
    let deleted = delete(&server, &operator.token, &format!("/v1/media/us.example/{one}"), json!({})).await.ok();
    assert_eq!(deleted, json!({ "deleted_media": [one], "total": 1 }));
    delete(&server, &operator.token, &format!("/v1/media/us.example/{one}"), json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    let old = admin("/v1/media/delete?before_ts=1900000000000");
    assert_eq!(server.post(&operator.token, &old, json!({})).await.ok()["deleted_media"], json!([two]));
}
