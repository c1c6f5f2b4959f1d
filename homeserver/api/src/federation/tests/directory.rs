//! Spaces and public rooms, as another server is told of them.

use std::collections::BTreeSet;

use matron_core::rooms::send::NewEvent;
use matron_room::Membership;
use ruma::RoomId;
use serde_json::{Value, json};

use super::world::{shared, two};

#[tokio::test]
async fn a_space_tells_another_server_of_the_rooms_that_its_users_could_enter() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let space = json!({"preset": "public_chat", "creation_content": {"type": "m.space"}});
    let space = north.core.create_room(&anna, serde_json::from_value(space).unwrap()).await.unwrap();
    let rules = |rule: &str| {
        let allow = json!([7, {"type": "m.room_membership", "room_id": space}]);
        json!([{"type": "m.room.join_rules", "content": {"join_rule": rule, "allow": allow}}])
    };
    let open = north.room(&anna, "public_chat", "11", rules("public")).await;
    let ward = north.room(&anna, "private_chat", "11", rules("restricted")).await;
    let closed = north.room(&anna, "private_chat", "11", shared()).await;
    let set_child = async |parent: &RoomId, child: &str, content: Value| {
        let new = NewEvent::state(parent.to_owned(), anna.clone(), "m.space.child", child, content);
        north.core.send_event(new).await.unwrap();
    };
    // A slip beside the servers' names leaves the child one.
    set_child(&space, open.as_str(), json!({"via": ["north.example", 7], "order": 5, "suggested": "yes"})).await;
    set_child(&space, ward.as_str(), json!({"via": ["north.example"], "suggested": true})).await;
    set_child(&space, closed.as_str(), json!({"via": ["north.example"]})).await;
    set_child(&space, "!unknown:nowhere.example", json!({"via": ["nowhere.example"]})).await;
    set_child(&space, "!none:nowhere.example", json!({"via": []})).await;
    set_child(&space, "!slip:nowhere.example", json!({"via": "nowhere.example"})).await;
    // What no space is has no children.
    set_child(&open, ward.as_str(), json!({"via": ["north.example"]})).await;

    let ask = async |suggested_only: bool| {
        let path = format!("/_matrix/federation/v1/hierarchy/{space}?suggested_only={suggested_only}");
        south.ask(&north, path).await.unwrap()
    };
    let ids = |rooms: &Value| -> BTreeSet<String> {
        let id =
            |room: &Value| room.as_str().or(room["room_id"].as_str()).or(room["state_key"].as_str()).map(str::to_owned);
        rooms.as_array().unwrap().iter().filter_map(id).collect()
    };
    let set = |rooms: &[&str]| -> BTreeSet<String> { rooms.iter().map(|room| (*room).to_owned()).collect() };
    let told = ask(false).await;
    let all = [open.as_str(), ward.as_str(), closed.as_str(), "!unknown:nowhere.example"];
    assert_eq!(ids(&told["room"]["children_state"]), set(&all));
    assert_eq!(ids(&told["children"]), set(&[open.as_str()]));
    assert_eq!(ids(&told["inaccessible_children"]), set(&[ward.as_str(), closed.as_str()]));
    let shown = &told["children"][0];
    assert_eq!((&shown["children_state"], &shown["join_rule"]), (&json!([]), &json!("public")));
    assert_eq!(shown.get("allowed_room_ids"), None, "the conditions of a rule that is not in force");
    let told = ask(true).await;
    assert_eq!(ids(&told["room"]["children_state"]), set(&[ward.as_str()]));
    assert_eq!((ids(&told["children"]), ids(&told["inaccessible_children"])), (set(&[]), set(&[ward.as_str()])));

    south.join(&ben, &space, &north).await.unwrap();
    let told = ask(true).await;
    assert_eq!(told["children"][0]["allowed_room_ids"], json!([space]));
    assert_eq!(ids(&told["inaccessible_children"]), set(&[]));
    south.join(&ben, &ward, &north).await.unwrap();
    assert_eq!(north.membership(&ben, &ward), Membership::Join);
}

#[tokio::test]
async fn the_directory_is_given_without_a_limit_and_of_one_network_or_of_all() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    for _ in 0..2 {
        let room = north.room(&anna, "public_chat", "11", shared()).await;
        north.core.publish_room(&room, true).await.unwrap();
    }
    let ask = async |query: &str| south.ask(&north, format!("/_matrix/federation/v1/publicRooms?{query}")).await;
    let listed = async |query: &str| ask(query).await.unwrap()["chunk"].as_array().unwrap().len();
    for (query, expected) in
        [("", 2), ("limit=0", 2), ("limit=1", 1), ("limit=999999", 2), ("include_all_networks=true", 2)]
    {
        assert_eq!(listed(query).await, expected, "{query}");
    }
    assert_eq!(listed("third_party_instance_id=none").await, 0);
    let refused = ask("include_all_networks=true&third_party_instance_id=none").await.unwrap_err();
    assert_eq!(refused, (400, "M_INVALID_PARAM".to_owned()));
    assert_eq!(ask("since=nonsense").await.unwrap_err(), (400, "M_INVALID_PARAM".to_owned()));
}
