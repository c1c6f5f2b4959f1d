//! The whole application service against a stand-in homeserver, over loopback.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a stand-in that is asked what it does not know fails its test")]

mod homeserver;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use homeserver::{AS_TOKEN, HS_TOKEN, Homeserver};
use matron_appservice::hl7::{Message, mllp};
use matron_appservice::{AppService, ClinicalRoomSpec, Config, Registration, Running};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ADA: &str = "@ada:north";

fn config(root: &Path, homeserver: SocketAddr) -> Config {
    let mut registration = Registration::generate(&mut rand::rng(), "http://127.0.0.1:1", "north", "matron");
    registration.as_token = AS_TOKEN.to_owned().into();
    registration.hs_token = HS_TOKEN.to_owned().into();
    let path = root.join("registration.yaml");
    std::fs::write(&path, registration.to_yaml().unwrap()).unwrap();
    serde_json::from_value(json!({
        "homeserver_url": format!("http://{homeserver}"),
        "server_name": "north",
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "data_dir": root.join("data"),
        "registration": path,
        "retention_poll_ms": 100,
        "lab_feeds": [{"name": "pathology", "listen": "127.0.0.1:0", "max_message_bytes": 20_000}],
    }))
    .unwrap()
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

struct House {
    homeserver: Homeserver,
    root: tempfile::TempDir,
    config: Config,
    running: Running,
}

async fn house() -> House {
    let homeserver = Homeserver::new();
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path(), homeserver.listen(loopback()).await);
    let running = AppService::start(config.clone()).await.unwrap();
    running.wait_ready().await.unwrap();
    House { homeserver, root, config, running }
}

fn spec() -> ClinicalRoomSpec {
    serde_json::from_value(json!({
        "name": "Ward 3", "organisations": ["north"], "invite": [ADA],
        "lifetime_ms": 60_000, "lab_feed": "pathology",
    }))
    .unwrap()
}

fn report(control_id: &str, value: &str) -> Vec<u8> {
    format!(
        "MSH|^~\\&|LIS|LAB|MATRON|WARD|20260101||ORU^R01|{control_id}|P|2.5.1\r\
         PID|||77||Doe^Jane\rOBR|1|||U^Urea\rOBX|1|NM|K^Potassium||{value}|mmol/L\r"
    )
    .into_bytes()
}

struct Sender(TcpStream);

impl Sender {
    async fn connect(running: &Running) -> Self {
        Self(TcpStream::connect(running.lab_addr("pathology").unwrap()).await.unwrap())
    }

    /// The acknowledgement code and text of one message.
    async fn send(&mut self, payload: &[u8]) -> (String, String) {
        self.0.write_all(&mllp::frame(payload)).await.unwrap();
        self.acknowledgement().await
    }

    async fn acknowledgement(&mut self) -> (String, String) {
        let mut decoder = mllp::Decoder::new(10_000);
        let mut blocks = Vec::new();
        let mut buffer = [0u8; 1024];
        while blocks.is_empty() {
            let read = tokio::time::timeout(Duration::from_secs(60), self.0.read(&mut buffer));
            let read = read.await.unwrap().unwrap();
            assert_ne!(read, 0, "closed without an acknowledgement");
            decoder.push(&buffer[..read], &mut blocks).unwrap();
        }
        let ack = Message::parse(&blocks[0]).unwrap();
        let msa = ack.segments().find(|segment| segment.name() == "MSA").unwrap();
        (msa.field(1).text(), msa.field(3).text())
    }
}

async fn encrypted(homeserver: &Homeserver, room_id: &str, from: &str, count: usize) -> Vec<Value> {
    homeserver
        .until("encrypted events", |world| {
            let events: Vec<Value> =
                world.rooms.get(room_id)?.timeline.iter().filter(|event| event["sender"] == from).cloned().collect();
            (events.len() >= count).then_some(events)
        })
        .await
}

const LAB: &str = "@lab-pathology:north";
const BOT: &str = "@matron:north";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lab_report_is_acknowledged_and_read_by_a_clinician_once() {
    let house = house().await;
    let mut ada = house.homeserver.clinician(ADA);
    let room = house.running.create_clinical_room(&spec()).await.unwrap();
    house.homeserver.join(&room.room_id, ADA);
    let mut sender = Sender::connect(&house.running).await;
    assert_eq!(sender.send(&report("1", "6.9")).await.0, "AA");
    // The acknowledgement was lost, the laboratory repeats.
    assert_eq!(sender.send(&report("1", "6.9")).await.0, "AA");
    assert_eq!(sender.send(&report("1", "4.0")).await.0, "AE");
    assert_eq!(sender.send(&report("2", "4.1")).await.0, "AA");
    let events = encrypted(&house.homeserver, &room.room_id, LAB, 2).await;
    assert_eq!(events.len(), 2);
    let first = ada.read(&room.room_id, &events[0]).unwrap();
    assert!(first["body"].as_str().unwrap().contains("Potassium: 6.9 mmol/L"));
    assert_eq!(first["org.matron.hl7"]["control_id"], "1");
    let second = ada.read(&room.room_id, &events[1]).unwrap();
    assert_eq!(second["org.matron.hl7"]["orders"][0]["observations"][0]["value"], "4.1");
    assert!(house.homeserver.with(|world| world.cross_signed.contains(&LAB.to_owned())));
    house.running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_delivered_once_after_a_restart() {
    let house = house().await;
    let mut ada = house.homeserver.clinician(ADA);
    let room = house.running.create_clinical_room(&spec()).await.unwrap();
    house.homeserver.join(&room.room_id, ADA);
    house.homeserver.with(|world| world.refuses_sends = true);
    let mut sender = Sender::connect(&house.running).await;
    assert_eq!(sender.send(&report("1", "6.9")).await.0, "AA");
    house.homeserver.until("a refused send", |world| (world.refused_sends > 0).then_some(())).await;
    house.running.stop().await;
    for file in walk(&house.root.path().join("data")) {
        let raw = std::fs::read(&file).unwrap();
        assert!(!raw.windows(9).any(|window| window == b"Potassium"), "{file:?} is readable");
    }
    house.homeserver.with(|world| world.refuses_sends = false);
    let running = AppService::start(house.config.clone()).await.unwrap();
    let events = encrypted(&house.homeserver, &room.room_id, LAB, 1).await;
    assert!(ada.read(&room.room_id, &events[0]).is_some());
    let mut sender = Sender::connect(&running).await;
    assert_eq!(sender.send(&report("1", "6.9")).await.0, "AA");
    assert_eq!(sender.send(&report("2", "4.1")).await.0, "AA");
    let events = encrypted(&house.homeserver, &room.room_id, LAB, 2).await;
    let second = ada.read(&room.room_id, &events[1]).unwrap();
    assert_eq!(second["org.matron.hl7"]["control_id"], "2");
    // The same devices as before, not new ones.
    assert_eq!(house.homeserver.with(|world| world.tokens.len()), 2);
    running.stop().await;
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_input_is_refused_and_the_feed_goes_on() {
    let house = house().await;
    let mut sender = Sender::connect(&house.running).await;
    assert_eq!(sender.send(b"nonsense").await.0, "AR");
    assert_eq!(sender.send(b"MSH|^~\\&|L|N|||2026||ADT^A01|7|P|2.5\r").await.0, "AR");
    let (code, sentence) = sender.send(&report("1", "6.9")).await;
    assert_eq!((code.as_str(), sentence.as_str()), ("AE", "No room is configured for this facility."));
    let large = report("1", &"9".repeat(30_000));
    assert_eq!(sender.send(&large).await.0, "AR");
    let mut buffer = [0u8; 16];
    assert_eq!(sender.0.read(&mut buffer).await.unwrap_or(0), 0, "the connection is closed");
    let mut other = Sender::connect(&house.running).await;
    other.0.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(other.0.read(&mut buffer).await.unwrap_or(0), 0);
    let mut again = Sender::connect(&house.running).await;
    assert_eq!(again.send(b"nonsense").await.0, "AR");
    house.running.stop().await;
}

async fn http(address: SocketAddr, method: &str, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let token = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\n{token}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bot_answers_encrypted_and_once() {
    let house = house().await;
    let mut ada = house.homeserver.clinician(ADA);
    let room = house.running.create_clinical_room(&spec()).await.unwrap();
    house.homeserver.join(&room.room_id, ADA);
    let app = house.running.listen_addr();
    let push = async |txn: &str, event: &Value| {
        let path = format!("/_matrix/app/v1/transactions/{txn}");
        http(app, "PUT", &path, Some(HS_TOKEN), &json!({"events": [event]})).await
    };
    let help = ada.say(&room.room_id, "!matron help");
    assert_eq!(push("1", &help).await, (200, json!({})));
    assert_eq!(push("1", &help).await, (200, json!({})));
    // The same event in another transaction, as after a restored backup.
    assert_eq!(push("2", &help).await.0, 200);
    let answers = encrypted(&house.homeserver, &room.room_id, BOT, 1).await;
    let answer = ada.read(&room.room_id, &answers[0]).unwrap();
    assert_eq!(answer["msgtype"], "m.notice");
    assert!(answer["body"].as_str().unwrap().contains("!matron explain"));
    assert_eq!(answers[0]["content"]["m.relates_to"]["m.in_reply_to"]["event_id"], help["event_id"]);
    assert_eq!(push("3", &ada.say(&room.room_id, "!matron explain D-1")).await.0, 200);
    assert_eq!(push("4", &ada.say(&room.room_id, "!matron explain D-2")).await.0, 200);
    let answers = encrypted(&house.homeserver, &room.room_id, BOT, 3).await;
    assert_eq!(answers.len(), 3);
    let known = ada.read(&room.room_id, &answers[1]).unwrap();
    assert_eq!(known["body"], "Refused: the organisation is not in the register.");
    let unknown = ada.read(&room.room_id, &answers[2]).unwrap();
    assert_eq!(unknown["body"], "I know no decision of this id.");
    house.running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_is_redacted_with_its_own_id_as_transaction() {
    let house = house().await;
    let room = house.running.create_clinical_room(&spec()).await.unwrap();
    house.homeserver.with(|world| {
        world.due = (0..3).map(|n| json!({"room_id": room.room_id, "event_id": format!("$old/{n}")})).collect();
    });
    let redactions = house
        .homeserver
        .until("three redactions", |world| (world.redactions.len() >= 3).then(|| world.redactions.clone()))
        .await;
    assert!(redactions.iter().all(|(event_id, txn)| event_id == txn));
    house.running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_service_api_is_guarded_and_answers_in_matrix_errors() {
    let house = house().await;
    let app = house.running.listen_addr();
    let nothing = json!({});
    let call = async |method: &str, path: &str, token: Option<&str>| {
        let (status, body) = http(app, method, path, token, &nothing).await;
        (status, body["errcode"].as_str().unwrap_or_default().to_owned())
    };
    let api = |rest: &str| format!("/_matrix/app/v1/{rest}");
    assert_eq!(call("POST", &api("ping"), Some(HS_TOKEN)).await.0, 200);
    assert_eq!(call("POST", &api("ping"), None).await, (401, "M_MISSING_TOKEN".to_owned()));
    assert_eq!(call("POST", &api("ping"), Some(AS_TOKEN)).await, (403, "M_FORBIDDEN".to_owned()));
    assert_eq!(call("PUT", &api("transactions/1"), Some("x")).await.0, 403);
    assert_eq!(call("GET", &api("users/%40matron%3Anorth"), Some(HS_TOKEN)).await.0, 200);
    assert_eq!(call("GET", &api("users/%40eve%3Anorth"), Some(HS_TOKEN)).await, (404, "M_NOT_FOUND".to_owned()));
    assert_eq!(call("GET", &api("rooms/%23x%3Anorth"), Some(HS_TOKEN)).await.0, 404);
    assert_eq!(call("GET", "/transactions/1", Some(HS_TOKEN)).await, (405, "M_UNRECOGNIZED".to_owned()));
    assert_eq!(call("GET", "/nowhere", Some(HS_TOKEN)).await, (404, "M_UNRECOGNIZED".to_owned()));
    let bad = http(app, "PUT", &api("transactions/9"), Some(HS_TOKEN), &json!([1])).await;
    assert_eq!((bad.0, &bad.1["errcode"]), (400, &json!("M_BAD_JSON")));
    house.running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_can_be_asked_for_by_an_admin_call() {
    let house = house().await;
    let admin = house.running.admin_addr().unwrap();
    let path = "/_matron/appservice/v1/rooms";
    let mut wanted = serde_json::to_value(spec()).unwrap();
    wanted["invite"] = json!([ADA, "@eve:outside"]);
    assert_eq!(http(admin, "POST", path, None, &wanted).await.0, 401);
    assert_eq!(http(admin, "POST", path, Some("guess"), &wanted).await.0, 403);
    let (status, made) = http(admin, "POST", path, Some(AS_TOKEN), &wanted).await;
    assert_eq!(status, 200);
    assert_eq!(made["failed_invites"], json!([{"user_id": "@eve:outside", "errcode": "M_FORBIDDEN"}]));
    let room_id = made["room_id"].as_str().unwrap().to_owned();
    house.homeserver.with(|world| {
        let room = &world.rooms[&room_id];
        assert_eq!(room.members[ADA], "invite");
        assert_eq!(room.members[LAB], "join");
        let body = &room.state[&("body".to_owned(), String::new())];
        assert_eq!(body["power_level_content_override"]["users"], json!({}), "room version 12");
    });
    wanted["lab_feed"] = json!("radiology");
    let refused = http(admin, "POST", path, Some(HS_TOKEN), &wanted).await;
    assert_eq!((refused.0, &refused.1["errcode"]), (400, &json!("M_INVALID_PARAM")));
    house.running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_waits_for_a_homeserver_that_comes_up_later() {
    let root = tempfile::tempdir().unwrap();
    let homeserver = Homeserver::new();
    // A port that is free now.
    let address = tokio::net::TcpListener::bind(loopback()).await.unwrap().local_addr().unwrap();
    let running = AppService::start(config(root.path(), address)).await.unwrap();
    assert_eq!(homeserver.listen(address).await, address);
    tokio::time::timeout(Duration::from_secs(30), running.wait_ready()).await.unwrap().unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_was_logged_out_is_replaced() {
    let house = house().await;
    house.running.stop().await;
    house.homeserver.with(|world| world.tokens.clear());
    let running = AppService::start(house.config.clone()).await.unwrap();
    running.wait_ready().await.unwrap();
    assert_eq!(house.homeserver.with(|world| world.device_keys[BOT].len()), 2);
    running.stop().await;
}
