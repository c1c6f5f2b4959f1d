//! Nobody makes the server knock on doors inside its own network: every way out, tried on the real binary.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use crate::{
    peer::{PEER, Peer},
    support::{Home, Server, wait_until},
    walk::Walk,
    wire::{Wire, escape, request},
};

/// A door on this machine; it counts who knocks.
struct Door {
    port: u16,
    knocks: Arc<AtomicUsize>,
}

impl Door {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, knocks) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&knocks);
        // Its thread ends with the process.
        thread::spawn(move || {
            for _stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { port, knocks }
    }

    fn knocks(&self) -> usize {
        self.knocks.load(Ordering::SeqCst)
    }
}

/// A server with somebody on it, and a peer that it may reach.
struct House {
    server: Server,
    peer: Peer,
    provider: u16,
    token: String,
    other: String,
    room: String,
    _home: Home,
}

/// A provider of sign-ins that the operator trusts, and that says that its tokens are given out where `door` names it.
fn provider(door: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let issuer = format!("http://127.0.0.1:{port}");
    let metadata = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/ask"),
        "token_endpoint": format!("https://{door}/token"),
        "jwks_uri": format!("https://{door}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    })
    .to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut seen = [0; 4096];
            let _ = stream.read(&mut seen);
            let length = metadata.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{metadata}"
            );
        }
    });
    port
}

impl House {
    /// `more` is laid over the federation's configuration; the provider of sign-ins names this door.
    fn open(more: &Value, door: &str) -> Self {
        let home = Home::new();
        let peer = Peer::start(&home);
        let mut federation = peer.federation();
        federation.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let provider = provider(door);
        home.configure(json!({
            "federation": federation,
            "url_previews": true,
            "identity_servers": ["*"],
            "logging": {"level": "info,matron_core=debug"},
            "public_base_url": "https://matrix.trust.test",
            "oauth": {"enabled": true, "upstreams": [{
                "id": "trust", "name": "The trust", "issuer": format!("http://127.0.0.1:{provider}"),
                "client_id": "matron", "client_secret": "a secret",
            }]},
        }));
        let server = home.start();
        let token = server.register("amira", "a long password");
        let other = server.register("other", "a long password");
        let made = json!({"preset": "private_chat", "invite": ["@other:matron.test"]});
        let made = server.post("/_matrix/client/v3/createRoom", Some(&token), &made);
        let room = escape(made.json()["room_id"].as_str().unwrap());
        let joined = server.post(&format!("/_matrix/client/v3/join/{room}"), Some(&other), &json!({}));
        assert_eq!(joined.status, 200, "{}", joined.body);
        Self { server, peer, provider, token, other, room, _home: home }
    }

    fn get(&self, path: &str) {
        let answer = self.server.get(path, Some(&self.token));
        assert_ne!(answer.status, 401, "{path}: {}", answer.body);
    }

    fn post(&self, path: &str, body: &Value) {
        let answer = self.server.post(&format!("/_matrix/client/v3/{path}"), Some(&self.token), body);
        assert_ne!(answer.status, 401, "{path}: {}", answer.body);
    }
}

/// A way out, and what makes the server take it to this place.
type Way = (&'static str, fn(&mut House, &str));

/// All of them, but for policy servers, which are asked as any other server is.
const WAYS: &[Way] = &[
    ("a join", |house, place| house.post(&format!("join/%21x%3Ax.test?via={}", escape(place)), &json!({}))),
    ("a profile", |house, place| {
        house.get(&format!("/_matrix/client/v3/profile/{}", escape(&format!("@a:{place}"))));
    }),
    ("an alias", |house, place| {
        house.get(&format!("/_matrix/client/v3/directory/room/{}", escape(&format!("#a:{place}"))));
    }),
    ("the list of rooms", |house, place| {
        house.get(&format!("/_matrix/client/v3/publicRooms?server={}", escape(place)));
    }),
    ("a file", |house, place| house.get(&format!("/_matrix/client/v1/media/download/{}/abc", escape(place)))),
    ("a picture", |house, place| {
        house.get(&format!("/_matrix/client/v1/media/thumbnail/{}/abc?width=9&height=9", escape(place)));
    }),
    ("a file that lies elsewhere", |house, place| {
        house.peer.sends_files_from(&format!("https://{place}/file"));
        // Each time another: the answer for a file is remembered.
        let id: String = place.chars().filter(char::is_ascii_alphanumeric).collect();
        house.get(&format!("/_matrix/client/v1/media/download/{PEER}/{id}"));
    }),
    ("a preview", |house, place| {
        let url = escape(&format!("https://{place}/"));
        house.get(&format!("/_matrix/client/v1/media/preview_url?url={url}"));
    }),
    ("device keys", |house, place| house.post("keys/query", &json!({"device_keys": {(format!("@a:{place}")): []}}))),
    ("one-time keys", |house, place| {
        let wanted = json!({"one_time_keys": {(format!("@a:{place}")): {"D": "signed_curve25519"}}});
        house.post("keys/claim", &wanted);
    }),
    ("an invite", |house, place| {
        let path = format!("rooms/{}/invite", house.room);
        house.post(&path, &json!({"user_id": format!("@a:{place}")}));
    }),
    ("keys that are vouched for", |house, place| house.get(&format!("/_matrix/key/v2/query/{}", escape(place)))),
    ("keys of one who asks", |house, place| {
        let sent_by = format!("X-Matrix origin=\"{place}\",key=\"ed25519:k\",sig=\"{}\"", "A".repeat(86));
        let path = "/_matrix/federation/v1/query/profile?user_id=%40amira%3Amatron.test";
        let mut wire = Wire::new(&house.server.address);
        assert_eq!(wire.exchange(&request("GET", path, Some(&sent_by), None)).unwrap().status, 401);
    }),
    ("a message to a device", |house, place| {
        let body = json!({"messages": {(format!("@a:{place}")): {"D": {}}}});
        let path = format!("/_matrix/client/v3/sendToDevice/x.y/{}", escape(place));
        assert_eq!(house.server.put(&path, Some(&house.token), &body).status, 200);
        house.server.wait_for_line(&format!("peer.name={place}"));
    }),
    ("an identity server", |house, place| {
        let credentials = json!({"id_server": place, "id_access_token": "t", "sid": "s", "client_secret": "c"});
        house.post("account/3pid/bind", &credentials);
    }),
    ("a push gateway", |house, place| {
        let pusher = json!({
            "kind": "http", "app_id": format!("app {place}"), "pushkey": "key", "app_display_name": "a",
            "device_display_name": "d", "lang": "en", "data": {"url": format!("https://{place}/_matrix/push/v1/notify")},
        });
        house.post("pushers/set", &pusher);
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message", house.room);
        let said = house.server.post(&path, Some(&house.other), &json!({"msgtype": "m.text", "body": "hello"}));
        assert_eq!(said.status, 200, "{}", said.body);
        house.server.wait_for_line(&format!("app.id=app {place}"));
    }),
];

/// Goes through a sign-in at the provider, up to where its code is exchanged.
fn sign_in(house: &House) {
    let mut browser = Walk::new(&house.server.address, "https://matrix.trust.test");
    let there = browser.go("GET", "/account/upstream/trust?next=/account/", &[]);
    let question = there.at.strip_prefix(&format!("http://127.0.0.1:{}/ask?", house.provider)).unwrap();
    let state = question.split('&').find_map(|pair| pair.strip_prefix("state=")).unwrap();
    let back = browser.go("GET", &format!("/account/upstream/trust/callback?code=abc&state={state}"), &[]);
    assert!(back.status >= 400, "{}", back.html);
}

#[test]
fn no_way_out_leads_to_a_private_address() {
    let door = Door::new();
    let place = format!("127.0.0.1:{}", door.port);
    let mut house = House::open(&json!({}), &place);
    sign_in(&house);
    assert_eq!(door.knocks(), 0, "the provider's tokens");
    for (name, go) in WAYS {
        for spelling in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            go(&mut house, &format!("{spelling}:{}", door.port));
            assert_eq!(door.knocks(), 0, "{name} at {spelling}");
        }
    }
    assert!(house.server.stop().success());
    assert_eq!(door.knocks(), 0);
}

#[test]
fn every_way_out_leads_to_a_private_address_that_the_operator_named() {
    // Otherwise the test above would try nothing.
    let door = Door::new();
    let mut house = House::open(&json!({"allow_ip_ranges": ["127.0.0.0/8"]}), &format!("127.0.0.1:{}", door.port));
    sign_in(&house);
    wait_until("the provider's tokens are asked for", || door.knocks() > 0);
    for (name, go) in WAYS {
        // A door of its own for each: a server that does not answer is not asked again at once.
        let door = Door::new();
        go(&mut house, &format!("127.0.0.1:{}", door.port));
        wait_until(name, || door.knocks() > 0);
    }
}
