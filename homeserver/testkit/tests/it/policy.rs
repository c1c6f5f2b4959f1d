//! The promises of a clinical room, kept between servers: who is let in, who is heard, who must go, what dies.

use std::sync::Arc;

use matron_core::{
    ports::{Clock as _, http_method::Method},
    rooms::Status,
};
use matron_room::{RoomVersion, UncheckedPdu};
use matron_storage::Table;
use matron_testkit::{Adversary, Draft, Foothold, Governance, Person, Reply, TestNet, TestServer, part};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How long content lives in most wards of these tests.
const LIFE_MS: u64 = 90 * DAY_MS;

/// Two trusts in one ward, and a register that names a third.
pub(crate) struct Wards {
    pub(crate) net: Arc<TestNet>,
    pub(crate) governance: Governance,
    pub(crate) north: TestServer,
    pub(crate) south: TestServer,
    pub(crate) bot: Person,
    pub(crate) nurse: Person,
    pub(crate) matron: Person,
    pub(crate) room: OwnedRoomId,
}

async fn server(net: &Arc<TestNet>, governance: &Governance, code: &str, name: &str) -> TestServer {
    net.server_with(name, |settings| settings.policy = governance.settings(code, name))
}

impl Wards {
    pub(crate) async fn new(life_ms: u64) -> Self {
        let net = TestNet::new();
        let mut governance = Governance::of(&[
            ("N", "north.example"),
            ("S", "south.example"),
            ("R", "rogue.example"),
            ("E", "else.example"),
        ]);
        let north = server(&net, &governance, "N", "north.example").await;
        let south = server(&net, &governance, "S", "south.example").await;
        let register = governance.register(matron_testkit::START_MS);
        governance.tell(&north, &register).await;
        governance.tell(&south, &register).await;
        let (bot, nurse, matron) =
            (north.person("bot").await, north.person("nurse").await, south.person("matron").await);
        governance.verify(&north, "N", &nurse.user()).await;
        governance.verify(&south, "S", &matron.user()).await;
        let room = bot.room(Governance::ward(&["N", "S", "R"], life_ms)).await;
        let wards = Self { net, governance, north, south, bot, nurse, matron, room };
        for person in [&wards.nurse, &wards.matron] {
            wards.bot.post(&wards.path("invite"), json!({"user_id": person.id})).await;
            let (status, answer) = person.try_join(wards.room.as_str(), "north.example").await;
            assert_eq!(status, 200, "{answer}");
        }
        wards.settle().await;
        wards
    }

    pub(crate) fn path(&self, what: &str) -> String {
        format!("/v3/rooms/{}/{what}", part(self.room.as_str()))
    }

    pub(crate) async fn settle(&self) {
        self.net.settle(&[&self.north, &self.south]).await;
    }

    /// The event is at both servers; the clock stands meanwhile.
    async fn arrived(&self, event: &OwnedEventId) {
        let all = async {
            while self.south.status(event).is_none() || self.north.status(event).is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("the event does not arrive");
    }

    pub(crate) async fn say(&self, who: &Person, text: &str) -> OwnedEventId {
        let path = self.path(&format!("send/m.room.encrypted/{}", part(text)));
        let sent = who.put(&path, Governance::ciphertext(text)).await;
        sent["event_id"].as_str().unwrap().try_into().unwrap()
    }

    /// A server of the register whose key is in wrong hands, with one verified person in the ward.
    async fn rogue(&self) -> (Arc<Adversary>, Foothold) {
        let rogue = self.net.adversary("rogue.example");
        let signer = Arc::clone(&rogue);
        rogue.answers(move |question| {
            if !question.is("invite") {
                return Reply::Status(404);
            }
            let version = RoomVersion::find(question.body["room_version"].as_str().unwrap()).unwrap();
            let event = serde_json::value::to_raw_value(&question.body["event"]).unwrap();
            let event = UncheckedPdu::parse(&event, version).unwrap().trust_own();
            let signed = event.with_signature(signer.key(), signer.name()).unwrap();
            Reply::Json(json!({"event": serde_json::from_str::<Value>(signed.json().get()).unwrap()}))
        });
        let user = OwnedUserId::try_from("@rita:rogue.example").unwrap();
        self.bot.post(&self.path("invite"), json!({"user_id": user})).await;
        let credential = self.governance.credential("R", &user).to_value();
        let content = json!({ matron_policy::CREDENTIAL_FIELD: credential });
        let foothold = rogue.join_with(&self.north, &self.room, "rita", content).await;
        self.settle().await;
        (rogue, foothold)
    }

    /// Nothing that a user or a server can read on this server holds the text, or knows the event.
    pub(crate) async fn nobody_sees(&self, reader: &Person, event: &OwnedEventId, text: &str) {
        let event_id = part(event.as_str());
        let filter = part(r#"{"room":{"timeline":{"limit":1000}}}"#);
        let search = json!({"search_categories": {"room_events": {"search_term": text}}});
        for (method, path, body) in [
            ("GET", format!("/v3/sync?filter={filter}"), Value::Null),
            ("GET", self.path("messages?dir=b&limit=1000"), Value::Null),
            ("GET", self.path("initialSync?limit=1000"), Value::Null),
            ("GET", self.path(&format!("event/{event_id}")), Value::Null),
            ("GET", self.path(&format!("context/{event_id}")), Value::Null),
            ("GET", format!("/v1/rooms/{}/relations/{event_id}", part(self.room.as_str())), Value::Null),
            ("GET", self.path("state"), Value::Null),
            ("GET", self.path("members"), Value::Null),
            ("GET", self.path("timestamp_to_event?ts=0&dir=f").replace("/v3/", "/v1/"), Value::Null),
            ("GET", "/v3/notifications?limit=1000".to_owned(), Value::Null),
            ("POST", "/v3/search".to_owned(), search),
        ] {
            let (status, answer) = reader.send(method, &path, &body).await;
            assert!(status < 500, "{method} {path}: {answer}");
            let answer =
                if method == "POST" { answer["search_categories"]["room_events"]["results"].clone() } else { answer };
            let answer = answer.to_string();
            assert!(!answer.contains(text), "{method} {path} shows {text}: {answer}");
            assert!(!answer.contains(&format!("\"event_id\":\"{event}\"")), "{method} {path} knows {event}");
        }
    }
}

fn template_join(room: &RoomId, user: &UserId, membership: &str, content: Value) -> Draft {
    let mut content = content;
    content["membership"] = json!(membership);
    let made_up = |letter: &str| OwnedEventId::try_from(format!("${}", letter.repeat(43))).unwrap();
    Draft::new(RoomVersion::find("12").unwrap(), room, user, "m.room.member", content)
        .state_key(user.as_str())
        .after_ids(vec![made_up("a")])
        .authorised_by(vec![made_up("b")])
}

#[tokio::test]
async fn nobody_from_outside_the_organisations_comes_in_by_any_door() {
    let wards = Wards::new(LIFE_MS).await;
    // A trust of the register that the room does not name, and one that nobody knows.
    for name in ["else.example", "stranger.example"] {
        let outsider = wards.net.adversary(name);
        let user = OwnedUserId::try_from(format!("@eve:{name}")).unwrap();
        let (room, user_part) = (part(wards.room.as_str()), part(user.as_str()));
        for door in ["make_join", "make_knock"] {
            let path = format!("/_matrix/federation/v1/{door}/{room}/{user_part}?ver=12");
            let (status, answer) = outsider.ask(&wards.north.name, Method::Get, &path, None).await;
            assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{door}: {answer}");
        }
        for (door, membership) in [("v2/send_join", "join"), ("v1/send_join", "join"), ("v1/send_knock", "knock")] {
            let event = template_join(&wards.room, &user, membership, json!({})).seal(outsider.key(), outsider.name());
            let body: Value = serde_json::from_str(event.json().get()).unwrap();
            let path = format!("/_matrix/federation/{door}/{room}/{}", part(event.event_id().as_str()));
            let (status, answer) = outsider.ask(&wards.north.name, Method::Put, &path, Some(body)).await;
            assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{door}: {answer}");
            assert_eq!(wards.north.status(event.event_id()), None, "{door} keeps the event");
        }
        let (status, answer) = wards.bot.send("POST", &wards.path("invite"), &json!({"user_id": user})).await;
        assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{answer}");
        assert!(outsider.take_questions().is_empty(), "{name} was told of the invite");
        for path in [
            format!("backfill/{room}?v={}&limit=100", part(wards.north.ends(&wards.room).first().unwrap().as_str())),
            format!("state/{room}?event_id={}", part(wards.north.ends(&wards.room).first().unwrap().as_str())),
            format!("state_ids/{room}?event_id={}", part(wards.north.ends(&wards.room).first().unwrap().as_str())),
            format!("event/{}", part(wards.north.ends(&wards.room).first().unwrap().as_str())),
            format!("event_auth/{room}/{}", part(wards.north.ends(&wards.room).first().unwrap().as_str())),
            format!("timestamp_to_event/{room}?ts=0&dir=f"),
            format!("hierarchy/{room}"),
        ] {
            let path = format!("/_matrix/federation/v1/{path}");
            let (status, answer) = outsider.ask(&wards.north.name, Method::Get, &path, None).await;
            assert!(status == 403 || status == 404, "{path}: {status} {answer}");
        }
    }
}

#[tokio::test]
async fn who_shows_no_credential_is_refused_at_the_door_and_withheld_behind_it() {
    let wards = Wards::new(LIFE_MS).await;
    let (rogue, rita) = wards.rogue().await;
    let temp = OwnedUserId::try_from("@temp:rogue.example").unwrap();
    wards.bot.post(&wards.path("invite"), json!({"user_id": temp})).await;
    wards.settle().await;
    let invite = wards.north.ends(&wards.room).into_iter().next().unwrap();
    let invite = wards.north.core.load_event(&invite).unwrap().unwrap().pdu.clone();
    let mut known = rita.clone();
    known.state.push(invite.clone());
    let content = json!({"membership": "join"});
    let authority = known.authority(&temp, "m.room.member", Some(temp.as_str()), &content);
    let join = Draft::new(rita.version, &wards.room, &temp, "m.room.member", content)
        .state_key(temp.as_str())
        .after([&invite])
        .authorised_by(authority)
        .seal(rogue.key(), rogue.name());
    let path =
        format!("/_matrix/federation/v2/send_join/{}/{}", part(wards.room.as_str()), part(join.event_id().as_str()));
    let body: Value = serde_json::from_str(join.json().get()).unwrap();
    let (status, answer) = rogue.ask(&wards.north.name, Method::Put, &path, Some(body)).await;
    assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{answer}");
    assert_eq!(wards.north.status(join.event_id()), None);

    // What the door refuses is sent as if it had been let in elsewhere, and spoken upon.
    known.state.retain(|event| !event.is_state_of("m.room.member", temp.as_str()));
    known.state.push(join.clone());
    let encrypted = Governance::ciphertext("unverified-words");
    let authority = known.authority(&temp, "m.room.encrypted", None, &encrypted);
    let said = Draft::new(rita.version, &wards.room, &temp, "m.room.encrypted", encrypted)
        .after([&join])
        .authorised_by(authority)
        .seal(rogue.key(), rogue.name());
    // And Rita, whom everybody knows, builds upon both.
    let verified = Governance::ciphertext("verified-words");
    let authority = rita.authority(&rita.user, "m.room.encrypted", None, &verified);
    let after = Draft::new(rita.version, &wards.room, &rita.user, "m.room.encrypted", verified)
        .after([&said])
        .authorised_by(authority)
        .seal(rogue.key(), rogue.name());
    for server in [&wards.north, &wards.south] {
        rogue.push(server, [&join, &said, &after]).await;
        assert_eq!(server.status(join.event_id()), Some(Status::Withheld));
        assert_eq!(server.status(said.event_id()), Some(Status::Withheld));
        assert_eq!(server.status(after.event_id()), Some(Status::Accepted));
        let state = server.state(&wards.room);
        let member = state.get(&("m.room.member".to_owned(), temp.to_string()));
        assert_eq!(member.map(|id| &**id), Some(invite.event_id()), "the join counts at {}", server.name);
        assert!(!server.room(&wards.room).joined().contains(&temp));
    }
    for reader in [&wards.nurse, &wards.matron] {
        wards.nobody_sees(reader, &said.event_id().to_owned(), "unverified-words").await;
        wards.nobody_sees(reader, &join.event_id().to_owned(), "unverified-words").await;
    }
    // Another server of the room asks for it: the graph is given, the words are not.
    let path = format!("/_matrix/federation/v1/event/{}", part(said.event_id().as_str()));
    let (_, answer) = rogue.ask(&wards.south.name, Method::Get, &path, None).await;
    assert!(!answer.to_string().contains("unverified-words"), "{answer}");
    let path = format!(
        "/_matrix/federation/v1/backfill/{}?v={}&limit=50",
        part(wards.room.as_str()),
        part(after.event_id().as_str())
    );
    let (status, answer) = rogue.ask(&wards.south.name, Method::Get, &path, None).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.to_string().contains("verified-words") && !answer.to_string().contains("unverified-words"));
    // The room goes on.
    let told = wards.say(&wards.nurse, "the-ward-goes-on").await;
    wards.settle().await;
    assert_eq!(wards.south.status(&told), Some(Status::Accepted));
}

#[tokio::test]
async fn a_revoked_person_is_removed_and_heard_no_more() {
    let mut wards = Wards::new(LIFE_MS).await;
    let (rogue, rita) = wards.rogue().await;
    wards.governance.revoke("R", "serial-rita", matron_testkit::START_MS);
    let register = wards.governance.register(matron_testkit::START_MS + 1);
    for server in [&wards.north, &wards.south] {
        wards.governance.tell(server, &register).await;
    }
    // North has the power to remove her; south hears of it.
    for reader in [&wards.nurse, &wards.matron] {
        reader
            .sync_until("", |answer| {
                let room = &answer["rooms"]["join"][wards.room.as_str()];
                let told = room["timeline"]["events"].as_array()?.iter().chain(room["state"]["events"].as_array()?);
                told.into_iter()
                    .any(|event| event["state_key"] == rita.user.as_str() && event["content"]["membership"] == "leave")
                    .then_some(())
            })
            .await;
    }
    let authority = rita.authority(&rita.user, "m.room.encrypted", None, &json!({}));
    let said =
        Draft::new(rita.version, &wards.room, &rita.user, "m.room.encrypted", Governance::ciphertext("too-late"))
            .after([&rita.join])
            .authorised_by(authority)
            .seal(rogue.key(), rogue.name());
    for (server, reader) in [(&wards.north, &wards.nurse), (&wards.south, &wards.matron)] {
        rogue.push(server, [&said]).await;
        assert_ne!(server.status(said.event_id()), Some(Status::Accepted), "{}", server.name);
        wards.nobody_sees(reader, &said.event_id().to_owned(), "too-late").await;
    }
    // What is said now is not for her server, by whatever way it asks.
    let secret = wards.say(&wards.nurse, "after-she-left").await;
    wards.settle().await;
    let (room, event) = (part(wards.room.as_str()), part(secret.as_str()));
    for path in [
        format!("event/{event}"),
        format!("backfill/{room}?v={event}&limit=100"),
        format!("state/{room}?event_id={event}"),
        format!("state_ids/{room}?event_id={event}"),
        format!("event_auth/{room}/{event}"),
    ] {
        for server in [&wards.north, &wards.south] {
            let path = format!("/_matrix/federation/v1/{path}");
            let (status, answer) = rogue.ask(&server.name, Method::Get, &path, None).await;
            assert!(status < 500 && !answer.to_string().contains("after-she-left"), "{path}: {answer}");
        }
    }
    let body = json!({"latest_events": [secret], "earliest_events": [], "limit": 50});
    let path = format!("/_matrix/federation/v1/get_missing_events/{room}");
    let (status, answer) = rogue.ask(&wards.north.name, Method::Post, &path, Some(body)).await;
    assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{answer}");
}

#[tokio::test]
async fn a_server_that_leaves_the_register_loses_its_members() {
    let mut wards = Wards::new(LIFE_MS).await;
    wards.governance.expel("S");
    let register = wards.governance.register(matron_testkit::START_MS + 1);
    wards.governance.tell(&wards.north, &register).await;
    wards
        .nurse
        .sync_until("", |answer| {
            let room = &answer["rooms"]["join"][wards.room.as_str()];
            let told = room["timeline"]["events"].as_array()?.iter().chain(room["state"]["events"].as_array()?);
            told.into_iter()
                .any(|event| {
                    event["state_key"] == wards.matron.id.as_str() && event["content"]["membership"] == "leave"
                })
                .then_some(())
        })
        .await;
    assert!(!wards.north.room(&wards.room).has_server(&wards.south.name));
    let said = wards.say(&wards.nurse, "among-ourselves").await;
    wards.net.clock().advance_ms(60_000);
    wards.north.core.wake_outbox(&wards.north.name);
    wards.settle().await;
    assert_eq!(wards.south.status(&said), None, "south was sent what is not for it");
}

#[tokio::test]
async fn an_event_that_waits_for_the_register_is_delivered_once_it_comes() {
    let mut wards = Wards::new(LIFE_MS).await;
    let since = wards.matron.now().await;
    // The register runs out; north gets the next one first.
    wards.net.clock().advance_ms(31 * DAY_MS);
    let register = wards.governance.register(matron_testkit::START_MS + 31 * DAY_MS);
    wards.governance.tell(&wards.north, &register).await;
    let mut said = Vec::new();
    for text in ["held-one", "held-two", "held-three"] {
        said.push(wards.say(&wards.nurse, text).await);
    }
    wards.settle().await;
    for (id, text) in said.iter().zip(["held-one", "held-two", "held-three"]) {
        assert_eq!(wards.south.status(id), Some(Status::Held));
        wards.nobody_sees(&wards.matron, id, text).await;
    }
    wards.governance.tell(&wards.south, &register).await;
    let (_, _) = wards
        .matron
        .sync_until(&since, |answer| {
            let timeline = &answer["rooms"]["join"][wards.room.as_str()]["timeline"]["events"];
            timeline.as_array()?.iter().any(|event| event["event_id"] == said[2].as_str()).then_some(())
        })
        .await;
    let (events, _) = wards.matron.timeline_since(wards.room.as_str(), &since).await;
    let told: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "m.room.encrypted")
        .map(|event| event["event_id"].clone())
        .collect();
    assert_eq!(told, said.iter().map(|id| json!(id)).collect::<Vec<_>>(), "each once, in order");
    let answer = wards.say(&wards.matron, "heard").await;
    wards.settle().await;
    assert_eq!(wards.north.status(&answer), Some(Status::Accepted));
    assert_eq!(wards.north.ends(&wards.room), wards.south.ends(&wards.room));
    assert_eq!(wards.north.state(&wards.room), wards.south.state(&wards.room));
}

#[tokio::test]
async fn what_has_expired_is_gone_on_both_servers() {
    let wards = Wards::new(60_000).await;
    let said = wards.say(&wards.nurse, "short-lived").await;
    wards.arrived(&said).await;
    for (server, reader) in [(&wards.north, &wards.nurse), (&wards.south, &wards.matron)] {
        assert_eq!(server.status(&said), Some(Status::Accepted));
        let path = wards.path(&format!("event/{}", part(said.as_str())));
        assert!(reader.get(&path).await.to_string().contains("short-lived"));
    }
    wards.net.clock().advance_ms(61_000);
    for (server, reader) in [(&wards.north, &wards.nurse), (&wards.south, &wards.matron)] {
        // Hidden at once, whatever the worker does.
        let (_, answer) = reader.send("GET", &wards.path("messages?dir=b&limit=1000"), &Value::Null).await;
        assert!(!answer.to_string().contains("short-lived"), "{answer}");
        // Then destroyed, redacted or not.
        wards.net.clock().advance_ms(25 * 60 * 60 * 1000);
        server.core.retention_round().await.unwrap();
        let gone = async {
            while server.core.store.get(Table::EventContent, said.as_bytes()).unwrap().is_some() {
                server.core.retention_round().await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.expect("the content is still there");
        assert!(server.core.load_event(&said).unwrap().unwrap().content_gone);
    }
}

#[tokio::test]
async fn nobody_outside_learns_what_a_bounded_room_is_called() {
    let wards = Wards::new(LIFE_MS).await;
    wards.bot.put(&wards.path("state/m.room.name"), json!({"name": "Secret ward"})).await;
    wards.bot.put(&wards.path("state/m.room.join_rules"), json!({"join_rule": "knock"})).await;
    let room = part(wards.room.as_str());
    wards.bot.put(&format!("/v3/directory/list/room/{room}"), json!({"visibility": "public"})).await;
    let outsider = wards.net.adversary("stranger.example");
    for path in [format!("hierarchy/{room}"), "publicRooms".to_owned()] {
        let path = format!("/_matrix/federation/v1/{path}");
        let (_, answer) = outsider.ask(&wards.north.name, Method::Get, &path, None).await;
        assert!(!answer.to_string().contains("Secret ward"), "{path}: {answer}");
    }
    // A colleague without a credential could not come in either; one with a credential may ask to.
    let (stranger, colleague) = (wards.north.person("dan").await, wards.north.person("carol").await);
    wards.governance.verify(&wards.north, "N", &colleague.user()).await;
    for (person, knows) in [(&stranger, false), (&colleague, true)] {
        for path in
            [format!("/v1/room_summary/{room}"), format!("/v1/rooms/{room}/hierarchy"), "/v3/publicRooms".to_owned()]
        {
            let (_, answer) = person.send("GET", &path, &Value::Null).await;
            assert_eq!(answer.to_string().contains("Secret ward"), knows, "{path} for {}: {answer}", person.id);
        }
    }
}

#[tokio::test]
async fn a_name_to_which_the_register_gives_a_part_is_not_for_anyone() {
    let wards = Wards::new(LIFE_MS).await;
    let body = json!({"username": "bot", "password": "a long password", "auth": {"type": "m.login.dummy"}});
    let (status, answer) = wards.matron.send("POST", "/v3/register", &body).await;
    assert_eq!((status, answer["errcode"].as_str()), (400, Some("M_EXCLUSIVE")), "{answer}");
    let (status, answer) = wards.matron.send("GET", "/v3/register/available?username=bot", &Value::Null).await;
    assert_eq!((status, answer["errcode"].as_str()), (400, Some("M_EXCLUSIVE")), "{answer}");
}

#[tokio::test]
async fn nothing_readable_is_written_in_an_encrypted_ward() {
    let wards = Wards::new(LIFE_MS).await;
    let (rogue, rita) = wards.rogue().await;
    let said = wards.say(&wards.nurse, "sealed").await;
    wards.arrived(&said).await;
    let about = json!({"rel_type": "m.annotation", "event_id": said, "key": "x"});
    let sealed = Governance::ciphertext("sealed");
    let beside = |mut content: Value| {
        content["body"] = json!("clear");
        content
    };
    let refused = [
        ("m.room.encrypted", json!({"body": "clear", "msgtype": "m.text"})),
        ("m.room.encrypted", beside(sealed)),
        ("m.reaction", beside(json!({"m.relates_to": about}))),
        ("m.key.verification.foo", json!({"body": "clear"})),
        ("m.room.redaction", beside(json!({"redacts": said}))),
    ];
    for (number, (kind, content)) in refused.into_iter().enumerate() {
        let path = wards.path(&format!("send/{kind}/{number}"));
        let (status, answer) = wards.nurse.send("PUT", &path, &content).await;
        assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{kind}: {answer}");
        // And as another server says it.
        let authority = rita.authority(&rita.user, kind, None, &content);
        let event = Draft::new(rita.version, &wards.room, &rita.user, kind, content)
            .after([&rita.join])
            .authorised_by(authority)
            .seal(rogue.key(), rogue.name());
        for server in [&wards.north, &wards.south] {
            rogue.push(server, [&event]).await;
            assert_eq!(server.status(event.event_id()), Some(Status::Withheld), "{kind} at {}", server.name);
        }
    }
    let note = wards.path("state/com.example.note/x");
    let (status, answer) = wards.bot.send("PUT", &wards.path("state/m.room.topic"), &json!({"topic": "Bed 7"})).await;
    assert_eq!(status, 200, "{answer}");
    let levels = wards.bot.get(&wards.path("state/m.room.power_levels")).await;
    let mut levels = levels;
    levels["state_default"] = json!(0);
    wards.bot.put(&wards.path("state/m.room.power_levels"), levels).await;
    let (status, answer) = wards.nurse.send("PUT", &note, &json!({"note": "clear"})).await;
    assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{answer}");
    wards.nurse.put(&wards.path("send/m.reaction/r"), json!({"m.relates_to": about})).await;
    // Whoever may not speak leaves without words.
    let temp = wards.north.person("temp").await;
    wards.bot.post(&wards.path("invite"), json!({"user_id": temp.id})).await;
    let (status, answer) = temp.send("POST", &wards.path("leave"), &json!({"reason": "clear"})).await;
    assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("without a reason"), "{answer}");
    temp.post(&wards.path("leave"), json!({})).await;
    wards.nurse.put(&wards.path(&format!("redact/{}/why", part(said.as_str()))), json!({"reason": "wrong ward"})).await;
}

#[tokio::test]
async fn reasons_die_on_both_servers_and_what_was_done_stays() {
    let wards = Wards::new(60_000).await;
    let (rogue, rita) = wards.rogue().await;
    let aide = wards.north.person("aide").await;
    wards.governance.verify(&wards.north, "N", &aide.user()).await;
    // One after the other: state resolution weighs what has one time by nothing but its id.
    wards.bot.post(&wards.path("invite"), json!({"user_id": aide.id})).await;
    wards.net.clock().advance_ms(1_000);
    let (status, answer) = aide.try_join(wards.room.as_str(), "north.example").await;
    assert_eq!(status, 200, "{answer}");
    wards.net.clock().advance_ms(1_000);
    let said = wards.say(&wards.nurse, "sealed").await;
    let path = wards.path(&format!("redact/{}/why", part(said.as_str())));
    let redaction = wards.nurse.put(&path, json!({"reason": "mortal-words"})).await;
    let redaction = OwnedEventId::try_from(redaction["event_id"].as_str().unwrap()).unwrap();
    aide.post(&wards.path("leave"), json!({"reason": "mortal-words"})).await;
    let member = |server: &TestServer, user: &str| {
        server.state(&wards.room)[&("m.room.member".to_owned(), user.to_owned())].clone()
    };
    let left = member(&wards.north, &aide.id);
    wards.arrived(&redaction).await;
    wards.arrived(&left).await;
    assert_eq!(left, member(&wards.south, &aide.id));
    // One who leaves with more than words of farewell has left.
    let content = json!({"membership": "leave", "reason": "mortal-words", "body": "mortal-words"});
    let authority = rita.authority(&rita.user, "m.room.member", Some(rita.user.as_str()), &content);
    let leave = Draft::new(rita.version, &wards.room, &rita.user, "m.room.member", content)
        .state_key(rita.user.as_str())
        .after([&rita.join])
        .authorised_by(authority)
        .at_ms(wards.net.clock().now_ms())
        .seal(rogue.key(), rogue.name());
    for server in [&wards.north, &wards.south] {
        rogue.push(server, [&leave]).await;
        assert_eq!(server.status(leave.event_id()), Some(Status::Accepted), "{}", server.name);
        assert!(!server.room(&wards.room).joined().contains(&rita.user));
        assert!(server.core.load_event(leave.event_id()).unwrap().unwrap().pdu.json().get().contains("mortal-words"));
    }
    let read = async |reader: &Person| {
        let mut all = String::new();
        for path in ["messages?dir=b&limit=1000", "state", "members", "initialSync?limit=1000"] {
            all.push_str(&reader.get(&wards.path(path)).await.to_string());
        }
        all
    };
    for reader in [&wards.nurse, &wards.matron] {
        assert!(read(reader).await.contains("mortal-words"), "{}", reader.id);
    }
    wards.net.clock().advance_ms(61_000);
    for reader in [&wards.nurse, &wards.matron] {
        let read = read(reader).await;
        assert!(!read.contains("mortal-words"), "{}: {read}", reader.id);
        assert!(read.contains(redaction.as_str()) && read.contains(left.as_str()), "{}: {read}", reader.id);
    }
    for server in [&wards.north, &wards.south] {
        server.core.retention_round().await.unwrap();
        for id in [&redaction, &left, &leave.event_id().to_owned()] {
            let gone = async {
                while server.core.store.get(Table::EventContent, id.as_bytes()).unwrap().is_some() {
                    server.core.retention_round().await.unwrap();
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.expect("the words are still there");
            assert_eq!(server.status(id), Some(Status::Accepted));
        }
        assert!(server.core.load_event(&said).unwrap().unwrap().content_gone);
    }
    // Who comes later is given what is left, can verify it, and agrees on the state.
    let after = wards.say(&wards.nurse, "later").await;
    wards.arrived(&after).await;
    assert_eq!(wards.north.state(&wards.room), wards.south.state(&wards.room));
    wards.bot.post(&wards.path("invite"), json!({"user_id": rita.user})).await;
    let credential = wards.governance.credential("R", &rita.user).to_value();
    let again = rogue
        .join_with(&wards.north, &wards.room, "rita", json!({ matron_policy::CREDENTIAL_FIELD: credential }))
        .await;
    let left = again.state_of("m.room.member", &aide.id);
    assert_eq!(left.content_value(), json!({"membership": "leave"}));
    assert!(left.reference_hash().is_ok_and(|hash| left.event_id().as_str() == format!("${hash}")));
}
