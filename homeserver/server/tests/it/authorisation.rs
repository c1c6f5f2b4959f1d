//! Who may do what, at every endpoint that the router has: a new endpoint is closed, or is named here with its reason.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    peer::Peer,
    routes::{Endpoint, endpoints},
    support::{Home, Server},
    wire::{Answer, Wire, escape, request},
};

/// Endpoints that lack an authorisation test. Every endpoint is tried below, so nothing may ever stand here.
const UNTRIED: &[&str] = &[];

/// Endpoints without a token, and why. `…` stands for what comes before the last parts of the path.
pub(crate) const OPEN_TO_ALL: &[(&str, &str)] = &[
    ("GET …/client/versions", "says what the server speaks"),
    ("GET …/matrix/client", "discovery"),
    ("GET …/matrix/server", "discovery"),
    ("GET …/matrix/support", "discovery"),
    ("GET …/matrix/policy_server", "discovery"),
    ("GET …/login", "the ways to log in"),
    ("POST …/login", "proves itself by password or token"),
    ("POST …/register", "makes the account; closed by default"),
    ("GET …/register/available", "before there is an account"),
    ("GET …/m.login.registration_token/validity", "before there is an account"),
    ("POST …/refresh", "proves itself by refresh token"),
    ("POST …/requestToken", "before there is an account; off without a mail server, and then limited by address"),
    ("POST …/account/password", "a lost password is replaced by interactive proof"),
    ("POST …/account/deactivate", "proves itself interactively"),
    ("GET …/directory/room/{room_alias}", "an alias is public"),
    ("GET …/profile/{user_id}", "the specification makes the token optional"),
    ("GET …/profile/{user_id}/{field}", "the specification makes the token optional"),
    ("GET …/room_summary/{room_id_or_alias}", "public rooms only"),
    ("GET …/rooms/{room_id_or_alias}/summary", "public rooms only"),
    ("GET …/summary/{room_id_or_alias}", "public rooms only"),
    ("POST …/delayed_events/{delay_id}", "the id is the proof: a bridge or a call server holds it, MSC4140"),
    ("POST …/delayed_events/{delay_id}/{action}", "the id is the proof: a bridge or a call server holds it, MSC4140"),
    ("GET …/publicRooms", "where the operator opens it"),
    ("GET …/directory/list/room/{room_id}", "whether a room is in the public list is public"),
    ("PUT …/pushrules/", "names no rule: refused to all"),
    ("PUT …/pushrules/{scope}/", "names no rule: refused to all"),
    ("PUT …/pushrules/{scope}/{kind}/", "names no rule: refused to all"),
    ("GET …/openid/userinfo", "proves itself by OpenID token"),
    ("GET …/oauth-authorization-server", "discovery"),
    ("GET …/openid-configuration", "discovery"),
    ("GET …/auth_issuer", "discovery"),
    ("GET …/auth_metadata", "discovery"),
    ("POST …/rendezvous", "off by default; a device that is yet to be signed in finds another"),
    ("GET …/rendezvous", "off by default; whether it may be used"),
    ("GET …/rendezvous/{channel}", "off by default; the name of the channel is the proof"),
    ("PUT …/rendezvous/{channel}", "off by default; the name of the channel is the proof"),
    ("DELETE …/rendezvous/{channel}", "off by default; the name of the channel is the proof"),
    ("GET …/auth/{auth_type}/fallback/web", "a step of an interactive proof"),
    ("POST …/auth/{auth_type}/fallback/web", "a step of an interactive proof"),
    ("GET …/login/cas/redirect", "the way to log in elsewhere"),
    ("GET …/login/cas/ticket", "off by default; the way back, which proves itself by a ticket"),
    ("GET …/login/sso/redirect", "the way to log in elsewhere"),
    ("GET …/login/sso/redirect/{idp_id}", "the way to log in elsewhere"),
    ("GET …/federation/v1/version", "says what the server is"),
    ("POST …/3pid/onbind", "as PUT: the two APIs that speak of it differ"),
    ("PUT …/3pid/onbind", "identity servers have no key here; each invite is proved by its own signature"),
    ("GET …/key/v2/server", "published keys"),
    ("GET …/key/v2/server/", "published keys"),
    ("GET …/key/v2/server/{key_id}", "published keys"),
    ("GET …/key/v2/query/{server_name}", "published keys of others"),
    ("GET …/key/v2/query/{server_name}/{key_id}", "published keys of others"),
    ("POST …/key/v2/query", "published keys of others"),
    ("GET …/media/r0/download/{server}/{id}", "where the operator opens it"),
    ("GET …/media/v1/download/{server}/{id}", "where the operator opens it"),
    ("GET …/media/v3/download/{server}/{id}", "where the operator opens it"),
    ("GET …/media/r0/download/{server}/{id}/{file_name}", "where the operator opens it"),
    ("GET …/media/v1/download/{server}/{id}/{file_name}", "where the operator opens it"),
    ("GET …/media/v3/download/{server}/{id}/{file_name}", "where the operator opens it"),
    ("GET …/media/r0/thumbnail/{server}/{id}", "where the operator opens it"),
    ("GET …/media/v1/thumbnail/{server}/{id}", "where the operator opens it"),
    ("GET …/media/v3/thumbnail/{server}/{id}", "where the operator opens it"),
    ("GET …/_synapse/admin/v1/register", "a nonce; off without a shared secret"),
    ("POST …/_synapse/admin/v1/register", "proves itself by the shared secret"),
    ("GET …/health", "for the supervisor"),
    ("GET …/metrics", "for this machine alone, unless a listener names them"),
];

/// What is open below a path as a whole, and why.
pub(crate) const OPEN_BELOW: &[(&str, &str)] = &[
    ("/account/", "pages for a browser, which prove themselves by a cookie and a form's own secret"),
    ("/oauth2/", "OAuth 2.0, which proves itself by client, code and token"),
    ("/_matrix/static/", "the log-in page itself"),
];

/// What names somebody else's room or account and yet answers a stranger with success, and why that tells nothing.
const OPEN_TO_STRANGERS: &[(&str, &str)] = &[
    ("GET …/profile/{user_id}", "profiles are seen by all"),
    ("GET …/profile/{user_id}/{field}", "profiles are seen by all"),
    ("POST …/users/{user_id}/report", "anyone may report anyone"),
    ("POST …/rooms/{room_id}/report", "takes a report, and tells nothing of the room"),
    ("POST …/rooms/{room_id}/forget", "forgets what was never known"),
    ("GET …/room_keys/keys/{room_id}", "the stranger's own backup"),
    ("PUT …/room_keys/keys/{room_id}", "the stranger's own backup"),
    ("DELETE …/room_keys/keys/{room_id}", "the stranger's own backup"),
    ("GET …/room_keys/keys/{room_id}/{session_id}", "the stranger's own backup"),
    ("PUT …/room_keys/keys/{room_id}/{session_id}", "the stranger's own backup"),
    ("DELETE …/room_keys/keys/{room_id}/{session_id}", "the stranger's own backup"),
    ("GET …/directory/list/room/{room_id}", "whether a room is in the public list is public"),
    ("POST …/keys/upload/{device_id}", "the stranger's own keys: the device is the token's, whatever the path says"),
];

pub(crate) fn is_named(list: &[(&str, &str)], endpoint: &Endpoint) -> bool {
    list.iter().any(|(name, _reason)| {
        let (method, end) = name.split_once(" …").unwrap();
        endpoint.method == method && endpoint.path.ends_with(end)
    })
}

/// A private room, those who are in it, and those who are not.
pub(crate) struct House {
    pub(crate) server: Server,
    peer: Peer,
    samples: BTreeMap<String, Value>,
    places: BTreeMap<&'static str, String>,
    pub(crate) owner: String,
    pub(crate) home: Home,
}

pub(crate) const PASSWORD: &str = "a long password";

impl House {
    pub(crate) fn open() -> Self {
        Self::open_with(json!({}))
    }

    /// As [`House::open`], with more in the configuration.
    pub(crate) fn open_with(extra: Value) -> Self {
        let home = Home::new();
        let peer = Peer::start(&home);
        let mut configuration = json!({"federation": peer.federation()});
        configuration.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
        home.configure(configuration);
        let server = home.start();
        let owner = server.register("owner", PASSWORD);
        let room = server.create_room(&owner);
        let message = json!({"msgtype": "m.text", "body": "the-first-word"});
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message", escape(&room));
        let event = server.post(&path, Some(&owner), &message).json()["event_id"].as_str().unwrap().to_owned();
        let who = server.get("/_matrix/client/v3/account/whoami", Some(&owner)).json();
        let sync = server.get("/_matrix/client/v3/sync?timeout=0", Some(&owner)).json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let places = BTreeMap::from([
            ("$room", room),
            ("$event", event),
            ("$me", "@owner:matron.test".to_owned()),
            ("$other", "@owner:matron.test".to_owned()),
            ("$device", text(&who["device_id"])),
            ("$since", text(&sync["next_batch"])),
        ]);
        let mut samples = include_str!("malformed/samples.json").to_owned();
        for (name, value) in &places {
            samples = samples.replace(name, value);
        }
        Self { server, peer, samples: serde_json::from_str(&samples).unwrap(), places, owner, home }
    }

    fn join(&self, name: &str) -> String {
        let token = self.server.register(name, PASSWORD);
        let room = escape(&self.places["$room"]);
        let invite = json!({"user_id": format!("@{name}:matron.test")});
        self.server.post(&format!("/_matrix/client/v3/rooms/{room}/invite"), Some(&self.owner), &invite);
        let joined = self.server.post(&format!("/_matrix/client/v3/join/{room}"), Some(&token), &json!({}));
        assert_eq!(joined.status, 200, "{}", joined.body);
        token
    }

    fn owner_does(&self, path: &str, body: &Value) -> Value {
        let path = format!("/_matrix/client/v3/rooms/{}/{path}", escape(&self.places["$room"]));
        let done = self.server.post(&path, Some(&self.owner), body);
        assert_eq!(done.status, 200, "{}", done.body);
        done.json()
    }

    /// A good request to the endpoint, about the owner and the owner's room.
    pub(crate) fn good_request(&self, endpoint: &Endpoint, authorization: Option<&str>) -> Vec<u8> {
        let (target, body) = self.target(endpoint);
        let body = body.map(|body| body.to_string().into_bytes());
        request(endpoint.method, &target, authorization, body.as_deref())
    }

    fn target(&self, endpoint: &Endpoint) -> (String, Option<Value>) {
        let part = |name: &str| match name {
            "room_id" | "room" | "room_id_or_alias" => escape(&self.places["$room"]),
            "event_id" | "event" => escape(&self.places["$event"]),
            "user_id" | "user" => escape("@owner:matron.test"),
            "device_id" => self.places["$device"].clone(),
            "server" | "server_name" => "matron.test".to_owned(),
            "room_alias" => "%23none%3Amatron.test".to_owned(),
            "scope" => "global".to_owned(),
            "kind" if endpoint.path.contains("/pushrules/") => "content".to_owned(),
            "event_type" => "m.room.name".to_owned(),
            "receipt_type" => "m.read".to_owned(),
            "field" => "displayname".to_owned(),
            "version" | "filter_id" => "0".to_owned(),
            _ => "x".to_owned(),
        };
        let mut target = String::new();
        for (index, piece) in endpoint.path.split('{').enumerate() {
            match piece.split_once('}').filter(|_| index > 0) {
                Some((name, rest)) => target = format!("{target}{}{rest}", part(name)),
                None => target.push_str(piece),
            }
        }
        let sample = self.sample(endpoint.method, &endpoint.path);
        let query = sample["query"].as_object().cloned().unwrap_or_default();
        let query: Vec<String> =
            query.iter().map(|(name, value)| format!("{name}={}", escape(value.as_str().unwrap()))).collect();
        if !query.is_empty() {
            target = format!("{target}?{}", query.join("&"));
        }
        let body = sample.get("body").cloned().or_else(|| (endpoint.method != "GET").then(|| json!({})));
        (target, body)
    }

    fn sample(&self, method: &str, path: &str) -> Value {
        let mut rest = path.trim_start_matches("/_matrix/").trim_start_matches("/_matron/");
        while let Some((_, tail)) = rest.split_once('/') {
            if let Some(sample) = self.samples.get(&format!("{method} /{tail}")) {
                return sample.clone();
            }
            rest = tail;
        }
        Value::Null
    }
}

/// Whether the endpoint is reached by another server's signature.
pub(crate) fn is_signed(endpoint: &Endpoint) -> bool {
    let is_of_servers = ["/_matrix/federation/", "/_matrix/policy/"].iter().any(|part| endpoint.path.starts_with(part));
    is_of_servers && !is_named(OPEN_TO_ALL, endpoint)
}

pub(crate) fn refused(answer: &Answer, status: u16, errcodes: &[&str]) -> bool {
    answer.status == status && answer.json()["errcode"].as_str().is_some_and(|errcode| errcodes.contains(&errcode))
}

pub(crate) fn shown(endpoint: &Endpoint, who: &str, answer: &Answer) -> String {
    format!("{} for {who}: {} {}", endpoint.name(), answer.status, String::from_utf8_lossy(&answer.body))
}

#[test]
fn every_endpoint_refuses_whoever_proves_nothing() {
    assert!(UNTRIED.is_empty());
    let house = House::open();
    let mut wire = Wire::new(&house.server.address);
    let mut wrong = Vec::new();
    for endpoint in endpoints() {
        let is_below = OPEN_BELOW.iter().any(|(path, _)| endpoint.path.starts_with(path));
        if is_below || is_named(OPEN_TO_ALL, &endpoint) {
            continue;
        }
        let callers = [
            ("nobody", None),
            (
                "somebody with a made-up token",
                Some("Bearer mat_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned()),
            ),
            ("somebody with a password", Some("Basic b3duZXI6YSBsb25nIHBhc3N3b3Jk".to_owned())),
            ("a client's token", Some(format!("Bearer {}", house.owner))),
            ("a wrong signature", Some(wrong_signature())),
        ];
        for (who, authorization) in callers {
            if who == "a client's token" && !is_signed(&endpoint) {
                continue;
            }
            let answer = wire.exchange(&house.good_request(&endpoint, authorization.as_deref())).unwrap();
            let expected: &[&str] = match is_signed(&endpoint) {
                true => &["M_UNAUTHORIZED"],
                false => &["M_MISSING_TOKEN", "M_UNKNOWN_TOKEN"],
            };
            if !refused(&answer, 401, expected) {
                wrong.push(shown(&endpoint, who, &answer));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn wrong_signature() -> String {
    format!("X-Matrix origin=\"peer.test\",destination=\"matron.test\",key=\"ed25519:p\",sig=\"{}\"", "A".repeat(86))
}

#[test]
fn a_token_in_the_query_proves_nothing_unless_the_operator_wants_it() {
    let house = House::open();
    let path = format!("/_matrix/client/v3/account/whoami?access_token={}", house.owner);
    assert_eq!(house.server.get(&path, None).status, 401);
}

#[test]
fn strangers_get_nothing_of_anothers_room_or_account() {
    let house = House::open();
    let stranger = house.server.register("stranger", PASSWORD);
    let bearer = format!("Bearer {stranger}");
    let mut wire = Wire::new(&house.server.address);
    let mut wrong = Vec::new();
    for endpoint in endpoints() {
        let is_anothers = ["{room_id", "{user_id", "{room_alias}", "{device_id}", "/admin/", "/_matron/"]
            .iter()
            .any(|part| endpoint.path.contains(part));
        if is_signed(&endpoint) || endpoint.path.contains("/_synapse/admin/v1/register") {
            continue;
        }
        // What ends the stranger's own session is no question of authority over others.
        if endpoint.path.contains("/logout") {
            continue;
        }
        let answer = wire.exchange(&house.good_request(&endpoint, Some(&bearer))).unwrap();
        if String::from_utf8_lossy(&answer.body).contains("the-first-word") {
            wrong.push(shown(&endpoint, "a stranger, who reads a message", &answer));
        }
        let is_refused = matches!(answer.status, 400 | 403 | 404) || answer.status == 405;
        if is_anothers && !is_refused && !is_named(OPEN_TO_STRANGERS, &endpoint) {
            wrong.push(shown(&endpoint, "a stranger", &answer));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(house.server.get("/_matrix/client/v3/account/whoami", Some(&house.owner)).status, 200);
}

#[test]
fn a_server_outside_the_room_gets_nothing_of_it() {
    let house = House::open();
    let mut wire = Wire::new(&house.server.address);
    let mut wrong = Vec::new();
    for endpoint in endpoints().iter().filter(|endpoint| is_signed(endpoint)) {
        let (target, body) = house.target(endpoint);
        let authorization = house.peer.authorization(endpoint.method, &target, body.as_ref());
        let body = body.map(|body| body.to_string().into_bytes());
        let bytes = request(endpoint.method, &target, Some(&authorization), body.as_deref());
        let answer = wire.exchange(&bytes).unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let is_of_a_room = ["{room}", "{event}"].iter().any(|part| endpoint.path.contains(part));
        if text.contains("the-first-word") || text.contains("m.room.power_levels") {
            wrong.push(shown(endpoint, "a server that reads a room", &answer));
        }
        if answer.status == 401 || (is_of_a_room && !matches!(answer.status, 400 | 403 | 404)) {
            wrong.push(shown(endpoint, "a server outside the room", &answer));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn whoever_left_or_was_banned_reads_nothing_that_came_later() {
    let house = House::open();
    let mut gone = Vec::new();
    for (name, how) in [("leaver", "kick"), ("banned", "ban")] {
        let token = house.join(name);
        house.owner_does(how, &json!({"user_id": format!("@{name}:matron.test")}));
        gone.push((name, token));
    }
    let never = house.server.register("invitee", PASSWORD);
    house.owner_does("invite", &json!({"user_id": "@invitee:matron.test"}));
    gone.push(("invitee", never));
    let mut house = house;
    let later = house.owner_does("send/m.room.message", &json!({"msgtype": "m.text", "body": "said-among-ourselves"}));
    let name = json!({"name": "said-among-ourselves"});
    let path = format!("/_matrix/client/v3/rooms/{}/state/x.ward", escape(&house.places["$room"]));
    assert_eq!(house.server.put(&path, Some(&house.owner), &name).status, 200);
    house.places.insert("$event", later["event_id"].as_str().unwrap().to_owned());
    let mut wire = Wire::new(&house.server.address);
    let mut wrong = Vec::new();
    for (name, token) in &gone {
        let bearer = format!("Bearer {token}");
        for endpoint in endpoints() {
            let changes_sides = ["/logout", "/join"].iter().any(|part| endpoint.path.contains(part));
            if is_signed(&endpoint) || (changes_sides && endpoint.method == "POST") {
                continue;
            }
            let answer = wire.exchange(&house.good_request(&endpoint, Some(&bearer))).unwrap();
            if String::from_utf8_lossy(&answer.body).contains("said-among-ourselves") {
                wrong.push(shown(&endpoint, name, &answer));
            }
        }
        // Nor did any of the requests make a member of the one who asked.
        let rooms = house.server.get("/_matrix/client/v3/joined_rooms", Some(token)).body;
        assert!(!rooms.contains(&house.places["$room"]), "{name}: {rooms}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
