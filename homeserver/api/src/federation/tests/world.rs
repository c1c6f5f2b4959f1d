//! The servers and the wires between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body};
use futures_util::future::BoxFuture;
use http::Request;
use http_body_util::BodyExt as _;
use matron_core::{
    Core, Error, Parts, Settings,
    appservices::Registration,
    federation::keys::x_matrix::{SignedRequest, sign_request},
    ports::{
        Federation, FederationRequest, IdentityRequest, OutboundRequest, PeerError, PeerResponse, SystemClock,
        http_method::Method,
    },
    rooms::{create::CreateRoom, membership::JoinOptions, send::NewEvent},
};
use matron_room::{Membership, SigningKey};
use matron_storage::{EngineKind, KeyRing, MasterKey};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// The wires between the servers.
#[derive(Debug, Default)]
pub(super) struct Wires {
    pub(super) routers: Mutex<BTreeMap<OwnedServerName, Router>>,
    pub(super) cut: Mutex<BTreeSet<OwnedServerName>>,
    /// What application services were told.
    pub(super) told: Mutex<Vec<Value>>,
    /// Whether the identity server has taken its key back.
    pub(super) key_is_revoked: std::sync::atomic::AtomicBool,
}

/// One server's end of the wires.
#[derive(Debug)]
struct End {
    wires: Arc<Wires>,
    name: OwnedServerName,
    key: Arc<SigningKey>,
}

impl Federation for End {
    fn request(&self, request: FederationRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async move {
            let is_cut = |name: &ServerName| self.wires.cut.lock().unwrap().contains(name);
            if is_cut(&self.name) || is_cut(&request.destination) {
                return Err(PeerError::Connect("the wire is cut".to_owned()));
            }
            let router = self.wires.routers.lock().unwrap().get(&request.destination).cloned();
            let router = router.ok_or_else(|| PeerError::Resolve("no such server".to_owned()))?;
            let method = match request.method {
                Method::Get => "GET",
                Method::Put => "PUT",
                Method::Post => "POST",
            };
            let signed = SignedRequest {
                method,
                uri: &request.path_and_query,
                origin: &self.name,
                destination: Some(&request.destination),
                content: request.body.as_ref(),
            };
            let mut builder = Request::builder().method(method).uri(&request.path_and_query);
            if request.signed {
                builder = builder.header("Authorization", sign_request(&signed, &self.key));
            }
            let body = request.body.as_ref().map(|body| body.to_string().into()).unwrap_or_else(Body::empty);
            let response = router.oneshot(builder.body(body).unwrap()).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            if !status.is_success() {
                let body = serde_json::from_slice(&body).unwrap_or_default();
                return Err(PeerError::Status { status: status.as_u16(), body });
            }
            Ok(PeerResponse {
                status: status.as_u16(),
                content_type: None,
                content_disposition: None,
                location: None,
                body,
            })
        })
    }

    fn outbound(&self, request: OutboundRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        let answer = request.trusted.then(|| PeerResponse {
            status: 200,
            content_type: None,
            content_disposition: None,
            location: None,
            body: "{}".into(),
        });
        self.wires.told.lock().unwrap().extend(request.body.filter(|_| request.trusted));
        Box::pin(async { answer.ok_or(PeerError::Timeout) })
    }

    fn identity(&self, request: IdentityRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async move {
            assert_eq!((request.server.as_str(), request.trusted), ("id.example", true));
            assert!(request.path_and_query.starts_with("/valid?public_key="), "{}", request.path_and_query);
            let is_valid = !self.wires.key_is_revoked.load(std::sync::atomic::Ordering::SeqCst);
            Ok(PeerResponse {
                status: 200,
                content_type: None,
                content_disposition: None,
                location: None,
                body: json!({"valid": is_valid}).to_string().into(),
            })
        })
    }

    fn heard_from(&self, _server: &ServerName) {}
}

/// A server, running.
pub(super) struct Trust {
    pub(super) core: Arc<Core>,
    end: End,
    _directory: tempfile::TempDir,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Trust {
    pub(super) fn start(wires: &Arc<Wires>, name: &str, seed: u8, settings: Settings) -> Self {
        Self::start_with(wires, name, seed, settings, Vec::new())
    }

    pub(super) fn start_with(
        wires: &Arc<Wires>,
        name: &str,
        seed: u8,
        settings: Settings,
        appservices: Vec<Registration>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name: OwnedServerName = name.try_into().unwrap();
        let key = Arc::new(SigningKey::from_seed("k", &[seed; 32]).unwrap());
        let end = || End { wires: Arc::clone(wires), name: name.clone(), key: Arc::clone(&key) };
        let core = Core::new(Parts {
            settings,
            server_name: name.clone(),
            store: matron_storage::open(EngineKind::Memory, directory.path()).unwrap(),
            keyring: Arc::new(
                KeyRing::open(&directory.path().join("ring"), MasterKey::from_bytes([seed; 32])).unwrap(),
            ),
            signing_key: Arc::clone(&key),
            clock: Arc::new(SystemClock),
            federation: Arc::new(end()),
            media_dir: directory.path().join("media"),
            appservices,
        })
        .unwrap();
        wires.routers.lock().unwrap().insert(name.clone(), crate::router(Arc::clone(&core)));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let workers = Arc::clone(&core);
        tokio::spawn(async move { workers.run_workers(stopped).await });
        Self { end: end(), core, _directory: directory, stop }
    }

    pub(super) async fn user(&self, name: &str) -> OwnedUserId {
        self.core.create_user(name, None, false).await.unwrap()
    }

    pub(super) async fn room(
        &self,
        creator: &UserId,
        preset: &str,
        version: &str,
        initial_state: Value,
    ) -> OwnedRoomId {
        let request: CreateRoom = serde_json::from_value(json!({
            "preset": preset, "room_version": version, "initial_state": initial_state,
        }))
        .unwrap();
        self.core.create_room(creator, request).await.unwrap()
    }

    pub(super) async fn join(&self, user: &UserId, room: &RoomId, via: &Trust) -> Result<OwnedRoomId, Error> {
        let options = JoinOptions { via: vec![via.core.server_name.clone()], ..JoinOptions::default() };
        self.core.join_room(user, room, options).await
    }

    pub(super) async fn say(&self, user: &UserId, room: &RoomId, text: &str) -> ruma::OwnedEventId {
        let content = json!({"msgtype": "m.text", "body": text});
        let new = NewEvent::message(room.to_owned(), user.to_owned(), "m.room.message", content);
        self.core.send_event(new).await.unwrap()
    }

    pub(super) fn standing(&self, user: &UserId, room: &RoomId) -> Option<Membership> {
        self.core.standing(user, room).unwrap().map(|standing| standing.membership)
    }

    pub(super) fn membership(&self, user: &UserId, room: &RoomId) -> Membership {
        let room = self.core.find_room(room).unwrap().unwrap();
        room.lock().membership(&self.core, user).unwrap()
    }

    pub(super) fn has(&self, event: &ruma::EventId) -> bool {
        let event = self.core.load_event(event).unwrap();
        event.is_some_and(|event| event.is_shown(self.core.now_ms()))
    }

    /// What another server answers to this one.
    pub(super) async fn ask(&self, other: &Trust, path: String) -> Result<Value, (u16, String)> {
        let request = FederationRequest {
            destination: other.core.server_name.clone(),
            method: Method::Get,
            path_and_query: path,
            body: None,
            signed: true,
            timeout: Duration::from_secs(5),
            max_bytes: 1 << 20,
        };
        match self.end.request(request).await {
            Ok(response) => Ok(serde_json::from_slice(&response.body).unwrap()),
            Err(PeerError::Status { status, body }) => {
                Err((status, body["errcode"].as_str().unwrap_or_default().to_owned()))
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Trust {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

pub(super) fn open_settings() -> Settings {
    Settings { rate_limit: None, public_rooms_over_federation: true, ..Settings::default() }
}

pub(super) fn two() -> (Arc<Wires>, Trust, Trust) {
    let wires = Arc::new(Wires::default());
    let north = Trust::start(&wires, "north.example", 1, open_settings());
    let south = Trust::start(&wires, "south.example", 2, open_settings());
    (wires, north, south)
}

/// Waits until the condition holds.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while !holds() {
            ticks.tick().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), waiting).await.is_ok(), "never: {what}");
}

pub(super) fn shared() -> Value {
    json!([])
}

pub(super) fn visibility(value: &str) -> Value {
    json!([{"type": "m.room.history_visibility", "content": {"history_visibility": value}}])
}
