//! Aliases, public rooms, spaces, upgrades.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Server, enc, list};

#[tokio::test]
async fn an_alias_leads_to_its_room_until_it_is_deleted() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({"preset": "public_chat", "room_alias_name": "ward"})).await;
    let alias = "#ward:us.example";
    let path = format!("/directory/room/{}", enc(alias));
    assert_eq!(bob.get(&path).await, json!({"room_id": room, "servers": ["us.example"]}));
    let canonical = alice.get(&format!("/rooms/{}/state/m.room.canonical_alias", enc(&room))).await;
    assert_eq!(canonical, json!({"alias": alias}));
    let (status, _) = bob.ask(Method::PUT, &path, Some(json!({"room_id": room}))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    bob.join(alias).await;
    let (status, _) = bob.ask(Method::PUT, &path, Some(json!({"room_id": room}))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, _) = bob.ask(Method::DELETE, &path, None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    alice.ok(Method::DELETE, &path, json!({})).await;
    let canonical = alice.get(&format!("/rooms/{}/state/m.room.canonical_alias", enc(&room))).await;
    assert_eq!(canonical, json!({}));
    let (status, answer) = bob.ask(Method::GET, &path, None).await;
    assert_eq!((status, &answer["errcode"]), (StatusCode::NOT_FOUND, &json!("M_NOT_FOUND")));
}

#[tokio::test]
async fn a_canonical_alias_must_lead_to_its_room() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let room = alice.public_room().await;
    alice.create(json!({"room_alias_name": "elsewhere"})).await;
    let path = format!("/rooms/{}/state/m.room.canonical_alias", enc(&room));
    for (content, errcode) in [
        (json!({"alias": "#nowhere:us.example"}), "M_BAD_ALIAS"),
        (json!({"alt_aliases": ["#elsewhere:us.example"]}), "M_BAD_ALIAS"),
        (json!({"alias": "not an alias"}), "M_INVALID_PARAM"),
        (json!({"alt_aliases": "#elsewhere:us.example"}), "M_INVALID_PARAM"),
    ] {
        let (status, answer) = alice.ask(Method::PUT, &path, Some(content)).await;
        assert_eq!((status, &answer["errcode"]), (StatusCode::BAD_REQUEST, &json!(errcode)));
    }
}

#[tokio::test]
async fn the_directory_is_paged_by_size_and_searched() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut rooms = Vec::new();
    for name in ["Cardiology", "Renal", "Canteen"] {
        rooms.push(alice.create(json!({"visibility": "public", "name": name})).await);
    }
    alice.create(json!({"name": "Cardiology, private"})).await;
    bob.join(&rooms[1]).await;
    let mut seen = Vec::new();
    let mut since = String::new();
    loop {
        let page = bob.get(&format!("/publicRooms?limit=1{since}")).await;
        assert_eq!(page["total_room_count_estimate"], 3);
        seen.push(page["chunk"][0]["room_id"].as_str().unwrap().to_owned());
        match page["next_batch"].as_str() {
            Some(next) => since = format!("&since={}", enc(next)),
            None => break,
        }
    }
    assert_eq!(seen[0], rooms[1]);
    seen.sort();
    let mut wanted = rooms.clone();
    wanted.sort();
    assert_eq!(seen, wanted);
    let found = bob.ok(Method::POST, "/publicRooms", json!({"filter": {"generic_search_term": "cardio"}})).await;
    let names: Vec<&Value> = list(&found, "/chunk").iter().map(|room| &room["name"]).collect();
    assert_eq!(names, [&json!("Cardiology")]);
}

#[tokio::test]
async fn an_upgraded_room_leads_to_one_with_its_state_and_aliases() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for (from, to) in [("10", "11"), ("11", "12"), ("12", "12")] {
        let old = alice
            .create(json!({"preset": "public_chat", "name": "Ward", "room_version": from, "room_alias_name": format!("w{from}")}))
            .await;
        bob.join(&old).await;
        let direct = format!("/user/{}/account_data/m.direct", enc(&alice.user));
        alice.ok(Method::PUT, &direct, json!({bob.user.clone(): [old]})).await;
        let tag = |room: &str| format!("/user/{}/rooms/{}/tags", enc(&bob.user), enc(room));
        bob.ok(Method::PUT, &format!("{}/u.ward", tag(&old)), json!({"order": 0.5})).await;
        let upgrade = format!("/rooms/{}/upgrade", enc(&old));
        let (status, _) = bob.ask(Method::POST, &upgrade, Some(json!({"new_version": to}))).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        let new = alice.ok(Method::POST, &upgrade, json!({"new_version": to})).await;
        let new = new["replacement_room"].as_str().unwrap().to_owned();
        let state = |room: &str, kind: &str| format!("/rooms/{}/state/{kind}", enc(room));
        assert_eq!(alice.get(&state(&old, "m.room.tombstone")).await["replacement_room"], json!(new));
        let create = alice.get(&state(&new, "m.room.create")).await;
        assert_eq!((&create["room_version"], &create["predecessor"]["room_id"]), (&json!(to), &json!(old)));
        assert_eq!(alice.get(&state(&new, "m.room.name")).await["name"], "Ward");
        assert_eq!(alice.get(&state(&old, "m.room.power_levels")).await["events_default"], 50);
        let alias = alice.get(&format!("/directory/room/{}", enc(&format!("#w{from}:us.example")))).await;
        assert_eq!(alias["room_id"], json!(new));
        assert_eq!(alice.get(&direct).await[&bob.user], json!([old, new]));
        bob.join(&new).await;
        assert_eq!(bob.get(&tag(&new)).await["tags"]["u.ward"]["order"], 0.5);
    }
    // A room cannot declare itself the successor of another.
    let room = alice.create(json!({"preset": "public_chat", "room_alias_name": "mine"})).await;
    bob.join(&room).await;
    let tag = |room: &str| format!("/user/{}/rooms/{}/tags", enc(&bob.user), enc(room));
    bob.ok(Method::PUT, &format!("{}/u.ward", tag(&room)), json!({})).await;
    let eve = server.user("eve").await;
    let claims = json!({"preset": "public_chat", "creation_content": {"predecessor": {"room_id": room}}});
    let false_room = eve.create(claims).await;
    bob.join(&false_room).await;
    assert_eq!(bob.get(&tag(&false_room)).await, json!({"tags": {}}));
    let alias = bob.get(&format!("/directory/room/{}", enc("#mine:us.example"))).await;
    assert_eq!(alias["room_id"], json!(room));
    let (status, answer) =
        alice.ask(Method::POST, &format!("/rooms/{}/upgrade", enc(&room)), Some(json!({"new_version": "99"}))).await;
    assert_eq!((status, &answer["errcode"]), (StatusCode::BAD_REQUEST, &json!("M_UNSUPPORTED_ROOM_VERSION")));
}

#[tokio::test]
async fn a_space_shows_the_rooms_that_one_may_know_of() {
    let server = Server::start();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let space = alice.create(json!({"preset": "public_chat", "creation_content": {"type": "m.space"}})).await;
    let open = alice.create(json!({"preset": "public_chat", "name": "open"})).await;
    let closed = alice.create(json!({"name": "closed"})).await;
    for child in [&open, &closed, &space] {
        alice.state(&space, "m.space.child", child, json!({"via": ["us.example"]})).await;
    }
    let path = format!("/_matrix/client/v1/rooms/{}/hierarchy", enc(&space));
    let rooms =
        |answer: &Value| -> Vec<Value> { list(answer, "/rooms").iter().map(|room| room["room_id"].clone()).collect() };
    assert_eq!(rooms(&bob.get(&path).await), [json!(space), json!(open)]);
    assert_eq!(rooms(&alice.get(&path).await).len(), 3);
    let first = alice.get(&format!("{path}?limit=2")).await;
    let second = alice.get(&format!("{path}?limit=2&from={}", first["next_batch"].as_str().unwrap())).await;
    assert_eq!((rooms(&first).len(), rooms(&second).len()), (2, 1));
    let summary = bob.get(&format!("/_matrix/client/v1/room_summary/{}", enc(&open))).await;
    assert_eq!((&summary["name"], &summary["membership"]), (&json!("open"), &json!("leave")));
    let (status, _) = bob.ask(Method::GET, &format!("/_matrix/client/v1/room_summary/{}", enc(&closed)), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
