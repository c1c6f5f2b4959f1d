//! A stand-in homeserver: the wire shapes that the application service uses, in memory, on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use matron_appservice::client::{KeysClaimResponse, KeysQueryResponse, SyncResponse};
use matron_appservice::crypto::{Decrypted, Machine, RoomEncryption, ToDeviceRequest};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) const AS_TOKEN: &str = "as-token-as-token-as-token";
pub(crate) const HS_TOKEN: &str = "hs-token-hs-token-hs-token";
type DeviceId = (String, String);

#[derive(Default)]
pub(crate) struct Room {
    pub(crate) state: BTreeMap<(String, String), Value>,
    pub(crate) members: BTreeMap<String, String>,
    pub(crate) timeline: Vec<Value>,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) rooms: BTreeMap<String, Room>,
    pub(crate) tokens: BTreeMap<String, DeviceId>,
    pub(crate) device_keys: BTreeMap<String, BTreeMap<String, Value>>,
    one_time: BTreeMap<DeviceId, Vec<(String, Value)>>,
    fallback: BTreeMap<DeviceId, (String, Value)>,
    inbox: BTreeMap<DeviceId, Vec<Value>>,
    txns: BTreeMap<(String, String), String>,
    pub(crate) due: Vec<Value>,
    pub(crate) redactions: Vec<(String, String)>,
    pub(crate) cross_signed: Vec<String>,
    /// Room sends answer 503 while set.
    pub(crate) refuses_sends: bool,
    pub(crate) refused_sends: usize,
    position: u64,
    changed_devices: BTreeMap<u64, String>,
    events: u64,
}

#[derive(Clone)]
pub(crate) struct Homeserver {
    world: Arc<Mutex<World>>,
    version: Arc<watch::Sender<u64>>,
}

type Answer = Result<Value, (StatusCode, &'static str)>;

impl Homeserver {
    pub(crate) fn new() -> Self {
        Self { world: Arc::default(), version: Arc::new(watch::channel(0).0) }
    }

    pub(crate) async fn listen(&self, address: SocketAddr) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let bound = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        bound
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let result = act(&mut self.world.lock().unwrap());
        self.version.send_modify(|version| *version += 1);
        result
    }

    /// Ends with what `find` finds, as soon as it does.
    pub(crate) async fn until<T>(&self, what: &str, find: impl Fn(&World) -> Option<T>) -> T {
        let mut version = self.version.subscribe();
        let found = async {
            loop {
                if let Some(found) = find(&self.world.lock().unwrap()) {
                    return found;
                }
                version.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), found).await.unwrap_or_else(|_| panic!("nobody saw: {what}"))
    }

    /// A clinician with a published device, joined to nothing.
    pub(crate) fn clinician(&self, user_id: &str) -> Clinician {
        let mut machine = Machine::new(user_id, "PHONE");
        machine.refill_keys(0, true);
        let (_, body) = machine.keys_to_upload().unwrap().unwrap();
        self.with(|world| world.upload((user_id.to_owned(), "PHONE".to_owned()), &body));
        machine.mark_uploaded();
        Clinician { homeserver: self.clone(), machine, user_id: user_id.to_owned() }
    }

    pub(crate) fn join(&self, room_id: &str, user_id: &str) {
        self.with(|world| {
            let room = world.rooms.get_mut(room_id).unwrap();
            room.members.insert(user_id.to_owned(), "join".to_owned());
        });
    }
}

pub(crate) struct Clinician {
    homeserver: Homeserver,
    machine: Machine,
    user_id: String,
}

impl Clinician {
    fn sync(&mut self) {
        let id = (self.user_id.clone(), "PHONE".to_owned());
        let mut sync = SyncResponse::default();
        sync.to_device.events = self.homeserver.with(|world| world.inbox.remove(&id).unwrap_or_default());
        sync.device_one_time_keys_count.insert("signed_curve25519".to_owned(), 50);
        self.machine.receive_sync(&sync, 1);
        self.query(&[]);
    }

    fn query(&mut self, users: &[String]) {
        let asked = self.machine.users_to_query(users);
        let answer = self.homeserver.with(|world| world.query(asked.iter().map(String::as_str)));
        let answer: KeysQueryResponse = serde_json::from_value(answer).unwrap();
        self.machine.receive_keys_query(&asked, &answer, 1);
    }

    /// The content of an encrypted event, as this person's device reads it.
    pub(crate) fn read(&mut self, room_id: &str, event: &Value) -> Option<Value> {
        assert_eq!(event["type"], "m.room.encrypted", "it went out in the open");
        self.sync();
        match self.machine.decrypt(room_id, event) {
            Decrypted::Event { content, .. } => Some(content),
            Decrypted::MissingKey | Decrypted::Refused => None,
        }
    }

    /// Says something encrypted; gives the event as the homeserver would push it.
    pub(crate) fn say(&mut self, room_id: &str, body: &str) -> Value {
        self.sync();
        let members: Vec<String> = self.homeserver.with(|world| {
            let members = &world.rooms[room_id].members;
            members.iter().filter(|(_, m)| *m == "join").map(|(user, _)| user.clone()).collect()
        });
        self.query(&members);
        let wanted = self.machine.devices_to_claim(&members, 1);
        let claimed = self.homeserver.with(|world| world.claim(&json!(wanted)));
        let claimed: KeysClaimResponse = serde_json::from_value(claimed).unwrap();
        self.machine.receive_keys_claim(&wanted, &claimed, 1);
        let encryption = RoomEncryption::from_content(&Value::Null);
        for request in self.machine.share_room_key(room_id, &members, &encryption, 1).unwrap() {
            let messages = json!(request.messages);
            self.homeserver.with(|world| {
                world.queue(&self.user_id, ToDeviceRequest::EVENT_TYPE, &messages);
            });
            self.machine.mark_shared(&request);
        }
        let content = json!({"msgtype": "m.text", "body": body});
        let content = self.machine.encrypt(room_id, "m.room.message", &content).unwrap();
        let user_id = self.user_id.clone();
        self.homeserver.with(|world| world.append(room_id, "m.room.encrypted", &user_id, content))
    }
}

impl World {
    fn next(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    fn append(&mut self, room_id: &str, event_type: &str, sender: &str, content: Value) -> Value {
        let event_id = format!("$event{}", self.next());
        let event = json!({
            "type": event_type, "room_id": room_id, "sender": sender,
            "event_id": event_id, "content": content,
        });
        self.rooms.get_mut(room_id).unwrap().timeline.push(event.clone());
        event
    }

    fn upload(&mut self, id: DeviceId, body: &Value) -> u64 {
        if let Some(keys) = body.get("device_keys") {
            let of_user = self.device_keys.entry(id.0.clone()).or_default();
            of_user.insert(id.1.clone(), keys.clone());
            self.position += 1;
            self.changed_devices.insert(self.position, id.0.clone());
        }
        for (key_id, key) in body["one_time_keys"].as_object().into_iter().flatten() {
            let keys = self.one_time.entry(id.clone()).or_default();
            keys.push((key_id.clone(), key.clone()));
        }
        for (key_id, key) in body["fallback_keys"].as_object().into_iter().flatten() {
            self.fallback.insert(id.clone(), (key_id.clone(), key.clone()));
        }
        self.one_time.get(&id).map_or(0, |keys| keys.len() as u64)
    }

    fn query<'a>(&self, users: impl Iterator<Item = &'a str>) -> Value {
        let keys: BTreeMap<&str, Value> =
            users.map(|user| (user, json!(self.device_keys.get(user).cloned().unwrap_or_default()))).collect();
        json!({"device_keys": keys, "failures": {}})
    }

    fn claim(&mut self, wanted: &Value) -> Value {
        let mut out: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
        for (user, devices) in wanted.as_object().into_iter().flatten() {
            for device in devices.as_object().into_iter().flatten().map(|(device, _)| device) {
                let id = (user.clone(), device.clone());
                let key = self.one_time.get_mut(&id).and_then(Vec::pop);
                if let Some((key_id, key)) = key.or_else(|| self.fallback.get(&id).cloned()) {
                    let of_user = out.entry(user.clone()).or_default();
                    of_user.insert(device.clone(), json!({key_id: key}));
                }
            }
        }
        json!({"one_time_keys": out, "failures": {}})
    }

    fn queue(&mut self, sender: &str, event_type: &str, messages: &Value) {
        for (user, devices) in messages.as_object().into_iter().flatten() {
            for (device, content) in devices.as_object().into_iter().flatten() {
                let event = json!({"type": event_type, "sender": sender, "content": content});
                self.inbox.entry((user.clone(), device.clone())).or_default().push(event);
            }
        }
        self.position += 1;
    }

    fn sync(&mut self, id: &DeviceId, since: u64) -> Option<Value> {
        let events = self.inbox.remove(id).unwrap_or_default();
        let changed: Vec<String> = self.changed_devices.range(since + 1..).map(|(_, user)| user.clone()).collect();
        if events.is_empty() && changed.is_empty() && since != 0 {
            return None;
        }
        let left = self.one_time.get(id).map_or(0, Vec::len);
        Some(json!({
            "next_batch": self.position.max(1).to_string(),
            "to_device": {"events": events},
            "device_lists": {"changed": changed},
            "device_one_time_keys_count": {"signed_curve25519": left},
            "device_unused_fallback_key_types":
                if self.fallback.contains_key(id) { vec!["signed_curve25519"] } else { vec![] },
        }))
    }

    fn create_room(&mut self, user: &str, body: &Value) -> Value {
        let room_id = format!("!room{}", self.next());
        let mut room = Room::default();
        room.members.insert(user.to_owned(), "join".to_owned());
        for event in body["initial_state"].as_array().into_iter().flatten() {
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            room.state.insert((text("type"), text("state_key")), event["content"].clone());
        }
        room.state.insert(("body".to_owned(), String::new()), body.clone());
        self.rooms.insert(room_id.clone(), room);
        json!({"room_id": room_id})
    }

    fn send(&mut self, who: &DeviceId, room: &str, kind: &str, txn: &str, content: Value) -> Answer {
        if self.refuses_sends {
            self.refused_sends += 1;
            return Err((StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"));
        }
        let joined = self.rooms.get(room).and_then(|room| room.members.get(&who.0));
        if joined.map(String::as_str) != Some("join") {
            return Err((StatusCode::FORBIDDEN, "M_FORBIDDEN"));
        }
        let key = (format!("{}/{}", who.0, who.1), txn.to_owned());
        if let Some(event_id) = self.txns.get(&key) {
            return Ok(json!({"event_id": event_id}));
        }
        let event = self.append(room, kind, &who.0, content);
        let event_id = event["event_id"].as_str().unwrap().to_owned();
        self.txns.insert(key, event_id.clone());
        Ok(json!({"event_id": event_id}))
    }
}

async fn answer(State(homeserver): State<Homeserver>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 24).await.unwrap_or_else(|_| Bytes::new());
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let query: BTreeMap<String, String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), decode(value)))
        .collect();
    let path: Vec<String> = parts.uri.path().split('/').skip(2).map(decode).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let token = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let who = if token == AS_TOKEN {
        let user = query.get("user_id").cloned().unwrap_or_else(|| "@matron:north".to_owned());
        Some((user, String::new()))
    } else {
        homeserver.with(|world| world.tokens.get(token).cloned())
    };
    let answer = match who {
        None => Err((StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN")),
        Some(who) => match path.as_slice() {
            ["client", "v3", "sync"] => Ok(homeserver.sync(&who, query.get("since")).await),
            _ => homeserver.with(|world| route(world, &parts.method, &path, &who, body)),
        },
    };
    match answer {
        Ok(answer) => axum::Json(answer).into_response(),
        Err((status, errcode)) => (status, axum::Json(json!({"errcode": errcode, "error": "no"}))).into_response(),
    }
}

fn decode(raw: &str) -> String {
    percent_decode_str(raw).decode_utf8().unwrap().into_owned()
}

impl Homeserver {
    async fn sync(&self, who: &DeviceId, since: Option<&String>) -> Value {
        let since = since.and_then(|since| since.parse().ok()).unwrap_or_default();
        let mut version = self.version.subscribe();
        loop {
            if let Some(answer) = self.world.lock().unwrap().sync(who, since) {
                return answer;
            }
            let _changed = version.changed().await;
        }
    }
}

fn route(world: &mut World, method: &Method, path: &[&str], who: &DeviceId, body: Value) -> Answer {
    match (method.as_str(), path) {
        ("POST", ["client", "v3", "register"]) => {
            assert_eq!(body["type"], "m.login.application_service");
            Ok(json!({"user_id": format!("@{}:north", body["username"].as_str().unwrap())}))
        }
        ("POST", ["client", "v3", "login"]) => {
            assert_eq!(body["type"], "m.login.application_service");
            let user = body["identifier"]["user"].as_str().unwrap().to_owned();
            let device = body["device_id"].as_str().unwrap().to_owned();
            let token = format!("token-{device}");
            world.tokens.insert(token.clone(), (user.clone(), device.clone()));
            Ok(json!({"user_id": user, "device_id": device, "access_token": token}))
        }
        ("GET", ["client", "v3", "account", "whoami"]) => Ok(json!({"user_id": who.0})),
        ("GET", ["client", "v3", "capabilities"]) => {
            Ok(json!({"capabilities": {"m.room_versions": {"default": "12"}}}))
        }
        ("POST", ["client", "v3", "createRoom"]) => Ok(world.create_room(&who.0, &body)),
        ("POST", ["client", "v3", "keys", "device_signing", "upload"]) => {
            world.cross_signed.push(who.0.clone());
            Ok(json!({}))
        }
        ("POST", ["client", "v3", "keys", "upload"]) => {
            let count = world.upload(who.clone(), &body);
            Ok(json!({"one_time_key_counts": {"signed_curve25519": count}}))
        }
        ("POST", ["client", "v3", "keys", "query"]) => {
            let users = body["device_keys"].as_object().unwrap();
            Ok(world.query(users.keys().map(String::as_str)))
        }
        ("POST", ["client", "v3", "keys", "claim"]) => Ok(world.claim(&body["one_time_keys"])),
        ("PUT", ["client", "v3", "sendToDevice", kind, _txn]) => {
            world.queue(&who.0, kind, &body["messages"]);
            Ok(json!({}))
        }
        ("GET", ["v1", "retention", "due"]) => Ok(json!({"events": world.due})),
        ("GET", ["v1", "policy", "explain", "D-1"]) => {
            Ok(json!({"explanation": "Refused: the organisation is not in the register."}))
        }
        (_, ["client", "v3", "rooms", room, rest @ ..]) => room_route(world, method, room, rest, who, body),
        _ if path.contains(&"profile") || path.contains(&"signatures") => Ok(json!({})),
        _ => Err((StatusCode::NOT_FOUND, "M_NOT_FOUND")),
    }
}

fn room_route(world: &mut World, method: &Method, room_id: &str, rest: &[&str], who: &DeviceId, body: Value) -> Answer {
    let not_found = Err((StatusCode::NOT_FOUND, "M_NOT_FOUND"));
    let Some(room) = world.rooms.get_mut(room_id) else {
        return not_found;
    };
    match (method.as_str(), rest) {
        ("POST", ["invite"]) => {
            let user = body["user_id"].as_str().unwrap();
            if user.ends_with(":outside") {
                return Err((StatusCode::FORBIDDEN, "M_FORBIDDEN"));
            }
            room.members.insert(user.to_owned(), "invite".to_owned());
            Ok(json!({}))
        }
        ("POST", ["join"]) => {
            room.members.insert(who.0.clone(), "join".to_owned());
            Ok(json!({"room_id": room_id}))
        }
        ("GET", ["joined_members"]) => {
            let joined: BTreeMap<&String, Value> = room
                .members
                .iter()
                .filter(|(_, membership)| *membership == "join")
                .map(|(user, _)| (user, json!({})))
                .collect();
            Ok(json!({"joined": joined}))
        }
        ("GET", ["state", kind, key]) => {
            let key = ((*kind).to_owned(), (*key).to_owned());
            room.state.get(&key).cloned().map_or(not_found, Ok)
        }
        ("PUT", ["send", kind, txn]) => world.send(who, room_id, kind, txn, body),
        ("PUT", ["redact", event_id, txn]) => {
            world.redactions.push(((*event_id).to_owned(), (*txn).to_owned()));
            world.due.retain(|due| due["event_id"] != *event_id);
            Ok(json!({"event_id": "$redaction"}))
        }
        _ => not_found,
    }
}
