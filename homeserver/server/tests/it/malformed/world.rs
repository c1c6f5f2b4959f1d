//! Who tries the nonsense, and what must still work afterwards.

use std::sync::atomic::{AtomicU64, Ordering};

use matron_room::{RoomVersion, canonical_object, reference_hash};
use serde_json::{Value, json};

use super::{Draft, Sample};
use crate::{
    peer::{PEER, Peer},
    routes::Endpoint,
    support::{Home, Server},
    wire::{Answer, Wire, escape, request},
};

const PASSWORD: &str = "a long password";

/// A picture of one red pixel.
const PNG: &str = "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003\
    010100c9fe92ef0000000049454e44ae426082";

/// The servers and those who look whether all is well.
pub(super) struct World {
    server: Server,
    peer: Peer,
    keeper: String,
    counter: AtomicU64,
    _home: Home,
}

/// One who sends nonsense, with an operator's account and a fresh room for each endpoint.
pub(super) struct Caller<'a> {
    world: &'a World,
    name: String,
    wire: Wire,
    token: String,
    device: String,
    room: String,
    event: String,
    since: String,
    media: String,
    version: &'static str,
    /// The federation event that mutations start from; made when a federation endpoint is tried.
    pdu: Value,
}

impl World {
    pub(super) fn start(callers: usize) -> Self {
        let home = Home::new();
        let peer = Peer::start(&home);
        home.configure(json!({
            "federation": peer.federation(),
            "registration": {"mode": "open", "guests": true, "shared_secret": "a secret"},
            "unauthenticated_media": true,
            "url_previews": true,
            "peeking": true,
            "public_rooms_over_federation": true,
            "max_upload_bytes": 1_000_000,
        }));
        let server = home.start();
        let keeper = server.register("keeper", PASSWORD);
        server.register("other", PASSWORD);
        for number in 0..callers {
            let name = format!("amira{number}");
            let made = home.matron_with_input(&["user", "create", &name, "--admin"], &format!("{PASSWORD}\n"));
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        Self { server, peer, keeper, counter: AtomicU64::new(0), _home: home }
    }

    fn count(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// What the log and the server's health say after everything.
    pub(super) fn last_faults(&mut self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.server.get("/health", None).status != 200 {
            faults.push("the server is not healthy any more".to_owned());
        }
        self.server.stop();
        let log = self.server.rest_of_log();
        faults
            .extend(log.lines().filter(|line| line.contains("panicked") || line.contains("ERROR")).map(str::to_owned));
        faults
    }
}

impl<'a> Caller<'a> {
    pub(super) fn new(world: &'a World, number: usize) -> Self {
        let empty = String::new;
        let mut caller = Self {
            world,
            name: format!("amira{number}"),
            wire: Wire::new(&world.server.address),
            token: empty(),
            device: empty(),
            room: empty(),
            event: empty(),
            since: empty(),
            media: empty(),
            version: "12",
            pdu: Value::Null,
        };
        caller.log_in();
        caller.media = caller.upload();
        caller
    }

    fn user_id(&self) -> String {
        format!("@{}:matron.test", self.name)
    }

    fn log_in(&mut self) {
        let body = json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.name},
            "password": PASSWORD,
        });
        let reply = self.world.server.post("/_matrix/client/v3/login", None, &body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        let reply = reply.json();
        self.token = reply["access_token"].as_str().unwrap().to_owned();
        self.device = reply["device_id"].as_str().unwrap().to_owned();
    }

    fn upload(&mut self) -> String {
        let bearer = format!("Bearer {}", self.token);
        let png = hex::decode(PNG).unwrap();
        let bytes = request("POST", "/_matrix/media/v3/upload?filename=a.png", Some(&bearer), Some(&png));
        let answer = self.wire.exchange(&bytes).unwrap();
        let uri = answer.json()["content_uri"].as_str().unwrap().to_owned();
        uri.rsplit('/').next().unwrap().to_owned()
    }

    /// A room of its own with the keeper as creator, a message in it, and the caller able to set state.
    pub(super) fn prepare(&mut self) {
        let server = &self.world.server;
        if server.get("/_matrix/client/v3/account/whoami", Some(&self.token)).status != 200 {
            self.log_in();
        }
        self.version = ["12", "11", "10", "6"][usize::try_from(self.world.count() % 4).unwrap()];
        let mut levels = json!({ (self.user_id()): 50 });
        if self.version != "12" {
            levels["@keeper:matron.test"] = 100.into();
        }
        let made = server.post(
            "/_matrix/client/v3/createRoom",
            Some(&self.world.keeper),
            &json!({
                "preset": "public_chat",
                "room_version": self.version,
                "invite": [self.user_id()],
                "power_level_content_override": {"users": levels},
            }),
        );
        assert_eq!(made.status, 200, "{}", made.body);
        self.room = made.json()["room_id"].as_str().unwrap().to_owned();
        let room = escape(&self.room);
        let joined = server.post(&format!("/_matrix/client/v3/join/{room}"), Some(&self.token), &json!({}));
        assert_eq!(joined.status, 200, "{}", joined.body);
        let sent = server.post(
            &format!("/_matrix/client/v3/rooms/{room}/send/m.room.message"),
            Some(&self.token),
            &json!({"msgtype": "m.text", "body": "b"}),
        );
        assert_eq!(sent.status, 200, "{}", sent.body);
        self.event = sent.json()["event_id"].as_str().unwrap().to_owned();
        let since = server.get("/_matrix/client/v3/sync?timeout=0", Some(&self.token));
        // Why it fails, if it does, was said of the endpoint before.
        self.since = since.json()["next_batch"].as_str().unwrap_or_default().to_owned();
        self.pdu = Value::Null;
    }

    /// The sample with everything in it that exists in this caller's room.
    pub(super) fn fill(&mut self, sample: &Sample, endpoint: &Endpoint) -> Sample {
        let is_federation = is_signed(endpoint);
        if is_federation
            && self.pdu.is_null()
            && sample.body.as_ref().is_some_and(|body| body.to_string().contains("$pdu"))
        {
            self.pdu =
                if endpoint.path.contains("/send/") { self.peers_message() } else { self.peers_membership(endpoint) };
        }
        let query = sample.query.iter().map(|(name, value)| (name.clone(), self.fill_text(value))).collect();
        Sample { query, body: sample.body.as_ref().map(|body| self.fill_value(body)) }
    }

    fn fill_text(&self, text: &str) -> String {
        text.replace("$room", &self.room)
            .replace("$event", &self.event)
            .replace("$me", &self.user_id())
            .replace("$other", "@other:matron.test")
            .replace("$device", &self.device)
            .replace("$since", &self.since)
    }

    fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) if text == "$pdu" => self.pdu.clone(),
            Value::String(text) => self.fill_text(text).into(),
            Value::Array(items) => items.iter().map(|item| self.fill_value(item)).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, field)| (self.fill_text(name), self.fill_value(field)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }

    fn part(&self, name: &str, path: &str) -> String {
        let rotate =
            |choices: &[&str]| choices[usize::try_from(self.world.count()).unwrap() % choices.len()].to_owned();
        match name {
            "room_id" | "room" | "room_id_or_alias" => escape(&self.room),
            "event_id" | "event" => escape(&self.event),
            "user_id" | "user" if path.contains("/make_") => escape(&format!("@q:{PEER}")),
            "user_id" | "user" if path.contains("/admin/") => escape("@other:matron.test"),
            "user_id" | "user" => escape(&self.user_id()),
            "device_id" => "NODEVICE".to_owned(),
            "field" => rotate(&["displayname", "avatar_url", "m.tz"]),
            "scope" => "global".to_owned(),
            "kind" if path.contains("/pushrules/") => rotate(&["content", "override", "room", "sender", "underride"]),
            "kind" => rotate(&["m.direct", "m.push_rules", "m.ignored_user_list", "m.fully_read", "x.y"]),
            "rule_id" => rotate(&["mine", ".m.rule.master", "%21a:b"]),
            "event_type" => rotate(&[
                "m.room.name",
                "m.room.message",
                "m.room.member",
                "m.room.power_levels",
                "m.room.join_rules",
                "m.room.canonical_alias",
                "m.room.history_visibility",
                "m.room.encryption",
                "m.room.server_acl",
                "m.space.child",
                "m.room.pinned_events",
                "m.room.retention",
                "org.matron.policy",
                "m.room.create",
                "m.room.tombstone",
                "m.room.guest_access",
                "m.room.third_party_invite",
                "m.reaction",
                "x.y",
            ]),
            "state_key" => rotate(&["x", "%40other%3Amatron.test", "%21a%3Ab"]),
            "rel_type" => "m.thread".to_owned(),
            "receipt_type" => rotate(&["m.read", "m.read.private", "m.fully_read"]),
            "server" => rotate(&["matron.test", "matron.test", "matron.test", PEER]),
            "server_name" => rotate(&["matron.test", PEER]),
            "id" => self.media.clone(),
            "room_alias" => "%23a%3Amatron.test".to_owned(),
            "version" => "1".to_owned(),
            "txn_id" => format!("t{}", self.world.count()),
            _ => "x".to_owned(),
        }
    }

    /// Sends the request; gives what is wrong with its answer.
    pub(super) fn attempt(&mut self, endpoint: &Endpoint, draft: &Draft) -> Option<String> {
        let is_federation = is_signed(endpoint);
        let mut body = draft.body.clone();
        let mut event_id = None;
        if is_federation
            && let Some(text) = &body
            && let Ok(mut value) = serde_json::from_slice::<Value>(text)
        {
            event_id = self.sign_events(&mut value, &endpoint.path);
            body = Some(value.to_string().into_bytes());
        }
        let mut target = String::new();
        for (index, piece) in endpoint.path.split('{').enumerate() {
            match piece.split_once('}').filter(|_| index > 0) {
                Some((name, rest)) => {
                    let usual = || match (name, &event_id) {
                        ("event", Some(id)) => escape(id),
                        _ => self.part(name, &endpoint.path),
                    };
                    target.push_str(&draft.parts.get(name).cloned().unwrap_or_else(usual));
                    target.push_str(rest);
                }
                None => target.push_str(piece),
            }
        }
        if !draft.query.is_empty() {
            target.push('?');
            target.push_str(&draft.query);
        }
        let own = || {
            let content = body.as_deref().and_then(|body| serde_json::from_slice(body).ok());
            Some(match is_federation {
                true => self.world.peer.authorization(endpoint.method, &target, content.as_ref()),
                false => format!("Bearer {}", self.token),
            })
        };
        let authorization = draft.authorization.clone().unwrap_or_else(own);
        let bytes = request(endpoint.method, &target, authorization.as_deref(), body.as_deref());
        let said = match self.wire.exchange(&bytes) {
            Ok(answer) => {
                let fault = fault(&answer)?;
                format!("{fault}: {} {}", answer.status, String::from_utf8_lossy(&answer.body))
            }
            Err(error) => format!("no answer: {error}"),
        };
        let shown: String = String::from_utf8_lossy(&bytes).chars().take(3_000).collect();
        Some(format!("{}\n{said}\n{shown}", endpoint.name()))
    }

    /// The caller's room must be alive: its creator still writes in it and reads what it wrote.
    pub(super) fn check(&mut self, endpoint: &Endpoint) -> Option<String> {
        // Operators delete, block and empty rooms there, as asked.
        if endpoint.path.starts_with("/_synapse/admin/") {
            return None;
        }
        let server = &self.world.server;
        let room = escape(&self.room);
        let body = json!({"msgtype": "m.text", "body": "still here"});
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message");
        let sent = server.post(&path, Some(&self.world.keeper), &body);
        if sent.status != 200 {
            return Some(format!("{}: the room is stuck: {sent:?}", endpoint.name()));
        }
        let id = sent.json()["event_id"].clone();
        let page = format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=3");
        let page = server.get(&page, Some(&self.world.keeper));
        let filter = escape(&json!({"room": {"rooms": [&self.room]}}).to_string());
        let sync = server.get(&format!("/_matrix/client/v3/sync?timeout=0&filter={filter}"), Some(&self.world.keeper));
        let own = server.get("/_matrix/client/v3/sync?timeout=0", Some(&self.token));
        if own.status >= 500 {
            return Some(format!("{}: the one who asked cannot sync any more: {own:?}", endpoint.name()));
        }
        let has = |text: &str| text.contains(id.as_str().unwrap());
        (!has(&page.body) || !has(&sync.body))
            .then(|| format!("{}: the room is not read any more: {page:?} {sync:?}", endpoint.name()))
    }

    fn peer_request(&mut self, method: &str, target: &str, body: Option<&Value>) -> Value {
        let authorization = self.world.peer.authorization(method, target, body);
        let body = body.map(|body| body.to_string().into_bytes());
        let answer = self.wire.exchange(&request(method, target, Some(&authorization), body.as_deref())).unwrap();
        assert_eq!(answer.status, 200, "{target}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// The template of a membership event of a user of the peer.
    fn peers_membership(&mut self, endpoint: &Endpoint) -> Value {
        let room = escape(&self.room);
        let user = escape(&format!("@q:{PEER}"));
        let target = format!("/_matrix/federation/v1/make_join/{room}/{user}?ver={}", self.version);
        let mut event = self.peer_request("GET", &target, None)["event"].take();
        event["origin_server_ts"] = 1_700_000_000_000_u64.into();
        if endpoint.path.contains("/invite/") {
            event["content"] = json!({"membership": "invite"});
            event["state_key"] = "@other:matron.test".into();
        } else if endpoint.path.contains("knock") {
            event["content"] = json!({"membership": "knock"});
        } else if endpoint.path.contains("leave") {
            event["content"] = json!({"membership": "leave"});
        }
        event
    }

    /// A message of a user of the peer who has joined.
    fn peers_message(&mut self) -> Value {
        let room = escape(&self.room);
        let user = format!("@p:{PEER}");
        let target = format!("/_matrix/federation/v1/make_join/{room}/{}?ver={}", escape(&user), self.version);
        let mut event = self.peer_request("GET", &target, None)["event"].take();
        event["origin_server_ts"] = 1_700_000_000_000_u64.into();
        let event = self.world.peer.sign_event(&event, self.room_version());
        let id = self.id_of(&event).unwrap();
        let target = format!("/_matrix/federation/v2/send_join/{room}/{}", escape(&id));
        self.peer_request("PUT", &target, Some(&event));
        let mut auth_events = event["auth_events"].as_array().unwrap().clone();
        auth_events.push(id.clone().into());
        json!({
            "room_id": self.room,
            "sender": user,
            "type": "m.room.message",
            "content": {"msgtype": "m.text", "body": "from the peer", "m.relates_to": {"rel_type": "m.thread", "event_id": self.event}},
            "prev_events": [id],
            "auth_events": auth_events,
            "depth": event["depth"].as_u64().unwrap() + 1,
            "origin_server_ts": 1_700_000_000_001_u64,
            "unsigned": {"age": 1},
        })
    }

    fn room_version(&self) -> &'static RoomVersion {
        RoomVersion::find(self.version).unwrap()
    }

    fn id_of(&self, event: &Value) -> Option<String> {
        let object = canonical_object(event).ok()?;
        reference_hash(&object, self.room_version()).ok().map(|hash| format!("${hash}"))
    }

    /// The events in the body are signed; the id of the body's own event.
    fn sign_events(&self, body: &mut Value, path: &str) -> Option<String> {
        let version = self.room_version();
        let event = if path.contains("/send/") {
            for event in body.get_mut("pdus")?.as_array_mut()? {
                *event = self.world.peer.sign_event(event, version);
            }
            return None;
        } else if path.contains("/v2/invite/") {
            body.get_mut("event")?
        } else {
            body
        };
        *event = self.world.peer.sign_event(event, version);
        self.id_of(event)
    }
}

/// Whether another server asks, with its signature.
fn is_signed(endpoint: &Endpoint) -> bool {
    ["/_matrix/federation/", "/_matrix/policy/"].iter().any(|part| endpoint.path.starts_with(part))
}

fn fault(answer: &Answer) -> Option<&'static str> {
    // SPEC: v1.19 Client-Server API, content repository: 504 while an upload is awaited.
    let is_awaited = answer.status == 504 && answer.json()["errcode"] == "M_NOT_YET_UPLOADED";
    // A server that was named and is not there: a gateway's answer, with the reason in it.
    let sentence = answer.json()["error"].as_str().unwrap_or_default().to_owned();
    let is_elsewhere = answer.status == 502 && sentence.contains("server");
    answer.fault().filter(|_| !is_awaited && !is_elsewhere)
}
