//! Two trusts that changed one room without hearing each other agree afterwards.

use serde_json::{Value, json};

use matron_testkit::{Person, TestNet, part};

async fn membership(asker: &Person, room: &str, user: &Person) -> Value {
    let path = format!("/v3/rooms/{}/state/m.room.member/{}", part(room), part(&user.id));
    asker.send("GET", &path, &Value::Null).await.1["membership"].clone()
}

#[tokio::test]
async fn a_kick_that_crossed_with_a_join_counts_on_both_sides() {
    let network = TestNet::new();
    let (north, south) = (network.server("north.example"), network.server("south.example"));
    let alice = north.person("alice").await;
    let (bob, carol, dora) = (south.person("bob").await, south.person("carol").await, south.person("dora").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    alice.post(&format!("/v3/rooms/{}/invite", part(&room)), json!({ "user_id": dora.id })).await;
    dora.sync_until("", |answer| answer["rooms"]["invite"].get(&room).map(|_| ())).await;
    let (heard_north, heard_south) = (alice.now().await, carol.now().await);
    network.cut_off(&south, true);
    alice.post(&format!("/v3/rooms/{}/kick", part(&room)), json!({ "user_id": bob.id })).await;
    dora.post(&format!("/v3/join/{}", part(&room)), json!({})).await;
    network.cut_off(&south, false);
    network.clock().advance_ms(60_000);
    north.core.peer_is_back(&south.name);
    south.core.peer_is_back(&north.name);
    let hears = |of: &Person| {
        let (id, room) = (of.id.clone(), room.clone());
        move |answer: &Value| {
            let room = &answer["rooms"]["join"][&room];
            let events = room["timeline"]["events"].as_array()?;
            events.iter().find(|event| event["state_key"] == id.as_str()).map(|_| ())
        }
    };
    alice.sync_until(&heard_north, hears(&dora)).await;
    carol.sync_until(&heard_south, hears(&bob)).await;
    for asker in [&alice, &carol] {
        assert_eq!(membership(asker, &room, &bob).await, "leave");
        assert_eq!(membership(asker, &room, &dora).await, "join");
    }
}
