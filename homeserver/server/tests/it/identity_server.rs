//! An identity server over TLS on loopback, as far as a test needs one.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use matron_room::{SigningKey, canonical_object};
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    peer::tls_for,
    support::{Home, PATIENCE},
};

/// What a user shows it.
pub(crate) const TOKEN: &str = "swordfish-of-amira";

/// Who has the one address that it ever heard of.
const ADDRESS: &str = "ben@example.org";

/// What it knows, and what it was asked.
#[derive(Debug, Default)]
struct State {
    bound_to: Option<String>,
    invite: Option<Value>,
    seen: Vec<(String, Value)>,
}

/// The identity server. Its thread ends with the process.
#[derive(Debug)]
pub(crate) struct IdentityServer {
    key: SigningKey,
    address: SocketAddr,
    pub(crate) certificate: PathBuf,
    state: Arc<Mutex<State>>,
}

impl IdentityServer {
    pub(crate) fn start(home: &Home) -> Self {
        let (tls, certificate) = tls_for(home, "127.0.0.1");
        let key = SigningKey::from_seed("0", &[5; 32]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (known, public_key) = (Arc::clone(&state), key.verify_key().to_base64());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&tls)).unwrap(), stream);
                let _ =
                    converse(&mut stream, |head, body| known.lock().unwrap().answer(head, body, address, &public_key));
            }
        });
        Self { key, address, certificate, state }
    }

    /// Its name in requests of clients.
    pub(crate) fn name(&self) -> String {
        self.address.to_string()
    }

    /// The first lines and bodies of the requests so far.
    pub(crate) fn seen(&self) -> Vec<(String, Value)> {
        self.state.lock().unwrap().seen.clone()
    }

    /// What it tells the homeserver of the user who has proved to have the address.
    pub(crate) fn binding(&self, user: &str) -> Value {
        let invite = self.state.lock().unwrap().invite.clone().unwrap();
        let mut signed = canonical_object(&json!({"mxid": user, "token": "token"})).unwrap();
        self.key.sign_json(&mut signed, "id").unwrap();
        let invite = json!({"mxid": user, "room_id": invite["room_id"], "sender": invite["sender"], "signed": signed});
        json!({"medium": "email", "address": ADDRESS, "mxid": user, "invites": [invite]})
    }
}

impl State {
    fn answer(&mut self, head: &str, body: Value, address: SocketAddr, public_key: &str) -> (u16, Value) {
        let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
        self.seen.push((line.clone(), body.clone()));
        let header = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let proof = header("authorization").unwrap_or_default();
        let has_token = proof == format!("Bearer {TOKEN}");
        match line.split_once("/_matrix/identity/v2").unwrap_or_default().1 {
            "/hash_details" if has_token => (200, json!({"lookup_pepper": "salt", "algorithms": ["sha256"]})),
            "/lookup" if has_token => {
                let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{ADDRESS} email salt")));
                let found = self.bound_to.as_ref().map(|user| (hash, user)).into_iter();
                (200, json!({"mappings": found.collect::<std::collections::BTreeMap<_, _>>()}))
            }
            "/store-invite" if has_token => {
                self.invite = Some(body);
                let url = format!("https://{address}/_matrix/identity/v2/pubkey/isvalid");
                let key = json!({"public_key": public_key, "key_validity_url": url});
                (200, json!({"token": "token", "display_name": "b...@e...", "public_keys": [key]}))
            }
            "/3pid/bind" if has_token => {
                self.bound_to = body["mxid"].as_str().map(str::to_owned);
                (200, json!({"medium": "email", "address": ADDRESS, "mxid": body["mxid"]}))
            }
            "/3pid/unbind" if proof.starts_with("X-Matrix origin=\"matron.test\"") => {
                self.bound_to = None;
                (200, json!({}))
            }
            path if path.starts_with("/pubkey/isvalid?public_key=") => (200, json!({"valid": true})),
            _ => (401, json!({"errcode": "M_UNAUTHORIZED", "error": "who?"})),
        }
    }
}

/// Answers one request.
fn converse(stream: &mut (impl Read + Write), answer: impl FnOnce(&str, Value) -> (u16, Value)) -> std::io::Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let (head, body) = loop {
        let end = seen.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&seen[..end]).into_owned();
            let length =
                head.lines().filter_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let length: usize = length.into_iter().next().unwrap_or(0);
            if seen.len() >= end + 4 + length {
                break (head, serde_json::from_slice(&seen[end + 4..]).unwrap_or_default());
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => seen.extend_from_slice(&buffer[..read]),
        }
    };
    let (status, body) = answer(&head, body);
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    stream.flush()
}
