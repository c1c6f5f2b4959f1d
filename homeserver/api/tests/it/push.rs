//! Push rules, counts, gateways.

use serde_json::{Value, json};

use crate::server::{Server, User};

fn ids(rules: &Value) -> Vec<&str> {
    rules.as_array().unwrap().iter().map(|rule| rule["rule_id"].as_str().unwrap()).collect()
}

async fn set_pusher(server: &Server, user: &User) {
    let body = json!({
        "kind": "http", "app_id": "ward", "pushkey": "key", "app_display_name": "a", "device_display_name": "d",
        "lang": "en", "data": { "url": "https://push.example/_matrix/push/v1/notify" },
    });
    server.post(&user.token, "/v3/pushers/set", body).await.ok();
}

#[tokio::test]
async fn the_default_rules_are_those_of_the_specification() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let rules = server.get(&alice.token, "/v3/pushrules/").await.ok()["global"].clone();
    assert_eq!(
        ids(&rules["override"]),
        [
            ".m.rule.master",
            ".m.rule.suppress_notices",
            ".m.rule.invite_for_me",
            ".m.rule.member_event",
            ".m.rule.is_user_mention",
            ".m.rule.is_room_mention",
            ".m.rule.tombstone",
            ".m.rule.reaction",
            ".m.rule.room.server_acl",
            ".m.rule.suppress_edits",
        ]
    );
    assert_eq!(
        ids(&rules["underride"]),
        [
            ".m.rule.call",
            ".m.rule.encrypted_room_one_to_one",
            ".m.rule.room_one_to_one",
            ".m.rule.message",
            ".m.rule.encrypted",
        ]
    );
    assert_eq!(rules["override"][0]["enabled"], false);
    assert_eq!(server.get(&alice.token, "/v3/pushrules/global/").await.ok(), rules);
    assert_eq!(server.get(&alice.token, "/v3/pushrules/global/override/").await.ok(), rules["override"]);
}

#[tokio::test]
async fn rules_are_placed_changed_and_removed() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let put = |id: &str, query: &str, body: Value| {
        let path = format!("/v3/pushrules/global/content/{id}{query}");
        let (server, token) = (&server, &alice.token);
        async move { server.put(token, &path, body).await }
    };
    let body = json!({ "pattern": "cake", "actions": ["notify"] });
    put("one", "", body.clone()).await.ok();
    put("two", "", body.clone()).await.ok();
    put("three", "?after=two", body.clone()).await.ok();
    put("four", "?before=one", body.clone()).await.ok();
    let listed = server.get(&alice.token, "/v3/pushrules/global/content/").await.ok();
    assert_eq!(ids(&listed), ["two", "three", "four", "one"]);
    put("five", "?before=nobody", body.clone()).await.refused(400, "M_UNKNOWN");
    put("five", "?before=.m.rule.master", body.clone()).await.refused(400, "M_UNKNOWN");
    put(".five", "", body.clone()).await.refused(400, "M_INVALID_PARAM");
    put("five", "", json!({ "actions": [] })).await.refused(400, "M_MISSING_PARAM");
    put("five", "", json!({ "pattern": "x", "actions": ["shout"] })).await.refused(400, "M_INVALID_PARAM");

    let rule = "/v3/pushrules/global/content/one";
    server.put(&alice.token, &format!("{rule}/enabled"), json!({ "enabled": false })).await.ok();
    assert_eq!(server.get(&alice.token, &format!("{rule}/enabled")).await.ok(), json!({ "enabled": false }));
    server.put(&alice.token, &format!("{rule}/actions"), json!({ "actions": [] })).await.ok();
    assert_eq!(server.get(&alice.token, rule).await.ok()["actions"], json!([]));
    server.delete(&alice.token, rule).await.ok();
    server.get(&alice.token, rule).await.refused(404, "M_NOT_FOUND");
    server.delete(&alice.token, rule).await.refused(404, "M_NOT_FOUND");
    server.get(&alice.token, "/v3/pushrules/other/").await.refused(400, "M_INVALID_PARAM");
    server.get(&alice.token, "/v3/pushrules/global/other/").await.refused(400, "M_INVALID_PARAM");
    let missing = "/v3/pushrules/global/override/nobody/enabled";
    server.put(&alice.token, missing, json!({ "enabled": true })).await.refused(404, "M_NOT_FOUND");
    let master = "/v3/pushrules/global/override/.m.rule.master";
    server.put(&alice.token, &format!("{master}/enabled"), json!({ "enabled": true })).await.ok();
    assert_eq!(server.get(&alice.token, master).await.ok()["enabled"], true);
    server.delete(&alice.token, master).await.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn unread_messages_are_counted_alike_warm_and_cold() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = server.room(&[&alice, &bob]).await;
    let (user, room_id) = (ruma::UserId::parse(&*alice.id).unwrap(), ruma::RoomId::parse(&*room).unwrap());
    let counts = || server.core.count_unread(&user, &room_id).unwrap().total();
    assert_eq!(counts().notification_count, 0);
    server.say(&bob, &room, "one").await;
    server.say(&bob, &room, "two").await;
    assert_eq!((counts().notification_count, counts().highlight_count), (2, 0));
    let mention = json!({ "msgtype": "m.text", "body": "x", "m.mentions": { "user_ids": [alice.id] } });
    server.put(&bob.token, &format!("/v3/rooms/{room}/send/m.room.message/m"), mention).await.ok();
    assert_eq!((counts().notification_count, counts().highlight_count), (3, 1));
    server.core.unread_changed(&user, &room_id);
    assert_eq!((counts().notification_count, counts().highlight_count), (3, 1));
    // A new name of the reader is no reading.
    let name = format!("/v3/profile/{}/displayname", alice.id);
    server.put(&alice.token, &name, json!({ "displayname": "Dr. Alice" })).await.ok();
    server.core.unread_changed(&user, &room_id);
    assert_eq!(counts().notification_count, 3);
    // A changed rule changes what is counted.
    let path = format!("/v3/pushrules/global/room/{}", room.replace('!', "%21").replace(':', "%3A"));
    server.put(&alice.token, &path, json!({ "actions": [] })).await.ok();
    assert_eq!((counts().notification_count, counts().highlight_count), (1, 1));
}

#[tokio::test]
async fn messages_in_threads_are_counted_apart() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = server.room(&[&alice, &bob]).await;
    let root = server.say(&bob, &room, "root").await;
    let (user, room_id) = (ruma::UserId::parse(&*alice.id).unwrap(), ruma::RoomId::parse(&*room).unwrap());
    server.core.count_unread(&user, &room_id).unwrap();
    let relation = json!({ "rel_type": "m.thread", "event_id": root });
    let reply = json!({ "msgtype": "m.text", "body": "x", "m.relates_to": relation });
    server.put(&bob.token, &format!("/v3/rooms/{room}/send/m.room.message/t"), reply).await.ok();
    for _ in 0..2 {
        let counts = server.core.count_unread(&user, &room_id).unwrap();
        assert_eq!(counts.main.notification_count, 1);
        assert_eq!(counts.threads.len(), 1);
        assert_eq!(counts.total().notification_count, 2);
        server.core.unread_changed(&user, &room_id);
    }
}

#[tokio::test]
async fn a_gateway_is_told_ids_only_and_a_dead_key_is_forgotten() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = server.room(&[&alice, &bob]).await;
    set_pusher(&server, &alice).await;
    let event = server.say(&bob, &room, "a secret").await;
    let sent = server.outside.wait_for(1).await;
    assert_eq!(sent[0].url, "https://push.example/_matrix/push/v1/notify");
    assert!(!sent[0].trusted);
    let notification = &sent[0].body.as_ref().unwrap()["notification"];
    assert_eq!(notification["event_id"], event.as_str());
    assert_eq!(notification["counts"], json!({ "unread": 1 }));
    assert_eq!(notification["devices"][0]["tweaks"], json!({ "sound": "default" }));
    assert_eq!(notification["devices"][0]["data"], json!({}));
    assert_eq!(notification.get("content"), None);
    assert_eq!(notification.get("sender"), None);

    // What was read is told, too, without a word of what it was.
    let receipt = format!("/v3/rooms/{room}/receipt/m.read/{event}");
    server.post(&alice.token, &receipt, json!({})).await.ok();
    let sent = server.outside.wait_for(2).await;
    let badge = &sent[1].body.as_ref().unwrap()["notification"];
    assert_eq!(badge["counts"], json!({ "unread": 0 }));
    assert_eq!(badge.get("room_id"), None);

    server.outside.will_answer([Ok(json!({ "rejected": ["key"] }))]);
    server.say(&bob, &room, "another").await;
    server.outside.wait_for(3).await;
    let no_pusher = async {
        loop {
            let pushers = server.get(&alice.token, "/v3/pushers").await.ok();
            if pushers == json!({ "pushers": [] }) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), no_pusher).await.expect("the pusher goes");
}

#[tokio::test]
async fn a_pusher_goes_with_its_device_and_only_reaches_push_gateways() {
    let server = Server::new();
    let alice = server.user("alice").await;
    set_pusher(&server, &alice).await;
    let login = json!({ "type": "m.login.password", "user": "alice", "password": "a long password" });
    let other = server.post("", "/v3/login", login).await.ok();
    let other = other["access_token"].as_str().unwrap();
    assert_eq!(server.get(other, "/v3/pushers").await.ok()["pushers"][0]["app_id"], "ward");
    server.post(&alice.token, "/v3/logout", json!({})).await.ok();
    assert_eq!(server.get(other, "/v3/pushers").await.ok(), json!({ "pushers": [] }));
    for url in ["http://push.example/_matrix/push/v1/notify", "https://push.example/else", "file:///etc/passwd"] {
        let body = json!({
            "kind": "http", "app_id": "a", "pushkey": "k", "app_display_name": "a", "device_display_name": "d",
            "lang": "en", "data": { "url": url },
        });
        server.post(other, "/v3/pushers/set", body).await.refused(400, "M_INVALID_PARAM");
    }
}

#[tokio::test]
async fn notifications_are_listed_newest_first() {
    let server = Server::new();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = server.room(&[&alice, &bob]).await;
    let one = server.say(&bob, &room, "one").await;
    let two = server.say(&bob, &room, "two").await;
    let page = server.get(&alice.token, "/v3/notifications?limit=1").await.ok();
    assert_eq!(page["notifications"][0]["event"]["event_id"], two.as_str());
    let next = format!("/v3/notifications?limit=1&from={}", page["next_token"].as_str().unwrap());
    let page = server.get(&alice.token, &next).await.ok();
    assert_eq!(page["notifications"][0]["event"]["event_id"], one.as_str());
    assert_eq!(page["notifications"][0]["read"], false);
    server.get(&alice.token, "/v3/notifications?from=x").await.refused(400, "M_INVALID_PARAM");
}

fn in_thread(root: &str) -> Value {
    json!({ "msgtype": "m.text", "body": "x", "m.relates_to": { "rel_type": "m.thread", "event_id": root } })
}

async fn send(server: &Server, user: &User, room: &str, content: Value) -> String {
    let sent = server.post(&user.token, &format!("/v3/rooms/{room}/send/m.room.message"), content).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

/// Outside threads, and in each: what `/sync` tells, from memory and counted anew.
async fn unread(server: &Server, user: &User, room: &str) -> (u64, Value) {
    let filter =
        r#"{"room":{"timeline":{"unread_thread_notifications":true}}}"#.replace('{', "%7B").replace('}', "%7D");
    let filter = filter.replace('"', "%22");
    let mut told = Vec::new();
    for _ in 0..2 {
        let answer = server.get(&user.token, &format!("/v3/sync?timeout=0&filter={filter}")).await.ok();
        let joined = &answer["rooms"]["join"][room];
        let main = joined["unread_notifications"]["notification_count"].as_u64().unwrap();
        let threads = joined["unread_thread_notifications"].as_object().cloned().unwrap_or_default();
        let threads = threads.into_iter().map(|(root, counts)| (root, counts["notification_count"].clone()));
        told.push((main, Value::Object(threads.collect())));
        server.core.unread_changed(&ruma::UserId::parse(&*user.id).unwrap(), &ruma::RoomId::parse(room).unwrap());
    }
    assert_eq!(told[0], told[1], "warm and cold");
    told.remove(0)
}

#[tokio::test]
async fn whoever_speaks_has_read_what_was_said_there() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = server.room(&[&alice, &bob]).await;
    let root = server.say(&bob, &room, "root").await;
    send(&server, &bob, &room, in_thread(&root)).await;
    assert_eq!(unread(&server, &alice, &room).await, (1, json!({ &root: 1 })));
    server.say(&alice, &room, "in the room").await;
    assert_eq!(unread(&server, &alice, &room).await, (0, json!({ &root: 1 })));
    send(&server, &bob, &room, in_thread(&root)).await;
    send(&server, &alice, &room, in_thread(&root)).await;
    assert_eq!(unread(&server, &alice, &room).await, (0, json!({})));
    send(&server, &bob, &room, in_thread(&root)).await;
    server.say(&bob, &room, "later").await;
    assert_eq!(unread(&server, &alice, &room).await, (1, json!({ &root: 1 })));
    // A change of state is no word.
    let name = json!({ "displayname": "Dr. A", "membership": "join" });
    let path = format!("/v3/rooms/{room}/state/m.room.member/{}", alice.id);
    server.put(&alice.token, &path, name).await.ok();
    assert_eq!(unread(&server, &alice, &room).await, (1, json!({ &root: 1 })));
    let page = server.get(&alice.token, "/v3/notifications").await.ok();
    let read: Vec<bool> =
        page["notifications"].as_array().unwrap().iter().map(|it| it["read"].as_bool().unwrap()).collect();
    assert_eq!(read, [false, false, true, true, true]);
}

#[tokio::test]
async fn receipts_count_for_their_thread_and_the_later_of_two_holds() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = server.room(&[&alice, &bob]).await;
    let receipt = |kind: &'static str, event: String, thread: Option<String>| {
        let path = format!("/v3/rooms/{room}/receipt/{kind}/{event}");
        let body = thread.map_or_else(|| json!({}), |thread| json!({ "thread_id": thread }));
        let (server, token) = (&server, &alice.token);
        async move { server.post(token, &path, body).await }
    };
    let main = || Some("main".to_owned());
    let one = server.say(&bob, &room, "one").await;
    let two = server.say(&bob, &room, "two").await;
    let answer = send(&server, &bob, &room, in_thread(&one)).await;
    let three = server.say(&bob, &room, "three").await;
    assert_eq!(unread(&server, &alice, &room).await, (3, json!({ &one: 1 })));
    receipt("m.read.private", two.clone(), main()).await.ok();
    assert_eq!(unread(&server, &alice, &room).await, (1, json!({ &one: 1 })));
    // An earlier one of the other kind takes nothing back, nor does one for an event that nobody knows.
    receipt("m.read", one.clone(), main()).await.ok();
    receipt("m.read.private", "$unknown".to_owned(), main()).await.ok();
    assert_eq!(unread(&server, &alice, &room).await, (1, json!({ &one: 1 })));
    receipt("m.read", answer.clone(), Some(one.clone())).await.ok();
    assert_eq!(unread(&server, &alice, &room).await, (1, json!({})));
    send(&server, &bob, &room, in_thread(&one)).await;
    receipt("m.read", three.clone(), None).await.ok();
    assert_eq!(unread(&server, &alice, &room).await, (0, json!({ &one: 1 })));
    receipt("m.read", two.clone(), Some(one.clone())).await.refused(400, "M_INVALID_PARAM");
    receipt("m.read", answer, main()).await.refused(400, "M_INVALID_PARAM");
    receipt("m.read", three.clone(), Some(String::new())).await.refused(400, "M_INVALID_PARAM");
    receipt("m.fully_read", three, main()).await.refused(400, "M_INVALID_PARAM");

    // What was read in private is nobody else's to know.
    let seen = server.get(&bob.token, "/v3/sync?timeout=0").await.ok().to_string();
    assert!(seen.contains("m.read") && !seen.contains("m.read.private"));
}

#[tokio::test]
async fn nobody_is_notified_of_what_was_said_before_they_came() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let hidden = json!([{ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } }]);
    let body = json!({ "preset": "public_chat", "initial_state": hidden });
    let made = server.post(&bob.token, "/v3/createRoom", body).await.ok();
    let room = made["room_id"].as_str().unwrap();
    server.say(&bob, room, "not for alice").await;
    server.post(&alice.token, &format!("/v3/rooms/{room}/join"), json!({})).await.ok();
    let later = server.say(&bob, room, "for alice").await;
    let page = server.get(&alice.token, "/v3/notifications").await.ok();
    assert!(!page.to_string().contains("not for alice"));
    assert_eq!(page["notifications"][0]["event"]["event_id"], later.as_str());
    assert_eq!(page["notifications"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_name_in_the_text_is_the_name_in_that_room() {
    let server = Server::new();
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = server.room(&[&alice, &bob]).await;
    let rule = json!({
        "conditions": [{ "kind": "contains_display_name" }],
        "actions": ["notify", { "set_tweak": "highlight" }],
    });
    server.put(&alice.token, "/v3/pushrules/global/override/name", rule).await.ok();
    let name = json!({ "displayname": "Sister Agnes", "membership": "join" });
    let path = format!("/v3/rooms/{room}/state/m.room.member/{}", alice.id);
    server.put(&alice.token, &path, name).await.ok();
    server.say(&bob, &room, "ask alice").await;
    server.say(&bob, &room, "ask sister agnes!").await;
    let page = server.get(&alice.token, "/v3/notifications?only=highlight").await.ok();
    let bodies: Vec<&Value> =
        page["notifications"].as_array().unwrap().iter().map(|it| &it["event"]["content"]["body"]).collect();
    assert_eq!(bodies, [&json!("ask sister agnes!")]);
}
