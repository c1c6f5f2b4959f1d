//! A small internet: names, addresses, TLS servers, a certificate authority, a clock.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use matron_core::ports::{
    Clock, Federation, FederationRequest, OutboundRequest, PeerError, PeerResponse, http_method::Method,
};
use matron_net::{NetConfig, NetFederation, Network, Service};
use matron_room::SigningKey;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ruma::ServerName;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A public address of the test's internet; it leads wherever [`World::serve`] says.
pub(crate) const PUBLIC: &str = "93.184.216.34";

/// What a server saw of one request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: Arc<Parts>,
    pub(crate) body: Bytes,
    /// Which of the server's connections it came over.
    pub(crate) connection: u64,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

type Handler = dyn Fn(Seen) -> BoxFuture<'static, Response<Full<Bytes>>> + Send + Sync;

/// Everything a test can set.
#[derive(Debug, Default)]
struct Tables {
    /// Answers of DNS by host; the last one is repeated.
    addresses: BTreeMap<String, VecDeque<Vec<IpAddr>>>,
    services: BTreeMap<String, Vec<Service>>,
    /// Where an address of the test's internet really is.
    places: BTreeMap<SocketAddr, SocketAddr>,
    dialled: Vec<SocketAddr>,
    asked: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Internet(Mutex<Tables>);

impl Network for Internet {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let mut tables = self.0.lock().unwrap();
        tables.asked.push(host.to_owned());
        let found = match tables.addresses.get_mut(host) {
            Some(answers) if answers.len() > 1 => answers.pop_front().unwrap(),
            Some(answers) => answers.front().cloned().unwrap_or_default(),
            None => Vec::new(),
        };
        Box::pin(async { Ok(found) })
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<Service>>> {
        let mut tables = self.0.lock().unwrap();
        tables.asked.push(name.to_owned());
        let found = tables.services.get(name).cloned().unwrap_or_default();
        Box::pin(async { Ok(found) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        let mut tables = self.0.lock().unwrap();
        tables.dialled.push(address);
        let place = tables.places.get(&address).copied();
        Box::pin(async move {
            match place {
                Some(place) => TcpStream::connect(place).await,
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }
}

#[derive(Debug)]
pub(crate) struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl TestClock {
    pub(crate) fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

pub(crate) struct World {
    pub(crate) internet: Arc<Internet>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) config: NetConfig,
    authority: Issuer<'static, KeyPair>,
    _directory: tempfile::TempDir,
}

/// A running server; dropping it closes its listener.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, certificate.pem()).unwrap();
        Self {
            internet: Arc::default(),
            clock: Arc::new(TestClock(AtomicU64::new(1_800_000_000_000))),
            config: NetConfig { ca_files: vec![ca_file], connect_timeout_ms: 5_000, ..NetConfig::default() },
            authority: Issuer::new(params, key),
            _directory: directory,
        }
    }

    pub(crate) fn key() -> Arc<SigningKey> {
        Arc::new(SigningKey::from_seed("test", &[7; 32]).unwrap())
    }

    pub(crate) fn federation(&self) -> NetFederation {
        let name = ServerName::parse("us.example").unwrap();
        NetFederation::with_network(
            self.config.clone(),
            name,
            Self::key(),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::clone(&self.internet) as Arc<dyn Network>,
        )
        .unwrap()
    }

    /// A TLS server on loopback with a certificate for these names by the test's authority.
    pub(crate) async fn tls_server<F, R>(&self, names: &[&str], handler: F) -> Server
    where
        F: Fn(Seen) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        start(Some(self.acceptor(names)), handler).await
    }

    /// TLS with a certificate for these names by the test's authority.
    pub(crate) fn acceptor(&self, names: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.authority).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A server without TLS on loopback.
    pub(crate) async fn plain_server<F, R>(&self, handler: F) -> Server
    where
        F: Fn(Seen) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        start(None, handler).await
    }

    /// The address of the test's internet leads to this server.
    pub(crate) fn serve(&self, address: &str, server: &Server) {
        self.lead(address, server.address);
    }

    /// The address of the test's internet leads to this one.
    pub(crate) fn lead(&self, address: &str, place: SocketAddr) {
        self.internet.0.lock().unwrap().places.insert(address.parse().unwrap(), place);
    }

    /// DNS answers with these lists in turn, the last one for ever.
    pub(crate) fn dns(&self, host: &str, answers: &[&[&str]]) {
        let answers = answers.iter().map(|list| list.iter().map(|address| address.parse().unwrap()).collect());
        self.internet.0.lock().unwrap().addresses.insert(host.to_owned(), answers.collect());
    }

    pub(crate) fn srv(&self, name: &str, records: &[(u16, u16, &str, u16)]) {
        let records = records.iter().map(|&(priority, weight, target, port)| Service {
            priority,
            weight,
            target: target.to_owned(),
            port,
        });
        self.internet.0.lock().unwrap().services.insert(name.to_owned(), records.collect());
    }

    /// Every address that was connected to.
    pub(crate) fn dialled(&self) -> Vec<String> {
        self.internet.0.lock().unwrap().dialled.iter().map(ToString::to_string).collect()
    }

    /// Every name that DNS was asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.internet.0.lock().unwrap().asked.clone()
    }
}

async fn start<F, R>(tls: Option<TlsAcceptor>, handler: F) -> Server
where
    F: Fn(Seen) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler: Arc<Handler> = Arc::new(move |request| Box::pin(handler(request)));
    let recorded = Arc::clone(&seen);
    let task = tokio::spawn(async move {
        let mut connections = 0;
        while let Ok((stream, _)) = listener.accept().await {
            connections += 1;
            let (tls, handler, seen, connection) =
                (tls.clone(), Arc::clone(&handler), Arc::clone(&recorded), connections);
            tokio::spawn(async move {
                match tls {
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            converse(TokioIo::new(stream), connection, handler, seen).await;
                        }
                    }
                    None => converse(TokioIo::new(stream), connection, handler, seen).await,
                }
            });
        }
    });
    Server { address, seen, task }
}

async fn converse<S>(stream: S, connection: u64, handler: Arc<Handler>, seen: Arc<Mutex<Vec<Seen>>>)
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, seen) = (Arc::clone(&handler), Arc::clone(&seen));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let request = Seen { head: Arc::new(head), body, connection };
            seen.lock().unwrap().push(request.clone());
            Ok::<_, hyper::Error>(handler(request).await)
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
}

pub(crate) fn json(status: u16, text: &str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("Content-Type", "application/json")
        .body(Full::new(Bytes::copy_from_slice(text.as_bytes())))
        .unwrap()
}

pub(crate) fn get(server: &str) -> FederationRequest {
    FederationRequest {
        destination: ServerName::parse(server).unwrap(),
        method: Method::Get,
        path_and_query: "/_matrix/federation/v1/version".to_owned(),
        body: None,
        signed: false,
        timeout: Duration::from_secs(20),
        max_bytes: 1024,
    }
}

pub(crate) fn outbound(url: &str, trusted: bool) -> OutboundRequest {
    OutboundRequest {
        trusted,
        method: Method::Post,
        url: url.to_owned(),
        bearer: None,
        body: Some(serde_json::json!({"a": 1})),
        timeout: Duration::from_secs(20),
        max_bytes: 1024,
    }
}

/// The answer to a plain request to this server.
pub(crate) async fn ask(federation: &NetFederation, server: &str) -> Result<PeerResponse, PeerError> {
    federation.request(get(server)).await
}
