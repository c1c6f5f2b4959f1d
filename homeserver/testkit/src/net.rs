//! The network between servers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use http::{Request, header};
use http_body_util::BodyExt as _;
use matron_core::{
    Settings,
    federation::keys::x_matrix::{SignedRequest, sign_request},
    ports::{FederationRequest, PeerError, PeerResponse, http_method::Method},
};
use matron_room::SigningKey;
use matron_storage::{Key, Order, Table};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tower::ServiceExt as _;

use crate::{Adversary, Dice, FakeClock, TestServer, Weather, cable::Cable};

/// How long a condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How soon a condition is looked at again.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(3);

/// Who stands at an end of the network.
#[derive(Clone)]
enum End {
    Server(Router, Arc<Cable>),
    Adversary(Arc<Adversary>),
}

struct Inner {
    ends: HashMap<OwnedServerName, End>,
    cut_off: HashSet<OwnedServerName>,
    /// The part of the network that each server is in, while it is apart; those not named are in part 0.
    parts: HashMap<OwnedServerName, usize>,
    weather: Weather,
    dice: Dice,
    /// No request waits longer for its answer.
    patience: Duration,
    /// How many requests each server has made.
    asked: HashMap<OwnedServerName, u64>,
    /// How many events each server was told in transactions that it took.
    told: HashMap<OwnedServerName, u64>,
}

/// What becomes of one request.
struct Fate {
    delay: Duration,
    lost: bool,
    unanswered: bool,
    doubled: Option<Duration>,
}

/// The network between the servers of a test; see the crate's description.
pub struct TestNet {
    clock: Arc<FakeClock>,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for TestNet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TestNet")
    }
}

impl TestNet {
    /// A good network without servers.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::seeded(0)
    }

    /// As [`TestNet::new`]; its accidents follow from the seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Arc<Self> {
        let inner = Inner {
            ends: HashMap::new(),
            cut_off: HashSet::new(),
            parts: HashMap::new(),
            weather: Weather::default(),
            dice: Dice::new(seed),
            patience: Duration::from_secs(120),
            asked: HashMap::new(),
            told: HashMap::new(),
        };
        Arc::new(Self { clock: Arc::default(), inner: Mutex::new(inner) })
    }

    /// The clock of all its servers.
    #[must_use]
    pub fn clock(&self) -> &Arc<FakeClock> {
        &self.clock
    }

    /// A server of this name, working, with open registration.
    pub fn server(self: &Arc<Self>, name: &str) -> TestServer {
        self.server_with(name, |_| {})
    }

    /// As [`TestNet::server`], with other settings.
    pub fn server_with(self: &Arc<Self>, name: &str, change: impl FnOnce(&mut Settings)) -> TestServer {
        let server = TestServer::start(self, name, change);
        self.stands_at(&server);
        server
    }

    /// Who asks for the server's name reaches this one.
    pub(crate) fn stands_at(&self, server: &TestServer) {
        self.inner
            .lock()
            .ends
            .insert(server.name.clone(), End::Server(server.router().clone(), Arc::clone(server.cable())));
    }

    /// A server of this name that keeps no rule.
    pub fn adversary(self: &Arc<Self>, name: &str) -> Arc<Adversary> {
        let adversary = Arc::new(Adversary::new(self, name));
        self.inner.lock().ends.insert(adversary.name().to_owned(), End::Adversary(Arc::clone(&adversary)));
        adversary
    }

    /// Nobody reaches the server and it reaches nobody, or all is well again.
    pub fn cut_off(&self, server: &TestServer, yes: bool) {
        let mut inner = self.inner.lock();
        if yes {
            inner.cut_off.insert(server.name.clone())
        } else {
            inner.cut_off.remove(&server.name)
        };
    }

    /// The network is in parts: the first is of these servers, and so on; those not named are with the first.
    pub fn partition(&self, parts: &[Vec<&TestServer>]) {
        let numbered = parts.iter().enumerate();
        self.inner.lock().parts =
            numbered.flat_map(|(part, servers)| servers.iter().map(move |one| (one.name.clone(), part))).collect();
    }

    /// Everyone reaches everyone again, as far as the weather allows. What waits for its next try is tried when the clock
    /// has moved far enough: see [`TestNet::settle`].
    pub fn heal(&self) {
        let mut inner = self.inner.lock();
        inner.parts.clear();
        inner.cut_off.clear();
    }

    /// What happens to requests from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.inner.lock().weather = weather;
    }

    /// No server waits longer for an answer than this, whatever it would.
    pub fn set_patience(&self, patience: Duration) {
        self.inner.lock().patience = patience;
    }

    /// How many requests the server has made to others.
    #[must_use]
    pub fn asked_by(&self, server: &ServerName) -> u64 {
        self.inner.lock().asked.get(server).copied().unwrap_or(0)
    }

    /// How many events the server was told in transactions that it took, those that it knew already among them.
    #[must_use]
    pub fn told(&self, server: &ServerName) -> u64 {
        self.inner.lock().told.get(server).copied().unwrap_or(0)
    }

    /// None of these servers has anything to tell another of them: all has been told and dealt with.
    ///
    /// The clock moves on meanwhile, past every backoff.
    ///
    /// # Panics
    /// If it takes longer than a minute.
    pub async fn settle(&self, servers: &[&TestServer]) {
        let empty = |server: &&TestServer| {
            servers.iter().all(|to| {
                let waiting = Key::new().text(&to.name).prefix();
                server
                    .core
                    .store
                    .scan(Table::OutboxRow, &waiting, Order::Ascending, 1)
                    .is_ok_and(|rows| rows.is_empty())
            })
        };
        let all = async {
            while !servers.iter().all(empty) {
                self.clock.advance_ms(60_000);
                for server in servers {
                    server.core.wake_outbox(&server.name);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("the outboxes do not become empty");
    }

    fn fate(&self, request: &FederationRequest) -> Fate {
        let mut inner = self.inner.lock();
        let weather = inner.weather;
        let is_transaction = request.path_and_query.starts_with("/_matrix/federation/v1/send/");
        let delay = |dice: &mut Dice, most: u64| {
            let most = usize::try_from(most).unwrap();
            Duration::from_millis(u64::try_from(dice.below(most + 1)).unwrap())
        };
        let dice = &mut inner.dice;
        let wait = delay(dice, weather.delay_ms);
        if !is_transaction {
            let lost = dice.chance(weather.questions_lost_percent);
            return Fate { delay: wait, lost, unanswered: false, doubled: None };
        }
        let lost = dice.chance(weather.lost_percent);
        let unanswered = dice.chance(weather.unanswered_percent);
        let doubled = dice.chance(weather.doubled_percent).then(|| delay(dice, weather.delay_ms.saturating_mul(8)));
        Fate { delay: wait, lost, unanswered, doubled }
    }

    fn is_reachable(&self, from: &ServerName, to: &ServerName) -> bool {
        let inner = self.inner.lock();
        let part = |server| inner.parts.get(server).copied().unwrap_or(0);
        !inner.cut_off.contains(from) && !inner.cut_off.contains(to) && part(from) == part(to)
    }

    /// Carries one request, as the network is now.
    pub(crate) async fn carry(
        self: &Arc<Self>,
        from: &ServerName,
        key: &SigningKey,
        request: FederationRequest,
    ) -> Result<PeerResponse, PeerError> {
        let patience = {
            let mut inner = self.inner.lock();
            let asked = inner.asked.entry(from.to_owned()).or_default();
            *asked = asked.saturating_add(1);
            inner.patience.min(request.timeout)
        };
        tokio::time::timeout(patience, self.undergo(from, key, request)).await.unwrap_or(Err(PeerError::Timeout))
    }

    pub(crate) async fn undergo(
        self: &Arc<Self>,
        from: &ServerName,
        key: &SigningKey,
        request: FederationRequest,
    ) -> Result<PeerResponse, PeerError> {
        let fate = self.fate(&request);
        if !fate.delay.is_zero() {
            tokio::time::sleep(fate.delay).await;
        }
        if fate.lost || !self.is_reachable(from, &request.destination) {
            return Err(PeerError::Connect("the network is down".to_owned()));
        }
        if let Some(later) = fate.doubled {
            let (net, again) = (Arc::clone(self), request.clone());
            let (from, key) = (from.to_owned(), key.clone());
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                if net.is_reachable(&from, &again.destination) {
                    // Nobody waits for the answer of what the network did twice.
                    drop(net.hand_over(&from, &key, again).await);
                }
            });
        }
        let destination = request.destination.clone();
        let events = request.body.as_ref().and_then(|body| body.get("pdus")?.as_array().map(Vec::len)).unwrap_or(0);
        let answer = self.hand_over(from, key, request).await;
        if answer.is_ok() {
            let mut inner = self.inner.lock();
            let told = inner.told.entry(destination).or_default();
            *told = told.saturating_add(u64::try_from(events).unwrap_or(u64::MAX));
        }
        if fate.unanswered { Err(PeerError::Timeout) } else { answer }
    }

    /// The request is signed and given to whoever stands at its end.
    async fn hand_over(
        &self,
        from: &ServerName,
        key: &SigningKey,
        request: FederationRequest,
    ) -> Result<PeerResponse, PeerError> {
        let end = self.inner.lock().ends.get(&request.destination).cloned();
        let (router, cable) = match end.ok_or_else(|| PeerError::Resolve("unknown".to_owned()))? {
            End::Server(router, cable) => (router, cable),
            End::Adversary(adversary) => return adversary.answer(request).await,
        };
        // Who is killed says nothing any more, whatever it was about to say.
        let alive = || if cable.is_cut() { Err(PeerError::Connect("nobody listens".to_owned())) } else { Ok(()) };
        alive()?;
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
                origin: from,
                destination: Some(&request.destination),
                content: request.body.as_ref(),
            };
            wire = wire.header(header::AUTHORIZATION, sign_request(&signed, key));
        }
        let body = request.body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = router.oneshot(wire.body(body).unwrap()).await.unwrap();
        alive()?;
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
