//! Threads that users follow (MSC4306), and how devices hear of it (MSC4308).

use matron_core::Settings;
use serde_json::{Value, json};

use crate::server::{Server, User, open_settings};

const PAGES: &str = "/unstable/io.element.msc4308/thread_subscriptions?dir=b";

struct Ward {
    server: Server,
    alice: User,
    bob: User,
    room: String,
    root: String,
}

impl Ward {
    async fn open(settings: Settings) -> Self {
        let server = Server::with(settings, Vec::new());
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = server.room(&[&alice, &bob]).await;
        let root = server.say(&bob, &room, "root").await;
        Self { server, alice, bob, room, root }
    }

    fn path(&self, root: &str) -> String {
        format!("/unstable/io.element.msc4306/rooms/{}/thread/{root}/subscription", self.room)
    }

    async fn reply(&self) -> String {
        let relation = json!({ "rel_type": "m.thread", "event_id": self.root });
        let content = json!({ "msgtype": "m.text", "body": "x", "m.relates_to": relation });
        let path = format!("/v3/rooms/{}/send/m.room.message", self.room);
        let sent = self.server.post(&self.bob.token, &path, content).await.ok();
        sent["event_id"].as_str().unwrap().to_owned()
    }

    /// A sliding sync; gives its `pos` and what it tells of threads.
    async fn slide(&self, pos: Option<&str>, limit: u64) -> (String, Value) {
        let pos = pos.map(|pos| format!("?pos={pos}")).unwrap_or_default();
        let path = format!("/unstable/org.matrix.simplified_msc3575/sync{pos}");
        let extension = json!({ "enabled": true, "limit": limit });
        let body = json!({ "extensions": { "io.element.msc4308.thread_subscriptions": extension } });
        let answer = self.server.post(&self.alice.token, &path, body).await.ok();
        let told = answer["extensions"]["io.element.msc4308.thread_subscriptions"].clone();
        (answer["pos"].as_str().unwrap().to_owned(), told)
    }
}

#[tokio::test]
async fn a_thread_is_followed_by_decision_or_by_a_client_and_left() {
    let ward = Ward::open(open_settings()).await;
    let (server, token, path) = (&ward.server, &ward.alice.token, ward.path(&ward.root));
    let reply = ward.reply().await;
    server.get(token, &path).await.refused(404, "M_NOT_FOUND");
    server.delete(token, &path).await.ok();
    server.put(token, &path, json!({ "automatic": reply })).await.ok();
    assert_eq!(server.get(token, &path).await.ok(), json!({ "automatic": true }));
    server.put(token, &path, json!({})).await.ok();
    assert_eq!(server.get(token, &path).await.ok(), json!({ "automatic": false }));
    // A client's decision takes nothing from the user's.
    server.put(token, &path, json!({ "automatic": reply })).await.ok();
    assert_eq!(server.get(token, &path).await.ok(), json!({ "automatic": false }));
    server.delete(token, &path).await.ok();
    server.get(token, &path).await.refused(404, "M_NOT_FOUND");
    // What had come by then begins it no more; what comes later does.
    let conflict = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION";
    server.put(token, &path, json!({ "automatic": reply })).await.refused(409, conflict);
    let later = ward.reply().await;
    server.put(token, &path, json!({ "automatic": later })).await.ok();
    assert_eq!(server.get(token, &path).await.ok(), json!({ "automatic": true }));

    let elsewhere = server.say(&ward.bob, &ward.room, "elsewhere").await;
    for cause in [elsewhere.as_str(), ward.root.as_str(), "$nothing"] {
        let body = json!({ "automatic": cause });
        server.put(token, &path, body).await.refused(400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD");
    }
    server.put(token, &ward.path("$nothing"), json!({})).await.refused(404, "M_NOT_FOUND");
    let stranger = server.user("stranger").await;
    let secret = server.post(&ward.bob.token, "/v3/createRoom", json!({ "preset": "private_chat" })).await.ok();
    let secret = secret["room_id"].as_str().unwrap();
    let root = server.say(&ward.bob, secret, "root").await;
    let hidden = format!("/unstable/io.element.msc4306/rooms/{secret}/thread/{root}/subscription");
    server.put(&stranger.token, &hidden, json!({})).await.refused(404, "M_NOT_FOUND");
    server.delete(&stranger.token, &hidden).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn every_device_hears_of_changes_once_and_reads_on_what_was_too_much() {
    let ward = Ward::open(open_settings()).await;
    let (server, token) = (&ward.server, &ward.alice.token);
    let (first, told) = ward.slide(None, 10).await;
    assert_eq!(told, Value::Null);
    server.put(token, &ward.path(&ward.root), json!({})).await.ok();
    let (second, told) = ward.slide(Some(&first), 10).await;
    let followed = &told["subscribed"][&ward.room][&ward.root];
    assert_eq!(followed["automatic"], false);
    assert!(told.get("unsubscribed").is_none() && told.get("prev_batch").is_none());
    let (third, told) = ward.slide(Some(&second), 10).await;
    assert_eq!(told, Value::Null);

    let stamp = followed["bump_stamp"].as_u64().unwrap();
    server.delete(token, &ward.path(&ward.root)).await.ok();
    let mut roots = vec![ward.root.clone()];
    for text in ["two", "three", "four", "five"] {
        let root = server.say(&ward.bob, &ward.room, text).await;
        server.put(token, &ward.path(&root), json!({})).await.ok();
        roots.push(root);
    }
    let (_, told) = ward.slide(Some(&third), 2).await;
    let keys = |told: &Value, kind: &str| -> Vec<String> {
        told[kind][&ward.room].as_object().into_iter().flat_map(|threads| threads.keys().cloned()).collect()
    };
    let mut latest = keys(&told, "subscribed");
    latest.sort();
    let mut expected = roots[3..].to_vec();
    expected.sort();
    assert_eq!(latest, expected);
    let mut from = told["prev_batch"].as_str().unwrap().to_owned();
    let mut rest = Vec::new();
    let mut ended = Vec::new();
    loop {
        let page = server.get(token, &format!("{PAGES}&limit=1&from={from}&to={third}")).await.ok();
        rest.extend(keys(&page, "subscribed"));
        if let Some(row) = page["unsubscribed"][&ward.room].get(&ward.root) {
            assert!(row["bump_stamp"].as_u64().unwrap() > stamp);
            ended.push(ward.root.clone());
        }
        match page["end"].as_str() {
            Some(end) => from = end.to_owned(),
            None => break,
        }
    }
    assert_eq!((rest, ended), (vec![roots[2].clone(), roots[1].clone()], vec![roots[0].clone()]));
    // A device that begins is told all; so is one that asks for it later.
    let all = server.get(token, PAGES).await.ok();
    assert_eq!((keys(&all, "subscribed").len(), keys(&all, "unsubscribed").len()), (4, 1));
    let (_, told) = ward.slide(None, 100).await;
    assert_eq!((keys(&told, "subscribed").len(), keys(&told, "unsubscribed").len()), (4, 1));
    server.get(token, "/unstable/io.element.msc4308/thread_subscriptions?dir=f").await.refused(400, "M_INVALID_PARAM");
    server.get(token, &format!("{PAGES}&from=x")).await.refused(400, "M_INVALID_PARAM");
    server.get(token, &format!("{PAGES}&limit=0")).await.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn only_threads_that_are_followed_count_where_the_operator_wants_it() {
    let ward = Ward::open(Settings { thread_subscriptions: true, ..open_settings() }).await;
    let server = &ward.server;
    let (user, room) = (ruma::UserId::parse(&*ward.alice.id).unwrap(), ruma::RoomId::parse(&*ward.room).unwrap());
    let in_threads = || server.core.count_unread(&user, &room).unwrap().threads.len();
    let rules = server.get(&ward.alice.token, "/v3/pushrules/").await.ok();
    let ids: Vec<_> =
        rules["global"]["postcontent"].as_array().unwrap().iter().map(|rule| rule["rule_id"].clone()).collect();
    let id = |which: &str| json!(format!(".io.element.msc4306.rule.{which}_thread"));
    assert_eq!(ids, [id("unsubscribed"), id("subscribed")]);
    let body = json!({ "conditions": [], "actions": [] });
    let own = "/v3/pushrules/global/postcontent/own";
    server.put(&ward.alice.token, own, body).await.refused(400, "M_INVALID_PARAM");
    let versions = server.get("", "/versions").await.ok();
    assert_eq!(versions["unstable_features"]["org.matrix.msc4306"], true);

    ward.reply().await;
    assert_eq!(in_threads(), 0);
    server.put(&ward.alice.token, &ward.path(&ward.root), json!({})).await.ok();
    ward.reply().await;
    assert_eq!(in_threads(), 1);
    server.delete(&ward.alice.token, &ward.path(&ward.root)).await.ok();
    assert_eq!(in_threads(), 0);
}
