//! Spaces whose rooms are on several servers.

use matron_testkit::{Reply, TestNet, part};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_the_spaces_server_tells_to_be_closed_is_asked_for_nowhere_else() {
    let net = TestNet::new();
    let (north, south) = (net.server("north.example"), net.server("south.example"));
    let (alice, bob) = (north.person("alice").await, south.person("bob").await);
    let other = net.adversary("other.example");
    let room = async |preset: &str, kind: Value| {
        let body = json!({"preset": preset, "room_version": "11", "creation_content": kind});
        alice.room(body).await.to_string()
    };
    let space = room("public_chat", json!({"type": "m.space"})).await;
    let closed = room("private_chat", json!({})).await;
    let inner = room("public_chat", json!({"type": "m.space"})).await;
    let theirs = "!theirs:other.example";
    // In the order in which they are visited.
    for (order, child) in [("a", &*closed), ("b", theirs), ("c", &*inner)] {
        let path = format!("/v3/rooms/{}/state/m.space.child/{}", part(&space), part(child));
        alice.put(&path, json!({"via": ["other.example", "north.example"], "order": order})).await;
    }
    // Of rooms that it does not name itself, a server says nothing that counts.
    let lie = json!([inner]);
    other.answers(move |question| {
        if question.path != format!("/_matrix/federation/v1/hierarchy/{theirs}") {
            return Reply::Status(404);
        }
        let room = json!({
            "room_id": theirs, "join_rule": "public", "world_readable": false, "guest_can_join": false,
            "num_joined_members": 1, "children_state": [],
        });
        Reply::Json(json!({"room": room, "children": [], "inaccessible_children": lie}))
    });
    let page = bob.get(&format!("/v1/rooms/{}/hierarchy", part(&space))).await;
    let told: Vec<_> = page["rooms"].as_array().unwrap().iter().map(|room| room["room_id"].as_str().unwrap()).collect();
    assert_eq!(told, [&*space, theirs, &*inner]);
    let asked: Vec<String> = other.take_questions().into_iter().map(|question| question.path).collect();
    let expected = [theirs, &*inner].map(|room| format!("/_matrix/federation/v1/hierarchy/{room}"));
    assert_eq!(asked, expected, "about the closed room nobody is asked who is not of it");
}
