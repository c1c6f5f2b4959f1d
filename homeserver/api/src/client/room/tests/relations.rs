//! Edits, threads, references.

use http::Method;
use serde_json::{Value, json};

use super::{Client, Server, enc, ids, list};

async fn event(client: &Client, room: &str, id: &str) -> Value {
    client.get(&format!("/rooms/{}/event/{}", enc(room), enc(id))).await
}

async fn edit(client: &Client, room: &str, target: &str, text: &str) -> String {
    let content = json!({
        "msgtype": "m.text", "body": format!("* {text}"), "m.new_content": {"msgtype": "m.text", "body": text},
        "m.relates_to": {"rel_type": "m.replace", "event_id": target},
    });
    client.event(room, "m.room.message", content).await
}

#[tokio::test]
async fn the_latest_edit_of_the_sender_is_bundled_until_it_is_redacted() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let said = alice.say(&room, "frist").await;
    assert!(event(&bob, &room, &said).await["unsigned"]["m.relations"].is_null());
    edit(&bob, &room, &said, "not mine to change").await;
    assert!(event(&bob, &room, &said).await["unsigned"]["m.relations"].is_null());
    let first = edit(&alice, &room, &said, "first").await;
    let second = edit(&alice, &room, &said, "first!").await;
    let bundled = event(&bob, &room, &said).await["unsigned"]["m.relations"]["m.replace"]["event_id"].clone();
    assert!(bundled == json!(second) || bundled == json!(first), "{bundled}");
    for id in [&second, &first] {
        alice.ok(Method::POST, &format!("/rooms/{}/redact/{}", enc(&room), enc(id)), json!({})).await;
    }
    assert!(event(&bob, &room, &said).await["unsigned"]["m.relations"].is_null());
}

#[tokio::test]
async fn a_thread_is_summed_up_on_its_root_and_listed() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.public_room().await;
    bob.join(&room).await;
    let mut roots = Vec::new();
    for text in ["one", "two"] {
        roots.push(alice.say(&room, text).await);
    }
    let reply = |root: &str| json!({"body": "reply", "m.relates_to": {"rel_type": "m.thread", "event_id": root}});
    let mut latest = String::new();
    for root in [&roots[0], &roots[1], &roots[0]] {
        latest = alice.event(&room, "m.room.message", reply(root)).await;
    }
    let thread = event(&bob, &room, &roots[0]).await["unsigned"]["m.relations"]["m.thread"].clone();
    assert_eq!(thread["count"], 2);
    assert_eq!(thread["current_user_participated"], false);
    assert_eq!(thread["latest_event"]["event_id"], json!(latest));
    let path = format!("/_matrix/client/v1/rooms/{}/threads?limit=1", enc(&room));
    let first = bob.get(&path).await;
    assert_eq!(ids(list(&first, "/chunk")), [roots[0].clone()]);
    let second = bob.get(&format!("{path}&from={}", first["next_batch"].as_str().unwrap())).await;
    assert_eq!(ids(list(&second, "/chunk")), [roots[1].clone()]);
    assert!(second["next_batch"].is_null());
    let own = bob.get(&format!("{path}&include=participated")).await;
    assert!(list(&own, "/chunk").is_empty());
}

#[tokio::test]
async fn relations_are_paged_and_looked_into() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let room = alice.public_room().await;
    let said = alice.say(&room, "root").await;
    let mut related = Vec::new();
    for key in ["a", "b", "c"] {
        let content = json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": said, "key": key}});
        related.push(alice.event(&room, "m.reaction", content).await);
    }
    let below = json!({"body": "below", "m.relates_to": {"rel_type": "m.reference", "event_id": related[0]}});
    let below = alice.event(&room, "m.room.message", below).await;
    let base = format!("/_matrix/client/v1/rooms/{}/relations/{}", enc(&room), enc(&said));
    let page = alice.get(&format!("{base}/m.annotation/m.reaction?limit=2")).await;
    assert_eq!(ids(list(&page, "/chunk")), [related[2].clone(), related[1].clone()]);
    let rest = alice.get(&format!("{base}?limit=2&from={}", page["next_batch"].as_str().unwrap())).await;
    assert_eq!(ids(list(&rest, "/chunk")), [related[0].clone()]);
    assert!(rest["next_batch"].is_null());
    assert!(list(&alice.get(&format!("{base}/m.thread")).await, "/chunk").is_empty());
    let deep = alice.get(&format!("{base}?recurse=true&dir=f")).await;
    assert_eq!(ids(list(&deep, "/chunk")).last(), Some(&below));
}
