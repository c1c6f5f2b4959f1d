use matron_storage::{Key, Table};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use crate::{
    Requester, Settings,
    rooms::{create::CreateRoom, membership::JoinOptions, send::NewEvent},
    settings,
    test_world::World,
};

const LIFETIME_MS: u64 = 10_000;
const GRACE_MS: u64 = 8_000;

struct Ward {
    world: World,
    room: OwnedRoomId,
    bot: OwnedUserId,
    nurse: OwnedUserId,
}

impl Ward {
    async fn new(officers: &[&str]) -> Self {
        Self::open(officers, false).await
    }

    /// One in which messages may say when they end.
    async fn where_senders_choose() -> Self {
        Self::open(&[], true).await
    }

    async fn open(officers: &[&str], self_destruct: bool) -> Self {
        let world = World::with(Settings {
            insecure_fast_password_hash: true,
            retention: settings::Retention { grace_ms: GRACE_MS, self_destruct, ..settings::Retention::default() },
            policy: settings::Policy {
                officers: officers.iter().map(|id| (*id).to_owned()).collect(),
                ..settings::Policy::default()
            },
            ..Settings::default()
        });
        let bot = world.user("bot").await;
        let nurse = world.user("nurse").await;
        let room = world.room(&[&bot, &nurse]).await;
        let retention =
            NewEvent::state(room.clone(), bot.clone(), "m.room.retention", "", json!({"max_lifetime": LIFETIME_MS}));
        world.core.send_event(retention).await.unwrap();
        Self { world, room, bot, nurse }
    }

    async fn say(&self, content: Value) -> OwnedEventId {
        let kind = if content.get("algorithm").is_some() { "m.room.encrypted" } else { "m.room.message" };
        let new = NewEvent::message(self.room.clone(), self.nurse.clone(), kind, content);
        self.world.core.send_event(new).await.unwrap()
    }

    fn has_content(&self, event: &OwnedEventId) -> bool {
        self.world.core.store.get(Table::EventContent, event.as_bytes()).unwrap().is_some()
    }

    fn is_redacted(&self, event: &OwnedEventId) -> bool {
        self.world.core.load_event(event).unwrap().unwrap().record.redacted_by.is_some()
    }

    fn requester(&self, user: &OwnedUserId) -> Requester {
        Requester {
            user_id: user.clone(),
            device_id: None,
            appservice: None,
            is_admin: false,
            is_guest: false,
            token_hash: None,
        }
    }
}

fn text() -> Value {
    json!({"msgtype": "m.text", "body": "x"})
}

#[tokio::test]
async fn a_message_is_hidden_redacted_and_purged_and_its_key_destroyed() {
    let ward = Ward::new(&["@bot:us.example"]).await;
    let core = &ward.world.core;
    let said = ward.say(text()).await;
    let round = core.retention_round().await.unwrap();
    assert_eq!((round.expired, round.purged), (0, 0));
    let first_end = round.next_ms.unwrap();
    assert_eq!(first_end, core.now_ms() + LIFETIME_MS);

    ward.world.advance_ms(LIFETIME_MS);
    assert!(!core.load_event(&said).unwrap().unwrap().is_shown(core.now_ms()));
    let round = core.retention_round().await.unwrap();
    assert_eq!((round.expired, round.redacted, round.purged), (1, 0, 0));

    ward.world.advance_ms(GRACE_MS / 2);
    let round = core.retention_round().await.unwrap();
    assert_eq!((round.redacted, round.purged), (1, 1));
    assert!(ward.is_redacted(&said) && !ward.has_content(&said));
    let living: Vec<u64> =
        core.keyring.buckets(ward.room.as_str()).into_iter().filter(|end| *end < super::WITHOUT_END).collect();
    assert!(living.is_empty(), "{living:?}");
    let entries = core.audit_entries(0, 100).unwrap();
    assert!(
        entries.iter().any(|entry| matches!(
            &entry.kind,
            matron_policy::AuditKind::Deletion { events: 1, key_destroyed: true, .. }
        ))
    );
    assert!(matches!(core.verify_audit().unwrap(), crate::governance::AuditCheck::Whole(_)));
}

#[tokio::test]
async fn what_the_bot_redacts_is_purged_at_once() {
    let ward = Ward::new(&["@bot:us.example"]).await;
    let core = &ward.world.core;
    let said = ward.say(text()).await;
    ward.world.advance_ms(LIFETIME_MS);
    core.retention_round().await.unwrap();

    let due = core.retention_due(&ward.requester(&ward.bot), 10).unwrap();
    assert_eq!(due.events.iter().map(|event| &event.event_id).collect::<Vec<_>>(), [&said]);
    assert!(core.retention_due(&ward.requester(&ward.nurse), 10).is_err());
    let mut redaction = NewEvent::message(ward.room.clone(), ward.bot.clone(), "m.room.redaction", json!({}));
    redaction.redacts = Some(said.clone());
    core.redact_event(redaction).await.unwrap();
    assert!(core.retention_due(&ward.requester(&ward.bot), 10).unwrap().events.is_empty());
    let round = core.retention_round().await.unwrap();
    assert_eq!((round.redacted, round.purged), (0, 1));
}

#[tokio::test]
async fn without_anyone_to_redact_content_goes_when_the_grace_is_over() {
    let ward = Ward::new(&[]).await;
    let core = &ward.world.core;
    let said = ward.say(text()).await;
    core.leave_room(&ward.nurse, &ward.room, None).await.unwrap();
    ward.world.advance_ms(LIFETIME_MS + GRACE_MS / 2);
    let round = core.retention_round().await.unwrap();
    assert_eq!((round.expired, round.redacted, round.purged), (1, 0, 0));
    assert!(ward.has_content(&said));
    ward.world.advance_ms(GRACE_MS / 2);
    let round = core.retention_round().await.unwrap();
    assert_eq!(round.purged, 1);
    assert!(!ward.has_content(&said) && !ward.is_redacted(&said));
    assert!(!core.load_event(&said).unwrap().unwrap().is_shown(core.now_ms()));
}

#[tokio::test]
async fn a_sender_redacts_where_no_bot_has_the_power() {
    let ward = Ward::new(&[]).await;
    let said = ward.say(text()).await;
    ward.world.advance_ms(LIFETIME_MS + GRACE_MS / 2);
    let round = ward.world.core.retention_round().await.unwrap();
    assert_eq!((round.redacted, round.purged), (1, 1));
    assert!(ward.is_redacted(&said));
}

fn text_until(end_ms: u64) -> Value {
    json!({"msgtype": "m.text", "body": "x", "org.matrix.self_destruct_after": end_ms})
}

#[tokio::test]
async fn a_message_that_names_its_own_end_dies_then_and_never_later_than_its_room_says() {
    let ward = Ward::where_senders_choose().await;
    let core = &ward.world.core;
    let now_ms = core.now_ms();
    let ends_ms = async |content: Value| core.load_event(&ward.say(content).await).unwrap().unwrap().record.expires_ms;
    assert_eq!(ends_ms(text_until(now_ms + 10 * LIFETIME_MS)).await, now_ms + LIFETIME_MS);
    for odd in [json!(-1), json!("1"), json!(null)] {
        let content = json!({"msgtype": "m.text", "body": "x", "org.matrix.self_destruct_after": odd});
        assert_eq!(ends_ms(content).await, now_ms + LIFETIME_MS);
    }
    let said = ward.say(text_until(now_ms + 2_000)).await;
    ward.world.advance_ms(2_000);
    assert!(!core.load_event(&said).unwrap().unwrap().is_shown(core.now_ms()));
    ward.world.advance_ms(GRACE_MS / 2);
    let round = core.retention_round().await.unwrap();
    assert_eq!((round.expired, round.redacted, round.purged), (1, 1, 1));
    assert!(ward.is_redacted(&said) && !ward.has_content(&said));
}

#[tokio::test]
async fn a_message_that_ends_before_others_of_its_session_leaves_them_their_session() {
    let ward = Ward::where_senders_choose().await;
    let core = &ward.world.core;
    let row = || core.store.get(Table::Misc, super::life::session_key(&ward.room, "S").as_bytes()).unwrap();
    let encrypted = json!({"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "session_id": "S"});
    ward.say(encrypted.clone()).await;
    let needed_until = row().unwrap();
    let mut short = encrypted;
    short["org.matrix.self_destruct_after"] = json!(core.now_ms() + 1_000);
    let said = ward.say(short).await;
    ward.world.advance_ms(1_000 + GRACE_MS / 2);
    assert_eq!(core.retention_round().await.unwrap().purged, 1);
    assert!(!ward.has_content(&said));
    assert_eq!(row().unwrap(), needed_until);
}

#[tokio::test]
async fn a_session_in_which_every_message_names_its_end_ends_with_its_room_s_messages() {
    for shortened in [false, true] {
        let ward = Ward::where_senders_choose().await;
        let core = &ward.world.core;
        let backup = serde_json::from_value(json!({"algorithm": "m.megolm_backup.v1", "auth_data": {}})).unwrap();
        let version = core.create_backup_version(&ward.nurse, backup).await.unwrap();
        let session = json!({"first_message_index": 0, "forwarded_count": 0, "is_verified": true, "session_data": {}});
        let sessions = serde_json::from_value(json!({"rooms": {&ward.room: {"sessions": {"S": session}}}})).unwrap();
        core.put_backup_sessions(&ward.nurse, &version, sessions).await.unwrap();
        let is_backed_up = || !core.scan_all(Table::BackupSession, &Key::new()).unwrap().is_empty();
        for after_ms in [1_000, 2_000] {
            let mut content = json!({"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "session_id": "S"});
            content["org.matrix.self_destruct_after"] = json!(core.now_ms() + after_ms);
            ward.say(content).await;
        }
        let lifetime_ms = if shortened { LIFETIME_MS / 2 } else { LIFETIME_MS };
        if shortened {
            let content = json!({"max_lifetime": lifetime_ms});
            let retention = NewEvent::state(ward.room.clone(), ward.bot.clone(), "m.room.retention", "", content);
            core.send_event(retention).await.unwrap();
        }
        core.retention_round().await.unwrap();
        ward.world.advance_ms(lifetime_ms - 1);
        core.retention_round().await.unwrap();
        assert!(is_backed_up(), "others of the room may need it");
        ward.world.advance_ms(1 + GRACE_MS);
        core.retention_round().await.unwrap();
        assert!(!is_backed_up());
        assert_eq!(core.store.get(Table::Misc, super::life::session_key(&ward.room, "S").as_bytes()).unwrap(), None);
    }
}

#[tokio::test]
async fn no_message_that_says_it_is_old_ends_the_session_of_others() {
    let ward = Ward::new(&["@bot:us.example"]).await;
    let core = &ward.world.core;
    let encrypted = || json!({"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "session_id": "S"});
    ward.say(encrypted()).await;
    let row = || {
        let row = core.store.get(Table::Misc, super::life::session_key(&ward.room, "S").as_bytes()).unwrap();
        row.map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
    };
    let needed_until = row().unwrap();
    ward.world.advance_ms(1_000);
    let old = NewEvent {
        origin_server_ts_ms: Some(1),
        ..NewEvent::message(ward.room.clone(), ward.nurse.clone(), "m.room.encrypted", encrypted())
    };
    let old = core.send_event(old).await.unwrap();
    assert!(row().unwrap() > needed_until);
    core.retention_round().await.unwrap();
    assert!(row().unwrap() >= needed_until, "the old message is gone, and takes no more with it");
    ward.world.advance_ms(LIFETIME_MS + GRACE_MS);
    core.retention_round().await.unwrap();
    assert!(!ward.has_content(&old));
    assert_eq!(row(), None, "nor does it keep the session for longer");
}

#[tokio::test]
async fn a_session_goes_on_for_what_was_said_after_a_lifetime_was_shortened() {
    let ward = Ward::new(&["@bot:us.example"]).await;
    let core = &ward.world.core;
    let encrypted = || json!({"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "session_id": "S"});
    ward.say(encrypted()).await;
    let content = json!({"max_lifetime": LIFETIME_MS / 2});
    let retention = NewEvent::state(ward.room.clone(), ward.bot.clone(), "m.room.retention", "", content);
    core.send_event(retention).await.unwrap();
    ward.world.advance_ms(1_000);
    ward.say(encrypted()).await;
    let row = || core.store.get(Table::Misc, super::life::session_key(&ward.room, "S").as_bytes()).unwrap();
    let needed_until = row().unwrap();
    core.retention_round().await.unwrap();
    assert_eq!(row().unwrap(), needed_until);
}

#[tokio::test]
async fn a_message_may_end_where_its_room_keeps_all_others_but_only_where_the_operator_lets_senders_say_so() {
    for may in [true, false] {
        let ward = Ward::open(&[], may).await;
        let core = &ward.world.core;
        let room = ward.world.room(&[&ward.nurse]).await;
        let end_ms = core.now_ms() + 2_000;
        let new = NewEvent::message(room.clone(), ward.nurse.clone(), "m.room.message", text_until(end_ms));
        let said = core.send_event(new).await.unwrap();
        let ends_ms = core.load_event(&said).unwrap().unwrap().record.expires_ms;
        assert_eq!(ends_ms, if may { end_ms } else { 0 });
        let key = |bucket: &u64| *bucket < super::WITHOUT_END;
        assert_eq!(core.keyring.buckets(room.as_str()).iter().any(key), may, "a key of its own goes with it");
    }
}

#[tokio::test]
async fn an_encrypted_event_s_session_is_known_until_its_last_event_died() {
    let ward = Ward::new(&["@bot:us.example"]).await;
    let core = &ward.world.core;
    let encrypted = || json!({"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "session_id": "S"});
    ward.say(encrypted()).await;
    ward.world.advance_ms(LIFETIME_MS / 2);
    ward.say(encrypted()).await;
    let row = || core.store.get(Table::Misc, super::life::session_key(&ward.room, "S").as_bytes()).unwrap();
    ward.world.advance_ms(LIFETIME_MS / 2 + GRACE_MS / 2);
    assert_eq!(core.retention_round().await.unwrap().purged, 1);
    assert!(row().is_some());
    ward.world.advance_ms(LIFETIME_MS);
    assert_eq!(core.retention_round().await.unwrap().purged, 1);
    assert!(row().is_none());
}

#[tokio::test]
async fn nothing_is_left_in_the_index_after_the_last_round() {
    let ward = Ward::new(&["@bot:us.example"]).await;
    let core = &ward.world.core;
    for _ in 0..7 {
        ward.say(text()).await;
        ward.world.advance_ms(300);
    }
    ward.world.advance_ms(LIFETIME_MS + GRACE_MS);
    core.retention_round().await.unwrap();
    for table in [Table::EventExpiry, Table::EventRedactionDue] {
        assert!(core.scan_all(table, &Key::new()).unwrap().is_empty(), "{table:?}");
    }
    assert_eq!(core.retention_round().await.unwrap().next_ms, None);
}

#[tokio::test]
async fn a_lifetime_that_is_set_or_shortened_holds_for_what_is_there() {
    let mut ward = Ward::new(&["@bot:us.example"]).await;
    let core = std::sync::Arc::clone(&ward.world.core);
    let sent_ms = core.now_ms();
    let limited = (ward.room.clone(), ward.say(text()).await);
    // More than one page, in a room that had no lifetime at all.
    ward.room = ward.world.room(&[&ward.bot, &ward.nurse]).await;
    let mut all = vec![limited];
    for _ in 0..450 {
        all.push((ward.room.clone(), ward.say(text()).await));
    }
    assert_eq!(core.retention_round().await.unwrap().expired, 0);
    assert!(core.load_event(&all[1].1).unwrap().unwrap().record.bucket >= super::WITHOUT_END);
    for room in [&all[0].0, &ward.room] {
        let content = json!({"max_lifetime": 3_000});
        let retention = NewEvent::state(room.clone(), ward.bot.clone(), "m.room.retention", "", content);
        core.send_event(retention).await.unwrap();
    }
    core.retention_round().await.unwrap();
    for (_, id) in &all {
        let event = core.load_event(id).unwrap().unwrap();
        assert_eq!(event.record.expires_ms, sent_ms + 3_000);
        assert!(event.record.bucket < sent_ms + 4_100 && event.pdu.content_str().contains("\"x\""));
    }
    ward.world.advance_ms(3_000 + GRACE_MS);
    core.retention_round().await.unwrap();
    for (_, id) in &all {
        assert!(!ward.has_content(id), "the content is still there");
    }
    assert!(core.scan_all(Table::EventExpiry, &Key::new()).unwrap().is_empty());
    // A longer life brings nothing back, and gives nothing a later end.
    let content = json!({"max_lifetime": 60_000});
    let retention = NewEvent::state(ward.room.clone(), ward.bot.clone(), "m.room.retention", "", content);
    core.send_event(retention).await.unwrap();
    assert_eq!(core.retention_round().await.unwrap().next_ms, None);
}

#[tokio::test]
async fn what_has_died_is_not_unread() {
    let ward = Ward::new(&["@bot:us.example"]).await;
    let core = &ward.world.core;
    let said = ward.say(text()).await;
    let edit = json!({"msgtype": "m.text", "body": "* y", "m.new_content": text(),
        "m.relates_to": {"rel_type": "m.replace", "event_id": said}});
    ward.say(edit).await;
    assert_eq!(core.count_unread(&ward.bot, &ward.room).unwrap().total().notification_count, 1);
    ward.world.advance_ms(LIFETIME_MS + GRACE_MS);
    core.retention_round().await.unwrap();
    core.retention_round().await.unwrap();
    assert!(ward.is_redacted(&said) || !ward.has_content(&said));
    assert_eq!(core.count_unread(&ward.bot, &ward.room).unwrap().total().notification_count, 0);
    assert!(core.notifications(&ward.bot, None, 10, false).unwrap().notifications.is_empty());
}

/// A room of this version with the ward's people, in which content dies.
async fn room_of_version(ward: &Ward, version: &str) -> OwnedRoomId {
    let core = &ward.world.core;
    let request = CreateRoom {
        preset: Some("private_chat".to_owned()),
        room_version: Some(version.to_owned()),
        ..CreateRoom::default()
    };
    let room = core.create_room(&ward.bot, request).await.unwrap();
    let retention = json!({"max_lifetime": LIFETIME_MS});
    core.send_event(NewEvent::state(room.clone(), ward.bot.clone(), "m.room.retention", "", retention)).await.unwrap();
    core.invite(&ward.bot, &room, &ward.nurse, None, false).await.unwrap();
    core.join_room(&ward.nurse, &room, JoinOptions::default()).await.unwrap();
    room
}

#[tokio::test]
async fn a_redaction_loses_its_reason_in_time_and_redacts_on() {
    let mut ward = Ward::new(&["@bot:us.example"]).await;
    for version in ["6", "10", "11", "12"] {
        ward.room = room_of_version(&ward, version).await;
        let core = &ward.world.core;
        let said = ward.say(text()).await;
        ward.world.advance_ms(1);
        let content = json!({"reason": "clear words"});
        let mut new = NewEvent::message(ward.room.clone(), ward.nurse.clone(), "m.room.redaction", content);
        new.redacts = Some(said.clone());
        let redaction = core.redact_event(new).await.unwrap();
        let words = |id: &OwnedEventId| core.load_event(id).unwrap().unwrap().pdu.json().get().contains("clear words");
        let because = || {
            let said = core.load_event(&said).unwrap().unwrap();
            core.client_event_for(&said, &ward.nurse, None, true).unwrap().get().to_owned()
        };
        assert!(words(&redaction) && ward.has_content(&redaction) && because().contains("clear words"), "{version}");
        // Gone from what is read, at once: from memory and from disk alike.
        ward.world.advance_ms(LIFETIME_MS);
        assert!(!words(&redaction) && !because().contains("clear words"), "{version}");
        core.rooms.forget_event(&redaction);
        assert!(!words(&redaction), "{version}");
        assert!(because().contains("redacted_because"));
        let event = core.load_event(&redaction).unwrap().unwrap();
        assert!(event.is_shown(core.now_ms()) && event.content_gone);
        assert_eq!(event.pdu.redacts(), Some(said.clone()), "{version}");
        // And then from the disk, without anybody redacting the redaction.
        assert!(core.retention_due(&ward.requester(&ward.bot), 10).unwrap().events.is_empty());
        core.retention_round().await.unwrap();
        assert!(!ward.has_content(&redaction) && !ward.is_redacted(&redaction) && ward.is_redacted(&said), "{version}");
        let event = core.load_event(&redaction).unwrap().unwrap();
        assert_eq!(event.pdu.redacts(), Some(said), "{version}");
        assert!(event.is_shown(core.now_ms()));
    }
}

#[tokio::test]
async fn a_redaction_without_words_is_nothing_that_dies() {
    let ward = Ward::new(&["@bot:us.example"]).await;
    let said = ward.say(text()).await;
    let mut new = NewEvent::message(ward.room.clone(), ward.nurse.clone(), "m.room.redaction", json!({}));
    new.redacts = Some(said);
    let redaction = ward.world.core.redact_event(new).await.unwrap();
    let event = ward.world.core.load_event(&redaction).unwrap().unwrap();
    assert_eq!((event.record.bucket, event.record.expires_ms), (0, 0));
}

#[tokio::test]
async fn the_reason_of_a_removal_dies_and_the_removal_stays() {
    let mut ward = Ward::new(&["@bot:us.example"]).await;
    for version in ["6", "10", "12"] {
        ward.room = room_of_version(&ward, version).await;
        let core = &ward.world.core;
        core.kick(&ward.bot, &ward.room, &ward.nurse, Some("clear words")).await.unwrap();
        let standing = core.standing(&ward.nurse, &ward.room).unwrap().unwrap();
        let kick = standing.event_id.unwrap();
        let whole = core.load_event(&kick).unwrap().unwrap();
        assert!(whole.pdu.json().get().contains("clear words") && whole.record.expires_ms != 0);
        ward.world.advance_ms(LIFETIME_MS);
        let now = || {
            let room = core.open_room(&ward.room).unwrap();
            let mut inner = room.lock();
            inner.state_pdu(core, "m.room.member", ward.nurse.as_str()).unwrap().unwrap()
        };
        assert_eq!(now().content_value(), json!({"membership": "leave"}), "{version}");
        core.retention_round().await.unwrap();
        assert!(!ward.has_content(&kick) && !ward.is_redacted(&kick));
        assert_eq!(now().content_value(), json!({"membership": "leave"}), "{version}");
        // Whoever is given what is left can tell that it is the event, and that the kicking server signed it.
        assert_eq!(now().event_id(), &*kick);
        assert_eq!(now().reference_hash().unwrap(), whole.pdu.reference_hash().unwrap());
        // The room goes on from there.
        core.invite(&ward.bot, &ward.room, &ward.nurse, Some("clear words"), false).await.unwrap();
        ward.world.advance_ms(LIFETIME_MS);
        core.retention_round().await.unwrap();
        assert_eq!(now().content_value(), json!({"membership": "invite"}), "{version}");
        core.join_room(&ward.nurse, &ward.room, JoinOptions::default()).await.unwrap();
        ward.say(text()).await;
        core.leave_room(&ward.nurse, &ward.room, Some("clear words")).await.unwrap();
        ward.world.advance_ms(LIFETIME_MS);
        assert_eq!(now().content_value(), json!({"membership": "leave"}), "{version}");
    }
}
