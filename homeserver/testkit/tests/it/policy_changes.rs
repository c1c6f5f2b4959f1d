//! A room's policy changes while people are in it: whom it names no more is out, and what was open is open no more.

use matron_policy::ROOM_POLICY_TYPE;
use matron_testkit::{Governance, Reply, TestServer, part};
use ruma::{OwnedRoomId, RoomId, UserId};
use serde_json::{Value, json};

use crate::policy::Wards;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The content of a policy for these organisations.
fn policy_of(organisations: &[&str]) -> Value {
    let ward = Governance::ward(organisations, 400 * DAY_MS);
    let state = ward["initial_state"].as_array().unwrap();
    state.iter().find(|event| event["type"] == ROOM_POLICY_TYPE).unwrap()["content"].clone()
}

fn path(room: &RoomId, what: &str) -> String {
    format!("/v3/rooms/{}/{what}", part(room.as_str()))
}

/// Waits until the user is in the room no more, as this server has it.
async fn is_out(server: &TestServer, room: &RoomId, user: &UserId) {
    let gone = async {
        while server.room(room).joined().contains(user) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.expect("they are still in the room");
}

#[tokio::test]
async fn whom_a_tighter_policy_names_no_more_is_removed_and_hears_nothing_more() {
    let wards = Wards::new(90 * DAY_MS).await;
    wards.bot.put(&wards.path(&format!("state/{ROOM_POLICY_TYPE}")), policy_of(&["N"])).await;
    is_out(&wards.north, &wards.room, &wards.matron.user()).await;
    is_out(&wards.south, &wards.room, &wards.matron.user()).await;
    let said = wards.say(&wards.nurse, "among-ourselves").await;
    wards.settle().await;
    assert_eq!(wards.south.status(&said), None, "south was sent what is not for it");
    wards.nobody_sees(&wards.matron, &said, "among-ourselves").await;
}

/// A room of anybody's, with somebody from a server outside every policy in it.
async fn mixed_room(wards: &Wards, more: Value) -> (OwnedRoomId, std::sync::Arc<matron_testkit::Adversary>) {
    let mut body = json!({"preset": "public_chat"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let room = wards.bot.room(body).await;
    let outsider = wards.net.adversary("stranger.example");
    outsider.answers(
        |question| {
            if question.is("send") { Reply::Json(json!({"pdus": {}})) } else { Reply::Status(404) }
        },
    );
    outsider.join(&wards.north, &room, "eve").await;
    let (status, answer) = wards.nurse.try_join(room.as_str(), "north.example").await;
    assert_eq!(status, 200, "{answer}");
    (room, outsider)
}

#[tokio::test]
async fn an_outsider_is_removed_when_an_ordinary_room_becomes_bounded() {
    let wards = Wards::new(90 * DAY_MS).await;
    let (room, _outsider) = mixed_room(&wards, json!({})).await;
    wards.bot.put(&path(&room, &format!("state/{ROOM_POLICY_TYPE}")), policy_of(&["N", "S"])).await;
    is_out(&wards.north, &room, "@eve:stranger.example".try_into().unwrap()).await;
}

#[tokio::test]
async fn a_server_outside_gets_no_words_even_where_nobody_can_remove_its_people() {
    let wards = Wards::new(90 * DAY_MS).await;
    let levels = json!({"room_version": "11", "power_level_content_override": {"kick": 101, "events": {}}});
    let (room, outsider) = mixed_room(&wards, levels).await;
    wards.nurse.say(room.as_str(), "while it was anybody's room").await;
    let told = |text: &'static str| {
        let outsider = std::sync::Arc::clone(&outsider);
        async move {
            let mut seen = Vec::new();
            let all = async {
                while !seen.iter().any(|body: &String| body.contains(text)) {
                    seen.extend(outsider.take_questions().into_iter().map(|question| question.body.to_string()));
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("it was not sent");
            seen
        }
    };
    told("while it was anybody's room").await;
    wards.bot.put(&path(&room, &format!("state/{ROOM_POLICY_TYPE}")), policy_of(&["N", "S"])).await;
    let encryption = json!({"algorithm": matron_policy::MEGOLM, "rotation_period_ms": DAY_MS});
    wards.bot.put(&path(&room, "state/m.room.encryption"), encryption).await;
    let send = path(&room, "send/m.room.encrypted/words");
    let said = wards.nurse.put(&send, Governance::ciphertext("among-ourselves")).await;
    // The state still goes out, so what comes after the words shows that they were left out.
    wards.bot.put(&path(&room, "state/m.room.topic"), json!({"topic": "what comes after"})).await;
    let seen = told("what comes after").await;
    assert!(!seen.iter().any(|body| body.contains("among-ourselves")), "a server outside was sent the words");
    let asked = format!("/_matrix/federation/v1/event/{}", part(said["event_id"].as_str().unwrap()));
    let (_, answer) = outsider.ask(&wards.north.name, matron_core::ports::http_method::Method::Get, &asked, None).await;
    assert!(!answer.to_string().contains("among-ourselves"), "{answer}");
}

#[tokio::test]
async fn what_was_world_readable_is_its_members_once_the_room_has_a_policy() {
    let wards = Wards::new(90 * DAY_MS).await;
    let open = json!({"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "world_readable"}});
    let room = wards.bot.room(json!({"preset": "public_chat", "visibility": "public", "initial_state": [open]})).await;
    let stranger = wards.north.person("dan").await;
    let said = wards.bot.say(room.as_str(), "to the world").await;
    let reads = |what: &'static str| {
        let (stranger, path) = (&stranger, path(&room, what));
        async move { stranger.send("GET", &path, &Value::Null).await }
    };
    assert!(reads("messages?dir=b").await.1.to_string().contains("to the world"));
    wards.bot.put(&path(&room, &format!("state/{ROOM_POLICY_TYPE}")), policy_of(&["N", "S"])).await;
    for what in ["messages?dir=b", "state", "members", "initialSync", "aliases", "joined_members"] {
        let (status, answer) = reads(what).await;
        assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{what}: {answer}");
    }
    for what in [format!("event/{}", part(&said)), format!("context/{}", part(&said))] {
        let (status, answer) = stranger.send("GET", &path(&room, &what), &Value::Null).await;
        assert!(matches!(status, 403 | 404) && !answer.to_string().contains("to the world"), "{what}: {answer}");
    }
    let listed = stranger.get("/v3/publicRooms").await;
    let shown = listed["chunk"].as_array().unwrap().iter().find(|one| one["room_id"] == room.as_str());
    assert!(shown.is_none_or(|shown| shown["world_readable"] == false), "{listed}");
}

#[tokio::test]
async fn without_a_current_credential_nobody_reads_where_policy_says_so() {
    let mut wards = Wards::new(400 * DAY_MS).await;
    let mut strict = policy_of(&["N", "S", "R"]);
    strict["unverified_may_read"] = json!(false);
    wards.bot.put(&wards.path(&format!("state/{ROOM_POLICY_TYPE}")), strict).await;
    let said = wards.say(&wards.nurse, "for-the-verified").await;
    let (found, _) =
        wards.matron.sync_until("", |answer| answer.to_string().contains("for-the-verified").then_some(true)).await;
    assert!(found);
    // Everybody's credential has run out; the words have not, and the bot needs no credential.
    wards.net.clock().advance_ms(366 * DAY_MS);
    let register = wards.governance.register(matron_testkit::START_MS + 366 * DAY_MS);
    for server in [&wards.north, &wards.south] {
        wards.governance.tell(server, &register).await;
    }
    let read = wards.bot.get(&wards.path("messages?dir=b&limit=100")).await;
    assert!(read.to_string().contains("for-the-verified"), "{read}");
    wards.nobody_sees(&wards.matron, &said, "for-the-verified").await;
    wards.nobody_sees(&wards.nurse, &said, "for-the-verified").await;
}
