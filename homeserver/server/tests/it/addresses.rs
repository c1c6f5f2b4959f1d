//! E-mail addresses and telephone numbers: the real binary beside an identity server and a mail server.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    sync::mpsc,
    thread,
};

use serde_json::{Value, json};

use crate::{
    identity_server::{IdentityServer, TOKEN},
    support::{Home, PATIENCE, Server, raw_request},
    walk::Walk,
    wire::escape,
};

struct House {
    identity: IdentityServer,
    server: Server,
    amira: String,
    ben: String,
    _home: Home,
}

impl House {
    /// With these identity servers in the configuration.
    fn open(trusted: impl FnOnce(&IdentityServer) -> Vec<String>) -> Self {
        let home = Home::new();
        let identity = IdentityServer::start(&home);
        home.configure(json!({
            "identity_servers": trusted(&identity),
            "federation": {"ca_files": [identity.certificate], "connect_timeout_ms": 60_000},
            "logging": {"level": "trace"},
        }));
        let server = home.start();
        let (amira, ben) = (server.register("amira", "a long password"), server.register("ben", "a long password"));
        Self { identity, server, amira, ben, _home: home }
    }

    fn post(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.server.post(&format!("/_matrix/client/v3/{path}"), Some(token), body);
        (answer.status, answer.json())
    }

    fn invite(&self) -> Value {
        json!({
            "id_server": self.identity.name(), "id_access_token": TOKEN, "medium": "email", "address": "ben@example.org",
        })
    }

    fn credentials(&self) -> Value {
        json!({"id_server": self.identity.name(), "id_access_token": TOKEN, "sid": "s", "client_secret": "c"})
    }
}

#[test]
fn an_identity_server_is_asked_and_believed_as_far_as_it_can_prove_what_it_says() {
    let mut house = House::open(|identity| vec![identity.name()]);
    let room = house.server.create_room(&house.amira);
    let path = format!("rooms/{}", escape(&room));
    let done = (200, json!({}));

    // Nobody has the address yet.
    assert_eq!(house.post(&house.amira, &format!("{path}/invite"), &house.invite()), done);
    let bound = house.identity.binding("@ben:matron.test");
    let told = house.server.put("/_matrix/federation/v1/3pid/onbind", None, &bound);
    assert_eq!(told.status, 200, "{}", told.body);
    assert_eq!(house.post(&house.ben, &format!("{path}/join"), &json!({})).0, 200);

    // Ben has it bound, and is found by it.
    assert_eq!(house.post(&house.ben, "account/3pid/bind", &house.credentials()), done);
    let mut request = json!({"preset": "private_chat", "invite_3pid": [house.invite()]});
    let (status, made) = house.post(&house.amira, "createRoom", &request);
    assert_eq!(status, 200, "{made}");
    let joined = house.post(&house.ben, &format!("join/{}", escape(made["room_id"].as_str().unwrap())), &json!({}));
    assert_eq!(joined.0, 200, "{}", joined.1);

    // And not any more.
    let unbound = (200, json!({"id_server_unbind_result": "success"}));
    let address = json!({"medium": "email", "address": "ben@example.org"});
    assert_eq!(house.post(&house.ben, "account/3pid/unbind", &address), unbound);
    request["invite_3pid"][0]["id_access_token"] = json!("another");
    let refused = house.post(&house.amira, "createRoom", &request);
    assert_eq!((refused.0, &refused.1["errcode"]), (403, &json!("M_UNAUTHORIZED")), "and Amira's session goes on");
    assert_eq!(house.server.get("/_matrix/client/v3/account/whoami", Some(&house.amira)).status, 200);

    let lines: Vec<String> = house.identity.seen().into_iter().map(|(line, _)| line).collect();
    assert!(lines.iter().any(|line| line.starts_with("GET /_matrix/identity/v2/pubkey/isvalid?")), "{lines:?}");
    assert!(house.server.stop().success());
    let log = house.server.rest_of_log();
    assert!(!log.contains(TOKEN) && !log.contains("ben@example.org"), "a token or an address is in the log");
}

#[test]
fn without_a_word_of_the_operator_no_identity_server_is_spoken_with() {
    let house = House::open(|_| Vec::new());
    let room = house.server.create_room(&house.amira);
    let address = json!({"medium": "email", "address": "ben@example.org", "id_server": house.identity.name()});
    for (path, body) in [
        (format!("rooms/{}/invite", escape(&room)), house.invite()),
        ("createRoom".to_owned(), json!({"invite_3pid": [house.invite()]})),
        ("account/3pid/bind".to_owned(), house.credentials()),
        ("account/3pid/unbind".to_owned(), address.clone()),
    ] {
        let refused = house.post(&house.amira, &path, &body);
        assert_eq!((refused.0, &refused.1["errcode"]), (400, &json!("M_SERVER_NOT_TRUSTED")), "{path}");
    }
    // What is not about the identity server alone is done.
    let deleted = house.post(&house.amira, "account/3pid/delete", &address);
    assert_eq!(deleted, (200, json!({"id_server_unbind_result": "no-support"})));
    assert!(house.identity.seen().is_empty());
}

/// A mail server without TLS on loopback; gives its address and what it is handed.
fn mail_server() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, letters) = mpsc::channel();
    // Its thread ends with the process.
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let _ = stream.write_all(b"220 here\r\n");
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let mut letter = None::<String>;
            for line in lines {
                let answer = match &mut letter {
                    Some(text) if line == "." => {
                        let _ = sender.send(std::mem::take(text));
                        letter = None;
                        "250 taken"
                    }
                    Some(text) => {
                        text.push_str(&line);
                        text.push('\n');
                        continue;
                    }
                    None if line == "DATA" => {
                        letter = Some(String::new());
                        "354 go on"
                    }
                    None => "250 good",
                };
                if stream.write_all(format!("{answer}\r\n").as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    (address, letters)
}

#[test]
fn a_letter_proves_an_address_to_register_and_to_replace_a_lost_password() {
    let (mail, letters) = mail_server();
    let home = Home::new();
    home.configure(json!({
        "public_base_url": "http://matron.test",
        "email": {"server": mail, "tls": "none", "from": "Matron <matron@matron.test>"},
        "logging": {"level": "trace"},
    }));
    let mut server = home.start();
    let post = |path: &str, body: &Value| {
        let answer = server.post(&format!("/_matrix/client/v3/{path}"), None, body);
        (answer.status, answer.json())
    };
    // The page that the letter leads to, and the session.
    let ask = |kind: &str| {
        let body = json!({"client_secret": "s3cret", "email": "amira@example.org", "send_attempt": 1});
        let (status, answer) = post(&format!("{kind}/email/requestToken"), &body);
        assert_eq!(status, 200, "{answer}");
        let letter = letters.recv_timeout(PATIENCE).unwrap();
        let link = letter.lines().find_map(|line| line.strip_prefix("http://matron.test")).unwrap().to_owned();
        let creds = json!({"sid": answer["sid"], "client_secret": "s3cret"});
        (link, json!({"type": "m.login.email.identity", "threepid_creds": creds}))
    };

    // Opens the link and presses the button.
    let press = |link: &str, between: &dyn Fn()| {
        let mut browser = Walk::new(&server.address, "http://matron.test");
        let page = browser.go("GET", link, &[]);
        between();
        let fields = ["form_token", "sid", "token"].map(|name| (name, page.field(name)));
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let pressed = browser.go("POST", "/account/email", &fields);
        assert!(pressed.html.contains("is confirmed"), "{}", pressed.html);
    };

    let (link, auth) = ask("register");
    let body = json!({"username": "amira", "password": "a long password", "auth": auth});
    let head = format!("HEAD {link} HTTP/1.1\r\nHost: matron.test\r\nConnection: close\r\n\r\n");
    assert_eq!(raw_request(&server.address, head.as_bytes()).unwrap().status, 200);
    assert_eq!(post("register", &body).0, 401, "who asks for the head alone reads no letters");
    press(&link, &|| assert_eq!(post("register", &body).0, 401, "a program that opens links presses no button"));
    let (status, made) = post("register", &body);
    assert_eq!(status, 200, "{made}");
    let listed = server.get("/_matrix/client/v3/account/3pid", made["access_token"].as_str());
    assert_eq!(listed.json()["threepids"][0]["address"], "amira@example.org");

    let (link, auth) = ask("account/password");
    let body = json!({"new_password": "quite another one", "auth": auth});
    press(&link, &|| assert_eq!(post("account/password", &body).0, 401, "nor here"));
    assert_eq!(post("account/password", &body), (200, json!({})));
    let login = json!({
        "type": "m.login.password", "password": "quite another one",
        "identifier": {"type": "m.id.thirdparty", "medium": "email", "address": "amira@example.org"},
    });
    assert_eq!(post("login", &login).0, 200);
    assert!(server.stop().success());
    let log = server.rest_of_log();
    for secret in ["s3cret", "mev_", "amira@example.org"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
