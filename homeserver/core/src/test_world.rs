//! A small server for tests: memory, a clock that stands still, and peers that answer as the test says.

mod meanwhile;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::future::BoxFuture;
use matron_room::SigningKey;
use matron_storage::{
    Batch, EngineKind, Key, Store, Table,
    keyring::{KeyRing, MasterKey},
};
use parking_lot::Mutex;
use ruma::{DeviceId, OwnedRoomId, OwnedUserId, ServerName, UserId};
use serde_json::Value;

use self::meanwhile::Meanwhile;
use crate::{
    Core, Parts, Requester, Settings,
    ports::{Clock, Federation, FederationRequest, IdentityRequest, Letter, OutboundRequest, PeerError, PeerResponse},
    rooms::{create::CreateRoom, membership::JoinOptions},
};

pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

#[derive(Debug)]
pub(crate) struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

type Answers = Box<dyn FnMut(&FederationRequest) -> Result<PeerResponse, PeerError> + Send>;

type OutsideAnswers = Box<dyn FnMut(&OutboundRequest) -> Result<PeerResponse, PeerError> + Send>;

type IdentityAnswers = Box<dyn FnMut(&IdentityRequest) -> Result<PeerResponse, PeerError> + Send>;

/// Other servers, as a closure.
pub(crate) struct Peers {
    answers: Mutex<Answers>,
    outside: Mutex<OutsideAnswers>,
    identity: Mutex<IdentityAnswers>,
    pub(crate) asked: Mutex<Vec<FederationRequest>>,
    pub(crate) asked_identity: Mutex<Vec<IdentityRequest>>,
    pub(crate) letters: Mutex<Vec<Letter>>,
    pub(crate) mail_fails: Mutex<bool>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Peers")
    }
}

impl Federation for Peers {
    fn request(&self, request: FederationRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        let answer = (self.answers.lock())(&request);
        self.asked.lock().push(request);
        Box::pin(async move {
            tokio::task::yield_now().await;
            if matches!(&answer, Err(PeerError::Malformed(what)) if what == STALLED) {
                std::future::pending::<()>().await;
            }
            answer
        })
    }

    fn outbound(&self, request: OutboundRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        let answer = (self.outside.lock())(&request);
        Box::pin(async move { answer })
    }

    fn identity(&self, request: IdentityRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        let answer = (self.identity.lock())(&request);
        self.asked_identity.lock().push(request);
        Box::pin(async move { answer })
    }

    fn mail(&self, letter: Letter) -> BoxFuture<'_, Result<(), PeerError>> {
        let fails = *self.mail_fails.lock();
        if !fails {
            self.letters.lock().push(letter);
        }
        Box::pin(async move { if fails { Err(PeerError::Timeout) } else { Ok(()) } })
    }

    fn heard_from(&self, _server: &ServerName) {}
}

const STALLED: &str = "it never answers";

/// No answer, ever.
pub(crate) fn stall() -> Result<PeerResponse, PeerError> {
    Err(PeerError::Malformed(STALLED.to_owned()))
}

/// A 200 with JSON.
pub(crate) fn json_answer(body: &Value) -> Result<PeerResponse, PeerError> {
    Ok(PeerResponse {
        status: 200,
        content_type: Some("application/json".to_owned()),
        content_disposition: None,
        location: None,
        body: body.to_string().into(),
    })
}

pub(crate) struct World {
    pub(crate) core: Arc<Core>,
    pub(crate) peers: Arc<Peers>,
    meanwhile: Arc<Meanwhile>,
    clock: Arc<TestClock>,
    _directory: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Settings { insecure_fast_password_hash: true, ..Settings::default() })
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let peers = Arc::new(Peers {
            answers: Mutex::new(Box::new(|_| Err(PeerError::Timeout))),
            outside: Mutex::new(Box::new(|_| Err(PeerError::Timeout))),
            identity: Mutex::new(Box::new(|_| Err(PeerError::Timeout))),
            asked: Mutex::default(),
            asked_identity: Mutex::default(),
            letters: Mutex::default(),
            mail_fails: Mutex::default(),
        });
        let clock = Arc::new(TestClock(AtomicU64::new(NOW_MS)));
        let directory = tempfile::tempdir().unwrap();
        let keyring = KeyRing::open(&directory.path().join("keyring"), MasterKey::from_bytes([1; 32])).unwrap();
        let meanwhile = Meanwhile::before(matron_storage::open(EngineKind::Memory, directory.path()).unwrap());
        let core = Core::new(Parts {
            settings,
            server_name: "us.example".try_into().unwrap(),
            store: Arc::clone(&meanwhile) as Arc<dyn Store>,
            keyring: Arc::new(keyring),
            signing_key: Arc::new(SigningKey::from_seed("us", &[200; 32]).unwrap()),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            federation: Arc::clone(&peers) as Arc<dyn Federation>,
            media_dir: directory.path().join("media"),
            appservices: Vec::new(),
        })
        .unwrap();
        Self { core, peers, meanwhile, clock, _directory: directory }
    }

    pub(crate) fn answer(
        &self,
        answers: impl FnMut(&FederationRequest) -> Result<PeerResponse, PeerError> + Send + 'static,
    ) {
        *self.peers.answers.lock() = Box::new(answers);
    }

    pub(crate) fn answer_outside(
        &self,
        answers: impl FnMut(&OutboundRequest) -> Result<PeerResponse, PeerError> + Send + 'static,
    ) {
        *self.peers.outside.lock() = Box::new(answers);
    }

    pub(crate) fn answer_identity(
        &self,
        answers: impl FnMut(&IdentityRequest) -> Result<PeerResponse, PeerError> + Send + 'static,
    ) {
        *self.peers.identity.lock() = Box::new(answers);
    }

    /// This happens once, just before the next commit: others were between somebody's look and what they write.
    pub(crate) fn meanwhile(&self, deed: impl FnOnce(&dyn Store) + Send + 'static) {
        self.meanwhile_after(0, deed);
    }

    /// As [`World::meanwhile`], once so many commits have come.
    pub(crate) fn meanwhile_after(&self, commits: usize, deed: impl FnOnce(&dyn Store) + Send + 'static) {
        let mut deed = Some(deed);
        self.meanwhile.happens(commits..commits.saturating_add(1), move |store| {
            if let Some(deed) = deed.take() {
                deed(store);
            }
        });
    }

    /// This happens before each of the next commits, so many.
    pub(crate) fn meanwhile_often(&self, times: usize, deed: impl FnMut(&dyn Store) + Send + 'static) {
        self.meanwhile.happens(0..times, deed);
    }

    pub(crate) fn advance_ms(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// A user with an account.
    pub(crate) async fn user(&self, name: &str) -> OwnedUserId {
        self.core.create_user(name, Some("a long password"), false).await.unwrap()
    }

    /// A device that a user is logged in with.
    pub(crate) async fn device(&self, user: &UserId, device: &str) -> Requester {
        let id: &DeviceId = device.into();
        let mut batch = Batch::new();
        batch.put(Table::UserDevice, Key::new().text(user).text(id), b"{}".to_vec());
        self.core.commit(batch).await.unwrap();
        Requester {
            user_id: user.to_owned(),
            device_id: Some(id.to_owned()),
            appservice: None,
            is_admin: false,
            is_guest: false,
            token_hash: None,
        }
    }

    /// A room with these members.
    pub(crate) async fn room(&self, members: &[&UserId]) -> OwnedRoomId {
        let (creator, others) = members.split_first().unwrap();
        let request = CreateRoom { preset: Some("public_chat".to_owned()), ..CreateRoom::default() };
        let room = self.core.create_room(creator, request).await.unwrap();
        for other in others {
            self.core.join_room(other, &room, JoinOptions::default()).await.unwrap();
        }
        room
    }
}
