//! Looking into world-readable rooms by sync (MSC2753), over the wire.

use matron_core::Settings;
use serde_json::json;

use crate::server::{Server, open_settings};

const UNSTABLE: &str = "/unstable/org.matrix.msc2753";

#[tokio::test]
async fn a_room_is_looked_into_by_its_alias_and_told_by_sync_until_the_device_has_enough() {
    let server = Server::with(Settings { peeking: true, ..open_settings() }, Vec::new());
    let (alice, eve) = (server.user("alice").await, server.user("eve").await);
    let room = server.room(&[&alice]).await;
    let body = json!({ "room_id": room });
    server.put(&alice.token, "/v3/directory/room/%23street%3Aus.example", body).await.ok();
    let peek = format!("{UNSTABLE}/peek/%23street%3Aus.example");
    server.post(&eve.token, &peek, json!({})).await.refused(403, "M_FORBIDDEN");
    server
        .post(&eve.token, &format!("{UNSTABLE}/peek/!nowhere:us.example"), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    server
        .post(&eve.token, &format!("{UNSTABLE}/peek/%23none%3Aus.example"), json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    let path = format!("/v3/rooms/{room}/state/m.room.history_visibility");
    server.put(&alice.token, &path, json!({ "history_visibility": "world_readable" })).await.ok();
    server.post(&alice.token, &peek, json!({})).await.refused(400, "M_BAD_STATE");
    let begun = server.post(&eve.token, &peek, json!({ "servers": ["us.example"] })).await.ok();
    assert_eq!(begun["room_id"], json!(room));
    assert!(begun["peek_expiry_ts"].is_u64());
    server.say(&alice, &room, "hello").await;
    let told = server.get(&eve.token, "/v3/sync?timeout=0").await.ok();
    let timeline = &told["rooms"]["peek"][&room]["timeline"];
    let last = timeline["events"].as_array().unwrap().last().unwrap();
    assert_eq!(last["content"]["body"], "hello", "{told}");
    assert!(timeline["prev_batch"].is_string() && told["rooms"]["join"].is_null());

    let unpeek = format!("{UNSTABLE}/rooms/{room}/unpeek");
    assert_eq!(server.post(&eve.token, &unpeek, json!({})).await.ok(), json!({}));
    server.post(&eve.token, &unpeek, json!({})).await.refused(400, "M_BAD_STATE");
    let since = told["next_batch"].as_str().unwrap();
    let over = server.get(&eve.token, &format!("/v3/sync?timeout=0&since={since}")).await.ok();
    assert!(over["rooms"]["leave"][&room].is_object() && over["rooms"]["peek"].is_null(), "{over}");
}

#[tokio::test]
async fn looking_in_is_neither_served_nor_advertised_unless_the_operator_wants_it() {
    for peeking in [false, true] {
        let server = Server::with(Settings { peeking, ..open_settings() }, Vec::new());
        let eve = server.user("eve").await;
        let versions = server.get(&eve.token, "/versions").await.ok();
        assert_eq!(versions["unstable_features"]["org.matrix.msc2753"], json!(peeking));
        for base in [UNSTABLE, "/v3"] {
            for path in [format!("{base}/peek/!a:us.example"), format!("{base}/rooms/!a:us.example/unpeek")] {
                let answer = server.post(&eve.token, &path, json!({})).await;
                assert_eq!(answer.body["errcode"] == "M_UNRECOGNIZED", !peeking, "{path}: {}", answer.body);
            }
        }
    }
}
