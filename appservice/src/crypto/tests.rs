//! Machines that talk to each other through a homeserver made of maps.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Decrypted, Machine, Received, RoomEncryption, ToDeviceRequest, UploadKind};
use crate::client::{DeviceLists, KeysClaimResponse, KeysQueryResponse, SyncResponse};

const ROOM: &str = "!ward";
const WEEK: RoomEncryption = RoomEncryption { rotation_period_ms: 604_800_000, rotation_period_msgs: 100 };

/// Publishes keys and carries to-device messages.
#[derive(Default)]
struct Homeserver {
    devices: BTreeMap<String, BTreeMap<String, Value>>,
    one_time: BTreeMap<(String, String), Vec<(String, Value)>>,
    fallback: BTreeMap<(String, String), (String, Value)>,
    inbox: BTreeMap<(String, String), Vec<Value>>,
    claims: usize,
}

impl Homeserver {
    fn upload(&mut self, machine: &mut Machine) {
        let id = (machine.user_id().to_owned(), machine.device_id().to_owned());
        let on_server = self.one_time.get(&id).map_or(0, Vec::len) as u64;
        machine.refill_keys(on_server, !self.fallback.contains_key(&id));
        let Some((_, body)) = machine.keys_to_upload().unwrap() else {
            return;
        };
        if let Some(keys) = body.get("device_keys") {
            self.devices.entry(id.0.clone()).or_default().insert(id.1.clone(), keys.clone());
        }
        for (key_id, key) in body["one_time_keys"].as_object().unwrap() {
            self.one_time.entry(id.clone()).or_default().push((key_id.clone(), key.clone()));
        }
        for (key_id, key) in body["fallback_keys"].as_object().unwrap() {
            self.fallback.insert(id.clone(), (key_id.clone(), key.clone()));
        }
        machine.mark_uploaded();
    }

    fn query(&self, users: &[String]) -> KeysQueryResponse {
        let device_keys =
            users.iter().map(|user| (user.clone(), self.devices.get(user).cloned().unwrap_or_default())).collect();
        KeysQueryResponse { device_keys, ..Default::default() }
    }

    fn claim(&mut self, wanted: &BTreeMap<String, BTreeMap<String, String>>) -> KeysClaimResponse {
        let mut response = KeysClaimResponse::default();
        for (user, devices) in wanted {
            for device in devices.keys() {
                self.claims += 1;
                let id = (user.clone(), device.clone());
                let key = self.one_time.get_mut(&id).and_then(Vec::pop).or_else(|| self.fallback.get(&id).cloned());
                if let Some((key_id, key)) = key {
                    let of_user = response.one_time_keys.entry(user.clone()).or_default();
                    of_user.insert(device.clone(), BTreeMap::from([(key_id, key)]));
                }
            }
        }
        response
    }

    fn deliver(&mut self, sender: &str, request: &ToDeviceRequest) {
        for (user, devices) in &request.messages {
            for (device, content) in devices {
                let event = json!({"type": ToDeviceRequest::EVENT_TYPE, "sender": sender, "content": content});
                self.inbox.entry((user.clone(), device.clone())).or_default().push(event);
            }
        }
    }

    fn sync(&mut self, machine: &mut Machine, changed: &[&str], now_ms: u64) -> Received {
        let id = (machine.user_id().to_owned(), machine.device_id().to_owned());
        let mut sync = SyncResponse::default();
        sync.to_device.events = self.inbox.remove(&id).unwrap_or_default();
        sync.device_lists =
            DeviceLists { changed: changed.iter().map(|user| (*user).to_owned()).collect(), left: Vec::new() };
        let left = self.one_time.get(&id).map_or(0, Vec::len) as u64;
        sync.device_one_time_keys_count.insert("signed_curve25519".to_owned(), left);
        machine.receive_sync(&sync, now_ms)
    }

    /// Everything that a message to the room takes, as the driver does it.
    fn say(
        &mut self,
        machine: &mut Machine,
        members: &[&str],
        encryption: &RoomEncryption,
        body: &str,
        now_ms: u64,
    ) -> Value {
        let members: Vec<String> = members.iter().map(|user| (*user).to_owned()).collect();
        let asked = machine.users_to_query(&members);
        if !asked.is_empty() {
            machine.receive_keys_query(&asked, &self.query(&asked), now_ms);
        }
        let wanted = machine.devices_to_claim(&members, now_ms);
        if !wanted.is_empty() {
            let claimed = self.claim(&wanted);
            machine.receive_keys_claim(&wanted, &claimed, now_ms);
        }
        let sender = machine.user_id().to_owned();
        for request in machine.share_room_key(ROOM, &members, encryption, now_ms).unwrap() {
            self.deliver(&sender, &request);
            machine.mark_shared(&request);
        }
        let content = machine.encrypt(ROOM, "m.room.message", &json!({"msgtype": "m.text", "body": body})).unwrap();
        json!({
            "type": "m.room.encrypted", "room_id": ROOM, "sender": sender,
            "event_id": format!("${body}"), "content": content,
        })
    }
}

fn read(machine: &mut Machine, event: &Value) -> Option<String> {
    match machine.decrypt(ROOM, event) {
        Decrypted::Event { content, .. } => Some(content["body"].as_str().unwrap().to_owned()),
        Decrypted::MissingKey | Decrypted::Refused => None,
    }
}

fn pair() -> (Homeserver, Machine, Machine) {
    let mut server = Homeserver::default();
    let mut alice = Machine::new("@alice:a", "ALICE");
    let mut bob = Machine::new("@bob:b", "BOB");
    server.upload(&mut alice);
    server.upload(&mut bob);
    (server, alice, bob)
}

const BOTH: &[&str] = &["@alice:a", "@bob:b"];

fn session_of(event: &Value) -> &str {
    event["content"]["session_id"].as_str().unwrap()
}

#[test]
fn two_machines_converse_in_both_directions() {
    let (mut server, mut alice, mut bob) = pair();
    let hello = server.say(&mut alice, BOTH, &WEEK, "hello", 1);
    assert_eq!(bob.decrypt(ROOM, &hello), Decrypted::MissingKey);
    assert_eq!(server.sync(&mut bob, &[], 1).new_room_keys, 1);
    assert_eq!(read(&mut bob, &hello).as_deref(), Some("hello"));
    let reply = server.say(&mut bob, BOTH, &WEEK, "reply", 2);
    server.sync(&mut alice, &[], 2);
    assert_eq!(read(&mut alice, &reply).as_deref(), Some("reply"));
    // Bob answered over the session that Alice opened: one claim in all.
    assert_eq!(server.claims, 1);
    let again = server.say(&mut alice, BOTH, &WEEK, "again", 3);
    assert_eq!(session_of(&hello), session_of(&again));
    assert_eq!(read(&mut bob, &again).as_deref(), Some("again"));
}

#[test]
fn plaintext_of_olm_is_that_of_the_spec() {
    let (mut server, mut alice, _bob) = pair();
    server.say(&mut alice, BOTH, &WEEK, "hello", 1);
    let event = &server.inbox[&("@bob:b".to_owned(), "BOB".to_owned())][0];
    let content = event["content"].as_object().unwrap();
    assert_eq!(content["algorithm"], "m.olm.v1.curve25519-aes-sha2");
    let keys = &server.devices["@bob:b"]["BOB"]["keys"];
    let ciphertext = &content["ciphertext"][keys["curve25519:BOB"].as_str().unwrap()];
    assert_eq!(ciphertext["type"], 0);
    assert!(ciphertext["body"].is_string());
    assert_eq!(content["sender_key"], server.devices["@alice:a"]["ALICE"]["keys"]["curve25519:ALICE"]);
}

#[test]
fn a_new_device_gets_the_same_session_from_now_on() {
    let (mut server, mut alice, mut bob) = pair();
    let first = server.say(&mut alice, BOTH, &WEEK, "first", 1);
    let mut phone = Machine::new("@bob:b", "PHONE");
    server.upload(&mut phone);
    server.sync(&mut alice, &["@bob:b"], 2);
    let second = server.say(&mut alice, BOTH, &WEEK, "second", 3);
    server.sync(&mut bob, &[], 4);
    server.sync(&mut phone, &[], 4);
    assert_eq!(session_of(&first), session_of(&second));
    assert_eq!(read(&mut phone, &second).as_deref(), Some("second"));
    assert_eq!(read(&mut phone, &first), None);
    assert_eq!(read(&mut bob, &second).as_deref(), Some("second"));
}

#[test]
fn who_has_left_cannot_read_on() {
    let (mut server, mut alice, mut bob) = pair();
    let mut carol = Machine::new("@carol:c", "CAROL");
    server.upload(&mut carol);
    let all = &["@alice:a", "@bob:b", "@carol:c"];
    let first = server.say(&mut alice, all, &WEEK, "first", 1);
    let second = server.say(&mut alice, BOTH, &WEEK, "second", 2);
    server.sync(&mut bob, &[], 3);
    server.sync(&mut carol, &[], 3);
    assert_ne!(session_of(&first), session_of(&second));
    assert_eq!(read(&mut carol, &first).as_deref(), Some("first"));
    assert_eq!(read(&mut carol, &second), None);
    assert_eq!(read(&mut bob, &second).as_deref(), Some("second"));
}

#[test]
fn a_deleted_device_cannot_read_on() {
    let (mut server, mut alice, mut bob) = pair();
    let first = server.say(&mut alice, BOTH, &WEEK, "first", 1);
    let mut phone = Machine::new("@bob:b", "PHONE");
    server.upload(&mut phone);
    server.devices.get_mut("@bob:b").unwrap().remove("BOB");
    server.sync(&mut alice, &["@bob:b"], 2);
    let second = server.say(&mut alice, BOTH, &WEEK, "second", 3);
    server.sync(&mut bob, &[], 4);
    server.sync(&mut phone, &[], 4);
    assert_eq!(read(&mut bob, &first).as_deref(), Some("first"));
    assert_eq!(read(&mut bob, &second), None);
    assert_eq!(read(&mut phone, &second).as_deref(), Some("second"));
}

#[test]
fn sessions_rotate_by_messages_and_by_time() {
    let (mut server, mut alice, mut bob) = pair();
    let few = RoomEncryption { rotation_period_ms: 1_000, rotation_period_msgs: 2 };
    let events: Vec<Value> = [("a", 0), ("b", 1), ("c", 2), ("d", 1_002)]
        .iter()
        .map(|(body, at)| server.say(&mut alice, BOTH, &few, body, *at))
        .collect();
    assert_eq!(session_of(&events[0]), session_of(&events[1]));
    assert_ne!(session_of(&events[1]), session_of(&events[2]));
    assert_ne!(session_of(&events[2]), session_of(&events[3]));
    server.sync(&mut bob, &[], 5);
    let read: Vec<_> = events.iter().map(|event| read(&mut bob, event).unwrap()).collect();
    assert_eq!(read, ["a", "b", "c", "d"]);
}

#[test]
fn a_replayed_or_stolen_message_is_refused() {
    let (mut server, mut alice, mut bob) = pair();
    let event = server.say(&mut alice, BOTH, &WEEK, "hello", 1);
    server.sync(&mut bob, &[], 1);
    assert!(read(&mut bob, &event).is_some());
    assert!(read(&mut bob, &event).is_some(), "the same event may be read twice");
    let mut replay = event.clone();
    replay["event_id"] = json!("$other");
    assert_eq!(bob.decrypt(ROOM, &replay), Decrypted::Refused);
    let mut stolen = event.clone();
    stolen["sender"] = json!("@mallory:m");
    assert_eq!(bob.decrypt(ROOM, &stolen), Decrypted::Refused);
    assert_eq!(bob.decrypt("!elsewhere", &event), Decrypted::MissingKey);
}

#[test]
fn forged_device_keys_and_one_time_keys_are_not_believed() {
    let (mut server, mut alice, mut bob) = pair();
    let honest = server.devices.clone();
    let mallory = Machine::new("@bob:b", "BOB");
    let (kind, body) = mallory.keys_to_upload().unwrap().unwrap();
    assert_eq!(kind, UploadKind::First);
    // Mallory's identity key in Bob's signed object.
    server.devices.get_mut("@bob:b").unwrap().get_mut("BOB").unwrap()["keys"]["curve25519:BOB"] =
        body["device_keys"]["keys"]["curve25519:BOB"].clone();
    server.say(&mut alice, BOTH, &WEEK, "one", 1);
    assert!(server.inbox.is_empty(), "nobody believed, nobody got a key");
    server.devices = honest;
    for keys in server.one_time.values_mut() {
        for (_, key) in keys {
            key["key"] = body["device_keys"]["keys"]["curve25519:BOB"].clone();
        }
    }
    server.sync(&mut alice, &["@bob:b"], 2);
    server.say(&mut alice, BOTH, &WEEK, "two", 2);
    assert!(server.inbox.is_empty());
    server.one_time.clear();
    // The fallback key is sound; a minute later it is asked for.
    let event = server.say(&mut alice, BOTH, &WEEK, "three", 120_000);
    server.sync(&mut bob, &[], 120_001);
    assert_eq!(read(&mut bob, &event).as_deref(), Some("three"));
}

#[test]
fn a_device_that_changes_its_fingerprint_is_not_followed() {
    let (mut server, mut alice, _bob) = pair();
    server.say(&mut alice, BOTH, &WEEK, "one", 1);
    let mut impostor = Machine::new("@bob:b", "BOB");
    server.one_time.clear();
    server.fallback.clear();
    server.upload(&mut impostor);
    server.inbox.clear();
    server.sync(&mut alice, &["@bob:b"], 2);
    let event = server.say(&mut alice, BOTH, &WEEK, "two", 3);
    server.sync(&mut impostor, &[], 4);
    assert_eq!(read(&mut impostor, &event), None);
}

#[test]
fn a_restored_machine_reads_and_speaks_on() {
    let (mut server, mut alice, mut bob) = pair();
    let before = server.say(&mut alice, BOTH, &WEEK, "before", 1);
    server.sync(&mut bob, &[], 1);
    server.say(&mut bob, BOTH, &WEEK, "answer", 1);
    let stored: BTreeMap<&str, Zeroizing<Vec<u8>>> = bob.take_changes().unwrap().into_iter().collect();
    let load = |name: &str| stored.get(name).cloned();
    assert!(Machine::restore("@bob:b", "OTHER", load).is_err());
    let mut bob = Machine::restore("@bob:b", "BOB", load).unwrap().unwrap();
    assert_eq!(read(&mut bob, &before).as_deref(), Some("before"));
    let event = server.say(&mut bob, BOTH, &WEEK, "after", 2);
    server.sync(&mut alice, &[], 2);
    assert_eq!(read(&mut alice, &event).as_deref(), Some("after"));
    assert_eq!(server.claims, 1);
    assert!(bob.keys_to_upload().unwrap().is_none());
    assert!(Machine::restore("@bob:b", "BOB", |_| None).unwrap().is_none());
    assert!(Machine::restore("@bob:b", "BOB", |_| Some(Zeroizing::new(b"{".to_vec()))).is_err());
}

#[test]
fn a_broken_olm_session_is_replaced() {
    let (mut server, mut alice, mut bob) = pair();
    server.say(&mut alice, BOTH, &WEEK, "one", 1);
    server.sync(&mut bob, &[], 1);
    server.say(&mut bob, BOTH, &WEEK, "two", 1);
    server.sync(&mut alice, &[], 1);
    // Bob loses his sessions; Alice does not know and sends a normal message.
    let account: BTreeMap<_, _> = bob.take_changes().unwrap().into_iter().filter(|(name, _)| *name != "olm").collect();
    let mut bob = Machine::restore("@bob:b", "BOB", |name| account.get(name).cloned()).unwrap().unwrap();
    let once = RoomEncryption { rotation_period_ms: 604_800_000, rotation_period_msgs: 1 };
    server.say(&mut alice, BOTH, &once, "lost", 2);
    assert_eq!(server.sync(&mut bob, &[], 2), Received { new_room_keys: 0, dropped: 1 });
    // Bob opens a new one and says so.
    let users = vec!["@alice:a".to_owned()];
    let wanted = bob.devices_to_claim(&users, 3);
    let claimed = server.claim(&wanted);
    bob.receive_keys_claim(&wanted, &claimed, 3);
    for request in bob.dummies(3).unwrap() {
        server.deliver("@bob:b", &request);
    }
    server.sync(&mut alice, &[], 4);
    let found = server.say(&mut alice, BOTH, &once, "found", 5);
    server.sync(&mut bob, &[], 5);
    assert_eq!(read(&mut bob, &found).as_deref(), Some("found"));
}

#[test]
fn one_time_keys_are_refilled_only_when_half_are_gone() {
    let (mut server, mut alice, _bob) = pair();
    let id = ("@alice:a".to_owned(), "ALICE".to_owned());
    assert_eq!(server.one_time[&id].len(), 50);
    server.one_time.get_mut(&id).unwrap().truncate(30);
    server.upload(&mut alice);
    assert_eq!(server.one_time[&id].len(), 30);
    server.one_time.get_mut(&id).unwrap().truncate(20);
    server.upload(&mut alice);
    assert_eq!(server.one_time[&id].len(), 50);
}

#[test]
fn malformed_to_device_messages_are_dropped() {
    let (_server, mut alice, _bob) = pair();
    let mut sync = SyncResponse::default();
    sync.to_device.events = vec![
        json!(null),
        json!({"type": "m.room.encrypted"}),
        json!({"type": "m.room.encrypted", "sender": "@x:y", "content": {"algorithm": "m.olm.v1.curve25519-aes-sha2",
            "sender_key": "x", "ciphertext": {"y": {"type": 7, "body": "AAAA"}}}}),
        json!({"type": "m.room_key", "sender": "@x:y", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}),
    ];
    assert_eq!(alice.receive_sync(&sync, 1), Received { new_room_keys: 0, dropped: 2 });
}

#[test]
fn cross_signing_keys_are_signed_by_the_master_key() {
    let (_server, mut alice, _bob) = pair();
    let upload = alice.cross_signing_to_upload().unwrap().unwrap();
    let master = upload.keys["master_key"]["keys"].as_object().unwrap();
    let (master_id, master_key) = master.iter().next().unwrap();
    let master_key = vodozemac::Ed25519PublicKey::from_base64(master_key.as_str().unwrap()).unwrap();
    super::json::verify(&upload.keys["self_signing_key"], "@alice:a", master_id, &master_key).unwrap();
    let own = upload.keys["self_signing_key"]["keys"].as_object().unwrap();
    let (own_id, own_key) = own.iter().next().unwrap();
    let own_key = vodozemac::Ed25519PublicKey::from_base64(own_key.as_str().unwrap()).unwrap();
    super::json::verify(&upload.signatures["@alice:a"]["ALICE"], "@alice:a", own_id, &own_key).unwrap();
    alice.mark_cross_signed();
    assert!(alice.cross_signing_to_upload().unwrap().is_none());
}
