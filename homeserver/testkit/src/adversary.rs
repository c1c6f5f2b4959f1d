//! A server with a valid key that keeps no rule.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use matron_core::{
    federation::keys::record::unsigned_document,
    ports::{Clock as _, FederationRequest, PeerError, PeerResponse, http_method::Method},
};
use matron_room::{Pdu, RoomVersion, SigningKey, UncheckedPdu, auth_types_for};
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Value, json, value::RawValue};

use crate::{Draft, TestNet, TestServer, part, server::key_of};

/// What somebody asks the adversary.
#[derive(Clone, Debug)]
pub struct Question {
    /// The path, without the query, decoded.
    pub path: String,
    /// The query.
    pub query: String,
    /// The body.
    pub body: Value,
}

impl Question {
    /// Whether it goes to this endpoint of the Server-Server API, such as `state_ids`.
    #[must_use]
    pub fn is(&self, endpoint: &str) -> bool {
        self.path.split('/').nth(4) == Some(endpoint)
    }
}

/// What the adversary answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// 200 with this.
    Json(Value),
    /// 200 with these bytes.
    Bytes(Vec<u8>),
    /// Another status.
    Status(u16),
    /// Nothing, for as long as the asker waits.
    Stall,
    /// The connection is closed.
    Close,
}

type Script = Box<dyn FnMut(&Question) -> Reply + Send>;

/// A server that answers by a script, and sends whatever the test wants.
pub struct Adversary {
    name: OwnedServerName,
    key: SigningKey,
    net: Weak<TestNet>,
    script: Mutex<Script>,
    questions: Mutex<Vec<Question>>,
    next_txn: AtomicU64,
}

impl std::fmt::Debug for Adversary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Adversary({})", self.name)
    }
}

/// What the adversary learned of a room by joining it.
#[derive(Clone, Debug)]
pub struct Foothold {
    /// The room.
    pub room: OwnedRoomId,
    /// Its version.
    pub version: &'static RoomVersion,
    /// The adversary's user in it.
    pub user: OwnedUserId,
    /// The state, the adversary's own join included.
    pub state: Vec<Pdu>,
    /// The adversary's join: the end of the graph as it knows it.
    pub join: Pdu,
}

impl Adversary {
    pub(crate) fn new(net: &Arc<TestNet>, name: &str) -> Self {
        Self {
            name: name.try_into().unwrap(),
            key: key_of(name),
            net: Arc::downgrade(net),
            script: Mutex::new(Box::new(|_| Reply::Status(404))),
            questions: Mutex::default(),
            next_txn: AtomicU64::new(0),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServerName {
        &self.name
    }

    /// Its signing key.
    #[must_use]
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// From now on it answers so; questions for its keys are always answered rightly.
    pub fn answers(&self, script: impl FnMut(&Question) -> Reply + Send + 'static) {
        *self.script.lock() = Box::new(script);
    }

    /// What it was asked since this was called last.
    pub fn take_questions(&self) -> Vec<Question> {
        std::mem::take(&mut *self.questions.lock())
    }

    pub(crate) async fn answer(&self, request: FederationRequest) -> Result<PeerResponse, PeerError> {
        if request.path_and_query.starts_with("/_matrix/key/v2/server") {
            return respond(self.key_document().into(), request.max_bytes);
        }
        let (path, query) = request.path_and_query.split_once('?').unwrap_or((&request.path_and_query, ""));
        let question = Question {
            path: percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned(),
            query: query.to_owned(),
            body: request.body.unwrap_or_default(),
        };
        let reply = (self.script.lock())(&question);
        self.questions.lock().push(question);
        match reply {
            Reply::Json(answer) => respond(answer.to_string().into_bytes().into(), request.max_bytes),
            Reply::Bytes(bytes) => respond(bytes.into(), request.max_bytes),
            Reply::Status(status) => Err(PeerError::Status { status, body: json!({"errcode": "M_UNKNOWN"}) }),
            Reply::Stall => std::future::pending().await,
            Reply::Close => Err(PeerError::Connect("closed".to_owned())),
        }
    }

    fn key_document(&self) -> Vec<u8> {
        let valid_until_ts = self.net.upgrade().map_or(0, |net| net.clock().now_ms()) + 24 * 60 * 60 * 1000;
        let current = (self.key.key_id(), self.key.verify_key().to_base64());
        let mut document = unsigned_document(&self.name, current, &BTreeMap::new(), valid_until_ts);
        self.key.sign_json(&mut document, self.name.as_str()).unwrap();
        matron_room::canonical_json(&document).unwrap().into_bytes()
    }

    /// Makes a signed request: its status and its answer. Status 0: there was no answer.
    pub async fn ask(&self, server: &ServerName, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = FederationRequest {
            destination: server.to_owned(),
            method,
            path_and_query: path.to_owned(),
            body,
            signed: true,
            timeout: Duration::from_secs(60),
            max_bytes: usize::MAX,
        };
        let net = self.net.upgrade().expect("the network is gone");
        // It waits as long as it takes, whatever the patience of honest servers.
        match net.undergo(&self.name, &self.key, request).await {
            Ok(answer) => (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()),
            Err(PeerError::Status { status, body }) => (status, body),
            Err(_no_answer) => (0, Value::Null),
        }
    }

    /// Sends a transaction of its own.
    pub async fn transact(&self, server: &ServerName, pdus: Vec<Value>, edus: Vec<Value>) -> (u16, Value) {
        let txn = self.next_txn.fetch_add(1, Ordering::Relaxed);
        self.transact_as(server, &format!("a{txn}"), pdus, edus).await
    }

    /// Sends a transaction with this id.
    pub async fn transact_as(
        &self,
        server: &ServerName,
        txn: &str,
        pdus: Vec<Value>,
        edus: Vec<Value>,
    ) -> (u16, Value) {
        let body = json!({"origin": self.name, "origin_server_ts": 0, "pdus": pdus, "edus": edus});
        let path = format!("/_matrix/federation/v1/send/{}", part(txn));
        self.ask(server, Method::Put, &path, Some(body)).await
    }

    /// Sends these events; gives what was wrong with each by its id.
    ///
    /// # Panics
    /// If the transaction is not answered with 200.
    pub async fn push<'a>(&self, server: &TestServer, events: impl IntoIterator<Item = &'a Pdu>) -> Value {
        let pdus = events.into_iter().map(json_of).collect();
        let (status, answer) = self.transact(&server.name, pdus, Vec::new()).await;
        assert_eq!(status, 200, "{answer}");
        answer["pdus"].clone()
    }

    /// Joins a room as everyone does.
    ///
    /// # Panics
    /// If it is not let in.
    pub async fn join(&self, server: &TestServer, room: &RoomId, localpart: &str) -> Foothold {
        self.join_with(server, room, localpart, json!({})).await
    }

    /// As [`Adversary::join`], with more in the member event.
    ///
    /// # Panics
    /// If it is not let in.
    pub async fn join_with(&self, server: &TestServer, room: &RoomId, localpart: &str, more: Value) -> Foothold {
        let user = OwnedUserId::try_from(format!("@{localpart}:{}", self.name)).unwrap();
        let versions: String = RoomVersion::supported().iter().map(|one| format!("&ver={}", one.as_str())).collect();
        let (room_part, user_part) = (part(room.as_str()), part(user.as_str()));
        let path = format!("/_matrix/federation/v1/make_join/{room_part}/{user_part}?{}", &versions[1..]);
        let (status, template) = self.ask(&server.name, Method::Get, &path, None).await;
        assert_eq!(status, 200, "{template}");
        let version = RoomVersion::find(template["room_version"].as_str().unwrap()).unwrap();
        let ids =
            |field: &str| -> Vec<OwnedEventId> { serde_json::from_value(template["event"][field].clone()).unwrap() };
        let mut content = template["event"]["content"].clone();
        for (field, value) in more.as_object().into_iter().flatten() {
            content[field] = value.clone();
        }
        let join = Draft::new(version, room, &user, "m.room.member", content)
            .state_key(user.as_str())
            .after_ids(ids("prev_events"))
            .authorised_by(ids("auth_events"))
            .depth(template["event"]["depth"].as_u64().unwrap())
            .at_ms(self.net.upgrade().map_or(0, |net| net.clock().now_ms()))
            .seal(&self.key, &self.name);
        let path = format!("/_matrix/federation/v2/send_join/{room_part}/{}", part(join.event_id().as_str()));
        let (status, answer) = self.ask(&server.name, Method::Put, &path, Some(json_of(&join))).await;
        assert_eq!(status, 200, "{answer}");
        let mut state: Vec<Pdu> = answer["state"].as_array().unwrap().iter().map(|one| read(one, version)).collect();
        state.retain(|one| !one.is_state_of("m.room.member", user.as_str()));
        state.push(join.clone());
        Foothold { room: room.to_owned(), version, user, state, join }
    }
}

fn respond(body: Bytes, max_bytes: usize) -> Result<PeerResponse, PeerError> {
    if body.len() > max_bytes {
        return Err(PeerError::TooLarge);
    }
    let content_type = Some("application/json".to_owned());
    Ok(PeerResponse { status: 200, content_type, content_disposition: None, location: None, body })
}

/// The event as it goes over the wire.
pub(crate) fn json_of(event: &Pdu) -> Value {
    serde_json::from_str(event.json().get()).unwrap()
}

fn read(event: &Value, version: &'static RoomVersion) -> Pdu {
    let raw: Box<RawValue> = serde_json::value::to_raw_value(event).unwrap();
    UncheckedPdu::parse(&raw, version).unwrap().trust_own()
}

impl Foothold {
    /// The piece of state.
    ///
    /// # Panics
    /// If the room has none.
    #[must_use]
    pub fn state_of(&self, kind: &str, key: &str) -> &Pdu {
        self.state.iter().find(|event| event.is_state_of(kind, key)).expect("the room has this state")
    }

    /// What authorises such an event of this sender, by the state that is known.
    #[must_use]
    pub fn authority(&self, sender: &UserId, kind: &str, key: Option<&str>, content: &Value) -> Vec<OwnedEventId> {
        let content = serde_json::value::to_raw_value(content).unwrap();
        let types = auth_types_for(kind, sender.as_str(), key, &content, self.version);
        let hidden = self.version.has_hashed_room_id();
        types
            .iter()
            .filter(|(kind, _)| !(hidden && kind == "m.room.create"))
            .filter_map(|(kind, key)| self.state.iter().find(|event| event.is_state_of(kind, key)))
            .map(|event| event.event_id().to_owned())
            .collect()
    }

    /// A message of the adversary's user that keeps every rule, after its join.
    #[must_use]
    pub fn message(&self, text: &str) -> Draft {
        let authority = self.authority(&self.user, "m.room.message", None, &json!({}));
        Draft::message(self.version, &self.room, &self.user, text).after([&self.join]).authorised_by(authority)
    }

    /// State set by the adversary's user, after its join.
    #[must_use]
    pub fn state(&self, kind: &str, key: &str, content: Value) -> Draft {
        let authority = self.authority(&self.user, kind, Some(key), &content);
        Draft::new(self.version, &self.room, &self.user, kind, content)
            .state_key(key)
            .after([&self.join])
            .authorised_by(authority)
    }
}
