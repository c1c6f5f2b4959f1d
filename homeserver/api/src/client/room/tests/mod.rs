//! Rooms and sync over HTTP, in process: what clients rely on, as sentences.

mod creation;
mod directory;
mod exact;
mod history;
mod lookups;
mod relations;
mod sliding;
mod stream;

use std::sync::Arc;

use axum::{Router, body::Body};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use matron_core::{
    Core, Parts, Settings,
    ports::{NoFederation, SystemClock},
    settings::{Registration, RegistrationMode},
};
use matron_storage::{EngineKind, KeyRing, MasterKey};
use serde_json::{Value, json};
use tower::ServiceExt as _;

pub(super) struct Server {
    router: Router,
    store: Option<Arc<dyn matron_storage::Store>>,
    engine: EngineKind,
    directory: tempfile::TempDir,
}

#[derive(Clone)]
pub(super) struct Client {
    router: Router,
    token: String,
    pub(super) user: String,
}

/// What a path's part becomes in a URL.
pub(super) fn enc(part: &str) -> String {
    percent_encoding::utf8_percent_encode(part, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Server {
    pub(super) fn start() -> Self {
        Self::start_on(EngineKind::Memory)
    }

    pub(super) fn start_on(engine: EngineKind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self { router: Router::new(), store: None, engine, directory };
        server.open();
        server
    }

    /// Closes the store and opens it again; these clients go on with what they know.
    pub(super) async fn restart<'a>(&mut self, clients: impl Iterator<Item = &'a mut Client>) {
        let mut clients: Vec<_> = clients.collect();
        self.router = Router::new();
        for client in &mut clients {
            client.router = Router::new();
        }
        if let Some(store) = self.store.take() {
            store.close();
        }
        // What a client hung up on may still be ending, and holds the key ring until then.
        let path = self.directory.path().join("keyring");
        for _ in 0..6_000 {
            match KeyRing::open(&path, MasterKey::from_bytes([1; 32])) {
                Ok(_) => break,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
        self.open();
        for client in clients {
            client.router = self.router.clone();
        }
    }

    fn open(&mut self) {
        let path = self.directory.path();
        let keyring = KeyRing::open(&path.join("keyring"), MasterKey::from_bytes([1; 32])).unwrap();
        let store = matron_storage::open(self.engine, path).unwrap();
        let core = Core::new(Parts {
            settings: Settings {
                insecure_fast_password_hash: true,
                anyone_may_publish: true,
                public_rooms_without_auth: true,
                rate_limit: None,
                registration: Registration { mode: RegistrationMode::Open, ..Registration::default() },
                ..Settings::default()
            },
            server_name: "us.example".try_into().unwrap(),
            store: Arc::clone(&store),
            keyring: Arc::new(keyring),
            signing_key: Arc::new(matron_room::SigningKey::from_seed("us", &[2; 32]).unwrap()),
            clock: Arc::new(SystemClock),
            federation: Arc::new(NoFederation),
            media_dir: path.join("media"),
            appservices: Vec::new(),
        })
        .unwrap();
        self.router = crate::router(core);
        self.store = Some(store);
    }

    pub(super) async fn user(&self, name: &str) -> Client {
        let mut client = Client { router: self.router.clone(), token: String::new(), user: String::new() };
        let body = json!({"username": name, "password": "a long password", "auth": {"type": "m.login.dummy"}});
        let answer = client.ok(Method::POST, "/register", body).await;
        answer["access_token"].as_str().unwrap().clone_into(&mut client.token);
        answer["user_id"].as_str().unwrap().clone_into(&mut client.user);
        client
    }
}

impl Client {
    /// Status and JSON of an answer; the path is below `/_matrix/client/v3`, unless it begins with `/_matrix`.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let path = if path.starts_with("/_matrix") { path.to_owned() } else { format!("/_matrix/client/v3{path}") };
        let mut request = Request::builder().method(method).uri(path);
        if !self.token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = request.body(body).unwrap();
        let (method, path) = (request.method().clone(), request.uri().to_string());
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        matron_conformance::hold(method.as_str(), &path, status.as_u16(), Some(&body));
        (status, body)
    }

    pub(super) async fn ok(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, Some(body)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    pub(super) async fn create(&self, body: Value) -> String {
        self.ok(Method::POST, "/createRoom", body).await["room_id"].as_str().unwrap().to_owned()
    }

    pub(super) async fn public_room(&self) -> String {
        self.create(json!({"preset": "public_chat"})).await
    }

    pub(super) async fn join(&self, room: &str) {
        self.ok(Method::POST, &format!("/join/{}", enc(room)), json!({})).await;
    }

    pub(super) async fn leave(&self, room: &str) {
        self.ok(Method::POST, &format!("/rooms/{}/leave", enc(room)), json!({})).await;
    }

    pub(super) async fn event(&self, room: &str, kind: &str, content: Value) -> String {
        let answer = self.ok(Method::POST, &format!("/rooms/{}/send/{kind}", enc(room)), content).await;
        answer["event_id"].as_str().unwrap().to_owned()
    }

    pub(super) async fn say(&self, room: &str, text: &str) -> String {
        self.event(room, "m.room.message", json!({"msgtype": "m.text", "body": text})).await
    }

    pub(super) async fn state(&self, room: &str, kind: &str, key: &str, content: Value) -> String {
        let answer = self.ok(Method::PUT, &format!("/rooms/{}/state/{kind}/{}", enc(room), enc(key)), content).await;
        answer["event_id"].as_str().unwrap().to_owned()
    }

    pub(super) async fn sync(&self, since: Option<&str>, filter: &Value) -> Value {
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        self.get(&format!("/sync?timeout=0&filter={}{since}", enc(&filter.to_string()))).await
    }

    /// Every event of the room that the client may see, oldest first, by pages of `page`.
    pub(super) async fn history(&self, room: &str, page: usize) -> Vec<Value> {
        let mut events = Vec::new();
        let mut from = String::new();
        loop {
            let answer = self.get(&format!("/rooms/{}/messages?dir=f&limit={page}{from}", enc(room))).await;
            events.extend(answer["chunk"].as_array().unwrap().iter().cloned());
            match answer["end"].as_str() {
                Some(end) => from = format!("&from={end}"),
                None => return events,
            }
        }
    }
}

pub(super) fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

pub(super) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
