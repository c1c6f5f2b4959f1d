//! Application services.

use matron_core::appservices::Registration;
use serde_json::json;

use crate::server::{Server, User, open_settings, user_of};

const FILE: &str = "
id: lab
url: https://lab.example/
as_token: as-secret
hs_token: hs-secret
sender_localpart: labbot
namespaces:
  users:
    - exclusive: true
      regex: '@lab_.*:us\\.example'
  aliases:
    - exclusive: true
      regex: '#lab_.*'
protocols: [hl7]
";

fn server() -> Server {
    Server::with(open_settings(), vec![Registration::parse(FILE).unwrap()])
}

async fn ghost(server: &Server, name: &str) -> User {
    let body = json!({ "type": "m.login.application_service", "username": name });
    user_of(&server.post("as-secret", "/v3/register", body).await.ok())
}

#[tokio::test]
async fn it_registers_its_users_and_nobody_else_may() {
    let server = server();
    let feed = ghost(&server, "lab_feed").await;
    assert_eq!(feed.id, "@lab_feed:us.example");
    server.get(&feed.token, "/v3/account/whoami").await.ok();
    let dummy = json!({ "type": "m.login.dummy" });
    for name in ["lab_other", "labbot"] {
        let body = json!({ "username": name, "auth": dummy });
        server.post("", "/v3/register", body).await.refused(400, "M_EXCLUSIVE");
    }
    let outside = json!({ "type": "m.login.application_service", "username": "alice" });
    server.post("as-secret", "/v3/register", outside.clone()).await.refused(400, "M_EXCLUSIVE");
    server.post("", "/v3/register", outside.clone()).await.refused(401, "M_MISSING_TOKEN");
    server.post("wrong", "/v3/register", outside).await.refused(401, "M_UNKNOWN_TOKEN");
    let login =
        json!({ "type": "m.login.application_service", "identifier": { "type": "m.id.user", "user": "lab_feed" } });
    server.post("as-secret", "/v3/login", login.clone()).await.ok();
    server.post("", "/v3/login", login).await.refused(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn it_speaks_as_its_users_and_devices_only() {
    let server = server();
    let feed = ghost(&server, "lab_feed").await;
    let who = |query: &str| {
        let path = format!("/v3/account/whoami{query}");
        let server = &server;
        async move { server.get("as-secret", &path).await }
    };
    assert_eq!(who("").await.ok()["user_id"], "@labbot:us.example");
    assert_eq!(who("?user_id=@lab_feed:us.example").await.ok()["user_id"], feed.id.as_str());
    who("?user_id=@alice:us.example").await.refused(403, "M_FORBIDDEN");
    who("?user_id=@lab_nobody:us.example").await.refused(403, "M_FORBIDDEN");
    who("?user_id=@lab_feed:them.example").await.refused(403, "M_FORBIDDEN");
    who("?user_id=@lab_feed:us.example&device_id=NONE").await.refused(400, "M_UNKNOWN_DEVICE");
    let with = format!("?user_id=@lab_feed:us.example&device_id={}", feed.device);
    assert_eq!(who(&with).await.ok()["device_id"], feed.device.as_str());
    server.put("as-secret", "/v3/devices/NEW?user_id=@lab_feed:us.example", json!({})).await.ok();
    assert_eq!(who("?user_id=@lab_feed:us.example&device_id=NEW").await.ok()["device_id"], "NEW");
}

#[tokio::test]
async fn it_receives_what_concerns_it_in_order_and_again_until_it_answers() {
    let server = server();
    let alice = server.user("alice").await;
    let feed = ghost(&server, "lab_feed").await;
    let other = server.room(&[&alice]).await;
    let room = server.room(&[&alice]).await;
    server.say(&alice, &other, "none of its business").await;
    server.outside.will_answer([Err(500)]);
    server.post(&feed.token, &format!("/v3/rooms/{room}/join"), json!({})).await.ok();
    let first = server.outside.wait_for(2).await;
    assert_eq!(first[0].url, "https://lab.example/_matrix/app/v1/transactions/1");
    assert_eq!(first[0].bearer.as_deref(), Some("hs-secret"));
    assert!(first[0].trusted);
    assert_eq!((&first[0].url, &first[0].body), (&first[1].url, &first[1].body));
    // One whose worker is late reads the room from its beginning.
    let events = first[1].body.as_ref().unwrap()["events"].as_array().unwrap();
    assert_eq!(events.last().unwrap()["state_key"], "@lab_feed:us.example");
    assert!(events.iter().all(|event| event["room_id"] == room.as_str()), "{events:?}");

    let said = server.say(&alice, &room, "hello").await;
    let next = server.outside.wait_for(3).await;
    assert_eq!(next[2].url, "https://lab.example/_matrix/app/v1/transactions/2");
    let events = next[2].body.as_ref().unwrap()["events"].as_array().unwrap().clone();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["event_id"], said.as_str());
    assert_eq!(server.outside.count(), 3);
}

#[tokio::test]
async fn protocols_and_lookups_are_passed_on() {
    let server = server();
    let alice = server.user("alice").await;
    let instances = json!([{ "desc": "one", "network_id": "ward-3", "fields": {} }]);
    server.outside.will_answer([
        Ok(json!({
            "user_fields": ["ward"],
            "location_fields": [],
            "icon": "mxc://us.example/hl7",
            "field_types": {},
            "instances": instances,
        })),
        Ok(json!([{ "protocol": "hl7", "userid": "@lab_x:us.example", "fields": {} }])),
    ]);
    let protocols = server.get(&alice.token, "/v3/thirdparty/protocols").await.ok();
    assert_eq!(protocols["hl7"]["instances"][0]["desc"], "one");
    // Believed for a while.
    server.get(&alice.token, "/v3/thirdparty/protocol/hl7").await.ok();
    server.get(&alice.token, "/v3/thirdparty/protocol/x25").await.refused(404, "M_NOT_FOUND");
    let path = format!("/v3/thirdparty/user/hl7?ward=A%201&access_token={}", alice.token);
    let found = server.get("", &path).await.ok();
    assert_eq!(found[0]["userid"], "@lab_x:us.example");
    let sent = server.outside.wait_for(2).await;
    assert_eq!(sent[1].url, "https://lab.example/_matrix/app/v1/thirdparty/user/hl7?ward=A%201");
}

#[tokio::test]
async fn it_may_ask_to_be_pinged() {
    let server = server();
    let ping = "/v1/appservice/lab/ping";
    assert!(server.post("as-secret", ping, json!({ "transaction_id": "t" })).await.ok()["duration_ms"].is_u64());
    let sent = server.outside.wait_for(1).await;
    assert_eq!(sent[0].url, "https://lab.example/_matrix/app/v1/ping");
    assert_eq!(sent[0].body, Some(json!({ "transaction_id": "t" })));
    server.outside.will_answer([Err(418)]);
    let refused = server.post("as-secret", ping, json!({})).await.refused(502, "M_BAD_STATUS");
    assert_eq!(refused["status"], 418);
    let alice = server.user("alice").await;
    server.post(&alice.token, ping, json!({})).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_registration_that_makes_no_sense_is_refused() {
    assert!(Registration::parse("id: [").is_err());
    assert!(Registration::parse(&FILE.replace("as-secret", "''")).is_err());
    assert!(Registration::parse(&FILE.replace("'@lab_.*:us\\.example'", "'@lab_('")).is_err());
    assert!(Registration::parse("{\"id\":\"a\",\"url\":null,\"as_token\":\"a\",\"hs_token\":\"b\",\"sender_localpart\":\"c\",\"namespaces\":{}}").is_ok());
}

#[tokio::test]
async fn it_receives_typing_receipts_and_to_device_messages_when_it_asked() {
    let file = format!("{FILE}\nreceive_ephemeral: true\n");
    let server = Server::with(open_settings(), vec![Registration::parse(&file).unwrap()]);
    let alice = server.user("alice").await;
    let feed = ghost(&server, "lab_feed").await;
    let message = json!({ "messages": { &feed.id: { "*": { "a": 1 } } } });
    server.put(&alice.token, "/v3/sendToDevice/m.test/1", message).await.ok();
    let sent = server.outside.wait_for(1).await;
    let to_device = &sent[0].body.as_ref().unwrap()["to_device"];
    assert_eq!(to_device[0]["to_user_id"], feed.id.as_str());
    assert_eq!(to_device[0]["to_device_id"], feed.device.as_str());
    assert_eq!((&to_device[0]["sender"], &to_device[0]["content"]), (&json!(alice.id), &json!({ "a": 1 })));

    let room = server.room(&[&alice]).await;
    server.post(&feed.token, &format!("/v3/rooms/{room}/join"), json!({})).await.ok();
    let before = server.outside.wait_for(2).await.len();
    let typing = format!("/v3/rooms/{room}/typing/{}", alice.id);
    server.put(&alice.token, &typing, json!({ "typing": true, "timeout": 30_000 })).await.ok();
    let sent = server.outside.wait_for(before + 1).await;
    let ephemeral = sent.iter().filter_map(|request| request.body.as_ref()?.get("ephemeral")?.as_array()).flatten();
    let typing: Vec<_> = ephemeral.filter(|edu| edu["type"] == "m.typing").collect();
    assert_eq!(typing[0]["room_id"], room.as_str());
    assert_eq!(typing[0]["content"], json!({ "user_ids": [alice.id] }));
}
