//! Between trusts: every request passes here, and the one that a test waits for is stopped until the test lets it go.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Instant,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::http::PATIENCE;

/// Where on its way a request is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Nobody has seen it but who asks.
    Asked,
    /// It was acted upon; who asked does not know the answer.
    Answered,
}

/// The request that is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// A part of its request line.
    pub(crate) part: &'static str,
    /// So many of the kind go by before it.
    pub(crate) after: usize,
    pub(crate) moment: Moment,
}

#[derive(Debug, Default)]
struct State {
    trap: Option<Step>,
    holds: bool,
    swallows: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The place that every request passes. Its threads end with the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checkpoint {
    shared: Arc<Shared>,
}

impl Checkpoint {
    /// Whoever connects to `listener` speaks TLS with this certificate, and with the server behind in plain HTTP.
    pub(crate) fn stand_before(&self, server: SocketAddr, listener: TcpListener, certificate: &Path, key: &Path) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
            .unwrap();
        let (tls, here) = (Arc::new(tls), self.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (tls, here) = (Arc::clone(&tls), here.clone());
                thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    // A server that dies breaks its connections: that is what is tested.
                    let _ = here.pass(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream), server);
                });
            }
        });
    }

    /// One request, and its answer.
    fn pass(&self, mut client: impl Read + Write, server: SocketAddr) -> std::io::Result<()> {
        let Some(request) = read_request(&mut client)? else { return Ok(()) };
        let line =
            String::from_utf8_lossy(request.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
        if line.contains("/v1/send/") && self.shared.state.lock().unwrap().swallows {
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\nConnection: close\r\n\r\n{\"pdus\":{}}";
            client.write_all(answer.as_bytes())?;
            return client.flush();
        }
        self.stop(&line, Moment::Asked);
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&request)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        self.stop(&line, Moment::Answered);
        client.write_all(&answer)?;
        client.flush()
    }

    fn stop(&self, line: &str, moment: Moment) {
        let mut state = self.shared.state.lock().unwrap();
        let Some(step) = state.trap.as_mut().filter(|step| step.moment == moment && line.contains(step.part)) else {
            return;
        };
        if step.after > 0 {
            step.after -= 1;
            return;
        }
        state.trap = None;
        state.holds = true;
        self.shared.changed.notify_all();
        let released = self.shared.changed.wait_timeout_while(state, PATIENCE, |state| state.holds);
        drop(released.unwrap());
    }

    /// The request of this step will be stopped when it comes.
    pub(crate) fn wait_at(&self, step: Step) {
        let mut state = self.shared.state.lock().unwrap();
        assert!(!state.holds && state.trap.is_none(), "one step at a time");
        state.trap = Some(step);
    }

    /// Whether the request did not come yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.shared.state.lock().unwrap().trap.is_some()
    }

    /// Waits until the request is here.
    pub(crate) fn wait_until_stopped(&self) {
        let begun = Instant::now();
        let state = self.shared.state.lock().unwrap();
        let (state, waited) = self.shared.changed.wait_timeout_while(state, PATIENCE, |state| !state.holds).unwrap();
        assert!(!waited.timed_out(), "nothing like {:?} came in {:?}", state.trap, begun.elapsed());
    }

    /// The request goes on, to whoever is still there.
    pub(crate) fn let_go(&self) {
        self.shared.state.lock().unwrap().holds = false;
        self.shared.changed.notify_all();
    }

    /// Transactions are answered and never delivered, or all is well again.
    pub(crate) fn swallow_transactions(&self, yes: bool) {
        self.shared.state.lock().unwrap().swallows = yes;
    }
}

/// Head and body of a request that says how long it is; the connection ends with it.
fn read_request(client: &mut impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut seen = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(end) = seen.windows(4).position(|part| part == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&seen[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if seen.len() >= end + 4 + length.unwrap_or(0) {
                let mut request = format!("{head}\r\nConnection: close\r\n\r\n").into_bytes();
                request.extend_from_slice(&seen[end + 4..]);
                return Ok(Some(request));
            }
        }
        match client.read(&mut buffer)? {
            0 => return Ok(None),
            read => seen.extend_from_slice(&buffer[..read]),
        }
    }
}
