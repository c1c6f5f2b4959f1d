//! A room exists as a whole, or not at all.

use http::{Method, StatusCode};
use serde_json::json;

use super::Server;

#[tokio::test]
async fn a_creation_that_is_refused_leaves_nothing_behind() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let wanted = json!({
        "room_version": "11",
        "name": "Ward 3",
        "power_level_content_override": { "events": { "m.room.name": 101 } },
    });
    let (status, answer) = alice.ask(Method::POST, "/createRoom", Some(wanted)).await;
    assert_eq!((status, &answer["errcode"]), (StatusCode::FORBIDDEN, &json!("M_FORBIDDEN")), "{answer}");
    assert_eq!(alice.get("/joined_rooms").await["joined_rooms"], json!([]));
    assert_eq!(alice.sync(None, &json!({})).await["rooms"]["join"].as_object().map_or(0, |rooms| rooms.len()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_sees_half_a_room() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let encryption = json!({ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } });
    for _ in 0..20 {
        let first = alice.sync(None, &json!({})).await["next_batch"].as_str().unwrap().to_owned();
        let watching = tokio::spawn({
            let alice = alice.clone();
            async move {
                let mut since = first;
                loop {
                    let answer = alice.get(&format!("/sync?timeout=5000&since={since}")).await;
                    if let Some(rooms) = answer["rooms"]["join"].as_object().filter(|rooms| !rooms.is_empty()) {
                        return rooms.values().next().cloned().unwrap();
                    }
                    answer["next_batch"].as_str().unwrap().clone_into(&mut since);
                }
            }
        });
        tokio::task::yield_now().await;
        let room = alice.create(json!({ "name": "Ward 3", "initial_state": [encryption] })).await;
        // Whoever knows its id may write to it at once.
        alice.say(&room, "hello").await;
        let seen = watching.await.unwrap().to_string();
        for kind in ["m.room.create", "m.room.join_rules", "m.room.encryption", "m.room.name"] {
            assert!(seen.contains(kind), "{kind} is not in {seen}");
        }
    }
}
