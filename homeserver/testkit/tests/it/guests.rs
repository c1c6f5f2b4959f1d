//! Guests stay out of rooms elsewhere that do not let them in: no other server knows who is one.

use std::sync::Arc;

use matron_testkit::{Person, TestNet, TestServer, Weather, part};
use serde_json::{Value, json};

const REFUSED: &str = "M_GUEST_ACCESS_FORBIDDEN";

/// Two servers, the second of which takes guests.
fn trusts() -> (Arc<TestNet>, TestServer, TestServer) {
    let net = TestNet::new();
    let south = net.server_with("south.example", |settings| settings.registration.guests = true);
    let north = net.server("north.example");
    (net, north, south)
}

async fn admit(alice: &Person, room: &str, guest_access: &str) {
    let path = format!("/v3/rooms/{}/state/m.room.guest_access", part(room));
    alice.put(&path, json!({ "guest_access": guest_access })).await;
}

async fn invite(alice: &Person, room: &str, guest: &Person) {
    alice.post(&format!("/v3/rooms/{}/invite", part(room)), json!({ "user_id": guest.id })).await;
    guest.sync_until("", |answer| answer["rooms"]["invite"].get(room).map(|_| ())).await;
}

/// The guest's membership, as the first server has it.
async fn membership(alice: &Person, room: &str, guest: &Person) -> Value {
    let path = format!("/v3/rooms/{}/state/m.room.member/{}", part(room), part(&guest.id));
    alice.send("GET", &path, &Value::Null).await.1["membership"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_accepts_an_invite_from_elsewhere_only_where_the_room_lets_guests_in() {
    let (_net, north, south) = trusts();
    let (alice, guest) = (north.person("alice").await, south.guest().await);
    let room = alice.room(json!({ "preset": "private_chat" })).await.to_string();
    admit(&alice, &room, "forbidden").await;
    invite(&alice, &room, &guest).await;
    let (status, answer) = guest.try_join(&room, "north.example").await;
    assert_eq!((status, &answer["errcode"]), (403, &json!(REFUSED)));
    // The invite says so already: nobody else hears of the try.
    assert_eq!(membership(&alice, &room, &guest).await, "invite");

    let open = alice.room(json!({ "preset": "private_chat" })).await.to_string();
    admit(&alice, &open, "can_join").await;
    invite(&alice, &open, &guest).await;
    let (status, answer) = guest.try_join(&open, "north.example").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(membership(&alice, &open, &guest).await, "join");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_who_learns_by_the_join_alone_that_guests_may_not_is_out_again() {
    let (_net, north, south) = trusts();
    let (alice, guest) = (north.person("alice").await, south.guest().await);
    let room = alice.room(json!({ "preset": "public_chat" })).await.to_string();
    let (status, answer) = guest.try_join(&room, "north.example").await;
    assert_eq!((status, &answer["errcode"]), (403, &json!(REFUSED)));
    assert_eq!(membership(&alice, &room, &guest).await, "leave");
    let told = guest.get("/v3/sync?timeout=0").await;
    assert!(told["rooms"]["join"].get(&room).is_none(), "{told}");
    let (status, _) = guest.send("GET", &format!("/v3/rooms/{}/messages?dir=b", part(&room)), &Value::Null).await;
    assert_eq!(status, 403);
}

/// Whoever waits behind another's join finds the room here; what it says of guests holds then too.
#[tokio::test]
async fn a_guest_who_waited_behind_anothers_join_is_let_in_only_where_the_room_lets_guests_in() {
    for (access, is_in) in [("forbidden", false), ("can_join", true)] {
        let (net, north, south) = trusts();
        let (alice, bob, guest) = (north.person("alice").await, south.person("bob").await, south.guest().await);
        let room = alice.room(json!({ "preset": "public_chat" })).await.to_string();
        admit(&alice, &room, access).await;
        // Requests are under way for a while: the guest's join begins while the other one does.
        net.set_weather(Weather { delay_ms: 200, ..Weather::default() });
        let joins = tokio::join!(bob.try_join(&room, "north.example"), guest.try_join(&room, "north.example"));
        assert_eq!(joins.0.0, 200, "{}", joins.0.1);
        assert_eq!(joins.1.0, if is_in { 200 } else { 403 }, "{}", joins.1.1);
        let joined = south.room(room.as_str().try_into().unwrap()).joined();
        assert_eq!(joined.contains(&guest.user()), is_in);
        assert!(joined.contains(&bob.user()));
    }
}
