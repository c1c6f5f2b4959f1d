//! Two trusts: what their people see of each other beside messages.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use matron_testkit::{Person, TestNet, TestServer, part};

fn has(list: &Value, wanted: &str) -> Option<()> {
    list.as_array()?.iter().any(|entry| entry == wanted).then_some(())
}

fn device_keys(person: &Person, key: &str) -> Value {
    json!({
        "user_id": person.id,
        "device_id": person.device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { format!("ed25519:{}", person.device): key },
        "signatures": {},
    })
}

async fn keys_of(asker: &Person, person: &Person) -> Value {
    let answer = asker.post("/v3/keys/query", json!({ "device_keys": { &person.id: [] } })).await;
    assert_eq!(answer["failures"], json!({}));
    answer["device_keys"][&person.id].clone()
}

/// Two servers, and somebody on each.
async fn two_trusts() -> (Arc<TestNet>, TestServer, TestServer, Person, Person) {
    let network = TestNet::new();
    let (north, south) = (network.server("north.example"), network.server("south.example"));
    let (alice, bob) = (north.person("alice").await, south.person("bob").await);
    (network, north, south, alice, bob)
}

#[tokio::test]
async fn new_devices_are_heard_of_and_their_keys_found_across_trusts() {
    let (_network, _north, south, alice, bob) = two_trusts().await;
    alice.room_with(&[&bob]).await;
    let since = alice.now().await;
    bob.post("/v3/keys/upload", json!({ "device_keys": device_keys(&bob, "first") })).await;
    let (_, since) = alice.sync_until(&since, |answer| has(&answer["device_lists"]["changed"], &bob.id)).await;
    let named = format!("ed25519:{}", bob.device);
    assert_eq!(keys_of(&alice, &bob).await[&bob.device]["keys"][&named], "first");
    bob.post("/v3/keys/upload", json!({ "device_keys": device_keys(&bob, "second") })).await;
    let (_, since) = alice.sync_until(&since, |answer| has(&answer["device_lists"]["changed"], &bob.id)).await;
    assert_eq!(keys_of(&alice, &bob).await[&bob.device]["keys"][&named], "second");
    let cached: &ruma::UserId = bob.id.as_str().try_into().unwrap();
    assert_eq!(south.core.federation_user_devices(cached).unwrap().devices.len(), 1);
    bob.post("/v3/logout", json!({})).await;
    alice.sync_until(&since, |answer| has(&answer["device_lists"]["changed"], &bob.id)).await;
    assert_eq!(keys_of(&alice, &bob).await, json!({}));
}

#[tokio::test]
async fn a_change_that_was_missed_is_made_up_for() {
    let (network, north, south, alice, bob) = two_trusts().await;
    alice.room_with(&[&bob]).await;
    let since = alice.now().await;
    bob.post("/v3/keys/upload", json!({ "device_keys": device_keys(&bob, "first") })).await;
    alice.sync_until(&since, |answer| has(&answer["device_lists"]["changed"], &bob.id)).await;
    assert_eq!(keys_of(&alice, &bob).await.as_object().unwrap().len(), 1);
    network.cut_off(&south, true);
    bob.post("/v3/keys/upload", json!({ "device_keys": device_keys(&bob, "second") })).await;
    let since = alice.now().await;
    network.cut_off(&south, false);
    south.core.wake_outbox(&north.name);
    alice.sync_until(&since, |answer| has(&answer["device_lists"]["changed"], &bob.id)).await;
    let named = format!("ed25519:{}", bob.device);
    assert_eq!(keys_of(&alice, &bob).await[&bob.device]["keys"][&named], "second");
}

#[tokio::test]
async fn one_time_keys_are_claimed_and_messages_reach_devices_across_trusts() {
    let (network, _north, south, alice, bob) = two_trusts().await;
    bob.post("/v3/keys/upload", json!({ "one_time_keys": { "signed_curve25519:1": { "key": "one" } } })).await;
    let claim = json!({ "one_time_keys": { &bob.id: { &bob.device: "signed_curve25519" } } });
    let claimed = alice.post("/v3/keys/claim", claim.clone()).await;
    assert_eq!(claimed["one_time_keys"][&bob.id][&bob.device], json!({ "signed_curve25519:1": { "key": "one" } }));
    let empty = alice.post("/v3/keys/claim", claim.clone()).await;
    assert_eq!(empty["one_time_keys"].get(&bob.id), None);
    let message = json!({ "messages": { &bob.id: { "*": { "n": 1 } } } });
    alice.put("/v3/sendToDevice/m.test/1", message).await;
    let (event, _) = bob.sync_until("", |answer| answer["to_device"]["events"].get(0).cloned()).await;
    assert_eq!(event, json!({ "sender": alice.id, "type": "m.test", "content": { "n": 1 } }));
    network.cut_off(&south, true);
    let failed = alice.post("/v3/keys/claim", claim).await;
    assert!(failed["failures"]["south.example"].is_object());
}

#[tokio::test]
async fn typing_and_presence_are_seen_across_trusts() {
    let (_network, _north, _south, alice, bob) = two_trusts().await;
    let room = alice.room_with(&[&bob]).await;
    let since = alice.now().await;
    let typing = format!("/v3/rooms/{}/typing/{}", part(&room), part(&bob.id));
    bob.put(&typing, json!({ "typing": true, "timeout": 30_000 })).await;
    let typists = |answer: &Value| {
        let events = answer["rooms"]["join"][&room]["ephemeral"]["events"].as_array()?;
        events.iter().find(|event| event["type"] == "m.typing").map(|event| event["content"]["user_ids"].clone())
    };
    let (seen, since) = alice.sync_until(&since, typists).await;
    assert_eq!(seen, json!([bob.id]));
    bob.put(&typing, json!({ "typing": false })).await;
    let (seen, since) = alice.sync_until(&since, typists).await;
    assert_eq!(seen, json!([]));
    let status = format!("/v3/presence/{}/status", part(&bob.id));
    bob.put(&status, json!({ "presence": "unavailable", "status_msg": "in theatre" })).await;
    alice
        .sync_until(&since, |answer| {
            let events = answer["presence"]["events"].as_array()?;
            events
                .iter()
                .find(|event| event["sender"] == bob.id.as_str() && event["content"]["status_msg"] == "in theatre")
                .map(|_| ())
        })
        .await;
    assert_eq!(alice.get(&status).await["presence"], "unavailable");
}

#[tokio::test]
async fn a_file_is_fetched_from_the_trust_that_has_it() {
    let (network, _north, south, alice, bob) = two_trusts().await;
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let answer = bob.raw("POST", "/_matrix/media/v3/upload?filename=a.bin", content.clone()).await;
    let answer: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let mxc = answer["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned();
    for cut_off in [false, true] {
        network.cut_off(&south, cut_off);
        let file = alice.raw("GET", &format!("/v1/media/download/{mxc}"), "").await;
        assert_eq!(file.status(), 200, "the second time from the cache");
        assert_eq!(file.headers()["content-disposition"], "attachment; filename=a.bin");
        assert_eq!(file.into_body().collect().await.unwrap().to_bytes(), content);
    }
    let (status, refused) = alice.send("GET", "/v1/media/download/south.example/unknown", &Value::Null).await;
    assert_eq!(status, 502, "{refused}");
    network.cut_off(&south, false);
    let (status, refused) = alice.send("GET", "/v1/media/download/south.example/unknown", &Value::Null).await;
    assert_eq!((status, &refused["errcode"]), (404, &json!("M_NOT_FOUND")));
}

#[tokio::test]
async fn an_identity_and_its_signatures_are_seen_across_trusts() {
    let (_network, _north, _south, alice, bob) = two_trusts().await;
    alice.room_with(&[&bob]).await;
    keys_of(&alice, &bob).await;
    let since = alice.now().await;
    let public = matron_room::SigningKey::from_seed("x", &[9; 32]).unwrap().verify_key().to_base64();
    let master = json!({ "user_id": bob.id, "usage": ["master"], "keys": { format!("ed25519:{public}"): public } });
    bob.post("/v3/keys/device_signing/upload", json!({ "master_key": master })).await;
    alice.sync_until(&since, |answer| has(&answer["device_lists"]["changed"], &bob.id)).await;
    let answer = alice.post("/v3/keys/query", json!({ "device_keys": { &bob.id: [] } })).await;
    assert_eq!(answer["master_keys"][&bob.id], master);
}
