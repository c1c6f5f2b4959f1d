//! A server in memory, and what it sends out.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use matron_core::{
    Core, Parts, Settings,
    appservices::Registration as AppserviceRegistration,
    ports::{Clock, Federation, FederationRequest, OutboundForm, OutboundRequest, PeerError, PeerResponse},
    settings::{Registration, RegistrationMode},
};
use matron_storage::{EngineKind, KeyRing, MasterKey};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tower::ServiceExt as _;

#[derive(Debug)]
pub(crate) struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Everything that leaves; answers as told, 200 `{}` otherwise.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    sent: Mutex<Vec<OutboundRequest>>,
    answers: Mutex<VecDeque<Result<Value, u16>>>,
    forms: Mutex<Vec<OutboundForm>>,
    arrived: Notify,
}

impl Outside {
    /// The next answers, in order; a string is sent as it is, `Err` is a status.
    pub(crate) fn will_answer(&self, answers: impl IntoIterator<Item = Result<Value, u16>>) {
        self.answers.lock().extend(answers);
    }

    /// Waits until this many requests have left, and gives them.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<OutboundRequest> {
        let all = async {
            loop {
                let arrived = self.arrived.notified();
                if self.sent.lock().len() >= count {
                    return self.sent.lock().clone();
                }
                arrived.await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(60), all).await {
            Ok(sent) => sent,
            Err(_) => panic!("{count} requests were awaited; those that left: {:?}", self.sent.lock()),
        }
    }

    /// The forms that left.
    pub(crate) fn forms(&self) -> Vec<OutboundForm> {
        self.forms.lock().clone()
    }

    fn next_answer(&self) -> Result<PeerResponse, PeerError> {
        match self.answers.lock().pop_front().unwrap_or_else(|| Ok(json!({}))) {
            Ok(body) => Ok(PeerResponse {
                status: 200,
                content_type: Some("application/json".to_owned()),
                content_disposition: None,
                location: None,
                body: body.as_str().map_or_else(|| body.to_string(), str::to_owned).into(),
            }),
            Err(status) => Err(PeerError::Status { status, body: Value::Null }),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.sent.lock().len()
    }
}

impl Federation for Outside {
    fn request(&self, _request: FederationRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async { Err(PeerError::Timeout) })
    }

    fn outbound(&self, request: OutboundRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        let answer = self.next_answer();
        self.sent.lock().push(request);
        self.arrived.notify_waiters();
        Box::pin(async move { answer })
    }

    fn outbound_form(&self, form: OutboundForm) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        self.forms.lock().push(form);
        let answer = self.next_answer();
        Box::pin(async move { answer })
    }

    fn heard_from(&self, _server: &ruma::ServerName) {}
}

pub(crate) struct Server {
    pub(crate) core: Arc<Core>,
    pub(crate) outside: Arc<Outside>,
    pub(crate) router: Router,
    clock: Arc<TestClock>,
    stop: watch::Sender<bool>,
    _directory: tempfile::TempDir,
}

/// A user and their token.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) device: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body
    }

    #[track_caller]
    pub(crate) fn refused(self, status: u16, errcode: &str) -> Value {
        assert_eq!((self.status.as_u16(), self.body["errcode"].as_str()), (status, Some(errcode)), "{}", self.body);
        assert!(self.body["error"].as_str().is_some_and(|sentence| !sentence.is_empty()));
        self.body
    }
}

pub(crate) fn open_settings() -> Settings {
    Settings {
        insecure_fast_password_hash: true,
        registration: Registration { mode: RegistrationMode::Open, ..Registration::default() },
        access_token_in_query: true,
        rate_limit: None,
        default_room_version: "10".to_owned(),
        ..Settings::default()
    }
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::with(open_settings(), Vec::new())
    }

    pub(crate) fn with(settings: Settings, appservices: Vec<AppserviceRegistration>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keyring = KeyRing::open(&directory.path().join("keyring"), MasterKey::from_bytes([1; 32])).unwrap();
        let clock = Arc::new(TestClock(AtomicU64::new(1_800_000_000_000)));
        let outside = Arc::new(Outside::default());
        let core = Core::new(Parts {
            settings,
            server_name: "us.example".try_into().unwrap(),
            store: matron_storage::open(EngineKind::Memory, directory.path()).unwrap(),
            keyring: Arc::new(keyring),
            signing_key: Arc::new(matron_room::SigningKey::from_seed("us", &[2; 32]).unwrap()),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            federation: Arc::clone(&outside) as Arc<dyn Federation>,
            media_dir: directory.path().join("media"),
            appservices,
        })
        .unwrap();
        let (stop, stopped) = watch::channel(false);
        let workers = Arc::clone(&core);
        tokio::spawn(async move {
            tokio::join!(workers.run_push(stopped.clone()), workers.run_appservices(stopped));
        });
        Self { router: matron_api::router(Arc::clone(&core)), core, outside, clock, stop, _directory: directory }
    }

    pub(crate) fn advance_ms(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// The answer, which is as the specification says.
    pub(crate) async fn raw(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let json = serde_json::from_slice(&bytes).ok();
        matron_conformance::hold(method.as_str(), &path, parts.status.as_u16(), json.as_ref());
        let body = json.unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn send(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let path = if ["/_", "/.", "/oauth2/"].iter().any(|whole| path.starts_with(whole)) {
            path.to_owned()
        } else {
            format!("/_matrix/client{path}")
        };
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.raw(request.body(body).unwrap()).await
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Answer {
        self.send(token, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, token: &str, path: &str, body: Value) -> Answer {
        self.send(token, Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, token: &str, path: &str, body: Value) -> Answer {
        self.send(token, Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, token: &str, path: &str) -> Answer {
        self.send(token, Method::DELETE, path, None).await
    }

    pub(crate) async fn user(&self, name: &str) -> User {
        let body = json!({ "username": name, "password": "a long password", "auth": { "type": "m.login.dummy" } });
        user_of(&self.post("", "/v3/register", body).await.ok())
    }

    /// A room of the first user that the others have joined.
    pub(crate) async fn room(&self, users: &[&User]) -> String {
        let (creator, others) = users.split_first().unwrap();
        let made = self.post(&creator.token, "/v3/createRoom", json!({ "preset": "public_chat" })).await.ok();
        let room = made["room_id"].as_str().unwrap().to_owned();
        for other in others {
            self.post(&other.token, &format!("/v3/rooms/{room}/join"), json!({})).await.ok();
        }
        room
    }

    pub(crate) async fn say(&self, user: &User, room: &str, text: &str) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let txn = NEXT.fetch_add(1, Ordering::SeqCst);
        let path = format!("/v3/rooms/{room}/send/m.room.message/{txn}");
        let sent = self.put(&user.token, &path, json!({ "msgtype": "m.text", "body": text })).await.ok();
        sent["event_id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

pub(crate) fn user_of(answer: &Value) -> User {
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    User { id: text("user_id"), token: text("access_token"), device: text("device_id") }
}
