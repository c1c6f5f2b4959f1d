//! Somebody with a client.

use axum::{Router, body::Body};
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{TestServer, net::PATIENCE};

/// Somebody logged in, who speaks the Client-Server API.
#[derive(Clone)]
pub struct Person {
    /// The user id.
    pub id: String,
    /// The device that is logged in.
    pub device: String,
    token: String,
    router: Router,
}

impl std::fmt::Debug for Person {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Person({})", self.id)
    }
}

/// A path part that holds anything.
#[must_use]
pub fn part(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Person {
    pub(crate) async fn log_in(router: Router, name: &str, password: &str) -> Self {
        let mut person = Self { id: String::new(), device: String::new(), token: String::new(), router };
        let identifier = json!({ "type": "m.id.user", "user": name });
        let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
        let answer = person.post("/v3/login", body).await;
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        (person.id, person.device, person.token) = (text("user_id"), text("device_id"), text("access_token"));
        person
    }

    pub(crate) async fn visit(router: Router) -> Self {
        let mut person = Self { id: String::new(), device: String::new(), token: String::new(), router };
        let answer = person.post("/v3/register?kind=guest", json!({})).await;
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        (person.id, person.device, person.token) = (text("user_id"), text("device_id"), text("access_token"));
        person
    }

    /// The person's client speaks with the server as it is now, after a restart.
    pub fn is_at(&mut self, server: &TestServer) {
        self.router = server.router().clone();
    }

    /// The user id, typed.
    #[must_use]
    pub fn user(&self) -> OwnedUserId {
        self.id.as_str().try_into().unwrap()
    }

    /// The answer, whatever its status.
    pub async fn raw(&self, method: &str, path: &str, body: impl Into<Body>) -> Response<Body> {
        let path = if path.starts_with("/_") || path.starts_with("/.") {
            path.to_owned()
        } else {
            format!("/_matrix/client{path}")
        };
        let mut request = Request::builder().method(method).uri(path);
        if !self.token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        }
        self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
    }

    /// The JSON answer with its status.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.raw(method, path, body).await;
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.send(method, path, &body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// The answer to a GET that succeeds.
    pub async fn get(&self, path: &str) -> Value {
        self.ok("GET", path, Value::Null).await
    }

    /// The answer to a POST that succeeds.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.ok("POST", path, body).await
    }

    /// The answer to a PUT that succeeds.
    pub async fn put(&self, path: &str, body: Value) -> Value {
        self.ok("PUT", path, body).await
    }

    /// Says something; gives the event's id.
    pub async fn say(&self, room: &str, text: &str) -> String {
        let path = format!("/v3/rooms/{}/send/m.room.message/{}", part(room), part(text));
        let sent = self.put(&path, json!({ "msgtype": "m.text", "body": text })).await;
        sent["event_id"].as_str().unwrap().to_owned()
    }

    /// Joins through a server; the status and the answer.
    pub async fn try_join(&self, room: &str, via: &str) -> (u16, Value) {
        self.send("POST", &format!("/v3/join/{}?via={via}", part(room)), &json!({})).await
    }

    /// Syncs on from `since` until an answer has what is looked for; gives that and where to go on.
    ///
    /// # Panics
    /// If it does not come.
    pub async fn sync_until<T>(&self, since: &str, look: impl Fn(&Value) -> Option<T>) -> (T, String) {
        let mut since = since.to_owned();
        let search = async {
            loop {
                let query = if since.is_empty() { String::new() } else { format!("&since={since}") };
                let answer = self.get(&format!("/v3/sync?timeout=1000{query}")).await;
                since = answer["next_batch"].as_str().unwrap().to_owned();
                if let Some(found) = look(&answer) {
                    return (found, since);
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("what was looked for did not come")
    }

    /// Where a sync that begins now goes on.
    pub async fn now(&self) -> String {
        self.get("/v3/sync?timeout=0").await["next_batch"].as_str().unwrap().to_owned()
    }

    /// The events of the room's timeline that a sync since then tells, what it left out paged back to, and where to go on.
    pub async fn timeline_since(&self, room: &str, since: &str) -> (Vec<Value>, String) {
        let filter = part(r#"{"room":{"timeline":{"limit":1000}},"presence":{"types":[]}}"#);
        let mut events = Vec::new();
        let mut since = since.to_owned();
        loop {
            let before = since;
            let answer = self.get(&format!("/v3/sync?timeout=0&since={before}&filter={filter}")).await;
            since = answer["next_batch"].as_str().unwrap().to_owned();
            let timeline = &answer["rooms"]["join"][room]["timeline"];
            if timeline["limited"] == true {
                events.extend(self.paged_back(room, timeline["prev_batch"].as_str().unwrap(), &before).await);
            }
            match timeline["events"].as_array().filter(|told| !told.is_empty()) {
                Some(told) => events.extend(told.iter().cloned()),
                None => return (events, since),
            }
        }
    }

    /// The events between two places of the room's timeline, oldest first, as paging back finds them.
    async fn paged_back(&self, room: &str, from: &str, to: &str) -> Vec<Value> {
        let mut found = Vec::new();
        let mut from = from.to_owned();
        loop {
            let path = format!("/v3/rooms/{}/messages?dir=b&limit=100&from={from}&to={to}", part(room));
            let page = self.get(&path).await;
            let chunk = page["chunk"].as_array().cloned().unwrap_or_default();
            let next = page["end"].as_str().filter(|_| !chunk.is_empty()).map(ToOwned::to_owned);
            found.extend(chunk);
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        found.reverse();
        found
    }

    /// A new room; its id.
    pub async fn room(&self, body: Value) -> OwnedRoomId {
        let answer = self.post("/v3/createRoom", body).await;
        answer["room_id"].as_str().unwrap().try_into().unwrap()
    }

    /// A room with people of other servers in it, all joined.
    pub async fn room_with(&self, others: &[&Self]) -> String {
        let invite: Vec<_> = others.iter().map(|other| &other.id).collect();
        let answer = self.post("/v3/createRoom", json!({ "invite": invite, "preset": "private_chat" })).await;
        let room = answer["room_id"].as_str().unwrap().to_owned();
        let via = self.id.split_once(':').unwrap().1;
        for other in others {
            other.sync_until("", |answer| answer["rooms"]["invite"].get(&room).map(|_| ())).await;
            other.post(&format!("/v3/join/{}?via={via}", part(&room)), json!({})).await;
            self.sync_until("", |answer| {
                let room = &answer["rooms"]["join"][&room];
                let events = room["timeline"]["events"].as_array()?.iter().chain(room["state"]["events"].as_array()?);
                events
                    .into_iter()
                    .find(|event| event["state_key"] == other.id.as_str() && event["content"]["membership"] == "join")
                    .map(|_| ())
            })
            .await;
        }
        room
    }
}
