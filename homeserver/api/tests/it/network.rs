//! Several whole servers in one process, joined by signed requests.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use futures_util::future::BoxFuture;
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use matron_core::{
    Core, Parts, Settings,
    federation::keys::x_matrix::{SignedRequest, sign_request},
    ports::{
        Federation, FederationRequest, OutboundRequest, PeerError, PeerResponse, SystemClock, http_method::Method,
    },
    settings::{Registration, RegistrationMode},
};
use matron_room::SigningKey;
use matron_storage::{EngineKind, KeyRing, MasterKey};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who can be reached.
#[derive(Default)]
pub(crate) struct Network {
    routers: Mutex<HashMap<OwnedServerName, Router>>,
    cut_off: Mutex<HashSet<OwnedServerName>>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Network")
    }
}

/// One server's way to the others.
#[derive(Debug)]
struct Link {
    network: Arc<Network>,
    name: OwnedServerName,
    key: Arc<SigningKey>,
}

impl Link {
    async fn carry(&self, request: FederationRequest) -> Result<PeerResponse, PeerError> {
        {
            let cut_off = self.network.cut_off.lock();
            if cut_off.contains(&request.destination) || cut_off.contains(&self.name) {
                return Err(PeerError::Connect("cut off".to_owned()));
            }
        }
        let router = self.network.routers.lock().get(&request.destination).cloned();
        let router = router.ok_or_else(|| PeerError::Resolve("unknown".to_owned()))?;
        let method = match request.method {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Post => "POST",
        };
        let mut wire = Request::builder().method(method).uri(&request.path_and_query);
        if request.signed {
            let signed = SignedRequest {
                method,
                uri: &request.path_and_query,
                origin: &self.name,
                destination: Some(&request.destination),
                content: request.body.as_ref(),
            };
            wire = wire.header(header::AUTHORIZATION, sign_request(&signed, &self.key));
        }
        let body = request.body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = router.oneshot(wire.body(body).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let text = |name| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let (content_type, content_disposition) = (text(header::CONTENT_TYPE), text(header::CONTENT_DISPOSITION));
        let status = head.status.as_u16();
        let body = body.collect().await.unwrap().to_bytes();
        if !(200..300).contains(&status) {
            return Err(PeerError::Status { status, body: serde_json::from_slice(&body).unwrap_or_default() });
        }
        if body.len() > request.max_bytes {
            return Err(PeerError::TooLarge);
        }
        Ok(PeerResponse { status, content_type, content_disposition, location: None, body })
    }
}

impl Federation for Link {
    fn request(&self, request: FederationRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async move {
            let patience = request.timeout;
            tokio::time::timeout(patience, self.carry(request)).await.unwrap_or(Err(PeerError::Timeout))
        })
    }

    fn outbound(&self, _request: OutboundRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async { Err(PeerError::Timeout) })
    }

    fn heard_from(&self, _server: &ServerName) {}
}

impl Network {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A server of this name, working.
    pub(crate) fn server(self: &Arc<Self>, name: &str) -> Node {
        let name: OwnedServerName = name.try_into().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let keyring = KeyRing::open(&directory.path().join("keyring"), MasterKey::from_bytes([1; 32])).unwrap();
        let mut seed = [7; 32];
        for (byte, letter) in seed.iter_mut().zip(name.as_bytes()) {
            *byte = *letter;
        }
        let key = Arc::new(SigningKey::from_seed("k", &seed).unwrap());
        let core = Core::new(Parts {
            settings: Settings {
                insecure_fast_password_hash: true,
                registration: Registration { mode: RegistrationMode::Open, ..Registration::default() },
                rate_limit: None,
                ..Settings::default()
            },
            server_name: name.clone(),
            store: matron_storage::open(EngineKind::Memory, directory.path()).unwrap(),
            keyring: Arc::new(keyring),
            signing_key: Arc::clone(&key),
            clock: Arc::new(SystemClock),
            federation: Arc::new(Link { network: Arc::clone(self), name: name.clone(), key }),
            media_dir: directory.path().join("media"),
            appservices: Vec::new(),
        })
        .unwrap();
        let router = matron_api::router(Arc::clone(&core));
        self.routers.lock().insert(name.clone(), router.clone());
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let working = Arc::clone(&core);
        tokio::spawn(async move { working.run_workers(stopped).await });
        Node { name, router, core, _stop: stop, _directory: directory }
    }

    /// Nobody reaches the server, and it reaches nobody.
    pub(crate) fn cut_off(&self, node: &Node, yes: bool) {
        let mut cut_off = self.cut_off.lock();
        if yes {
            cut_off.insert(node.name.clone())
        } else {
            cut_off.remove(&node.name)
        };
    }
}

/// One server.
pub(crate) struct Node {
    pub(crate) name: OwnedServerName,
    router: Router,
    pub(crate) core: Arc<Core>,
    _stop: tokio::sync::watch::Sender<bool>,
    _directory: tempfile::TempDir,
}

/// Somebody with a client.
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) device: String,
    token: String,
    router: Router,
}

impl Node {
    pub(crate) async fn person(&self, name: &str) -> Person {
        let mut person =
            Person { id: String::new(), device: String::new(), token: String::new(), router: self.router.clone() };
        let body = json!({ "username": name, "password": "a long password", "auth": { "type": "m.login.dummy" } });
        let answer = person.post("/v3/register", body).await;
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        (person.id, person.device, person.token) = (text("user_id"), text("device_id"), text("access_token"));
        person
    }
}

/// A path part that holds anything.
pub(crate) fn part(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Person {
    /// The answer, whatever its status.
    pub(crate) async fn raw(&self, method: &str, path: &str, body: impl Into<Body>) -> Response<Body> {
        let path = if path.starts_with("/_") { path.to_owned() } else { format!("/_matrix/client{path}") };
        let mut request = Request::builder().method(method).uri(path);
        if !self.token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        }
        self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
    }

    /// The JSON answer with its status.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
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

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ok("GET", path, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.ok("POST", path, body).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        self.ok("PUT", path, body).await
    }

    /// Syncs on from `since` until an answer has what is looked for; gives that and where to go on.
    pub(crate) async fn sync_until<T>(&self, since: &str, look: impl Fn(&Value) -> Option<T>) -> (T, String) {
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
    pub(crate) async fn now(&self) -> String {
        self.get("/v3/sync?timeout=0").await["next_batch"].as_str().unwrap().to_owned()
    }

    /// A room with people of other servers in it, all joined.
    pub(crate) async fn room_with(&self, others: &[&Self]) -> String {
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
