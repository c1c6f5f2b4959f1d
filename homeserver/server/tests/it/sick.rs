//! What `matron federation` says of servers that are ill, each in a way of its own: in plain words, and the same way each time.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use matron_room::{SigningKey, canonical_object};
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use serde_json::{Value, json};

use crate::support::{Home, PATIENCE, Server, wait_until};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What is wrong with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Illness {
    /// Nothing.
    None,
    /// Its certificate is for another name.
    OtherName,
    /// Its certificate has run out.
    Expired,
    /// Its certificate is of the future.
    NotYet,
    /// Nobody knows who made its certificate.
    Untrusted,
    /// It speaks no TLS.
    Plain,
    /// Nobody listens.
    Gone,
    /// It takes connections and says nothing.
    Mute,
    /// It takes requests and never answers.
    Stalls,
    /// No homeserver is behind it.
    Elsewhere,
    /// It has no key document.
    NoKeys,
    /// Its key document is no JSON.
    KeysOfNonsense,
    /// Its key document is another server's.
    KeysOfAnother,
    /// Its key document is signed by nobody.
    KeysUnsigned,
    /// Its keys have run out.
    KeysExpired,
    /// Its clock is years behind.
    Late,
    /// It does not believe this server's signature.
    Disbelieves,
    /// It speaks with others alone.
    Refuses,
}

/// A server that is ill.
#[derive(Debug)]
struct Patient {
    name: String,
    address: SocketAddr,
    certificate: PathBuf,
    illness: Illness,
}

impl Patient {
    /// It runs. Its threads end with the process.
    fn admit(home: &Home, number: usize, illness: Illness) -> Self {
        let name = format!("patient{number}.test");
        let shown = if illness == Illness::OtherName { "somebody.test" } else { &name };
        let mut params = CertificateParams::new(vec![shown.to_owned()]).unwrap();
        match illness {
            Illness::Expired => params.not_after = date_time_ymd(2020, 1, 1),
            Illness::NotYet => params.not_before = date_time_ymd(2200, 1, 1),
            _ => {}
        }
        // Each is its own authority, which must not be taken for another's.
        params.distinguished_name.push(DnType::CommonName, &name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let file = home.path().join(format!("{name}.crt"));
        std::fs::write(&file, certificate.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Nobody listens at the port of a server that is gone, nor will anyone who asks for any port.
        let gone = illness == Illness::Gone;
        let address = if gone { ([127, 0, 0, 1], 1).into() } else { listener.local_addr().unwrap() };
        if illness != Illness::Gone {
            let (tls, name) = (Arc::new(tls), name.clone());
            thread::spawn(move || {
                let mut mute = Vec::new();
                for stream in listener.incoming().map_while(Result::ok) {
                    if illness == Illness::Mute {
                        mute.push(stream);
                        continue;
                    }
                    let (tls, name) = (Arc::clone(&tls), name.clone());
                    thread::spawn(move || serve(stream, tls, &name, illness));
                }
            });
        }
        Self { name, address, certificate: file, illness }
    }
}

fn serve(mut stream: TcpStream, tls: Arc<ServerConfig>, name: &str, illness: Illness) {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    if illness == Illness::Plain {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        let _ = stream.read(&mut [0; 4096]);
        return;
    }
    let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
    let _ = answer(&mut stream, name, illness);
}

/// Answers one request.
fn answer(stream: &mut (impl Read + Write), name: &str, illness: Illness) -> std::io::Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => seen.extend_from_slice(&buffer[..read]),
        }
    }
    if illness == Illness::Stalls {
        while stream.read(&mut buffer)? > 0 {}
        return Ok(());
    }
    let head = String::from_utf8_lossy(&seen).into_owned();
    let path = head.split_whitespace().nth(1).unwrap_or_default();
    let (status, body) = if illness == Illness::Elsewhere {
        ("404 Not Found", "<html>nothing is here</html>".to_owned())
    } else if path.starts_with("/_matrix/federation/v1/version") {
        ("200 OK", json!({"server": {"name": "Patient", "version": "1"}}).to_string())
    } else if path.starts_with("/_matrix/key/") {
        key_document(name, illness)
    } else if illness == Illness::Disbelieves {
        ("401 Unauthorized", json!({"errcode": "M_UNAUTHORIZED", "error": "Invalid signature"}).to_string())
    } else if illness == Illness::Refuses {
        ("403 Forbidden", json!({"errcode": "M_FORBIDDEN", "error": "Federation denied"}).to_string())
    } else {
        ("200 OK", json!({"pdus": {}}).to_string())
    };
    let date = if illness == Illness::Late { "Date: Thu, 01 Jan 2015 00:00:00 GMT\r\n" } else { "" };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{date}Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    stream.flush()
}

fn key_document(name: &str, illness: Illness) -> (&'static str, String) {
    match illness {
        Illness::NoKeys => return ("404 Not Found", json!({"errcode": "M_UNRECOGNIZED", "error": "no"}).to_string()),
        Illness::KeysOfNonsense => return ("200 OK", "<html>welcome</html>".to_owned()),
        _ => {}
    }
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let until_ms = if illness == Illness::KeysExpired { now_ms - 2 * DAY_MS } else { now_ms + DAY_MS };
    let named = if illness == Illness::KeysOfAnother { "somebody.test" } else { name };
    let key = SigningKey::from_seed("p", &[9; 32]).unwrap();
    let mut document = canonical_object(&json!({
        "server_name": named,
        "valid_until_ts": until_ms,
        "verify_keys": { key.key_id(): { "key": key.verify_key().to_base64() } },
        "old_verify_keys": {},
    }))
    .unwrap();
    if illness != Illness::KeysUnsigned {
        key.sign_json(&mut document, named).unwrap();
    }
    ("200 OK", serde_json::to_string(&document).unwrap())
}

/// A Matron that knows where these servers are, and where they are to be found.
struct Ward {
    home: Home,
    patients: Vec<Patient>,
    server: Server,
}

impl Ward {
    /// `timeouts` are laid over the configuration of federation.
    fn open(illnesses: &[Illness], timeouts: &Value) -> Self {
        let home = Home::new();
        let patients: Vec<Patient> =
            illnesses.iter().enumerate().map(|(number, illness)| Patient::admit(&home, number, *illness)).collect();
        let addresses: serde_json::Map<String, Value> =
            patients.iter().map(|patient| (patient.name.clone(), patient.address.to_string().into())).collect();
        let trusted = patients.iter().filter(|patient| patient.illness != Illness::Untrusted);
        let authorities: Vec<_> = trusted.map(|patient| patient.certificate.clone()).collect();
        let mut federation = json!({"addresses": addresses, "ca_files": authorities});
        federation.as_object_mut().unwrap().extend(timeouts.as_object().unwrap().clone());
        home.configure(json!({"federation": federation}));
        let server = home.start();
        Self { home, patients, server }
    }

    fn name(&self, illness: Illness) -> String {
        self.patients.iter().find(|patient| patient.illness == illness).unwrap().name.clone()
    }

    /// What a command prints.
    fn federation(&self, verb: &str, name: &str) -> String {
        let output = self.home.matron(&["federation", verb, name]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Something waits for each of these servers.
    fn send_to(&self, names: &[&str]) {
        let token = self.server.register("amira", "a long password");
        let users: serde_json::Map<String, Value> =
            names.iter().map(|name| (format!("@them:{name}"), json!({"*": {"hello": "there"}}))).collect();
        let path = "/_matrix/client/v3/sendToDevice/org.example.hello/1";
        let reply = self.server.put(path, Some(&token), &json!({"messages": users}));
        assert_eq!(reply.status, 200, "{}", reply.body);
    }

    /// The status that names the failure, as soon as there is one.
    fn failure(&self, name: &str) -> String {
        let mut status = String::new();
        wait_until(&format!("{name} fails"), || {
            status = self.federation("status", name);
            status.contains("failing for")
        });
        status
    }
}

/// Of each: what the probe calls it, a part of the sentence, and what the status says when something is sent.
type Case = (Illness, &'static str, &'static str, Option<&'static str>);

fn check(ward: &Ward, cases: &[Case]) {
    let names: Vec<String> = cases.iter().map(|(illness, ..)| ward.name(*illness)).collect();
    ward.send_to(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut wrong = String::new();
    for ((illness, what, sentence, status), name) in cases.iter().zip(&names) {
        if let Some(status) = status {
            let shown = ward.failure(name);
            if !shown.contains(status) {
                wrong.push_str(&format!("{illness:?}: status without {status:?}:\n{shown}\n"));
            }
        }
        let found = ward.federation("probe", name);
        if !found.lines().any(|line| line.starts_with(&format!("BAD   {what}")) && line.contains(sentence)) {
            wrong.push_str(&format!("{illness:?}: probe without {what:?} and {sentence:?}:\n{found}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_is_wrong_with_another_server_is_said_in_plain_words() {
    use Illness as I;
    let cases: &[Case] = &[
        (
            I::OtherName,
            "TLS",
            "its TLS certificate is for another name",
            Some("its TLS certificate is for another name"),
        ),
        (I::Expired, "TLS", "its TLS certificate has expired", Some("its TLS certificate has expired")),
        (I::NotYet, "TLS", "its TLS certificate is not valid yet", Some("its TLS certificate is not valid yet")),
        (I::Untrusted, "TLS", "an authority that this machine does not know", Some("`federation.ca_files`")),
        (I::Plain, "TLS", "what answers there does not speak TLS", Some("what answers there does not speak TLS")),
        (I::Gone, "connection", "nobody listens there", Some("nobody listens there")),
        (I::Elsewhere, "answer", "no homeserver", Some("404")),
        (I::NoKeys, "keys", "it answers 404", None),
        (I::KeysOfNonsense, "keys", "what it publishes is no JSON", None),
        (I::KeysOfAnother, "keys", "names another server", None),
        (I::KeysUnsigned, "keys", "not signed by its server", None),
        (I::KeysExpired, "keys", "ran out 2 days ago", None),
        (I::Late, "clock", "days behind ours", None),
        (I::Disbelieves, "signature", "it does not believe our signature", Some("Invalid signature")),
        (I::Refuses, "signature", "it refuses to speak with this server", Some("Federation denied")),
    ];
    let mut illnesses: Vec<Illness> = cases.iter().map(|(illness, ..)| *illness).collect();
    illnesses.push(I::None);
    let ward = Ward::open(&illnesses, &json!({"connect_timeout_ms": 60_000}));
    check(&ward, cases);
    let well = ward.federation("probe", &ward.name(I::None));
    assert!(!well.contains("BAD"), "{well}");
    let unknown = ward.federation("probe", "nobody.invalid");
    assert!(unknown.contains("BAD   DNS") && unknown.contains("nobody.invalid"), "{unknown}");
    ward.server.put(
        "/_matrix/client/v3/sendToDevice/org.example.hello/2",
        Some(&ward.server.register("ben", "a long password")),
        &json!({"messages": {"@them:nobody.invalid": {"*": {"hello": "there"}}}}),
    );
    let unknown = ward.failure("nobody.invalid");
    assert!(unknown.contains("DNS"), "{unknown}");
}

#[test]
fn whoever_takes_connections_and_says_nothing_is_told_from_who_is_not_there() {
    use Illness as I;
    let ward = Ward::open(&[I::Mute], &json!({"connect_timeout_ms": 500}));
    check(&ward, &[(I::Mute, "TLS", "says nothing", Some("says nothing"))]);
    let ward = Ward::open(&[I::Stalls], &json!({"connect_timeout_ms": 60_000, "request_timeout_ms": 1_000}));
    check(&ward, &[(I::Stalls, "answer", "did not answer in time", Some("did not answer in time"))]);
}

#[test]
fn a_network_that_swallows_everything_is_told_from_a_server_that_is_off() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody accepts: once the queue is full, what comes is dropped without a word.
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        queue.push(stream);
        assert!(queue.len() < 10_000, "the queue has no end here");
    }
    home.configure(json!({
        "federation": {"addresses": {"far.test": address.to_string()}, "connect_timeout_ms": 1_000},
    }));
    let _server = home.start();
    let found = String::from_utf8(home.matron(&["federation", "probe", "far.test"]).stdout).unwrap();
    assert!(found.contains("BAD   connection") && found.contains("a firewall drops"), "{found}");
}
