//! A proxy between public clients and the server, which holds every answer against the specification.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    thread::JoinHandle,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use matron_conformance::{SPECIFICATION, Verdict};
use tokio::{net::TcpListener, sync::oneshot};

/// What went by.
#[derive(Debug, Default)]
struct Seen {
    /// How many answers were held against the specification.
    answers: usize,
    /// Endpoints of the specification.
    endpoints: BTreeSet<String>,
    /// Paths that the specification does not have, and how often they were asked.
    others: BTreeMap<String, usize>,
    /// What was wrong, and how often.
    faults: BTreeMap<String, usize>,
}

#[derive(Clone)]
struct Between {
    server: Arc<OnceLock<String>>,
    client: Client<HttpConnector, Body>,
    seen: Arc<Mutex<Seen>>,
}

/// A running proxy; stopped by [`Proxy::finish`].
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    server: Arc<OnceLock<String>>,
    seen: Arc<Mutex<Seen>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens; [`Proxy::lead_to`] says to where.
    pub(crate) fn open() -> Self {
        let server = Arc::<OnceLock<String>>::default();
        let seen = Arc::<Mutex<Seen>>::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let between = Between {
            server: Arc::clone(&server),
            client: Client::builder(TokioExecutor::new()).build_http(),
            seen: Arc::clone(&seen),
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let router = Router::new().fallback(pass).with_state(between);
                tokio::select! {
                    served = axum::serve(listener, router) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self { address, server, seen, stop: Some(stop), thread: Some(thread) }
    }

    /// Requests go to the server at this address.
    pub(crate) fn lead_to(&self, server: &str) {
        self.server.set(server.to_owned()).unwrap();
    }

    /// Every answer that went by was as the specification says.
    pub(crate) fn finish(mut self) {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        let others: Vec<_> = seen.others.iter().map(|(path, count)| format!("  {count:4} {path}")).collect();
        println!(
            "{} answers of {} endpoints were held against the specification; beside them:\n{}",
            seen.answers,
            seen.endpoints.len(),
            others.join("\n")
        );
        self.end();
        assert!(seen.answers > 0, "nothing went through the proxy");
        let faults: Vec<_> = seen.faults.iter().map(|(fault, count)| format!("{count} times: {fault}")).collect();
        assert!(faults.is_empty(), "answers against the specification:\n{}", faults.join("\n"));
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

async fn pass(State(between): State<Between>, mut request: Request) -> Response {
    let method = request.method().as_str().to_owned();
    let path = request.uri().path().to_owned();
    let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let Some(server) = between.server.get() else { return StatusCode::BAD_GATEWAY.into_response() };
    *request.uri_mut() = format!("http://{server}{target}").parse().unwrap();
    let Ok(answer) = between.client.request(request).await else { return StatusCode::BAD_GATEWAY.into_response() };
    let (mut parts, body) = answer.into_parts();
    let Ok(bytes) = to_bytes(Body::new(body), usize::MAX).await else { return StatusCode::BAD_GATEWAY.into_response() };
    between.note(&method, &path, parts.status, &bytes);
    parts.headers.remove(header::TRANSFER_ENCODING);
    Response::from_parts(parts, Body::from(bytes))
}

impl Between {
    fn note(&self, method: &str, path: &str, status: StatusCode, bytes: &[u8]) {
        if method == "OPTIONS" {
            return;
        }
        let json = serde_json::from_slice(bytes).ok();
        let mut seen = self.seen.lock().unwrap();
        if status.is_server_error() {
            *seen.faults.entry(format!("{method} {path} answers {status}")).or_default() += 1;
        }
        match SPECIFICATION.check(method, path, status.as_u16(), json.as_ref()) {
            Verdict::NotDescribed => *seen.others.entry(format!("{method} {path}")).or_default() += 1,
            Verdict::Conforms(name) => {
                seen.answers += 1;
                seen.endpoints.insert(name.to_owned());
            }
            Verdict::Faulty(name, faults) => {
                seen.answers += 1;
                for fault in faults {
                    *seen.faults.entry(format!("{name} with {status}{fault}")).or_default() += 1;
                }
            }
        }
    }
}
