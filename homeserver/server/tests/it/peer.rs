//! Another homeserver, as far as a test needs one: it publishes its key over TLS and signs whatever it is told to.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use matron_core::federation::keys::x_matrix::{SignedRequest, sign_request};
use matron_room::{CanonicalJsonValue, RoomVersion, SigningKey, canonical_object, content_hash, redact_object};
use ruma::{ServerName, serde::Base64};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use serde_json::{Value, json};

use crate::support::{Home, PATIENCE};

/// The other server's name.
pub(crate) const PEER: &str = "peer.test";

/// The other server. Its thread ends with the process.
#[derive(Debug)]
pub(crate) struct Peer {
    key: SigningKey,
    address: SocketAddr,
    certificate: PathBuf,
    /// Where it says that its files lie.
    files: Arc<Mutex<Option<String>>>,
}

impl Peer {
    /// A peer that can be asked for its key; `home` holds its certificate.
    pub(crate) fn start(home: &Home) -> Self {
        let key = SigningKey::from_seed("p", &[9; 32]).unwrap();
        let (tls, certificate) = tls_for(home, PEER);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let document = key_document(&key).to_string();
        let files = Arc::new(Mutex::new(None::<String>));
        let lies = Arc::clone(&files);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (tls, document) = (Arc::clone(&tls), document.clone());
                let files = lies.lock().unwrap().clone();
                thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
                    let _ = answer(&mut stream, &document, files.as_deref());
                });
            }
        });
        Self { key, address, certificate, files }
    }

    /// From now on it says of each of its files that it lies there.
    pub(crate) fn sends_files_from(&self, url: &str) {
        *self.files.lock().unwrap() = Some(url.to_owned());
    }

    /// What a server must have in its configuration to find this one.
    pub(crate) fn federation(&self) -> Value {
        json!({
            "addresses": { PEER: self.address.to_string() },
            "ca_files": [self.certificate],
            "connect_timeout_ms": 1000,
        })
    }

    /// The `Authorization` header of a request to `matron.test`.
    pub(crate) fn authorization(&self, method: &str, uri: &str, content: Option<&Value>) -> String {
        let origin: &ServerName = PEER.try_into().unwrap();
        let destination: &ServerName = "matron.test".try_into().unwrap();
        let request = SignedRequest { method, uri, origin, destination: Some(destination), content };
        sign_request(&request, &self.key)
    }

    /// The event with its hash and this server's signature, or as it is if it has no canonical form.
    pub(crate) fn sign_event(&self, event: &Value, version: &RoomVersion) -> Value {
        self.try_sign(event, version).unwrap_or_else(|| event.clone())
    }

    fn try_sign(&self, event: &Value, version: &RoomVersion) -> Option<Value> {
        let mut object = canonical_object(event).ok()?;
        object.remove("signatures");
        object.remove("hashes");
        let hash: Base64 = Base64::new(content_hash(&object, version).ok()?.to_vec());
        object.insert(
            "hashes".to_owned(),
            CanonicalJsonValue::Object(canonical_object(&json!({ "sha256": hash.encode() })).ok()?),
        );
        let mut redacted = object.clone();
        redact_object(&mut redacted, version).ok()?;
        redacted.remove("unsigned");
        self.key.sign_json(&mut redacted, PEER).ok()?;
        object.insert("signatures".to_owned(), redacted.remove("signatures")?);
        serde_json::to_value(object).ok()
    }
}

/// TLS for a server of this name, and the file in `home` that holds its certificate.
pub(crate) fn tls_for(home: &Home, name: &str) -> (Arc<ServerConfig>, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let certificate = home.path().join(format!("{name}.crt"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.der().clone()],
            PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    (Arc::new(tls), certificate)
}

fn key_document(key: &SigningKey) -> Value {
    let valid_until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() + 3_600_000;
    let mut document = canonical_object(&json!({
        "server_name": PEER,
        "valid_until_ts": u64::try_from(valid_until).unwrap(),
        "verify_keys": { key.key_id(): { "key": key.verify_key().to_base64() } },
        "old_verify_keys": {},
    }))
    .unwrap();
    key.sign_json(&mut document, PEER).unwrap();
    serde_json::to_value(document).unwrap()
}

/// Answers one request: with the key, with success to what is sent, with 404 to what is asked.
fn answer(stream: &mut impl ReadWrite, document: &str, files: Option<&str>) -> std::io::Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => seen.extend_from_slice(buffer.get(..read).unwrap_or_default()),
        }
    }
    let head = String::from_utf8_lossy(&seen).into_owned();
    let mut content_type = "application/json";
    let (status, body) = if let Some(url) = files.filter(|_| head.starts_with("GET /_matrix/federation/v1/media/")) {
        content_type = "multipart/mixed; boundary=b";
        let json = "Content-Type: application/json\r\n\r\n{}";
        ("200 OK", format!("--b\r\n{json}\r\n--b\r\nLocation: {url}\r\n\r\n\r\n--b--\r\n"))
    } else if head.starts_with("GET /_matrix/key/") {
        ("200 OK", document.to_owned())
    } else if head.starts_with("PUT ") {
        ("200 OK", "{}".to_owned())
    } else {
        ("404 Not Found", json!({ "errcode": "M_NOT_FOUND", "error": "nothing is here" }).to_string())
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    stream.flush()
}

trait ReadWrite: std::io::Read + std::io::Write {}
impl<T: std::io::Read + std::io::Write> ReadWrite for T {}
