//! Keys, as devices and other servers see them.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use matron_room::SigningKey;
use matron_storage::{Batch, Key, KeyRange, Order, StreamPos, Table};
use ruma::{OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Value, json};

use super::{
    at_rest::Opened,
    backup::{Scope, Sessions, VersionUpload},
    claim::KeysClaim,
    cross_signing::CrossSigningUpload,
    query::KeysQuery,
    upload::KeysUpload,
};
use crate::{
    Error, Requester,
    ports::PeerError,
    test_world::{World, json_answer},
};

fn upload(value: Value) -> KeysUpload {
    serde_json::from_value(value).unwrap()
}

fn claim_of(device: &Requester) -> KeysClaim {
    let device_id = device.device_id.as_ref().unwrap();
    serde_json::from_value(json!({ "one_time_keys": { &device.user_id: { device_id: "signed_curve25519" } } })).unwrap()
}

fn query_of(user: &UserId) -> KeysQuery {
    serde_json::from_value(json!({ "device_keys": { user: [] } })).unwrap()
}

fn device_keys(device: &Requester, key: &SigningKey) -> Value {
    let device_id = device.device_id.as_ref().unwrap();
    let keys = json!({
        "user_id": device.user_id,
        "device_id": device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": { format!("ed25519:{device_id}"): key.verify_key().to_base64() },
    });
    signed(keys, &device.user_id, &format!("ed25519:{device_id}"), key)
}

fn seed(byte: u8) -> SigningKey {
    SigningKey::from_seed("x", &[byte; 32]).unwrap()
}

/// The object with one more signature, under a key id of the caller's choice.
fn signed(mut object: Value, signer: &UserId, key_id: &str, key: &SigningKey) -> Value {
    let mut bare = object.clone();
    bare.as_object_mut().unwrap().remove("signatures");
    let signature = key.sign_bytes(matron_room::canonical_json(&bare).unwrap().as_bytes());
    super::signed_json::add_signature(&mut object, signer.as_str(), key_id, signature);
    object
}

fn cross_key(user: &UserId, usage: &str, key: &SigningKey) -> Value {
    let public = key.verify_key().to_base64();
    json!({ "user_id": user, "usage": [usage], "keys": { format!("ed25519:{public}"): public } })
}

fn key_id(key: &SigningKey) -> String {
    format!("ed25519:{}", key.verify_key().to_base64())
}

/// Master, self-signing and user-signing key made of three seeds.
fn identity(user: &UserId, first: u8) -> CrossSigningUpload {
    let master = seed(first);
    let part = |usage, number| signed(cross_key(user, usage, &seed(number)), user, &key_id(&master), &master);
    CrossSigningUpload {
        master_key: Some(cross_key(user, "master", &master)),
        self_signing_key: Some(part("self_signing", first + 1)),
        user_signing_key: Some(part("user_signing", first + 2)),
    }
}

fn position(world: &World) -> StreamPos {
    world.core.position()
}

fn changed_since(world: &World, user: &UserId, from: StreamPos) -> BTreeSet<OwnedUserId> {
    world.core.device_list_changes_between(user, from, position(world)).unwrap().changed
}

#[tokio::test]
async fn a_one_time_key_is_given_once_even_to_many_at_one_time() {
    let world = World::new();
    let alice = world.device(&world.user("alice").await, "A").await;
    let keys: serde_json::Map<_, _> =
        (0..20).map(|n| (format!("signed_curve25519:{n}"), json!({ "key": n.to_string() }))).collect();
    let counts = world.core.upload_keys(&alice, upload(json!({ "one_time_keys": keys }))).await.unwrap();
    assert_eq!(counts["signed_curve25519"], 20);
    let claimed = join_all((0..30).map(|_| world.core.claim_keys(claim_of(&alice)))).await;
    let mut names = Vec::new();
    for answer in claimed {
        for keys in answer.unwrap().one_time_keys.into_values().flat_map(std::collections::BTreeMap::into_values) {
            names.extend(keys.into_iter().map(|(name, _)| name));
        }
    }
    assert_eq!(names.len(), 20, "ten of thirty went away with nothing");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 20, "no key was given twice");
    let counts = world.core.otk_counts(&alice.user_id, alice.device_id.as_ref().unwrap()).unwrap();
    assert_eq!(counts.counts["signed_curve25519"], 0);
}

#[tokio::test]
async fn keys_are_given_in_the_order_of_their_uploads() {
    let world = World::new();
    let alice = world.device(&world.user("alice").await, "A").await;
    for name in ["z", "a", "m"] {
        let keys = json!({ "one_time_keys": { format!("signed_curve25519:{name}"): { "key": name } } });
        world.core.upload_keys(&alice, upload(keys)).await.unwrap();
    }
    for name in ["z", "a", "m"] {
        let answer = world.core.claim_keys(claim_of(&alice)).await.unwrap();
        let keys = &answer.one_time_keys[&alice.user_id][alice.device_id.as_ref().unwrap()];
        assert_eq!(keys.keys().next().unwrap(), &format!("signed_curve25519:{name}"));
    }
}

#[tokio::test]
async fn a_fallback_key_is_given_again_and_told_as_used() {
    let world = World::new();
    let alice = world.device(&world.user("alice").await, "A").await;
    let device = alice.device_id.clone().unwrap();
    let keys = json!({ "fallback_keys": { "signed_curve25519:f": { "key": "F", "fallback": true } } });
    world.core.upload_keys(&alice, upload(keys.clone())).await.unwrap();
    assert_eq!(*world.core.otk_counts(&alice.user_id, &device).unwrap().unused_fallback, ["signed_curve25519"]);
    for _ in 0..3 {
        let answer = world.core.claim_keys(claim_of(&alice)).await.unwrap();
        assert_eq!(answer.one_time_keys[&alice.user_id][&device]["signed_curve25519:f"]["key"], "F");
    }
    assert!(world.core.otk_counts(&alice.user_id, &device).unwrap().unused_fallback.is_empty());
    world.core.upload_keys(&alice, upload(keys)).await.unwrap();
    assert!(
        world.core.otk_counts(&alice.user_id, &device).unwrap().unused_fallback.is_empty(),
        "the same key is no new key"
    );
}

#[tokio::test]
async fn a_key_id_with_another_value_is_refused_and_the_same_value_is_not() {
    let world = World::new();
    let alice = world.device(&world.user("alice").await, "A").await;
    let with = |value| upload(json!({ "one_time_keys": { "signed_curve25519:1": { "key": value } } }));
    world.core.upload_keys(&alice, with("one")).await.unwrap();
    let counts = world.core.upload_keys(&alice, with("one")).await.unwrap();
    assert_eq!(counts["signed_curve25519"], 1);
    assert!(matches!(world.core.upload_keys(&alice, with("two")).await, Err(Error::Unknown(_))));
}

#[tokio::test]
async fn device_keys_must_have_their_form_and_name_their_device() {
    let world = World::new();
    let alice = world.device(&world.user("alice").await, "A").await;
    let bare = json!({ "device_keys": { "user_id": alice.user_id, "device_id": "A" } });
    assert!(matches!(world.core.upload_keys(&alice, upload(bare)).await, Err(Error::BadJson(_))));
    let mut other = device_keys(&alice, &seed(1));
    other["device_id"] = "B".into();
    let other = upload(json!({ "device_keys": other }));
    assert!(matches!(world.core.upload_keys(&alice, other).await, Err(Error::InvalidParam(_))));
}

#[tokio::test]
async fn who_shares_a_room_hears_of_new_device_keys_and_nobody_else() {
    let world = World::new();
    let (alice, bob, eve) = (world.user("alice").await, world.user("bob").await, world.user("eve").await);
    let device = world.device(&alice, "A").await;
    world.room(&[&alice, &bob]).await;
    let before = position(&world);
    let keys = device_keys(&device, &seed(1));
    world.core.upload_keys(&device, upload(json!({ "device_keys": keys }))).await.unwrap();
    for user in [&alice, &bob] {
        assert_eq!(changed_since(&world, user, before), BTreeSet::from([alice.clone()]));
    }
    assert!(changed_since(&world, &eve, before).is_empty());
    let known = world.core.query_keys(&bob, query_of(&alice)).await.unwrap();
    assert_eq!(known.device_keys[&alice]["A"]["keys"], keys["keys"]);
}

#[tokio::test]
async fn a_device_that_goes_takes_its_keys_along() {
    let world = World::new();
    let alice = world.user("alice").await;
    let device = world.device(&alice, "A").await;
    let keys = json!({
        "device_keys": device_keys(&device, &seed(1)),
        "one_time_keys": { "signed_curve25519:1": { "key": "1" } },
        "fallback_keys": { "signed_curve25519:f": { "key": "f" } },
    });
    world.core.upload_keys(&device, upload(keys)).await.unwrap();
    let before = position(&world);
    world.core.delete_devices(&alice, &[device.device_id.clone().unwrap()]).await.unwrap();
    assert!(changed_since(&world, &alice, before).contains(&alice));
    assert!(world.core.query_keys(&alice, query_of(&alice)).await.unwrap().device_keys[&alice].is_empty());
    assert!(world.core.claim_keys(claim_of(&device)).await.unwrap().one_time_keys.is_empty());
}

#[tokio::test]
async fn who_comes_and_goes_is_told_as_changed_and_left() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&[&alice]).await;
    let before = position(&world);
    world.core.join_room(&bob, &room, crate::rooms::membership::JoinOptions::default()).await.unwrap();
    assert!(changed_since(&world, &alice, before).contains(&bob));
    assert!(changed_since(&world, &bob, before).contains(&alice));
    let before = position(&world);
    world.core.leave_room(&bob, &room, None).await.unwrap();
    let after = position(&world);
    let told = |user| world.core.device_list_changes_between(user, before, after).unwrap().left;
    assert_eq!(told(&alice), BTreeSet::from([bob.clone()]));
    assert_eq!(told(&bob), BTreeSet::from([alice.clone()]));
}

#[tokio::test]
async fn who_is_invited_is_told_as_changed() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = world.room(&[&alice]).await;
    let before = position(&world);
    world.core.invite(&alice, &room, &bob, None, false).await.unwrap();
    let told = world.core.device_list_changes_between(&alice, before, position(&world)).unwrap();
    assert_eq!((told.changed, told.left), (BTreeSet::from([bob]), BTreeSet::new()));
}

#[tokio::test]
async fn a_first_identity_needs_no_proof_and_another_one_does() {
    let world = World::new();
    let alice = world.user("alice").await;
    let first = identity(&alice, 10);
    assert!(!world.core.cross_signing_needs_auth(&alice, &first).unwrap());
    world.core.upload_cross_signing_keys(&alice, &first).await.unwrap();
    assert!(!world.core.cross_signing_needs_auth(&alice, &first).unwrap(), "a repeated upload is no new identity");
    assert!(world.core.cross_signing_needs_auth(&alice, &identity(&alice, 20)).unwrap());
    let known = world.core.query_keys(&alice, query_of(&alice)).await.unwrap();
    assert_eq!(known.master_keys[&alice], first.master_key.unwrap());
    assert_eq!(known.user_signing_keys[&alice], first.user_signing_key.unwrap());
}

#[tokio::test]
async fn an_identity_whose_parts_do_not_belong_together_is_refused() {
    let world = World::new();
    let alice = world.user("alice").await;
    let mixed = CrossSigningUpload { self_signing_key: identity(&alice, 20).self_signing_key, ..identity(&alice, 10) };
    let refused = world.core.upload_cross_signing_keys(&alice, &mixed).await;
    assert!(matches!(refused, Err(Error::Custom { errcode: "M_INVALID_SIGNATURE", .. })));
    let headless = CrossSigningUpload { master_key: None, ..identity(&alice, 10) };
    let refused = world.core.upload_cross_signing_keys(&alice, &headless).await;
    assert!(matches!(refused, Err(Error::MissingParam(_))));
}

#[tokio::test]
async fn only_right_signatures_of_the_right_key_are_kept() {
    let world = World::new();
    let alice = world.user("alice").await;
    let device = world.device(&alice, "A").await;
    let keys = device_keys(&device, &seed(1));
    world.core.upload_keys(&device, upload(json!({ "device_keys": keys }))).await.unwrap();
    world.core.upload_cross_signing_keys(&alice, &identity(&alice, 10)).await.unwrap();
    let self_signing = seed(11);
    let right = signed(keys.clone(), &alice, &key_id(&self_signing), &self_signing);
    let forged = signed(keys.clone(), &alice, &key_id(&self_signing), &seed(99));
    let mut altered = right.clone();
    altered["algorithms"] = json!([]);
    for (object, errcode) in
        [(forged, "M_INVALID_SIGNATURE"), (altered, "M_INVALID_PARAM"), (keys, "M_INVALID_SIGNATURE")]
    {
        let body = serde_json::from_value(json!({ &alice: { "A": object } })).unwrap();
        let failures = world.core.upload_signatures(&alice, body).await.unwrap();
        assert_eq!(failures[&alice]["A"]["errcode"], errcode);
    }
    let before = position(&world);
    let body = serde_json::from_value(json!({ &alice: { "A": right, "B": right } })).unwrap();
    let failures = world.core.upload_signatures(&alice, body).await.unwrap();
    assert_eq!(failures[&alice].keys().collect::<Vec<_>>(), ["B"]);
    assert!(changed_since(&world, &alice, before).contains(&alice));
    let known = world.core.query_keys(&alice, query_of(&alice)).await.unwrap();
    assert_eq!(known.device_keys[&alice]["A"]["signatures"], right["signatures"]);
    let told = world.core.federation_user_devices(&alice).unwrap();
    assert_eq!(told.devices[0].keys["signatures"], right["signatures"]);
}

#[tokio::test]
async fn whom_a_user_verified_is_nobody_elses_business() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    world.room(&[&alice, &bob]).await;
    world.core.upload_cross_signing_keys(&alice, &identity(&alice, 10)).await.unwrap();
    world.core.upload_cross_signing_keys(&bob, &identity(&bob, 20)).await.unwrap();
    let before = position(&world);
    let user_signing = seed(12);
    let bobs = cross_key(&bob, "master", &seed(20));
    let verified = signed(bobs, &alice, &key_id(&user_signing), &user_signing);
    let target = seed(20).verify_key().to_base64();
    let body = serde_json::from_value(json!({ &bob: { target: verified } })).unwrap();
    assert!(world.core.upload_signatures(&alice, body).await.unwrap().is_empty());
    assert!(changed_since(&world, &alice, before).contains(&bob));
    assert!(changed_since(&world, &bob, before).is_empty());
    let seen_by = |answer: super::query::QueryAnswer| answer.master_keys[&bob]["signatures"][alice.as_str()].clone();
    assert!(seen_by(world.core.query_keys(&alice, query_of(&bob)).await.unwrap()).is_object());
    assert!(seen_by(world.core.query_keys(&bob, query_of(&bob)).await.unwrap()).is_null());
}

#[tokio::test]
async fn servers_that_do_not_answer_are_named_and_others_are_believed_of_their_own_users_only() {
    let world = World::new();
    let alice = world.user("alice").await;
    world.answer(|request| match request.destination.as_str() {
        "good.example" => json_answer(&json!({
            "device_keys": {
                "@u:good.example": { "D": { "user_id": "@u:good.example", "device_id": "D" }, "E": { "user_id": "@u:good.example", "device_id": "D" }, "F": {} },
                "@alice:us.example": { "X": { "user_id": "@alice:us.example", "device_id": "X" } },
            },
            "master_keys": { "@u:good.example": { "user_id": "@other:good.example" } },
        })),
        _ => Err(PeerError::Timeout),
    });
    let query = json!({ "device_keys": { "@u:good.example": [], "@u:dead.example": [], &alice: [] } });
    let answer = world.core.query_keys(&alice, serde_json::from_value(query).unwrap()).await.unwrap();
    let dead: &ServerName = "dead.example".try_into().unwrap();
    assert_eq!(answer.failures.keys().collect::<Vec<_>>(), [dead]);
    let user: &UserId = "@u:good.example".try_into().unwrap();
    assert_eq!(answer.device_keys[user].keys().collect::<Vec<_>>(), ["D", "F"]);
    assert!(answer.device_keys[&alice].is_empty());
    assert!(answer.master_keys.is_empty());
}

#[tokio::test]
async fn messages_reach_each_device_once_and_wait_until_they_are_acknowledged() {
    let world = World::new();
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let sender = world.device(&alice, "A").await;
    for device in ["B1", "B2"] {
        world.device(&bob, device).await;
    }
    let messages = || serde_json::from_value(json!({ &bob: { "*": { "n": 1 }, "nobody": { "n": 2 } } })).unwrap();
    for _ in 0..2 {
        world.core.send_to_device(&sender, "m.test", "txn", messages()).await.unwrap();
    }
    for device in ["B1", "B2"] {
        let read = |from| world.core.to_device_since(&bob, device.into(), from, position(&world), 10).unwrap();
        let page = read(StreamPos(0));
        let events: Vec<Value> = page.events.iter().map(|event| serde_json::from_str(event.get()).unwrap()).collect();
        assert_eq!(events, [json!({ "sender": alice, "type": "m.test", "content": { "n": 1 } })]);
        assert!(!page.more);
        assert!(read(page.next).events.is_empty());
        assert_eq!(read(StreamPos(0)).events.len(), 1, "what is not acknowledged is told again");
        world.core.to_device_acknowledge(&bob, device.into(), page.next).await.unwrap();
        assert!(read(StreamPos(0)).events.is_empty());
    }
}

#[tokio::test]
async fn an_inbox_is_read_page_by_page_without_loss_or_repetition() {
    let world = World::new();
    let bob = world.user("bob").await;
    world.device(&bob, "B").await;
    let sender: &UserId = "@x:us.example".try_into().unwrap();
    for number in 0..7 {
        world.core.send_to_local_device(sender, "m.test", &bob, "B".into(), &json!({ "n": number })).await.unwrap();
    }
    let mut from = StreamPos(0);
    let mut seen = Vec::new();
    loop {
        let page = world.core.to_device_since(&bob, "B".into(), from, position(&world), 3).unwrap();
        for event in &page.events {
            seen.push(serde_json::from_str::<Value>(event.get()).unwrap()["content"]["n"].as_u64().unwrap());
        }
        from = page.next;
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn another_servers_message_comes_once_and_for_its_own_users_only() {
    let world = World::new();
    let bob = world.user("bob").await;
    world.device(&bob, "B").await;
    let edu =
        json!({ "sender": "@u:far.example", "type": "m.test", "message_id": "1", "messages": { &bob: { "B": {} } } });
    let far: &ServerName = "far.example".try_into().unwrap();
    for _ in 0..2 {
        world.core.receive_direct_to_device(far, edu.clone()).await.unwrap();
    }
    let page = world.core.to_device_since(&bob, "B".into(), StreamPos(0), position(&world), 10).unwrap();
    assert_eq!(page.events.len(), 1);
    let liar: &ServerName = "liar.example".try_into().unwrap();
    assert!(matches!(world.core.receive_direct_to_device(liar, edu).await, Err(Error::Forbidden(_))));
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Everything that lies in the tables in which messages for devices wait, as the disk has it.
fn lying(world: &World) -> String {
    let mut bytes = Vec::new();
    for table in [Table::ToDeviceInbox, Table::OutboxRow] {
        for (_, row) in world.core.store.scan(table, &KeyRange::all(), Order::Ascending, 1_000).unwrap() {
            bytes.extend(row);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn waiting(world: &World, user: &UserId, device: &str) -> Vec<String> {
    let page = world.core.to_device_since(user, device.into(), StreamPos(0), position(world), 100).unwrap();
    page.events.iter().map(|event| event.get().to_owned()).collect()
}

#[tokio::test]
async fn messages_lie_sealed_as_long_as_they_wait_and_their_keys_end_after_them() {
    let world = World::new();
    let core = &world.core;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let sender = world.device(&alice, "A").await;
    for device in ["SOON", "LATE"] {
        world.device(&bob, device).await;
    }
    core.renew_message_keys(true).await.unwrap();
    let flushes = core.keyring.flushes();
    let messages = json!({ &bob: { "*": { "t": "winterling" } }, "@u:far.example": { "F": { "t": "winterling" } } });
    core.send_to_device(&sender, "m.test", "txn", serde_json::from_value(messages).unwrap()).await.unwrap();
    assert_eq!(core.keyring.flushes(), flushes, "nobody who sends waits for a key");
    assert!(!lying(&world).contains("winterling"));
    assert!(waiting(&world, &bob, "SOON")[0].contains("winterling"));

    core.to_device_acknowledge(&bob, "SOON".into(), position(&world)).await.unwrap();
    let used = core.keyring.buckets("to-device")[0];
    for _ in 0..80 {
        world.advance_ms(DAY_MS);
        core.renew_message_keys(false).await.unwrap();
        assert!(waiting(&world, &bob, "LATE")[0].contains("winterling"), "what waits can be read");
        let keys = core.keyring.buckets("to-device");
        assert!(keys.iter().all(|end| *end > core.now_ms()), "no key goes on beyond its day");
        assert!(keys.len() < 10, "{keys:?}");
    }
    assert!(!core.keyring.buckets("to-device").contains(&used));
    assert!(!lying(&world).contains("winterling"));
    let queued = core.store.scan(Table::OutboxRow, &KeyRange::all(), Order::Ascending, 10).unwrap();
    let opened = core.open_message(Table::OutboxRow, &queued[0].0, &queued[0].1).unwrap();
    let Opened::Message(opened) = opened else { panic!("{opened:?}") };
    assert!(String::from_utf8(opened).unwrap().contains("winterling"));

    for _ in 0..40 {
        world.advance_ms(DAY_MS);
        core.renew_message_keys(false).await.unwrap();
    }
    assert!(waiting(&world, &bob, "LATE").is_empty(), "a device that never comes has nothing to take");
    assert!(core.store.scan(Table::ToDeviceInbox, &KeyRange::all(), Order::Ascending, 10).unwrap().is_empty());
}

#[tokio::test]
async fn messages_that_lay_unsealed_are_sealed_by_the_first_round() {
    let world = World::new();
    let core = &world.core;
    let bob = world.user("bob").await;
    world.device(&bob, "B").await;
    let mut batch = Batch::new();
    batch.reserve_position();
    batch.put(Table::ToDeviceInbox, Key::new().text(&bob).text("B").number(1), unsealed_row(core.now_ms()));
    let unit = |kind: &str| json!({ "edu_type": kind, "content": { "t": "winterling" } }).to_string();
    let queue = || Key::new().text("far.example");
    batch.put(Table::OutboxRow, queue().number(1), unit("m.direct_to_device"));
    batch.put(Table::OutboxRow, queue().number(2), json!({ "event_id": "$e" }).to_string());
    core.commit(batch).await.unwrap();
    assert!(waiting(&world, &bob, "B")[0].contains("winterling"), "it can be read before that");
    core.renew_message_keys(true).await.unwrap();
    assert!(!lying(&world).contains("winterling"));
    assert!(lying(&world).contains("$e"), "who is to hear which event is not sealed");
    assert!(waiting(&world, &bob, "B")[0].contains("winterling"));
}

#[tokio::test]
async fn a_message_whose_key_is_lost_or_that_lies_elsewhere_is_passed_over() {
    let world = World::new();
    let core = &world.core;
    let bob = world.user("bob").await;
    for device in ["B", "C"] {
        world.device(&bob, device).await;
    }
    let say = |text: &'static str| {
        let bob = &bob;
        async move { core.send_to_local_device(bob, "m.test", bob, "B".into(), &json!({ "t": text })).await.unwrap() }
    };
    say("lost").await;
    let inbox = |device: &str| Key::new().text(&bob).text(device);
    let lost = core.store.scan(Table::ToDeviceInbox, &inbox("B").prefix(), Order::Ascending, 1).unwrap();
    let mut batch = Batch::new();
    batch.reserve_position();
    batch.put(Table::ToDeviceInbox, inbox("C").number(1), lost[0].1.clone());
    core.commit(batch).await.unwrap();
    assert!(waiting(&world, &bob, "C").is_empty(), "what was sealed for one device opens for no other");
    let keys = core.keyring.buckets("to-device");
    core.keyring.destroy("to-device", keys[0]).unwrap();
    say("kept").await;
    let left = waiting(&world, &bob, "B");
    assert_eq!((left.len(), left[0].contains("kept")), (1, true));
    world.advance_ms(3 * DAY_MS);
    core.renew_message_keys(false).await.unwrap();
    assert_eq!(core.store.scan(Table::ToDeviceInbox, &KeyRange::all(), Order::Ascending, 10).unwrap().len(), 1);
}

#[tokio::test]
async fn a_row_that_was_sealed_anew_after_it_was_read_is_still_read() {
    let world = World::new();
    let core = &world.core;
    let bob = world.user("bob").await;
    world.device(&bob, "B").await;
    core.send_to_local_device(&bob, "m.test", &bob, "B".into(), &json!({ "t": "kept" })).await.unwrap();
    let rows = core.store.scan(Table::ToDeviceInbox, &KeyRange::all(), Order::Ascending, 10).unwrap();
    world.advance_ms(3 * DAY_MS);
    assert!(core.renew_message_keys(false).await.unwrap());
    assert_ne!(core.store.scan(Table::ToDeviceInbox, &KeyRange::all(), Order::Ascending, 10).unwrap(), rows);
    let read = core.read_inbox_row(&rows[0].0, &rows[0].1).unwrap();
    assert!(read.is_some_and(|event| event.get().contains("kept")));
    core.to_device_acknowledge(&bob, "B".into(), position(&world)).await.unwrap();
    assert!(core.read_inbox_row(&rows[0].0, &rows[0].1).unwrap().is_none());
}

/// A row of an inbox as it lay before rows were sealed.
fn unsealed_row(at_ms: u64) -> String {
    json!({ "at_ms": at_ms, "event": { "type": "m.test", "content": { "t": "winterling" } } }).to_string()
}

#[tokio::test]
async fn a_round_that_gave_up_says_so_and_the_next_one_seals_what_it_left() {
    let world = World::new();
    let core = &world.core;
    let bob = world.user("bob").await;
    world.device(&bob, "B").await;
    let key = Key::new().text(&bob).text("B").number(1);
    let mut batch = Batch::new();
    batch.reserve_position();
    batch.put(Table::ToDeviceInbox, key.clone(), unsealed_row(core.now_ms()));
    core.commit(batch).await.unwrap();
    let mut at_ms = core.now_ms();
    world.meanwhile_often(20, move |store| {
        at_ms += 1;
        let mut batch = Batch::new();
        batch.put(Table::ToDeviceInbox, key.clone(), unsealed_row(at_ms));
        store.submit(batch).wait().unwrap();
    });
    assert!(!core.renew_message_keys(true).await.unwrap());
    assert!(lying(&world).contains("winterling"));
    world.meanwhile(|_| {});
    assert!(core.renew_message_keys(true).await.unwrap());
    assert!(!lying(&world).contains("winterling"));
}

#[tokio::test]
async fn a_malformed_row_of_before_keeps_no_other_from_being_sealed_and_no_key_alive() {
    let world = World::new();
    let core = &world.core;
    let bob = world.user("bob").await;
    world.device(&bob, "B").await;
    core.renew_message_keys(true).await.unwrap();
    let keys = core.keyring.buckets("to-device");
    world.advance_ms(3 * DAY_MS);
    let mut batch = Batch::new();
    batch.reserve_position();
    let inbox = || Key::new().text(&bob).text("B");
    let queue = || Key::new().text("far.example");
    batch.put(Table::ToDeviceInbox, inbox().number(1), "broken");
    batch.put(Table::ToDeviceInbox, inbox().number(2), unsealed_row(core.now_ms()));
    batch.put(Table::OutboxRow, queue().number(1), "broken");
    let unit = json!({ "edu_type": "m.direct_to_device", "content": { "t": "winterling" } });
    batch.put(Table::OutboxRow, queue().number(2), unit.to_string());
    core.commit(batch).await.unwrap();
    assert!(core.renew_message_keys(true).await.unwrap());
    assert!(!lying(&world).contains("winterling"));
    assert_eq!(lying(&world).matches("broken").count(), 2, "it is left as it is");
    assert!(core.keyring.buckets("to-device").iter().all(|end| !keys.contains(end)));
}

fn session(first: u64, forwarded: u64, verified: bool) -> Value {
    json!({ "first_message_index": first, "forwarded_count": forwarded, "is_verified": verified, "session_data": {} })
}

fn sessions(session: Value) -> Sessions {
    serde_json::from_value(json!({ "rooms": { "!r:us.example": { "sessions": { "s": session } } } })).unwrap()
}

fn version() -> VersionUpload {
    VersionUpload { algorithm: "m.megolm_backup.v1".to_owned(), auth_data: json!({}), version: None }
}

#[tokio::test]
async fn a_backup_keeps_the_better_session() {
    let world = World::new();
    let alice = world.user("alice").await;
    let backup = world.core.create_backup_version(&alice, version()).await.unwrap();
    let room: &RoomId = "!r:us.example".try_into().unwrap();
    let mut etag = String::new();
    let mut best = Value::Null;
    for (offered, is_better) in [
        (session(5, 5, false), true),
        (session(5, 5, false), false),
        (session(5, 6, false), false),
        (session(5, 4, false), true),
        (session(6, 0, false), false),
        (session(4, 9, false), true),
        (session(9, 9, true), true),
        (session(0, 0, false), false),
    ] {
        let tally = world.core.put_backup_sessions(&alice, &backup, sessions(offered.clone())).await.unwrap();
        assert_eq!(tally.count, 1);
        assert_eq!(tally.etag != etag, is_better, "{offered}");
        etag = tally.etag;
        if is_better {
            best = offered;
        }
        let held = world.core.backup_sessions(&alice, &backup, Scope::Session(room, "s")).unwrap();
        let held = serde_json::to_value(&held.rooms[room].sessions["s"]).unwrap();
        assert_eq!(held, best);
    }
}

#[tokio::test]
async fn only_the_current_backup_takes_sessions_and_a_deleted_one_is_gone() {
    let world = World::new();
    let alice = world.user("alice").await;
    let old = world.core.create_backup_version(&alice, version()).await.unwrap();
    let new = world.core.create_backup_version(&alice, version()).await.unwrap();
    let refused = world.core.put_backup_sessions(&alice, &old, sessions(session(0, 0, true))).await;
    assert!(matches!(refused, Err(Error::WrongRoomKeysVersion { current_version }) if current_version == new));
    world.core.put_backup_sessions(&alice, &new, sessions(session(0, 0, true))).await.unwrap();
    for _ in 0..2 {
        world.core.delete_backup_version(&alice, &new).await.unwrap();
    }
    assert!(matches!(world.core.backup_sessions(&alice, &new, Scope::All), Err(Error::NotFound(_))));
    assert_eq!(world.core.backup_version(&alice, None).unwrap().version, old);
    assert!(matches!(world.core.delete_backup_version(&alice, "77").await, Err(Error::NotFound(_))));
    let third = world.core.create_backup_version(&alice, version()).await.unwrap();
    assert_ne!(third, new, "an id is never used again");
}

#[tokio::test]
async fn shredded_sessions_are_in_nobodys_backup() {
    let world = World::new();
    let room: &RoomId = "!r:us.example".try_into().unwrap();
    let mut users = Vec::new();
    for name in ["alice", "bob"] {
        let user = world.user(name).await;
        let backup = world.core.create_backup_version(&user, version()).await.unwrap();
        world.core.put_backup_sessions(&user, &backup, sessions(session(0, 0, true))).await.unwrap();
        users.push((user, backup));
    }
    assert_eq!(world.core.shred_backup_sessions(room, &["s".to_owned(), "t".to_owned()]).await.unwrap(), 2);
    for (user, backup) in users {
        assert!(world.core.backup_sessions(&user, &backup, Scope::All).unwrap().rooms.is_empty());
        assert_eq!(world.core.backup_version(&user, None).unwrap().count, 0);
    }
}

#[tokio::test]
async fn a_device_sleeps_hears_and_is_woken() {
    let world = World::new();
    let alice = world.device(&world.user("alice").await, "A").await;
    let core = &world.core;
    assert!(matches!(core.dehydrated_device(&alice.user_id), Err(Error::NotFound(_))));
    let new = |id: &str, byte: u8| {
        let sleeper = Requester { device_id: Some(id.into()), ..alice.clone() };
        let body = json!({
            "device_id": id,
            "device_data": { "algorithm": "m.dehydration.v2", "device": id },
            "initial_device_display_name": "asleep",
            "device_keys": device_keys(&sleeper, &seed(byte)),
            "one_time_keys": { "signed_curve25519:1": { "key": "x" } },
        });
        serde_json::from_value::<super::dehydrated::NewDehydratedDevice>(body).unwrap()
    };
    assert!(core.put_dehydrated_device(&alice, new("A", 1)).await.is_err(), "this one is awake");
    core.put_dehydrated_device(&alice, new("S1", 1)).await.unwrap();
    core.put_dehydrated_device(&alice, new("S2", 2)).await.unwrap();
    let asleep = core.dehydrated_device(&alice.user_id).unwrap();
    assert_eq!((asleep.device_id.as_str(), &asleep.device_data["device"]), ("S2", &json!("S2")));
    assert!(core.find_device(&alice.user_id, "S1".into()).unwrap().is_none());
    let queried = core.query_keys(&alice.user_id, query_of(&alice.user_id)).await.unwrap();
    assert!(serde_json::to_string(&queried).unwrap().contains("S2"));

    for number in 0..101 {
        let messages = serde_json::from_value(json!({ &alice.user_id: { "S2": { "n": number } } })).unwrap();
        core.send_to_device(&alice, "m.test", &format!("t{number}"), messages).await.unwrap();
    }
    let first = core.dehydrated_events(&alice.user_id, &"S2".into(), None).unwrap();
    let second = core.dehydrated_events(&alice.user_id, &"S2".into(), Some(&first.next_batch)).unwrap();
    let third = core.dehydrated_events(&alice.user_id, &"S2".into(), Some(&second.next_batch)).unwrap();
    assert_eq!((first.events.len(), second.events.len(), third.events.len()), (100, 1, 0));
    assert!(core.dehydrated_events(&alice.user_id, &"S1".into(), None).is_err());

    assert_eq!(core.delete_dehydrated_device(&alice.user_id).await.unwrap(), "S2");
    assert!(core.dehydrated_device(&alice.user_id).is_err());
    assert!(core.find_device(&alice.user_id, "S2".into()).unwrap().is_none());
}
