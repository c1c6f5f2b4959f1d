//! `matron federation`, asked of two real servers over TLS.

use std::{net::SocketAddr, path::PathBuf, process::Output};

use serde_json::json;

use crate::{
    free_address::free_address,
    support::{Home, Server, wait_until},
};

/// A trust of the test: its directory, its name and where others reach it.
pub(crate) struct Trust {
    home: Home,
    name: &'static str,
    address: SocketAddr,
    certificate: PathBuf,
}

impl Trust {
    pub(crate) fn new(name: &'static str) -> Self {
        let home = Home::new();
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let certificate = home.path().join("tls.crt");
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(home.path().join("tls.key"), made.signing_key.serialize_pem()).unwrap();
        // Others must know the address before the server runs.
        Self { home, name, address: free_address(), certificate }
    }

    /// Names this trust's peers and starts it.
    pub(crate) fn start(&self, peers: &[&Trust]) -> Server {
        self.configure(peers, true);
        self.home.start()
    }

    fn configure(&self, peers: &[&Trust], trusting: bool) {
        let addresses: serde_json::Map<String, serde_json::Value> =
            peers.iter().map(|peer| (peer.name.to_owned(), peer.address.to_string().into())).collect();
        let authorities: Vec<_> = peers.iter().filter(|_| trusting).map(|peer| peer.certificate.clone()).collect();
        self.home.configure(json!({
            "server_name": self.name,
            "listeners": [{
                "address": self.address,
                "tls_certificate": self.certificate,
                "tls_key": self.home.path().join("tls.key"),
            }],
            "federation": {"addresses": addresses, "ca_files": authorities},
        }));
    }

    fn federation(&self, arguments: &[&str]) -> Output {
        self.home.matron(&[&["federation"], arguments].concat())
    }
}

/// Two trusts that know each other and run, and a room of Amira's in the north that Ben in the south has joined.
struct Pair {
    north_server: Server,
    south_server: Server,
    north: Trust,
    south: Trust,
    amira: String,
    ben: String,
    room: String,
}

impl Pair {
    fn start() -> Self {
        let (north, south) = (Trust::new("north.test"), Trust::new("south.test"));
        let (north_server, south_server) = (north.start(&[&south]), south.start(&[&north]));
        let amira = north_server.register("amira", "a long password");
        let ben = south_server.register("ben", "a long password");
        let room = north_server.create_room(&amira);
        let path = |what: &str| format!("/_matrix/client/v3/rooms/{room}/{what}");
        let invited = north_server.post(&path("invite"), Some(&amira), &json!({"user_id": "@ben:south.test"}));
        assert_eq!(invited.status, 200, "{}", invited.body);
        let joined = south_server.post(&path("join"), Some(&ben), &json!({}));
        assert_eq!(joined.status, 200, "{}", joined.body);
        Self { north, south, north_server, south_server, amira, ben, room }
    }

    fn path(&self, what: &str) -> String {
        format!("/_matrix/client/v3/rooms/{}/{what}", self.room)
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_probe_finds_nothing_wrong_between_two_servers_that_can_speak() {
    let (north, south) = (Trust::new("north.test"), Trust::new("south.test"));
    let _north = north.start(&[&south]);
    let _south = south.start(&[&north]);
    let probe = north.federation(&["probe", "south.test"]);
    let found = text(&probe);
    assert!(probe.status.success(), "{found}");
    for what in ["TLS", "answer", "clock", "keys", "signature", "queue"] {
        assert!(found.lines().any(|line| line.starts_with("good") && line.contains(what)), "{what}: {found}");
    }
}

#[test]
fn a_probe_names_what_is_wrong() {
    let (north, south) = (Trust::new("north.test"), Trust::new("south.test"));
    let _south = south.start(&[]);
    // Nobody told this one the other's authority.
    north.configure(&[&south], false);
    let server = north.home.start();
    let probe = north.federation(&["probe", "south.test"]);
    let found = text(&probe);
    assert!(!probe.status.success() && found.contains("BAD   TLS"), "{found}");
    assert!(found.contains("authority") && found.contains("ca_file"), "{found}");
    drop(server);
    let _north = north.start(&[&south]);
    // Now the way is open, but the other cannot fetch our keys: it knows no way back.
    let found = text(&north.federation(&["probe", "south.test"]));
    assert!(found.contains("good  TLS") && found.contains("BAD   signature"), "{found}");
    let found = text(&north.federation(&["probe", "nobody.invalid:1"]));
    assert!(found.contains("BAD   DNS"), "{found}");
    let refused = north.federation(&["probe", "no server name"]);
    assert!(!refused.status.success());
}

#[test]
fn an_outage_shows_in_the_status_and_a_retry_ends_it() {
    let Pair { north, south, north_server, south_server, amira, ben, room } = Pair::start();
    let path = |what: &str| format!("/_matrix/client/v3/rooms/{room}/{what}");
    let send = |server: &Server, number: u32| {
        let body = json!({"msgtype": "m.text", "body": format!("message {number}")});
        let sent = server.put(&path(&format!("send/m.room.message/{number}")), Some(&amira), &body);
        assert_eq!(sent.status, 200, "{}", sent.body);
    };
    send(&north_server, 0);
    wait_until("the first message arrived", || {
        text(&north.federation(&["status"])).contains("south.test  well: nothing waits")
    });

    south_server.kill();
    (1..4).for_each(|number| send(&north_server, number));
    wait_until("the outage shows", || text(&north.federation(&["status", "south.test"])).contains("DOWN: 3 waiting"));
    let status = text(&north.federation(&["status", "south.test"]));
    assert!(status.contains("failing for") && status.contains("tried again"), "{status}");

    // The sender dies too: what waits, and why, is known after its restart.
    north_server.kill();
    let north_server = north.start(&[&south]);
    assert!(text(&north.federation(&["status", "south.test"])).contains("DOWN: 3 waiting"));
    let south_server = south.start(&[&north]);
    assert!(north.federation(&["retry", "south.test"]).status.success());
    wait_until("the queue is empty", || {
        text(&north.federation(&["status", "south.test"])).contains("south.test  well: nothing waits")
    });
    let page = south_server.get(&path("messages?dir=b&limit=20"), Some(&ben)).json();
    let bodies: Vec<&str> =
        page["chunk"].as_array().unwrap().iter().filter_map(|event| event["content"]["body"].as_str()).collect();
    assert_eq!(bodies, ["message 3", "message 2", "message 1", "message 0"]);
    drop(north_server);
}

#[test]
fn a_room_that_keeps_a_server_out_is_named_on_both_sides() {
    let pair = Pair::start();
    let acl = json!({"allow": ["*"], "deny": ["south.test"]});
    assert_eq!(pair.north_server.put(&pair.path("state/m.room.server_acl/"), Some(&pair.amira), &acl).status, 200);
    let found = text(&pair.north.federation(&["probe", "south.test"]));
    assert!(found.contains("BAD   ACL") && found.contains(&format!("keeps it out of {}", pair.room)), "{found}");
    wait_until("the other side knows", || {
        let found = text(&pair.south.federation(&["probe", "north.test"]));
        found.contains("BAD   ACL") && found.contains(&format!("keeps this server out of {}", pair.room))
    });
    let body = json!({"msgtype": "m.text", "body": "does anybody hear me"});
    assert_eq!(pair.south_server.put(&pair.path("send/m.room.message/1"), Some(&pair.ben), &body).status, 200);
    wait_until("the refusal shows", || {
        let status = text(&pair.south.federation(&["status", "north.test"]));
        status.contains("refused an event") && status.contains("access control list")
    });
}
