//! Several servers in one process, each reached through its whole router: handshakes, and who may read what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body};
use futures_util::future::BoxFuture;
use http::Request;
use http_body_util::BodyExt as _;
use matron_core::{
    Core, Error, Parts, Settings,
    appservices::Registration,
    federation::keys::x_matrix::{SignedRequest, sign_request},
    ports::{
        Federation, FederationRequest, IdentityRequest, OutboundRequest, PeerError, PeerResponse, SystemClock,
        http_method::Method,
    },
    rooms::{create::CreateRoom, membership::JoinOptions, send::NewEvent},
};
use matron_room::{Membership, SigningKey};
use matron_storage::{EngineKind, KeyRing, MasterKey};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// The wires between the servers.
#[derive(Debug, Default)]
struct Wires {
    routers: Mutex<BTreeMap<OwnedServerName, Router>>,
    cut: Mutex<BTreeSet<OwnedServerName>>,
    /// What application services were told.
    told: Mutex<Vec<Value>>,
    /// Whether the identity server has taken its key back.
    key_is_revoked: std::sync::atomic::AtomicBool,
}

/// One server's end of the wires.
#[derive(Debug)]
struct End {
    wires: Arc<Wires>,
    name: OwnedServerName,
    key: Arc<SigningKey>,
}

impl Federation for End {
    fn request(&self, request: FederationRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async move {
            let is_cut = |name: &ServerName| self.wires.cut.lock().unwrap().contains(name);
            if is_cut(&self.name) || is_cut(&request.destination) {
                return Err(PeerError::Connect("the wire is cut".to_owned()));
            }
            let router = self.wires.routers.lock().unwrap().get(&request.destination).cloned();
            let router = router.ok_or_else(|| PeerError::Resolve("no such server".to_owned()))?;
            let method = match request.method {
                Method::Get => "GET",
                Method::Put => "PUT",
                Method::Post => "POST",
            };
            let signed = SignedRequest {
                method,
                uri: &request.path_and_query,
                origin: &self.name,
                destination: Some(&request.destination),
                content: request.body.as_ref(),
            };
            let mut builder = Request::builder().method(method).uri(&request.path_and_query);
            if request.signed {
                builder = builder.header("Authorization", sign_request(&signed, &self.key));
            }
            let body = request.body.as_ref().map(|body| body.to_string().into()).unwrap_or_else(Body::empty);
            let response = router.oneshot(builder.body(body).unwrap()).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            if !status.is_success() {
                let body = serde_json::from_slice(&body).unwrap_or_default();
                return Err(PeerError::Status { status: status.as_u16(), body });
            }
            Ok(PeerResponse {
                status: status.as_u16(),
                content_type: None,
                content_disposition: None,
                location: None,
                body,
            })
        })
    }

    fn outbound(&self, request: OutboundRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        let answer = request.trusted.then(|| PeerResponse {
            status: 200,
            content_type: None,
            content_disposition: None,
            location: None,
            body: "{}".into(),
        });
        self.wires.told.lock().unwrap().extend(request.body.filter(|_| request.trusted));
        Box::pin(async { answer.ok_or(PeerError::Timeout) })
    }

    fn identity(&self, request: IdentityRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async move {
            assert_eq!((request.server.as_str(), request.trusted), ("id.example", true));
            assert!(request.path_and_query.starts_with("/valid?public_key="), "{}", request.path_and_query);
            let is_valid = !self.wires.key_is_revoked.load(std::sync::atomic::Ordering::SeqCst);
            Ok(PeerResponse {
                status: 200,
                content_type: None,
                content_disposition: None,
                location: None,
                body: json!({"valid": is_valid}).to_string().into(),
            })
        })
    }

    fn heard_from(&self, _server: &ServerName) {}
}

/// A server, running.
struct Trust {
    core: Arc<Core>,
    end: End,
    _directory: tempfile::TempDir,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Trust {
    fn start(wires: &Arc<Wires>, name: &str, seed: u8, settings: Settings) -> Self {
        Self::start_with(wires, name, seed, settings, Vec::new())
    }

    fn start_with(
        wires: &Arc<Wires>,
        name: &str,
        seed: u8,
        settings: Settings,
        appservices: Vec<Registration>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name: OwnedServerName = name.try_into().unwrap();
        let key = Arc::new(SigningKey::from_seed("k", &[seed; 32]).unwrap());
        let end = || End { wires: Arc::clone(wires), name: name.clone(), key: Arc::clone(&key) };
        let core = Core::new(Parts {
            settings,
            server_name: name.clone(),
            store: matron_storage::open(EngineKind::Memory, directory.path()).unwrap(),
            keyring: Arc::new(
                KeyRing::open(&directory.path().join("ring"), MasterKey::from_bytes([seed; 32])).unwrap(),
            ),
            signing_key: Arc::clone(&key),
            clock: Arc::new(SystemClock),
            federation: Arc::new(end()),
            media_dir: directory.path().join("media"),
            appservices,
        })
        .unwrap();
        wires.routers.lock().unwrap().insert(name.clone(), crate::router(Arc::clone(&core)));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let workers = Arc::clone(&core);
        tokio::spawn(async move { workers.run_workers(stopped).await });
        Self { end: end(), core, _directory: directory, stop }
    }

    async fn user(&self, name: &str) -> OwnedUserId {
        self.core.create_user(name, None, false).await.unwrap()
    }

    async fn room(&self, creator: &UserId, preset: &str, version: &str, initial_state: Value) -> OwnedRoomId {
        let request: CreateRoom = serde_json::from_value(json!({
            "preset": preset, "room_version": version, "initial_state": initial_state,
        }))
        .unwrap();
        self.core.create_room(creator, request).await.unwrap()
    }

    async fn join(&self, user: &UserId, room: &RoomId, via: &Trust) -> Result<OwnedRoomId, Error> {
        let options = JoinOptions { via: vec![via.core.server_name.clone()], ..JoinOptions::default() };
        self.core.join_room(user, room, options).await
    }

    async fn say(&self, user: &UserId, room: &RoomId, text: &str) -> ruma::OwnedEventId {
        let content = json!({"msgtype": "m.text", "body": text});
        let new = NewEvent::message(room.to_owned(), user.to_owned(), "m.room.message", content);
        self.core.send_event(new).await.unwrap()
    }

    fn standing(&self, user: &UserId, room: &RoomId) -> Option<Membership> {
        self.core.standing(user, room).unwrap().map(|standing| standing.membership)
    }

    fn membership(&self, user: &UserId, room: &RoomId) -> Membership {
        let room = self.core.find_room(room).unwrap().unwrap();
        room.lock().membership(&self.core, user).unwrap()
    }

    fn has(&self, event: &ruma::EventId) -> bool {
        let event = self.core.load_event(event).unwrap();
        event.is_some_and(|event| event.is_shown(self.core.now_ms()))
    }

    /// What another server answers to this one.
    async fn ask(&self, other: &Trust, path: String) -> Result<Value, (u16, String)> {
        let request = FederationRequest {
            destination: other.core.server_name.clone(),
            method: Method::Get,
            path_and_query: path,
            body: None,
            signed: true,
            timeout: Duration::from_secs(5),
            max_bytes: 1 << 20,
        };
        match self.end.request(request).await {
            Ok(response) => Ok(serde_json::from_slice(&response.body).unwrap()),
            Err(PeerError::Status { status, body }) => {
                Err((status, body["errcode"].as_str().unwrap_or_default().to_owned()))
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Trust {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

fn open_settings() -> Settings {
    Settings { rate_limit: None, public_rooms_over_federation: true, ..Settings::default() }
}

fn two() -> (Arc<Wires>, Trust, Trust) {
    let wires = Arc::new(Wires::default());
    let north = Trust::start(&wires, "north.example", 1, open_settings());
    let south = Trust::start(&wires, "south.example", 2, open_settings());
    (wires, north, south)
}

/// Waits until the condition holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while !holds() {
            ticks.tick().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), waiting).await.is_ok(), "never: {what}");
}

fn shared() -> Value {
    json!([])
}

fn visibility(value: &str) -> Value {
    json!([{"type": "m.room.history_visibility", "content": {"history_visibility": value}}])
}

#[tokio::test]
async fn a_room_of_every_version_is_joined_and_both_sides_hear_each_other() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    for version in ["6", "7", "8", "9", "10", "11", "12"] {
        let room = north.room(&anna, "public_chat", version, shared()).await;
        south.join(&ben, &room, &north).await.unwrap();
        assert_eq!(north.membership(&ben, &room), Membership::Join, "version {version}");
        assert_eq!(south.membership(&anna, &room), Membership::Join, "version {version}");
        let one = north.say(&anna, &room, "from the north").await;
        let other = south.say(&ben, &room, "from the south").await;
        until("both have both", || south.has(&one) && north.has(&other)).await;
    }
}

#[tokio::test]
async fn old_versions_that_both_sides_allow_are_joined_and_their_events_named_as_each_demands() {
    let wires = Arc::new(Wires::default());
    let settings = || {
        let versions = (1..=12).map(|version| version.to_string()).collect();
        Settings { room_versions: versions, ..open_settings() }
    };
    let north = Trust::start(&wires, "north.example", 1, settings());
    let south = Trust::start(&wires, "south.example", 2, settings());
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let chosen = |id: &ruma::EventId, server: &str| id.as_str().ends_with(&format!(":{server}"));
    let is_hash = |id: &ruma::EventId, more: &str| {
        let hash = id.as_str().strip_prefix('$').unwrap();
        hash.len() == 43 && hash.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    for version in ["1", "2", "3", "4", "5"] {
        let room = north.room(&anna, "private_chat", version, shared()).await;
        north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
        south.join(&ben, &room, &north).await.unwrap();
        for number in 0..8 {
            let one = north.say(&anna, &room, &format!("from the north {number}")).await;
            let other = south.say(&ben, &room, &format!("from the south {number}")).await;
            match version {
                "1" | "2" => assert!(chosen(&one, "north.example") && chosen(&other, "south.example")),
                // A hash in the alphabet that has slashes, later in the one for addresses.
                "3" => assert!(is_hash(&one, "+/") && is_hash(&other, "+/")),
                _ => assert!(is_hash(&one, "-_") && is_hash(&other, "-_")),
            }
            until("both have both", || south.has(&one) && north.has(&other)).await;
            let path =
                format!("/_matrix/federation/v1/event/{}", other.as_str().replace('/', "%2F").replace('+', "%2B"));
            let given = north.ask(&south, path).await.unwrap();
            assert_eq!(given["pdus"][0].get("event_id").is_some(), matches!(version, "1" | "2"), "{version}");
        }
        south.core.leave_room(&ben, &room, None).await.unwrap();
        until("ben is gone", || north.membership(&ben, &room) == Membership::Leave).await;
    }
}

#[tokio::test]
async fn a_third_server_joins_through_the_second_and_the_first_hears_of_it() {
    let (wires, north, south) = two();
    let west = Trust::start(&wires, "west.example", 3, open_settings());
    let anna = north.user("anna").await;
    let (ben, cleo) = (south.user("ben").await, west.user("cleo").await);
    let room = north.room(&anna, "public_chat", "12", shared()).await;
    south.join(&ben, &room, &north).await.unwrap();
    west.join(&cleo, &room, &south).await.unwrap();
    until("the north knows cleo", || north.membership(&cleo, &room) == Membership::Join).await;
    let message = west.say(&cleo, &room, "good morning").await;
    until("both hear cleo", || north.has(&message) && south.has(&message)).await;
    south.core.leave_room(&ben, &room, None).await.unwrap();
    until("ben is gone", || north.membership(&ben, &room) == Membership::Leave).await;
    south.join(&ben, &room, &west).await.unwrap();
    until("ben is back", || north.membership(&ben, &room) == Membership::Join).await;
}

#[tokio::test]
async fn an_invite_crosses_and_is_accepted_refused_and_taken_back() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    for version in ["10", "12"] {
        let room = north.room(&anna, "private_chat", version, shared()).await;
        assert!(south.join(&ben, &room, &north).await.is_err(), "nobody comes uninvited");

        north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
        assert_eq!(south.standing(&ben, &room), Some(Membership::Invite));
        south.core.leave_room(&ben, &room, None).await.unwrap();
        assert_eq!(south.standing(&ben, &room), Some(Membership::Leave));
        assert_eq!(north.membership(&ben, &room), Membership::Leave);

        north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
        north.core.kick(&anna, &room, &ben, None).await.unwrap();
        until("the invite is gone", || south.standing(&ben, &room) == Some(Membership::Leave)).await;

        north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
        assert_eq!(south.standing(&ben, &room), Some(Membership::Invite));
        // No server is named: the inviter's is known.
        south.core.join_room(&ben, &room, JoinOptions::default()).await.unwrap();
        let message = south.say(&ben, &room, "thank you").await;
        until("the north hears ben", || north.has(&message)).await;
    }
}

#[tokio::test]
async fn an_application_service_hears_of_invites_to_rooms_that_its_server_is_not_in() {
    let wires = Arc::new(Wires::default());
    let north = Trust::start(&wires, "north.example", 1, open_settings());
    let registration = "{id: lab, url: 'https://lab.example', as_token: a, hs_token: h, sender_localpart: bot, \
                        namespaces: {users: [{exclusive: false, regex: '@lab_.*'}]}}";
    let services = vec![Registration::parse(registration).unwrap()];
    let south = Trust::start_with(&wires, "south.example", 2, open_settings(), services);
    let anna = north.user("anna").await;
    let (feed, ben) = (south.user("lab_feed").await, south.user("ben").await);
    let events = || -> Vec<Value> {
        let told = wires.told.lock().unwrap();
        told.iter().flat_map(|body| body["events"].as_array().unwrap().clone()).collect()
    };
    let room = north.room(&anna, "private_chat", "12", shared()).await;
    north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
    north.core.invite(&anna, &room, &feed, None, false).await.unwrap();
    until("the service is told", || !events().is_empty()).await;
    let invite = &events()[0];
    assert_eq!(
        (
            &invite["type"],
            &invite["state_key"],
            &invite["room_id"],
            &invite["sender"],
            &invite["content"]["membership"]
        ),
        (&json!("m.room.member"), &json!(feed), &json!(room), &json!(anna), &json!("invite")),
    );
    let shown = invite["unsigned"]["invite_room_state"].as_array().unwrap();
    assert!(shown.iter().any(|event| event["type"] == "m.room.create"), "{invite}");
    north.core.kick(&anna, &room, &feed, None).await.unwrap();
    until("the service is told that it was taken back", || events().len() > 1).await;
    let end = &events()[1];
    assert_eq!((&end["content"]["membership"], &end["sender"]), (&json!("leave"), &json!(anna)));
    assert!(end["unsigned"]["invite_room_state"].is_null(), "{end}");
    // Each once, and nothing of others.
    let next = north.room(&anna, "private_chat", "10", shared()).await;
    north.core.invite(&anna, &next, &feed, None, false).await.unwrap();
    until("the service is told again", || events().len() > 2).await;
    assert_eq!((events().len(), &events()[2]["room_id"]), (3, &json!(next)));
}

#[tokio::test]
async fn an_invite_of_a_server_that_is_gone_can_be_refused() {
    let (wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let room = north.room(&anna, "private_chat", "12", shared()).await;
    north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
    wires.cut.lock().unwrap().insert(north.core.server_name.clone());
    south.core.leave_room(&ben, &room, None).await.unwrap();
    assert_eq!(south.standing(&ben, &room), Some(Membership::Leave));
}

#[tokio::test]
async fn whoever_knocks_elsewhere_is_let_in_or_sent_away() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let (ben, bea) = (south.user("ben").await, south.user("bea").await);
    let knock = json!([{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]);
    let room = north.room(&anna, "private_chat", "11", knock).await;
    let via = || JoinOptions { via: vec![north.core.server_name.clone()], ..JoinOptions::default() };
    for user in [&ben, &bea] {
        south.core.knock(user, &room, via()).await.unwrap();
        assert_eq!(south.standing(user, &room), Some(Membership::Knock));
        assert_eq!(north.membership(user, &room), Membership::Knock);
    }
    north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
    assert_eq!(south.standing(&ben, &room), Some(Membership::Invite));
    north.core.kick(&anna, &room, &bea, None).await.unwrap();
    until("bea is sent away", || south.standing(&bea, &room) == Some(Membership::Leave)).await;
    south.core.join_room(&ben, &room, JoinOptions::default()).await.unwrap();
    assert_eq!(north.membership(&ben, &room), Membership::Join);
}

#[tokio::test]
async fn a_member_of_an_allowed_room_is_vouched_for_and_others_are_not() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let (ben, bea) = (south.user("ben").await, south.user("bea").await);
    let ward = north.room(&anna, "public_chat", "11", shared()).await;
    let rules = json!([
        {"type": "m.room.join_rules", "content": {
            "join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": ward}],
        }},
        {"type": "m.room.power_levels", "content": {"users": {&anna: 100}, "invite": 50}},
    ]);
    let room = north.room(&anna, "private_chat", "11", rules).await;
    south.join(&ben, &ward, &north).await.unwrap();
    let refused = south.join(&bea, &room, &north).await.unwrap_err();
    assert!(matches!(refused, Error::Forbidden(_)), "{refused:?}");
    south.join(&ben, &room, &north).await.unwrap();
    // The south is in the room now, but none of its users may invite: the north must vouch for bea too.
    south.join(&bea, &ward, &north).await.unwrap();
    until("the north knows bea", || north.membership(&bea, &ward) == Membership::Join).await;
    south.join(&bea, &room, &north).await.unwrap();
    assert_eq!(south.membership(&bea, &room), Membership::Join);
    assert_eq!(north.membership(&bea, &room), Membership::Join);
}

#[tokio::test]
async fn a_server_that_cannot_vouch_says_so_and_another_is_asked() {
    let (wires, north, south) = two();
    let west = Trust::start(&wires, "west.example", 3, open_settings());
    let east = Trust::start(&wires, "east.example", 4, open_settings());
    let anna = north.user("anna").await;
    let (ben, wim, eve) = (south.user("ben").await, west.user("wim").await, east.user("eve").await);
    let lobby = north.room(&anna, "public_chat", "11", shared()).await;
    let allow = json!([{"type": "m.room_membership", "room_id": lobby}]);
    let state = json!([
        {"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}},
        {"type": "m.room.power_levels", "content": {"users": {anna.as_str(): 100}, "invite": 50}},
    ]);
    let ward = north.room(&anna, "private_chat", "11", state).await;
    for (trust, user) in [(&west, &wim), (&east, &eve)] {
        trust.join(user, &lobby, &north).await.unwrap();
        trust.join(user, &ward, &north).await.unwrap();
    }
    west.core.leave_room(&wim, &lobby, None).await.unwrap();
    south.join(&ben, &lobby, &north).await.unwrap();
    until("the east knows that ben is in the lobby", || east.membership(&ben, &lobby) == Membership::Join).await;
    // The west does not know who is in the lobby; in the east nobody may invite.
    let make_join = format!("/_matrix/federation/v1/make_join/{ward}/{ben}?ver=11");
    let asked = async |other: &Trust| south.ask(other, make_join.clone()).await.unwrap_err();
    assert_eq!(asked(&west).await, (400, "M_UNABLE_TO_AUTHORISE_JOIN".to_owned()));
    assert_eq!(asked(&east).await, (400, "M_UNABLE_TO_GRANT_JOIN".to_owned()));
    let via = [&west, &east, &north].map(|trust| trust.core.server_name.clone()).to_vec();
    let options = JoinOptions { via, ..JoinOptions::default() };
    south.core.join_room(&ben, &ward, options).await.unwrap();
    assert_eq!(north.membership(&ben, &ward), Membership::Join);
    // Who is in none of the rooms is told so, without another to ask.
    let bea = south.user("bea").await;
    let make_join = format!("/_matrix/federation/v1/make_join/{ward}/{bea}?ver=11");
    assert_eq!(south.ask(&north, make_join).await.unwrap_err(), (403, "M_FORBIDDEN".to_owned()));
}

#[tokio::test]
async fn a_room_of_a_version_that_is_not_spoken_is_named_as_such() {
    let wires = Arc::new(Wires::default());
    let north = Trust::start(&wires, "north.example", 1, open_settings());
    let only_ten = Settings { room_versions: vec!["10".to_owned()], ..open_settings() };
    let south = Trust::start(&wires, "south.example", 2, only_ten);
    let (anna, ben) = (north.user("anna").await, south.user("ben").await);
    let room = north.room(&anna, "public_chat", "12", shared()).await;
    let refused = south.join(&ben, &room, &north).await.unwrap_err();
    assert!(matches!(&refused, Error::IncompatibleRoomVersion { room_version } if room_version == "12"), "{refused:?}");
    let refused = north.core.invite(&anna, &room, &ben, None, false).await.unwrap_err();
    assert!(matches!(&refused, Error::IncompatibleRoomVersion { room_version } if room_version == "12"), "{refused:?}");
}

#[tokio::test]
async fn a_server_outside_reads_nothing_of_a_room() {
    let (wires, north, south) = two();
    let west = Trust::start(&wires, "west.example", 3, open_settings());
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let private = north.room(&anna, "private_chat", "11", shared()).await;
    let secret = north.say(&anna, &private, "a secret").await;
    let public = north.room(&anna, "public_chat", "11", shared()).await;
    south.join(&ben, &public, &north).await.unwrap();
    let message = north.say(&anna, &public, "hello").await;

    let (room, event) = (private.as_str(), secret.as_str());
    let paths = [
        format!("/_matrix/federation/v1/event/{event}"),
        format!("/_matrix/federation/v1/event_auth/{room}/{event}"),
        format!("/_matrix/federation/v1/state/{room}?event_id={event}"),
        format!("/_matrix/federation/v1/state_ids/{room}?event_id={event}"),
        format!("/_matrix/federation/v1/backfill/{room}?v={event}&limit=10"),
        format!("/_matrix/federation/v1/timestamp_to_event/{room}?ts=0&dir=f"),
    ];
    for path in paths {
        for outsider in [&south, &west] {
            let refused = outsider.ask(&north, path.clone()).await.unwrap_err();
            assert_eq!(refused, (403, "M_FORBIDDEN".to_owned()), "{path}");
        }
    }
    let refused = west.ask(&north, format!("/_matrix/federation/v1/hierarchy/{room}")).await.unwrap_err();
    assert_eq!(refused, (404, "M_NOT_FOUND".to_owned()));

    // Being in one room opens no event of another.
    let public = public.as_str();
    for path in [
        format!("/_matrix/federation/v1/event_auth/{public}/{event}"),
        format!("/_matrix/federation/v1/state/{public}?event_id={event}"),
        format!("/_matrix/federation/v1/state_ids/{public}?event_id={event}"),
    ] {
        assert_eq!(south.ask(&north, path.clone()).await.unwrap_err(), (404, "M_NOT_FOUND".to_owned()), "{path}");
    }
    let across =
        south.ask(&north, format!("/_matrix/federation/v1/backfill/{public}?v={event}&limit=10")).await.unwrap();
    assert_eq!(across["pdus"], json!([]));
    let own = south.ask(&north, format!("/_matrix/federation/v1/event/{message}")).await.unwrap();
    assert_eq!(own["pdus"][0]["content"]["body"], "hello");
}

#[tokio::test]
async fn a_server_sees_skeletons_of_what_was_said_before_it_came_and_nothing_of_what_follows_its_leaving() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let room = north.room(&anna, "public_chat", "11", visibility("joined")).await;
    let before = north.say(&anna, &room, "before").await;
    south.join(&ben, &room, &north).await.unwrap();
    let during = north.say(&anna, &room, "during").await;
    until("the south hears", || south.has(&during)).await;
    south.core.leave_room(&ben, &room, None).await.unwrap();
    until("ben is gone", || north.membership(&ben, &room) == Membership::Leave).await;
    let after = north.say(&anna, &room, "after").await;

    let body = |answer: Value| answer["pdus"][0]["content"]["body"].clone();
    let event = |id: &ruma::EventId| format!("/_matrix/federation/v1/event/{id}");
    assert_eq!(body(south.ask(&north, event(&during)).await.unwrap()), "during");
    assert!(south.ask(&north, event(&after)).await.is_err());
    assert!(south.ask(&north, event(&before)).await.is_err(), "the south is not in the room");
    south.join(&ben, &room, &north).await.unwrap();
    assert_eq!(body(south.ask(&north, event(&before)).await.unwrap()), Value::Null);
    let all = south.ask(&north, format!("/_matrix/federation/v1/backfill/{room}?v={after}&limit=100")).await.unwrap();
    let bodies: Vec<&str> =
        all["pdus"].as_array().unwrap().iter().filter_map(|pdu| pdu["content"]["body"].as_str()).collect();
    assert_eq!(bodies, ["during"]);
}

#[tokio::test]
async fn state_and_its_authority_are_given_as_they_were_before_an_event() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let room = north.room(&anna, "public_chat", "11", shared()).await;
    south.join(&ben, &room, &north).await.unwrap();
    let message = north.say(&anna, &room, "hello").await;
    let state = south.ask(&north, format!("/_matrix/federation/v1/state/{room}?event_id={message}")).await.unwrap();
    let ids = south.ask(&north, format!("/_matrix/federation/v1/state_ids/{room}?event_id={message}")).await.unwrap();
    assert_eq!(state["pdus"].as_array().unwrap().len(), ids["pdu_ids"].as_array().unwrap().len());
    assert_eq!(state["auth_chain"].as_array().unwrap().len(), ids["auth_chain_ids"].as_array().unwrap().len());
    let kinds: BTreeSet<&str> =
        state["pdus"].as_array().unwrap().iter().filter_map(|pdu| pdu["type"].as_str()).collect();
    assert!(kinds.is_superset(&BTreeSet::from(["m.room.create", "m.room.member", "m.room.power_levels"])));
    let chain = south.ask(&north, format!("/_matrix/federation/v1/event_auth/{room}/{message}")).await.unwrap();
    assert!(chain["auth_chain"].as_array().unwrap().iter().any(|pdu| pdu["type"] == "m.room.create"));
}

#[tokio::test]
async fn a_server_that_the_access_control_list_keeps_out_is_refused_everywhere() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let acl = json!([{"type": "m.room.server_acl", "content": {"allow": ["*"], "deny": ["south.example"]}}]);
    let room = north.room(&anna, "public_chat", "11", acl).await;
    let message = north.say(&anna, &room, "hello").await;
    let refused = south.join(&ben, &room, &north).await.unwrap_err();
    assert!(matches!(refused, Error::Forbidden(_)), "{refused:?}");
    for path in [
        format!("/_matrix/federation/v1/make_leave/{room}/{ben}"),
        format!("/_matrix/federation/v1/event/{message}"),
        format!("/_matrix/federation/v1/backfill/{room}?v={message}"),
    ] {
        assert_eq!(south.ask(&north, path.clone()).await.unwrap_err(), (403, "M_FORBIDDEN".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_space_tells_another_server_of_the_rooms_that_its_users_could_enter() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let space = json!({"preset": "public_chat", "creation_content": {"type": "m.space"}});
    let space = north.core.create_room(&anna, serde_json::from_value(space).unwrap()).await.unwrap();
    let rules = |rule: &str| {
        let allow = json!([7, {"type": "m.room_membership", "room_id": space}]);
        json!([{"type": "m.room.join_rules", "content": {"join_rule": rule, "allow": allow}}])
    };
    let open = north.room(&anna, "public_chat", "11", rules("public")).await;
    let ward = north.room(&anna, "private_chat", "11", rules("restricted")).await;
    let closed = north.room(&anna, "private_chat", "11", shared()).await;
    let set_child = async |parent: &RoomId, child: &str, content: Value| {
        let new = NewEvent::state(parent.to_owned(), anna.clone(), "m.space.child", child, content);
        north.core.send_event(new).await.unwrap();
    };
    // A slip beside the servers' names leaves the child one.
    set_child(&space, open.as_str(), json!({"via": ["north.example", 7], "order": 5, "suggested": "yes"})).await;
    set_child(&space, ward.as_str(), json!({"via": ["north.example"], "suggested": true})).await;
    set_child(&space, closed.as_str(), json!({"via": ["north.example"]})).await;
    set_child(&space, "!unknown:nowhere.example", json!({"via": ["nowhere.example"]})).await;
    set_child(&space, "!none:nowhere.example", json!({"via": []})).await;
    set_child(&space, "!slip:nowhere.example", json!({"via": "nowhere.example"})).await;
    // What no space is has no children.
    set_child(&open, ward.as_str(), json!({"via": ["north.example"]})).await;

    let ask = async |suggested_only: bool| {
        let path = format!("/_matrix/federation/v1/hierarchy/{space}?suggested_only={suggested_only}");
        south.ask(&north, path).await.unwrap()
    };
    let ids = |rooms: &Value| -> BTreeSet<String> {
        let id =
            |room: &Value| room.as_str().or(room["room_id"].as_str()).or(room["state_key"].as_str()).map(str::to_owned);
        rooms.as_array().unwrap().iter().filter_map(id).collect()
    };
    let set = |rooms: &[&str]| -> BTreeSet<String> { rooms.iter().map(|room| (*room).to_owned()).collect() };
    let told = ask(false).await;
    let all = [open.as_str(), ward.as_str(), closed.as_str(), "!unknown:nowhere.example"];
    assert_eq!(ids(&told["room"]["children_state"]), set(&all));
    assert_eq!(ids(&told["children"]), set(&[open.as_str()]));
    assert_eq!(ids(&told["inaccessible_children"]), set(&[ward.as_str(), closed.as_str()]));
    let shown = &told["children"][0];
    assert_eq!((&shown["children_state"], &shown["join_rule"]), (&json!([]), &json!("public")));
    assert_eq!(shown.get("allowed_room_ids"), None, "the conditions of a rule that is not in force");
    let told = ask(true).await;
    assert_eq!(ids(&told["room"]["children_state"]), set(&[ward.as_str()]));
    assert_eq!((ids(&told["children"]), ids(&told["inaccessible_children"])), (set(&[]), set(&[ward.as_str()])));

    south.join(&ben, &space, &north).await.unwrap();
    let told = ask(true).await;
    assert_eq!(told["children"][0]["allowed_room_ids"], json!([space]));
    assert_eq!(ids(&told["inaccessible_children"]), set(&[]));
    south.join(&ben, &ward, &north).await.unwrap();
    assert_eq!(north.membership(&ben, &ward), Membership::Join);
}

#[tokio::test]
async fn the_directory_is_given_without_a_limit_and_of_one_network_or_of_all() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    for _ in 0..2 {
        let room = north.room(&anna, "public_chat", "11", shared()).await;
        north.core.publish_room(&room, true).await.unwrap();
    }
    let ask = async |query: &str| south.ask(&north, format!("/_matrix/federation/v1/publicRooms?{query}")).await;
    let listed = async |query: &str| ask(query).await.unwrap()["chunk"].as_array().unwrap().len();
    for (query, expected) in
        [("", 2), ("limit=0", 2), ("limit=1", 1), ("limit=999999", 2), ("include_all_networks=true", 2)]
    {
        assert_eq!(listed(query).await, expected, "{query}");
    }
    assert_eq!(listed("third_party_instance_id=none").await, 0);
    let refused = ask("include_all_networks=true&third_party_instance_id=none").await.unwrap_err();
    assert_eq!(refused, (400, "M_INVALID_PARAM".to_owned()));
    assert_eq!(ask("since=nonsense").await.unwrap_err(), (400, "M_INVALID_PARAM".to_owned()));
}

#[tokio::test]
async fn the_event_nearest_to_a_time_is_found() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let room = north.room(&anna, "public_chat", "11", shared()).await;
    let message = north.say(&anna, &room, "hello").await;
    south.join(&ben, &room, &north).await.unwrap();
    let ts = north.core.load_event(&message).unwrap().unwrap().pdu.origin_server_ts_ms();
    let near = |ts: u64, dir: &str| format!("/_matrix/federation/v1/timestamp_to_event/{room}?ts={ts}&dir={dir}");
    let first = south.ask(&north, near(0, "f")).await.unwrap();
    assert!(first["origin_server_ts"].as_u64().unwrap() <= ts);
    let exact = south.ask(&north, near(ts, "b")).await.unwrap();
    assert_eq!(exact["origin_server_ts"], ts);
    assert_eq!(south.ask(&north, near(0, "b")).await.unwrap_err().0, 404);
    assert_eq!(south.ask(&north, near(u64::MAX, "f")).await.unwrap_err().0, 404);
}

#[tokio::test]
async fn an_invite_of_an_address_becomes_one_of_the_user_whose_it_is() {
    let wires = Arc::new(Wires::default());
    let trusting = Settings { identity_servers: vec!["id.example".to_owned()], ..open_settings() };
    let north = Trust::start(&wires, "north.example", 1, trusting);
    let south = Trust::start(&wires, "south.example", 2, open_settings());
    let anna = north.user("anna").await;
    let (ben, bea) = (south.user("ben").await, south.user("bea").await);
    let identity = SigningKey::from_seed("0", &[9; 32]).unwrap();
    let public = identity.verify_key().to_base64();
    let room = north.room(&anna, "private_chat", "12", shared()).await;
    let invite = json!({
        "display_name": "b...@south.example", "key_validity_url": "https://id.example/valid", "public_key": public,
        "public_keys": [{"public_key": public}],
    });
    let new = |kind: &str, key: &str, content: Value| NewEvent::state(room.clone(), anna.clone(), kind, key, content);
    north.core.send_event(new("m.room.third_party_invite", "token", invite)).await.unwrap();

    let router = wires.routers.lock().unwrap().get(&south.core.server_name).cloned().unwrap();
    let bind = |user: &UserId, signed_by: &SigningKey| {
        let signature = signed_by.sign_bytes(format!(r#"{{"mxid":"{user}","token":"token"}}"#).as_bytes());
        let signed = json!({
            "mxid": user, "token": "token", "signatures": {"id.example": {"ed25519:0": signature}},
        });
        let invites = json!([{
            "medium": "email", "address": "b@south.example", "mxid": user, "room_id": room, "sender": anna,
            "signed": signed,
        }]);
        let body = json!({"medium": "email", "address": "b@south.example", "mxid": user, "invites": invites});
        // As identity servers do it; the Server-Server API says PUT.
        let request = Request::post("/_matrix/federation/v1/3pid/onbind").body(Body::from(body.to_string())).unwrap();
        let router = router.clone();
        async move { router.oneshot(request).await.unwrap().status().as_u16() }
    };
    // Whose signature is not the invite's gets nobody invited.
    assert_eq!(bind(&bea, &SigningKey::from_seed("0", &[8; 32]).unwrap()).await, 403);
    assert_eq!(south.standing(&bea, &room), None);
    // Nor does one whose key was taken back meanwhile: the inviting server asks.
    wires.key_is_revoked.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(bind(&bea, &identity).await, 403);
    assert_eq!(south.standing(&bea, &room), None);
    wires.key_is_revoked.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(bind(&ben, &identity).await, 200);
    assert_eq!(south.standing(&ben, &room), Some(Membership::Invite));
    let member = north.core.find_room(&room).unwrap().unwrap().current();
    let member = member.get(&matron_core::rooms::StateKey::new("m.room.member", ben.as_str())).unwrap().clone();
    let content = north.core.load_event(&member).unwrap().unwrap().pdu.content_value();
    assert_eq!(content["third_party_invite"]["display_name"], "b...@south.example");
    south.core.join_room(&ben, &room, JoinOptions::default()).await.unwrap();
    assert_eq!(north.membership(&ben, &room), Membership::Join);
    assert_eq!(bind(&anna, &identity).await, 400);
}
