use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use matron_policy::{
    AuditKind, Credential, CredentialClaims, MEGOLM, Organisation, ROOM_POLICY_TYPE, Register, Revocation,
    RevocationNotice, RoomPolicy, SignedRegister, SigningKey, VerificationLevel, keys,
};
use matron_room::{DraftPdu, Pdu};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};

use super::{AuditCheck, RegisterChange, remote::RemoteVerdict};
use crate::{
    Core, Error, Settings,
    rooms::{
        create::{CreateRoom, InitialState},
        membership::JoinOptions,
        send::NewEvent,
    },
    settings,
    test_world::{NOW_MS, World},
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn register_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn our_key() -> SigningKey {
    SigningKey::from_bytes(&[8; 32])
}

fn register(version: u64, revocations: Vec<Revocation>) -> Vec<u8> {
    let organisation = |code: &str, server: &str, key: &SigningKey| Organisation {
        code: code.to_owned(),
        name: format!("Trust {code}"),
        jurisdiction: "GB-ENG".to_owned(),
        server_names: vec![server.to_owned()],
        credential_keys: BTreeMap::from([("k1".to_owned(), keys::encode_verifying_key(&key.verifying_key()))]),
        policy_server_key: None,
        governance_users: vec![format!("@bot:{server}")],
        service_users: Vec::new(),
    };
    let register = Register {
        kind: Default::default(),
        version,
        issued_at_ms: NOW_MS - 1000,
        expires_at_ms: NOW_MS + 30 * DAY_MS,
        federation: "Test".to_owned(),
        organisations: vec![
            organisation("US1", "us.example", &our_key()),
            organisation("TH1", "them.example", &SigningKey::from_bytes(&[9; 32])),
        ],
        revocations,
    };
    SignedRegister::sign(&register, &[&register_key()]).unwrap().to_bytes().unwrap()
}

pub(crate) struct Governed {
    pub(crate) world: World,
    file: PathBuf,
    _files: tempfile::TempDir,
    pub(crate) bot: OwnedUserId,
}

fn settings_of(file: &std::path::Path, layer: Option<Value>) -> Settings {
    Settings {
        insecure_fast_password_hash: true,
        identity_servers: vec!["id.example".to_owned()],
        policy: settings::Policy {
            register_file: Some(file.to_string_lossy().into_owned()),
            register_keys: BTreeMap::from([(
                "k".to_owned(),
                keys::encode_verifying_key(&register_key().verifying_key()),
            )]),
            organisation: Some("US1".to_owned()),
            layer,
            officers: vec!["@bot:us.example".to_owned(), "@officer:us.example".to_owned()],
        },
        ..Settings::default()
    }
}

impl Governed {
    pub(crate) async fn new(layer: Option<Value>) -> Self {
        let files = tempfile::tempdir().unwrap();
        let file = files.path().join("register.json");
        std::fs::write(&file, register(1, Vec::new())).unwrap();
        let world = World::with(settings_of(&file, layer));
        let bot = world.user("bot").await;
        Self { world, file, _files: files, bot }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.world.core
    }

    pub(crate) async fn clinician(&self, name: &str) -> OwnedUserId {
        let user = self.world.user(name).await;
        self.core().store_credential("test", &credential(&user).to_value()).await.unwrap();
        user
    }

    pub(crate) async fn ward(&self) -> OwnedRoomId {
        let policy = RoomPolicy::of_organisations(["US1", "TH1"]).with_max_lifetime_ms(60_000);
        let state =
            |kind: &str, content: Value| InitialState { kind: kind.to_owned(), state_key: String::new(), content };
        let request = CreateRoom {
            preset: Some("private_chat".to_owned()),
            initial_state: vec![
                state("m.room.guest_access", json!({"guest_access": "forbidden"})),
                state("m.room.encryption", json!({"algorithm": MEGOLM, "rotation_period_ms": 60_000})),
                state("m.room.retention", json!({"max_lifetime": 60_000})),
                state(ROOM_POLICY_TYPE, policy.to_content()),
            ],
            ..CreateRoom::default()
        };
        self.core().create_room(&self.bot, request).await.unwrap()
    }

    async fn admit(&self, room: &RoomId, user: &UserId) -> Result<(), Error> {
        self.core().invite(&self.bot, room, user, None, false).await?;
        self.core().join_room(user, room, JoinOptions::default()).await.map(drop)
    }

    async fn say(&self, room: &RoomId, user: &UserId, kind: &str) -> Result<(), Error> {
        let content = json!({"algorithm": MEGOLM, "ciphertext": "x", "session_id": "s"});
        self.core().send_event(NewEvent::message(room.to_owned(), user.to_owned(), kind, content)).await.map(drop)
    }

    pub(crate) fn judge(&self, room: &RoomId, pdu: &Pdu) -> RemoteVerdict {
        let room = self.core().open_room(room).unwrap();
        let mut inner = room.lock();
        self.core().judge_remote(&room, &mut inner, pdu).unwrap().verdict()
    }
}

fn credential(user: &UserId) -> Credential {
    let claims = CredentialClaims {
        user_id: user.to_string(),
        organisation: "US1".to_owned(),
        profession: "nurse".to_owned(),
        roles: Default::default(),
        level: VerificationLevel::Employment,
        checked_at_ms: NOW_MS,
        expires_at_ms: NOW_MS + DAY_MS,
        serial: format!("serial-{}", user.localpart()),
    };
    Credential::issue(claims, "k1", &our_key()).unwrap()
}

pub(crate) fn decision_of(error: &Error) -> String {
    match error {
        Error::PolicyDenied { decision_id, .. } | Error::PolicyUndetermined { decision_id, .. } => decision_id.clone(),
        other => panic!("not a refusal by policy: {other}"),
    }
}

fn message_from(room: &RoomId, sender: &str) -> Pdu {
    let sender = OwnedUserId::try_from(sender).unwrap();
    let key = matron_room::SigningKey::from_seed("them", &[3; 32]).unwrap();
    let content = json!({"algorithm": MEGOLM, "ciphertext": "x"});
    let mut draft = DraftPdu::new(Some(room.to_owned()), sender.clone(), "m.room.encrypted", content);
    draft.origin_server_ts_ms = NOW_MS;
    draft.depth = 9;
    draft.prev_events = vec![ruma::OwnedEventId::try_from("$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap()];
    draft.auth_events = draft.prev_events.clone();
    let version = matron_room::RoomVersion::find("12").unwrap();
    draft.seal(version, &key, sender.server_name()).unwrap()
}

#[tokio::test]
async fn without_a_policy_nothing_is_asked_and_nothing_recorded() {
    let world = World::new();
    let user = world.user("amira").await;
    let room = world.room(&[&user]).await;
    let new = NewEvent::message(room.clone(), user, "m.room.message", json!({"msgtype": "m.text", "body": "x"}));
    world.core.send_event(new).await.unwrap();
    assert!(world.core.audit_entries(0, 10).unwrap().is_empty());
    assert!(world.core.peer_allowed("anyone.example".try_into().unwrap()));
}

#[tokio::test]
async fn only_who_shows_a_credential_comes_in_and_speaks_and_the_log_tells_why() {
    let house = Governed::new(None).await;
    let room = house.ward().await;
    let nobody = house.world.user("nobody").await;
    let nurse = house.clinician("nurse").await;

    let refusal = house.admit(&room, &nobody).await.unwrap_err();
    let told = house.core().explain(&decision_of(&refusal)).unwrap().unwrap();
    assert_eq!(told.room_id.as_deref(), Some(room.as_str()));
    assert!(told.explanation.contains("credential"), "{}", told.explanation);

    house.admit(&room, &nurse).await.unwrap();
    house.say(&room, &nurse, "m.room.encrypted").await.unwrap();
    assert!(matches!(house.say(&room, &nurse, "m.room.message").await, Err(Error::PolicyDenied { .. })));

    let AuditCheck::Whole(head) = house.core().verify_audit().unwrap() else { panic!("the log is broken") };
    assert_eq!(head.next_seq, u64::try_from(house.core().audit_entries(0, 1000).unwrap().len()).unwrap());
}

#[tokio::test]
async fn nobody_outside_the_organisations_is_invited_or_heard() {
    let house = Governed::new(None).await;
    let room = house.ward().await;
    let outsider = OwnedUserId::try_from("@eve:outside.example").unwrap();
    let refusal = house.core().invite(&house.bot, &room, &outsider, None, false).await.unwrap_err();
    assert!(matches!(refusal, Error::PolicyDenied { .. }), "{refusal}");
    assert_eq!(house.judge(&room, &message_from(&room, "@eve:outside.example")), RemoteVerdict::Withhold);
    assert_eq!(house.judge(&room, &message_from(&room, "@ben:them.example")), RemoteVerdict::Withhold);
    assert_eq!(house.judge(&room, &message_from(&room, "@bot:them.example")), RemoteVerdict::Permit);
}

#[tokio::test]
async fn an_event_waits_while_the_register_has_expired() {
    let house = Governed::new(None).await;
    let room = house.ward().await;
    house.world.advance_ms(31 * DAY_MS);
    assert_eq!(house.judge(&room, &message_from(&room, "@bot:them.example")), RemoteVerdict::Hold);
    let refusal = house.say(&room, &house.bot, "m.room.encrypted").await.unwrap_err();
    assert!(matches!(refusal, Error::PolicyUndetermined { .. }), "{refusal}");
}

#[tokio::test]
async fn a_room_begins_with_what_the_floor_demands_though_the_client_knows_nothing_of_it() {
    let layer = json!({"encryption_required": true, "lifetime_required": true, "max_lifetime_ms": DAY_MS});
    let house = Governed::new(Some(layer)).await;
    let content_of = |room: &RoomId, kind: &str| -> Option<Value> {
        house.core().open_room(room).unwrap().lock().state_content(house.core(), kind, "").unwrap()
    };
    for preset in ["private_chat", "trusted_private_chat"] {
        let request = CreateRoom { preset: Some(preset.to_owned()), ..CreateRoom::default() };
        let room = house.core().create_room(&house.bot, request).await.unwrap();
        let encryption = content_of(&room, "m.room.encryption").unwrap();
        assert_eq!(encryption["algorithm"], MEGOLM);
        assert!(encryption["rotation_period_ms"].as_u64().is_none_or(|every_ms| every_ms <= DAY_MS), "{encryption}");
        assert_eq!(content_of(&room, "m.room.retention").unwrap(), json!({"max_lifetime": DAY_MS}));
        // No guest comes in, whatever the preset says elsewhere.
        assert_eq!(content_of(&room, "m.room.guest_access"), None);
    }
    // What the client says itself stays, and is refused if it is not enough.
    let asked = |kind: &str, content: Value| {
        let given = InitialState { kind: kind.to_owned(), state_key: String::new(), content };
        CreateRoom { initial_state: vec![given], ..CreateRoom::default() }
    };
    let shorter = asked("m.room.retention", json!({"max_lifetime": 1_000}));
    let room = house.core().create_room(&house.bot, shorter).await.unwrap();
    assert_eq!(content_of(&room, "m.room.retention").unwrap(), json!({"max_lifetime": 1_000}));
    for (kind, content) in [
        ("m.room.retention", json!({"max_lifetime": 2 * DAY_MS})),
        ("m.room.encryption", json!({"algorithm": "m.none"})),
        ("m.room.guest_access", json!({"guest_access": "can_join"})),
    ] {
        assert!(house.core().create_room(&house.bot, asked(kind, content)).await.is_err(), "{kind}");
    }
}

#[tokio::test]
async fn a_floor_of_organisations_bounds_the_servers_that_are_spoken_with() {
    let house = Governed::new(Some(json!({"organisations": ["US1", "TH1"]}))).await;
    for (server, allowed) in [("us.example", true), ("them.example", true), ("outside.example", false)] {
        assert_eq!(house.core().peer_allowed(server.try_into().unwrap()), allowed, "{server}");
    }
}

#[tokio::test]
async fn a_register_is_never_rolled_back_and_a_corrupt_one_changes_nothing() {
    let house = Governed::new(None).await;
    assert_eq!(house.core().offer_register(register(3, Vec::new())).await.unwrap(), RegisterChange::Accepted(3));
    assert_eq!(house.core().offer_register(register(3, Vec::new())).await.unwrap(), RegisterChange::Same);
    house.core().offer_register(register(2, Vec::new())).await.unwrap_err();
    std::fs::write(&house.file, b"{}").unwrap();
    house.core().reload_register().await.unwrap_err();
    assert_eq!(house.core().rules().register.as_ref().unwrap().version(), 3);
    // What was accepted is there after a start without the file's help.
    house.core().load_register().unwrap();
    assert_eq!(house.core().rules().register.as_ref().unwrap().version(), 3);
}

#[tokio::test]
async fn who_is_revoked_leaves_every_room_and_every_session() {
    let house = Governed::new(None).await;
    let room = house.ward().await;
    let nurse = house.clinician("nurse").await;
    let other = house.clinician("other").await;
    house.admit(&room, &nurse).await.unwrap();
    house.admit(&room, &other).await.unwrap();
    house.world.device(&nurse, "PHONE").await;

    let revoked = BTreeMap::from([("serial-nurse".to_owned(), NOW_MS)]);
    let notice = RevocationNotice::issue("US1", revoked, NOW_MS, "k1", &our_key()).unwrap().to_bytes().unwrap();
    assert_eq!(house.core().revoke_credentials(&notice).await.unwrap(), 1);
    assert_eq!(house.core().revoke_credentials(&notice).await.unwrap(), 0);
    let swept = house.core().sweep_rooms().await.unwrap();
    assert_eq!((swept.evicted, swept.logged_out), (1, 1));

    let members = house.core().open_room(&room).unwrap().joined();
    assert!(!members.contains(&nurse) && members.contains(&other) && members.contains(&house.bot));
    assert!(house.core().devices(&nurse).unwrap().is_empty());
    let entries = house.core().audit_entries(0, 1000).unwrap();
    assert!(
        entries.iter().any(|entry| matches!(&entry.kind, AuditKind::Eviction { user_id, .. } if *user_id == nurse))
    );
    assert!(matches!(house.admit(&room, &nurse).await, Err(Error::PolicyDenied { .. })));
    // A start forgets nothing.
    house.core().load_register().unwrap();
    assert!(house.core().rules().revocations.revoked_at_ms("US1", "serial-nurse").is_some());
}

#[tokio::test]
async fn a_new_register_is_taken_from_its_file_by_the_worker_and_evicts() {
    let house = Governed::new(None).await;
    let room = house.ward().await;
    let nurse = house.clinician("nurse").await;
    house.admit(&room, &nurse).await.unwrap();
    let revocation =
        Revocation { organisation: "US1".to_owned(), serial: "serial-nurse".to_owned(), revoked_at_ms: NOW_MS };
    std::fs::write(&house.file, register(2, vec![revocation])).unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let core = Arc::clone(house.core());
    let worker = tokio::spawn(async move { core.run_governance(stopped).await });
    let mut waiter = house.core().notifier.subscribe(&nurse);
    while house.core().is_joined(&nurse, &room).unwrap() {
        waiter.changed().await;
    }
    stop.send(true).unwrap();
    worker.await.unwrap();
}

#[tokio::test]
async fn the_log_goes_on_without_a_gap_when_another_writer_was_first() {
    let house = Governed::new(None).await;
    let room = house.ward().await;
    let other = super::log::AuditLog::default();
    other.resume(&*house.core().store).unwrap();
    let draft = house.core().audit_act(AuditKind::OperatorAct {
        operator: "other".to_owned(),
        act: "looked".to_owned(),
        target: None,
    });
    other.commit(&*house.core().store, &matron_storage::Batch::new(), vec![draft]).await.unwrap();
    house.say(&room, &house.bot, "m.room.encrypted").await.unwrap();
    assert!(matches!(house.core().verify_audit().unwrap(), AuditCheck::Whole(_)));
}

#[tokio::test]
async fn a_credential_is_only_stored_for_the_user_and_organisation_it_is_of() {
    let house = Governed::new(None).await;
    let nurse = house.world.user("nurse").await;
    let mut forged = credential(&nurse).to_value();
    forged["profession"] = json!("doctor");
    assert!(matches!(house.core().store_credential("test", &forged).await, Err(Error::Forbidden(_))));
    let absent = OwnedUserId::try_from("@absent:us.example").unwrap();
    let refusal = house.core().store_credential("test", &credential(&absent).to_value()).await.unwrap_err();
    assert!(matches!(refusal, Error::NotFound(_)));
}

#[tokio::test]
async fn a_profile_change_in_a_room_keeps_the_credential() {
    let house = Governed::new(None).await;
    let room = house.ward().await;
    let nurse = house.clinician("nurse").await;
    house.admit(&room, &nurse).await.unwrap();
    let content = json!({"membership": "join", "displayname": "N"});
    house.core().set_membership(&nurse, &room, &nurse, content).await.unwrap();
    house.say(&room, &nurse, "m.room.encrypted").await.unwrap();
    // As clients give somebody another name in one room.
    let content = json!({"membership": "join", "displayname": "Night nurse"});
    house.core().set_state(&nurse, &room, "m.room.member", nurse.as_str(), content, None).await.unwrap();
    let member = house.core().room_state_event(&nurse, &room, "m.room.member", nurse.as_str()).unwrap();
    let content = member.pdu.content_value();
    assert_eq!(content["displayname"], "Night nurse");
    assert_eq!(content[matron_policy::CREDENTIAL_FIELD], credential(&nurse).to_value());
    house.say(&room, &nurse, "m.room.encrypted").await.unwrap();
}

impl Governed {
    /// Who is in the room and how much they may; the bot, who made it, may all.
    async fn empower(&self, room: &RoomId, users: &[&UserId]) {
        let levels = self.core().room_state_event(&self.bot, room, "m.room.power_levels", "").unwrap();
        let mut levels = levels.pdu.content_value();
        for user in users {
            levels["users"][user.as_str()] = json!(99);
        }
        for kind in [ROOM_POLICY_TYPE, "m.room.tombstone"] {
            levels["events"][kind] = json!(99);
        }
        self.core().set_state(&self.bot, room, "m.room.power_levels", "", levels, None).await.unwrap();
    }

    pub(crate) async fn set_policy(&self, room: &RoomId, user: &UserId, lifetime_ms: u64) -> Result<(), Error> {
        let policy = RoomPolicy::of_organisations(["US1", "TH1"]).with_max_lifetime_ms(lifetime_ms).to_content();
        self.core().set_state(user, room, ROOM_POLICY_TYPE, "", policy, None).await.map(drop)
    }
}

#[tokio::test]
async fn an_officer_whom_other_trusts_do_not_know_changes_no_policy_of_theirs() {
    let house = Governed::new(None).await;
    let room = house.ward().await;
    let officer = house.world.user("officer").await;
    house.admit(&room, &officer).await.unwrap();
    house.empower(&room, &[&officer]).await;
    house.set_policy(&room, &officer, 90_000).await.unwrap();

    let guest = OwnedUserId::try_from("@ben:them.example").unwrap();
    house.core().open_room(&room).unwrap().lock().joined.insert(guest);
    let refusal = house.set_policy(&room, &officer, 100_000).await.unwrap_err();
    assert!(
        matches!(refusal, Error::PolicyDenied { .. }) && refusal.to_string().contains("configuration"),
        "{refusal}"
    );
    let told = house.core().explain(&decision_of(&refusal)).unwrap().unwrap();
    assert!(told.explanation.contains("governance"), "{}", told.explanation);
    let policy = house.core().room_state_event(&house.bot, &room, ROOM_POLICY_TYPE, "").unwrap();
    let mut redaction = NewEvent::message(room.clone(), officer.clone(), "m.room.redaction", json!({}));
    redaction.redacts = Some(policy.pdu.event_id().to_owned());
    assert!(matches!(house.core().redact_event(redaction).await, Err(Error::PolicyDenied { .. })));
    // The register's governance is everyone's.
    house.set_policy(&room, &house.bot, 100_000).await.unwrap();
}

#[tokio::test]
async fn an_upgrade_that_policy_refuses_leaves_no_room_behind() {
    let house = Governed::new(None).await;
    let room = house.ward().await;
    let nurse = house.clinician("nurse").await;
    house.admit(&room, &nurse).await.unwrap();
    house.empower(&room, &[&nurse]).await;
    let requester = house.world.device(&nurse, "PHONE").await;
    for version in ["11", "12"] {
        let refusal = house.core().upgrade_room(&requester, &room, version, &[]).await.unwrap_err();
        assert!(matches!(refusal, Error::PolicyDenied { .. }), "{refusal}");
        assert_eq!(house.core().joined_rooms(&nurse).unwrap(), std::slice::from_ref(&room));
    }
    let requester = house.world.device(&house.bot, "CONSOLE").await;
    house.core().upgrade_room(&requester, &room, "12", &[]).await.unwrap();
    assert_eq!(house.core().joined_rooms(&house.bot).unwrap().len(), 2);
}
