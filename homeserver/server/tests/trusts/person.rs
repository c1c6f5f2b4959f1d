//! Someone with an account and a client that speaks plain HTTP to the own server.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};

use crate::{
    http::{Reply, part, request, wait_for},
    trust::Trust,
};

/// Someone with an account.
#[derive(Debug)]
pub(crate) struct Person {
    /// The user id.
    pub(crate) id: String,
    token: String,
    pub(crate) password: String,
    server: SocketAddr,
    synced: Mutex<Synced>,
}

#[derive(Debug, Default)]
struct Synced {
    since: Option<String>,
    answers: Vec<Value>,
}

/// A name that nobody in this process has had.
pub(crate) fn unique(stem: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{stem}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Person {
    /// A new account at the trust.
    pub(crate) fn at(trust: &Trust, stem: &str) -> Self {
        Self::named(trust, &unique(stem))
    }

    /// A new account of exactly this name.
    pub(crate) fn named(trust: &Trust, name: &str) -> Self {
        let password = "a long password".to_owned();
        let body = json!({
            "username": name, "password": password, "auth": {"type": "m.login.dummy"},
            "initial_device_display_name": "a ward's tablet",
        });
        Self::from_answer(trust, "/_matrix/client/v3/register", &body, password)
    }

    /// An account that the operator makes, also under a name to which the register gives a part.
    pub(crate) fn made_by_operator(trust: &Trust, name: &str) -> Self {
        let password = "a long password".to_owned();
        let file = trust.folder.join(format!("{name}.password"));
        std::fs::write(&file, &password).unwrap();
        trust.operate(&["user", "create", name, "--password-file", &file.display().to_string()]);
        let body = json!({
            "type": "m.login.password", "identifier": {"type": "m.id.user", "user": name}, "password": password,
        });
        Self::from_answer(trust, "/_matrix/client/v3/login", &body, password)
    }

    fn from_answer(trust: &Trust, path: &str, body: &Value, password: String) -> Self {
        let reply =
            request(trust.clients, "POST", path, None, "application/json", body.to_string().as_bytes()).unwrap();
        assert_eq!(reply.status, 200, "{}: {}", trust.name, reply.text());
        let answer = reply.json();
        let text = |field: &str| answer[field].as_str().unwrap().to_owned();
        Self {
            id: text("user_id"),
            token: text("access_token"),
            password,
            server: trust.clients,
            synced: Mutex::default(),
        }
    }

    /// One request to a server that may be dead, or die meanwhile.
    pub(crate) fn try_ask(&self, method: &str, path: &str, body: &Value) -> std::io::Result<Reply> {
        let path = format!("/_matrix/client/{path}");
        let body = body.to_string();
        request(self.server, method, &path, Some(&self.token), "application/json", body.as_bytes())
    }

    /// One request.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.try_ask(method, path, body).unwrap()
    }

    /// One request with a body of any kind.
    pub(crate) fn upload(&self, path: &str, content_type: &str, body: &[u8]) -> Value {
        let reply = request(self.server, "POST", path, Some(&self.token), content_type, body).unwrap();
        assert_eq!(reply.status, 200, "{} POST {path}: {}", self.id, reply.text());
        reply.json()
    }

    /// What a request that must succeed answers.
    pub(crate) fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let reply = self.ask(method, path, body);
        assert_eq!(reply.status, 200, "{} {method} {path}: {}", self.id, reply.text());
        reply.json()
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.done("GET", path, &Value::Null)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        self.done("POST", path, body)
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Value {
        self.done("PUT", path, body)
    }

    /// A request that must be refused; its errcode.
    pub(crate) fn refused(&self, method: &str, path: &str, body: &Value) -> String {
        let reply = self.ask(method, path, body);
        let expected = (400..500).contains(&reply.status);
        assert!(expected, "{} {method} {path}: {} {}", self.id, reply.status, reply.text());
        reply.json()["errcode"].as_str().unwrap_or_default().to_owned()
    }

    /// A new room's id.
    pub(crate) fn create_room(&self, body: &Value) -> String {
        self.post("v3/createRoom", body)["room_id"].as_str().unwrap().to_owned()
    }

    /// A new room's id; anyone may join it.
    pub(crate) fn create_public_room(&self, version: &str) -> String {
        self.create_room(&json!({"preset": "public_chat", "room_version": version, "name": unique("ward")}))
    }

    /// The person joins the room with the help of the server.
    pub(crate) fn join(&self, room: &str, via: &str) {
        let via = part(via);
        self.post(&format!("v3/join/{}?via={via}&server_name={via}", part(room)), &json!({}));
    }

    pub(crate) fn leave(&self, room: &str) {
        self.post(&format!("v3/rooms/{}/leave", part(room)), &json!({}));
    }

    /// Invites, kicks, bans, unbans.
    pub(crate) fn act(&self, verb: &str, room: &str, user: &str) {
        self.post(&format!("v3/rooms/{}/{verb}", part(room)), &json!({"user_id": user, "reason": "because"}));
    }

    /// Sends a message; its event id.
    pub(crate) fn say(&self, room: &str, text: &str) -> String {
        self.send(room, "m.room.message", &json!({"msgtype": "m.text", "body": text}))
    }

    /// Sends an event; its id.
    pub(crate) fn send(&self, room: &str, kind: &str, content: &Value) -> String {
        let path = format!("v3/rooms/{}/send/{kind}/{}", part(room), unique("txn"));
        self.put(&path, content)["event_id"].as_str().unwrap().to_owned()
    }

    /// Sets state; the event's id.
    pub(crate) fn set_state(&self, room: &str, kind: &str, key: &str, content: &Value) -> String {
        let path = format!("v3/rooms/{}/state/{kind}/{}", part(room), part(key));
        self.put(&path, content)["event_id"].as_str().unwrap().to_owned()
    }

    /// The current state's content, if there is such state.
    pub(crate) fn state(&self, room: &str, kind: &str, key: &str) -> Option<Value> {
        let reply = self.ask("GET", &format!("v3/rooms/{}/state/{kind}/{}", part(room), part(key)), &Value::Null);
        (reply.status == 200).then(|| reply.json())
    }

    /// Someone's membership, as this person's server sees it.
    pub(crate) fn membership(&self, room: &str, user: &str) -> String {
        let member = self.state(room, "m.room.member", user).unwrap_or_default();
        member["membership"].as_str().unwrap_or("none").to_owned()
    }

    pub(crate) fn wait_for_membership(&self, room: &str, user: &str, membership: &str) {
        wait_for(&format!("{} sees {user} as {membership}", self.id), || {
            (self.membership(room, user) == membership).then_some(())
        });
    }

    /// The whole current state: type and key to event id.
    pub(crate) fn whole_state(&self, room: &str) -> BTreeMap<(String, String), String> {
        let reply = self.ask("GET", &format!("v3/rooms/{}/state", part(room)), &Value::Null);
        let state = reply.json();
        let text = |event: &Value, field: &str| event[field].as_str().unwrap().to_owned();
        let events = state.as_array().cloned().unwrap_or_default();
        events.iter().map(|event| ((text(event, "type"), text(event, "state_key")), text(event, "event_id"))).collect()
    }

    /// An event as this person's server shows it.
    pub(crate) fn event(&self, room: &str, event_id: &str) -> Option<Value> {
        let reply = self.ask("GET", &format!("v3/rooms/{}/event/{}", part(room), part(event_id)), &Value::Null);
        (reply.status == 200).then(|| reply.json())
    }

    /// Waits until the own server shows the message.
    pub(crate) fn wait_for_text(&self, room: &str, event_id: &str, text: &str) {
        wait_for(&format!("{} sees {text:?}", self.id), || {
            self.event(room, event_id).filter(|event| event["content"]["body"] == text)
        });
    }

    /// Every message of the room that can be paged to, newest first: event id and text.
    pub(crate) fn messages(&self, room: &str) -> Vec<(String, String)> {
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("v3/rooms/{}/messages?dir=b&limit=50{from}", part(room)));
            for event in page["chunk"].as_array().unwrap() {
                if let (Some(id), Some(body)) = (event["event_id"].as_str(), event["content"]["body"].as_str()) {
                    found.push((id.to_owned(), body.to_owned()));
                }
            }
            match page["end"].as_str() {
                Some(end) => from = format!("&from={}", part(end)),
                None => return found,
            }
        }
    }

    /// What `look` finds in a sync since the first one of this person.
    pub(crate) fn wait_in_sync<T>(&self, what: &str, look: impl Fn(&Value) -> Option<T>) -> T {
        let mut synced = self.synced.lock().unwrap();
        if let Some(found) = synced.answers.iter().find_map(&look) {
            return found;
        }
        wait_for(&format!("{} syncs {what}", self.id), || {
            let since = synced.since.as_ref().map(|since| format!("&since={}", part(since))).unwrap_or_default();
            let answer = self.get(&format!("v3/sync?timeout=1000{since}"));
            synced.since = answer["next_batch"].as_str().map(str::to_owned);
            let found = look(&answer);
            synced.answers.push(answer);
            found
        })
    }

    /// What was synced until now does not count any more; what comes now does.
    pub(crate) fn forget_syncs(&self) {
        self.wait_in_sync("anything", |_| Some(()));
        self.synced.lock().unwrap().answers.clear();
    }
}

/// Waits until the servers of all these people hold the same state of the room.
pub(crate) fn wait_for_same_state(room: &str, people: &[&Person]) {
    let states = || -> Vec<_> { people.iter().map(|person| person.whole_state(room)).collect() };
    let end = std::time::Instant::now() + crate::http::PATIENCE;
    loop {
        let states = states();
        if states.iter().all(|state| !state.is_empty() && *state == states[0]) {
            return;
        }
        if std::time::Instant::now() > end {
            let all: std::collections::BTreeSet<_> = states.iter().flat_map(BTreeMap::keys).collect();
            let differing: Vec<_> = all
                .into_iter()
                .filter(|key| states.iter().any(|state| state.get(*key) != states[0].get(*key)))
                .map(|key| (key, states.iter().map(|state| state.get(key)).collect::<Vec<_>>()))
                .collect();
            panic!("the servers hold different states of {room}: {differing:#?}");
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
