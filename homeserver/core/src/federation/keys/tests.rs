//! Keys between a server under test and peers that answer as the test says.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use futures_util::future::{BoxFuture, join_all};
use matron_room::{DraftPdu, KeySource as _, RoomVersion, SigningKey, UncheckedPdu};
use matron_storage::{EngineKind, KeyRing, MasterKey};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use serde_json::json;
use tokio::sync::Semaphore;

use super::{
    notary::KeyQuery,
    record::{KeyRecord, unsigned_document},
    x_matrix::{SignedRequest, sign_request},
};
use crate::{
    Core, Error, Parts, Settings,
    ports::{Clock, Federation, FederationRequest, OutboundRequest, PeerError, PeerResponse},
};

const NOW_MS: u64 = 1_800_000_000_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Peers, as far as they publish keys.
#[derive(Debug)]
struct Peers {
    documents: Mutex<HashMap<OwnedServerName, Vec<u8>>>,
    /// What every notary answers.
    notarised: Mutex<Option<Vec<u8>>>,
    /// What notaries were asked.
    queried: Mutex<Vec<serde_json::Value>>,
    fetches: AtomicUsize,
    heard: Mutex<Vec<OwnedServerName>>,
    /// Every answer takes one permit.
    gate: Semaphore,
}

fn answer(body: Vec<u8>) -> PeerResponse {
    PeerResponse { status: 200, content_type: None, content_disposition: None, location: None, body: body.into() }
}

impl Federation for Peers {
    fn request(&self, request: FederationRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async move {
            assert!(!request.signed);
            if request.path_and_query == "/_matrix/key/v2/query" {
                let queried = request.body.unwrap()["server_keys"].take();
                assert_eq!(queried.as_object().unwrap().len(), 1);
                self.queried.lock().push(queried);
                return match self.notarised.lock().clone() {
                    Some(body) => Ok(answer(body)),
                    None => Err(PeerError::Timeout),
                };
            }
            assert_eq!(request.path_and_query, "/_matrix/key/v2/server");
            if request.destination != "notary.example" {
                self.fetches.fetch_add(1, Ordering::SeqCst);
            }
            let _permit = self.gate.acquire().await.unwrap();
            match self.documents.lock().get(&request.destination) {
                Some(document) => Ok(answer(document.clone())),
                None => Err(PeerError::Timeout),
            }
        })
    }

    fn outbound(&self, _request: OutboundRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async { Err(PeerError::Timeout) })
    }

    fn heard_from(&self, server: &ServerName) {
        self.heard.lock().push(server.to_owned());
    }
}

struct World {
    core: Arc<Core>,
    peers: Arc<Peers>,
    clock: Arc<TestClock>,
    directory: tempfile::TempDir,
}

fn name(name: &str) -> &ServerName {
    name.try_into().unwrap()
}

fn key(byte: u8, name: &str) -> SigningKey {
    SigningKey::from_seed(name, &[byte; 32]).unwrap()
}

fn ids(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

impl World {
    fn new() -> Self {
        let peers = Arc::new(Peers {
            documents: Mutex::default(),
            notarised: Mutex::default(),
            queried: Mutex::default(),
            fetches: AtomicUsize::new(0),
            heard: Mutex::default(),
            gate: Semaphore::new(100),
        });
        let clock = Arc::new(TestClock(AtomicU64::new(NOW_MS)));
        let directory = tempfile::tempdir().unwrap();
        let store = matron_storage::open(EngineKind::Memory, directory.path()).unwrap();
        let core = Self::core(&peers, &clock, store, directory.path(), key(200, "us"));
        Self { core, peers, clock, directory }
    }

    fn core(
        peers: &Arc<Peers>,
        clock: &Arc<TestClock>,
        store: Arc<dyn matron_storage::Store>,
        directory: &std::path::Path,
        signing_key: SigningKey,
    ) -> Arc<Core> {
        let keyring = KeyRing::open(&directory.join(signing_key.key_id()), MasterKey::from_bytes([1; 32])).unwrap();
        Core::new(Parts {
            settings: Settings { key_notaries: vec![name("notary.example").to_owned()], ..Settings::default() },
            server_name: name("us.example").to_owned(),
            store,
            keyring: Arc::new(keyring),
            signing_key: Arc::new(signing_key),
            clock: Arc::clone(clock) as Arc<dyn Clock>,
            federation: Arc::clone(peers) as Arc<dyn Federation>,
            media_dir: directory.join("media"),
            appservices: Vec::new(),
        })
        .unwrap()
    }

    /// The same server after a restart, perhaps with another key.
    fn restarted(&self, signing_key: SigningKey) -> Arc<Core> {
        let directory = self.directory.path().join("again");
        std::fs::create_dir_all(&directory).unwrap();
        Self::core(&self.peers, &self.clock, Arc::clone(&self.core.store), &directory, signing_key)
    }

    fn publish(&self, server: &str, key: &SigningKey, retired: &[(&SigningKey, u64)], valid_until_ts: u64) {
        let document = Self::document(server, key, retired, valid_until_ts);
        self.peers.documents.lock().insert(name(server).to_owned(), serde_json::to_vec(&document).unwrap());
    }

    fn document(
        server: &str,
        key: &SigningKey,
        retired: &[(&SigningKey, u64)],
        valid_until_ts: u64,
    ) -> ruma::CanonicalJsonObject {
        let retired: BTreeMap<String, KeyRecord> = retired
            .iter()
            .map(|(key, expired_ts)| {
                let key_text = key.verify_key().to_base64();
                let record = KeyRecord { key: key_text, valid_until_ts: *expired_ts, retired: true };
                (key.key_id().to_owned(), record)
            })
            .collect();
        let current = (key.key_id(), key.verify_key().to_base64());
        let mut document = unsigned_document(name(server), current, &retired, valid_until_ts);
        key.sign_json(&mut document, server).unwrap();
        document
    }

    fn fetches(&self) -> usize {
        self.peers.fetches.load(Ordering::SeqCst)
    }

    fn advance_ms(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    async fn keys(&self, server: &str, wanted: &[&str], at: Option<u64>) -> Vec<String> {
        self.core.server_keys(name(server), &ids(wanted), at).await.unwrap().into_keys().collect()
    }
}

#[tokio::test]
async fn a_key_is_fetched_once_and_survives_a_restart() {
    let world = World::new();
    world.publish("a.example", &key(1, "one"), &[], NOW_MS + DAY_MS);
    for _ in 0..3 {
        assert_eq!(world.keys("a.example", &["ed25519:one"], Some(NOW_MS)).await, ["ed25519:one"]);
    }
    let again = world.restarted(key(200, "us"));
    let found = again.server_keys(name("a.example"), &ids(&["ed25519:one"]), Some(NOW_MS)).await.unwrap();
    assert_eq!(found["ed25519:one"], key(1, "one").verify_key());
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn callers_at_one_time_share_one_fetch() {
    let world = World::new();
    world.publish("a.example", &key(1, "one"), &[], NOW_MS + DAY_MS);
    let found = join_all((0..20).map(|_| world.keys("a.example", &["ed25519:one"], Some(NOW_MS)))).await;
    assert!(found.iter().all(|found| found == &["ed25519:one"]));
    assert_eq!(world.fetches(), 1);
    let dead = join_all((0..20).map(|_| world.keys("dead.example", &["ed25519:one"], Some(NOW_MS)))).await;
    assert!(dead.iter().all(Vec::is_empty));
    assert_eq!(world.fetches(), 2);
    assert!(world.core.inbound.keys.in_flight.lock().is_empty());
}

#[tokio::test]
async fn a_server_that_fails_is_asked_ever_more_seldom() {
    let world = World::new();
    for (asked_before, wait_ms) in [2_000, 4_000, 8_000].into_iter().enumerate() {
        assert!(world.keys("a.example", &["ed25519:one"], Some(NOW_MS)).await.is_empty());
        assert_eq!(world.fetches(), asked_before + 1);
        world.advance_ms(wait_ms - 1);
        assert!(world.keys("a.example", &["ed25519:one"], Some(NOW_MS)).await.is_empty());
        assert_eq!(world.fetches(), asked_before + 1);
        world.advance_ms(1);
    }
    world.publish("a.example", &key(1, "one"), &[], NOW_MS + DAY_MS);
    assert_eq!(world.keys("a.example", &["ed25519:one"], Some(NOW_MS)).await, ["ed25519:one"]);
}

#[tokio::test]
async fn an_unknown_key_id_does_not_make_us_ask_over_and_over() {
    let world = World::new();
    world.publish("a.example", &key(1, "one"), &[], NOW_MS + DAY_MS);
    for _ in 0..50 {
        assert_eq!(world.keys("a.example", &["ed25519:one", "ed25519:forged"], None).await, ["ed25519:one"]);
    }
    assert_eq!(world.fetches(), 10);
    world.advance_ms(10_000);
    world.publish("a.example", &key(2, "two"), &[(&key(1, "one"), NOW_MS)], NOW_MS + DAY_MS);
    assert_eq!(world.keys("a.example", &["ed25519:two"], Some(NOW_MS + 1)).await, ["ed25519:two"]);
    assert_eq!(world.fetches(), 11);
}

#[tokio::test]
async fn an_outdated_key_is_refreshed_and_otherwise_refused() {
    let world = World::new();
    world.publish("a.example", &key(1, "one"), &[], NOW_MS + DAY_MS);
    world.keys("a.example", &["ed25519:one"], Some(NOW_MS)).await;
    world.advance_ms(2 * DAY_MS);
    let now = NOW_MS + 2 * DAY_MS;
    assert!(world.keys("a.example", &["ed25519:one"], Some(now)).await.is_empty());
    world.advance_ms(10_000);
    world.publish("a.example", &key(1, "one"), &[], now + DAY_MS);
    assert_eq!(world.keys("a.example", &["ed25519:one"], Some(now)).await, ["ed25519:one"]);
}

#[tokio::test]
async fn documents_that_nobody_should_believe_are_not_believed() {
    let world = World::new();
    world.publish("b.example", &key(1, "one"), &[], NOW_MS + DAY_MS);
    let of_another = world.peers.documents.lock()[name("b.example")].clone();
    let bad =
        [of_another, b"{}".to_vec(), b"[]".to_vec(), b"\xff".to_vec(), b"{\"server_name\": 1.5}".to_vec(), Vec::new()];
    for (index, document) in bad.into_iter().enumerate() {
        let server = format!("a{index}.example");
        world.peers.documents.lock().insert(name(&server).to_owned(), document);
        assert!(world.keys(&server, &["ed25519:one"], None).await.is_empty());
    }
}

#[tokio::test]
async fn our_document_is_signed_and_lists_the_keys_we_used_before() {
    let world = World::new();
    let document = world.core.own_key_document().await.unwrap();
    let current = BTreeMap::from([("ed25519:us".to_owned(), key(200, "us").verify_key().to_base64())]);
    matron_room::verify_json_signature(&document, "us.example", &current).unwrap();
    let document = serde_json::to_value(&document).unwrap();
    assert_eq!(document["server_name"], "us.example");
    assert_eq!(document["old_verify_keys"], json!({}));
    assert!(document["valid_until_ts"].as_u64().unwrap() <= NOW_MS + 7 * DAY_MS);

    world.advance_ms(DAY_MS);
    let again = world.restarted(key(201, "new"));
    let document = again.own_key_document().await.unwrap();
    let current = BTreeMap::from([("ed25519:new".to_owned(), key(201, "new").verify_key().to_base64())]);
    matron_room::verify_json_signature(&document, "us.example", &current).unwrap();
    let document = serde_json::to_value(&document).unwrap();
    assert_eq!(document["verify_keys"].as_object().unwrap().len(), 1);
    assert_eq!(document["old_verify_keys"]["ed25519:us"]["expired_ts"], NOW_MS + DAY_MS);
    world.advance_ms(DAY_MS);
    let later = again.own_key_document().await.unwrap();
    let later = serde_json::to_value(&later).unwrap();
    assert_eq!(later["old_verify_keys"], document["old_verify_keys"], "a key retires once");
    let old = again.server_keys(name("us.example"), &ids(&["ed25519:us"]), Some(NOW_MS)).await.unwrap();
    assert_eq!(old["ed25519:us"], key(200, "us").verify_key(), "our own old events still verify");
}

#[tokio::test]
async fn a_notary_signs_beside_the_server_and_answers_for_one_that_is_gone() {
    let world = World::new();
    world.publish("a.example", &key(1, "one"), &[], NOW_MS + DAY_MS);
    let wanted = || ["a.example", "dead.example", "us.example"].iter().map(|server| query(server, &[])).collect();
    let documents = world.core.notarised_keys(wanted()).await.unwrap();
    assert_eq!(documents.len(), 2);
    let us = BTreeMap::from([("ed25519:us".to_owned(), key(200, "us").verify_key().to_base64())]);
    let them = BTreeMap::from([("ed25519:one".to_owned(), key(1, "one").verify_key().to_base64())]);
    for document in &documents {
        matron_room::verify_json_signature(document, "us.example", &us).unwrap();
    }
    matron_room::verify_json_signature(&documents[0], "a.example", &them).unwrap();

    world.peers.documents.lock().clear();
    world.advance_ms(3 * DAY_MS);
    assert_eq!(world.core.notarised_keys(wanted()).await.unwrap().len(), 2, "an old document is better than none");
    let many = (0..101).map(|index| query(&format!("s{index}.example"), &[])).collect();
    assert!(matches!(world.core.notarised_keys(many).await, Err(Error::TooLarge(_))));
}

#[tokio::test]
async fn a_notary_asks_again_for_what_has_run_out_and_keeps_what_the_server_forgot() {
    let world = World::new();
    let expired = NOW_MS - DAY_MS;
    world.publish("a.example", &key(1, "one"), &[], expired);
    let keys_of = |documents: Vec<ruma::CanonicalJsonObject>| -> Vec<String> {
        let keys = |document: &serde_json::Value| {
            document["verify_keys"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        documents.iter().flat_map(|document| keys(&serde_json::to_value(document).unwrap())).collect()
    };
    let ask = async |min: u64| {
        keys_of(world.core.notarised_keys(vec![query("a.example", &[("ed25519:one", Some(min))])]).await.unwrap())
    };
    assert_eq!(ask(0).await, ["ed25519:one"]);
    assert_eq!(world.fetches(), 1);
    assert_eq!(ask(expired + 1000).await, ["ed25519:one"]);
    assert_eq!(world.fetches(), 2);
    world.publish("a.example", &key(2, "two"), &[], expired + 1000);
    assert_eq!(ask(NOW_MS).await, ["ed25519:one"], "the server now publishes another key only");
    assert_eq!(world.fetches(), 3);
    assert_eq!(ask(expired).await, ["ed25519:one"]);
    let all = keys_of(world.core.notarised_keys(vec![query("a.example", &[])]).await.unwrap());
    assert_eq!(all, ["ed25519:two"]);
    let both = query("a.example", &[("ed25519:one", None), ("ed25519:two", Some(0)), ("ed25519:three", None)]);
    assert_eq!(keys_of(world.core.notarised_keys(vec![both]).await.unwrap()), ["ed25519:one", "ed25519:two"]);
}

#[tokio::test]
async fn a_trusted_notary_stands_in_for_a_server_that_is_gone() {
    let world = World::new();
    let notary = key(9, "notary");
    world.publish("notary.example", &notary, &[], NOW_MS + DAY_MS);
    let mut document = World::document("gone.example", &key(1, "one"), &[], NOW_MS + DAY_MS);
    let unsigned = serde_json::to_vec(&json!({ "server_keys": [&document] })).unwrap();
    *world.peers.notarised.lock() = Some(unsigned);
    assert!(world.keys("gone.example", &["ed25519:one"], Some(NOW_MS)).await.is_empty(), "the notary did not sign");

    world.advance_ms(10_000);
    notary.sign_json(&mut document, "notary.example").unwrap();
    let mut forged = World::document("gone.example", &key(3, "two"), &[], NOW_MS + DAY_MS);
    key(4, "notary").sign_json(&mut forged, "notary.example").unwrap();
    let other = World::document("other.example", &key(3, "two"), &[], NOW_MS + DAY_MS);
    let signed = serde_json::to_vec(&json!({ "server_keys": [forged, other, document, 7] })).unwrap();
    *world.peers.notarised.lock() = Some(signed);
    let wanted = ["ed25519:one", "ed25519:two"];
    assert_eq!(world.keys("gone.example", &wanted, Some(NOW_MS)).await, ["ed25519:one"]);
}

#[tokio::test]
async fn a_notary_knows_a_key_of_the_past_that_its_server_forgot() {
    let world = World::new();
    let notary = key(9, "notary");
    world.publish("notary.example", &notary, &[], NOW_MS + DAY_MS);
    world.publish("a.example", &key(2, "two"), &[], NOW_MS + DAY_MS);
    let mut document = World::document("a.example", &key(1, "one"), &[], NOW_MS - DAY_MS);
    notary.sign_json(&mut document, "notary.example").unwrap();
    *world.peers.notarised.lock() = Some(serde_json::to_vec(&json!({ "server_keys": [document] })).unwrap());
    // What signs now, the server itself must publish.
    assert!(world.keys("a.example", &["ed25519:one"], Some(NOW_MS)).await.is_empty());
    assert!(world.peers.queried.lock().is_empty());
    let then = NOW_MS - 2 * DAY_MS;
    assert_eq!(world.keys("a.example", &["ed25519:one"], Some(then)).await, ["ed25519:one"]);
    let asked = json!({ "a.example": { "ed25519:one": { "minimum_valid_until_ts": then } } });
    assert_eq!(*world.peers.queried.lock(), [asked]);
    assert_eq!(world.keys("a.example", &["ed25519:one", "ed25519:two"], Some(then)).await.len(), 2);
    assert!(world.keys("a.example", &["ed25519:one"], Some(NOW_MS - DAY_MS + 1)).await.is_empty());
    assert_eq!(world.keys("a.example", &["ed25519:two"], Some(NOW_MS)).await, ["ed25519:two"]);
}

#[tokio::test]
async fn a_notary_keeps_an_answer_for_half_of_its_life() {
    let world = World::new();
    world.publish("a.example", &key(1, "one"), &[(&key(2, "old"), NOW_MS - 9)], NOW_MS + DAY_MS);
    let ask = async |keys: &[(&str, Option<u64>)]| {
        assert_eq!(world.core.notarised_keys(vec![query("a.example", keys)]).await.unwrap().len(), 1);
        world.fetches()
    };
    assert_eq!(ask(&[]).await, 1);
    world.advance_ms(DAY_MS / 2 - 1);
    assert_eq!(ask(&[]).await, 1);
    assert_eq!(ask(&[("ed25519:one", None)]).await, 1);
    assert_eq!(ask(&[("ed25519:old", None)]).await, 1, "nobody makes a retired key valid again");
    world.advance_ms(1);
    assert_eq!(ask(&[("ed25519:one", Some(NOW_MS))]).await, 1, "for the past, what is known is enough");
    assert_eq!(ask(&[("ed25519:one", None)]).await, 2);
    // It has not been renewed: half of what is left is over already.
    world.publish("a.example", &key(1, "one"), &[], NOW_MS + 3 * DAY_MS);
    world.advance_ms(DAY_MS / 4);
    assert_eq!(ask(&[]).await, 3);
    assert_eq!(ask(&[]).await, 3);
}

#[tokio::test]
async fn events_from_before_and_after_a_change_of_keys_cost_one_fetch() {
    let world = World::new();
    let (old, new) = (key(1, "one"), key(2, "two"));
    world.publish("a.example", &new, &[(&old, NOW_MS - DAY_MS)], NOW_MS + DAY_MS);
    let events =
        [event("11", NOW_MS - 2 * DAY_MS, &old), event("11", NOW_MS, &new), event("11", NOW_MS - DAY_MS, &old)];
    for _ in 0..2 {
        world.core.prepare_keys_for_events(&events).await.unwrap();
        for event in &events {
            let keys = world.core.keys_for_event(event).await.unwrap();
            assert!(keys.values().all(|keys| keys.len() == 1));
        }
    }
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_give_its_keys_holds_up_no_events_beyond_the_time_for_it() {
    let world = World::new();
    let one = key(1, "one");
    world.publish("a.example", &one, &[], NOW_MS + DAY_MS);
    let events = [event("11", NOW_MS, &one)];
    let long = tokio::time::Instant::now() + std::time::Duration::from_secs(600);
    world.peers.gate.forget_permits(100);
    let keys = world.core.known_keys_for_events(&events, tokio::time::Instant::now()).await.unwrap();
    assert!(keys.find_key(name("a.example"), one.key_id(), Some(NOW_MS)).is_none());

    world.peers.gate.add_permits(1);
    let keys = world.core.known_keys_for_events(&events, long).await.unwrap();
    assert_eq!(keys.find_key(name("a.example"), one.key_id(), Some(NOW_MS)), Some(one.verify_key()));
    assert!(keys.find_key(name("a.example"), one.key_id(), Some(NOW_MS + 8 * DAY_MS)).is_none(), "not for ever");
    assert!(keys.find_key(name("b.example"), one.key_id(), Some(NOW_MS)).is_none());
    for event in events {
        event.verify(&keys).unwrap();
    }
}

fn query(server: &str, keys: &[(&str, Option<u64>)]) -> KeyQuery {
    let keys = keys.iter().map(|(key_id, until_ms)| ((*key_id).to_owned(), *until_ms)).collect();
    KeyQuery { server: name(server).to_owned(), keys, until_ms: None }
}

fn signed(key: &SigningKey, origin: &str, destination: Option<&str>, content: Option<&serde_json::Value>) -> String {
    let request = SignedRequest {
        method: "PUT",
        uri: "/_matrix/federation/v1/send/1",
        origin: name(origin),
        destination: destination.map(name),
        content,
    };
    sign_request(&request, key)
}

#[tokio::test]
async fn a_signed_request_tells_who_asks() {
    let world = World::new();
    world.publish("a.example", &key(1, "one"), &[], NOW_MS + DAY_MS);
    let content = json!({"pdus": []});
    let uri = "/_matrix/federation/v1/send/1";
    for destination in [Some("us.example"), None] {
        let header = signed(&key(1, "one"), "a.example", destination, Some(&content));
        let server = world.core.verify_x_matrix(&header, "PUT", uri, Some(&content)).await.unwrap();
        assert_eq!(server, "a.example");
    }
    assert_eq!(world.peers.heard.lock().len(), 2);

    let header = signed(&key(1, "one"), "a.example", Some("us.example"), Some(&content));
    let refused = |result: Result<OwnedServerName, Error>| matches!(result, Err(Error::Unauthorized(_)));
    assert!(refused(world.core.verify_x_matrix(&header, "POST", uri, Some(&content)).await), "another method");
    assert!(refused(world.core.verify_x_matrix(&header, "PUT", "/_matrix/x", Some(&content)).await), "another path");
    assert!(refused(world.core.verify_x_matrix(&header, "PUT", uri, Some(&json!({}))).await), "another body");
    assert!(refused(world.core.verify_x_matrix(&header, "PUT", uri, None).await), "no body");
    for header in [
        signed(&key(1, "one"), "a.example", Some("b.example"), Some(&content)),
        signed(&key(2, "one"), "a.example", Some("us.example"), Some(&content)),
        signed(&key(1, "two"), "a.example", Some("us.example"), Some(&content)),
        signed(&key(200, "us"), "us.example", Some("us.example"), Some(&content)),
        signed(&key(1, "one"), "dead.example", Some("us.example"), Some(&content)),
        "Bearer token".to_owned(),
    ] {
        assert!(refused(world.core.verify_x_matrix(&header, "PUT", uri, Some(&content)).await), "{header}");
    }
    assert_eq!(world.peers.heard.lock().len(), 2);
}

#[tokio::test]
async fn a_retired_key_no_longer_signs_requests() {
    let world = World::new();
    world.publish("a.example", &key(2, "two"), &[(&key(1, "one"), NOW_MS - 1)], NOW_MS + DAY_MS);
    let header = signed(&key(1, "one"), "a.example", None, None);
    let result = world.core.verify_x_matrix(&header, "PUT", "/_matrix/federation/v1/send/1", None).await;
    assert!(matches!(result, Err(Error::Unauthorized(_))));
}

fn event(version: &str, sent_ms: u64, signing_key: &SigningKey) -> UncheckedPdu {
    let version = RoomVersion::find(version).unwrap();
    let mut draft = DraftPdu::new(
        Some("!room:a.example".try_into().unwrap()),
        "@u:a.example".try_into().unwrap(),
        "m.room.message",
        json!({"body": "x", "msgtype": "m.text"}),
    );
    draft.origin_server_ts_ms = sent_ms;
    let pdu = draft.seal(version, signing_key, name("a.example")).unwrap();
    UncheckedPdu::parse(pdu.json(), version).unwrap()
}

#[tokio::test]
async fn an_event_needs_a_key_that_was_valid_when_it_was_sent() {
    let world = World::new();
    let old = key(1, "one");
    world.publish("a.example", &key(2, "two"), &[(&old, NOW_MS - DAY_MS)], NOW_MS + DAY_MS);
    for (version, sent_ms, stands) in
        [("11", NOW_MS - DAY_MS, true), ("11", NOW_MS - DAY_MS + 1, false), ("4", NOW_MS - DAY_MS + 1, true)]
    {
        let event = event(version, sent_ms, &old);
        world.core.prepare_keys_for_events([&event]).await.unwrap();
        let keys = world.core.keys_for_event(&event).await.unwrap();
        assert_eq!(event.verify(&keys).is_ok(), stands, "version {version}, sent {sent_ms}");
    }
}
