//! End-to-end encryption across the trusts, with real clients: matrix-rust-sdk.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use matrix_sdk::{
    Client,
    attachment::AttachmentConfig,
    config::SyncSettings,
    deserialized_responses::EncryptionInfo,
    media::{MediaFormat, MediaRequestParameters},
    ruma::{
        RoomId, UserId,
        events::room::{
            MediaSource,
            message::{MessageType, OriginalSyncRoomMessageEvent, RoomMessageEventContent},
        },
    },
};
use serde_json::json;

use crate::{http::PATIENCE, person::Person, trust::Trust, trusts::Trusts};

/// A message as a client shows it.
#[derive(Clone, Debug)]
struct Seen {
    body: String,
    encrypted: bool,
    file: Option<MediaSource>,
}

/// A person's device with a client that syncs.
struct Device {
    client: Client,
    seen: Arc<Mutex<Vec<Seen>>>,
    syncing: tokio::task::JoinHandle<()>,
}

impl Device {
    async fn of(person: &Person, trust: &Trust) -> Self {
        let client = Client::builder().homeserver_url(format!("http://{}", trust.clients)).build().await.unwrap();
        let auth = client.matrix_auth();
        auth.login_username(&person.id, &person.password).initial_device_display_name("phone").send().await.unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noticed = Arc::clone(&seen);
        client.add_event_handler(move |event: OriginalSyncRoomMessageEvent, info: Option<EncryptionInfo>| {
            let noticed = Arc::clone(&noticed);
            async move {
                let file = match &event.content.msgtype {
                    MessageType::File(file) => Some(file.source.clone()),
                    _ => None,
                };
                let body = event.content.body().to_owned();
                noticed.lock().unwrap().push(Seen { body, encrypted: info.is_some(), file });
            }
        });
        client.sync_once(SyncSettings::default()).await.unwrap();
        let syncing = tokio::spawn({
            let client = client.clone();
            async move {
                let _ = client.sync(SyncSettings::default().timeout(Duration::from_secs(5))).await;
            }
        });
        Self { client, seen, syncing }
    }

    /// The room once this client knows that it is encrypted.
    async fn room(&self, room: &RoomId) -> matrix_sdk::Room {
        let mut found = None;
        wait("the client knows the room", async || {
            let Some(room) = self.client.get_room(room) else { return false };
            let encrypted = room.latest_encryption_state().await.is_ok_and(|state| state.is_encrypted());
            found = Some(room);
            encrypted
        })
        .await;
        found.unwrap()
    }

    async fn say(&self, room: &RoomId, text: &str) {
        self.room(room).await.send(RoomMessageEventContent::text_plain(text)).await.unwrap();
    }

    /// The message with this text, which came encrypted and could be read.
    async fn reads(&self, text: &str) -> Seen {
        let mut found = None;
        wait(&format!("{:?} reads {text:?}", self.client.user_id()), async || {
            found = self.seen.lock().unwrap().iter().find(|seen| seen.body == text).cloned();
            found.is_some()
        })
        .await;
        let seen = found.unwrap();
        assert!(seen.encrypted, "{text:?} came in the clear");
        seen
    }

    /// Waits until this client knows the other one.
    async fn knows(&self, other: &Self) {
        let (user, device) = (other.client.user_id().unwrap(), other.client.device_id().unwrap());
        wait("the client knows the other one's device", async || {
            self.client.encryption().get_device(user, device).await.is_ok_and(|found| found.is_some())
        })
        .await;
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.syncing.abort();
    }
}

async fn wait(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "it never happened: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn encrypted_words_and_files_are_read_across_the_trusts_by_new_devices_too(trusts: &Trusts) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (host, guest) in trusts.both_ways() {
        runtime.block_on(talk(host, guest));
    }
}

async fn talk(host: &Trust, guest: &Trust) {
    let (owner, visitor) = (Person::at(host, "owner"), Person::at(guest, "visitor"));
    let room = owner.create_room(&json!({
        "preset": "private_chat",
        "invite": [visitor.id],
        "initial_state": [{"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}],
    }));
    visitor.join(&room, &host.name);
    owner.wait_for_membership(&room, &visitor.id, "join");
    let room = RoomId::parse(&room).unwrap();
    let (here, there) = (Device::of(&owner, host).await, Device::of(&visitor, guest).await);
    here.knows(&there).await;
    there.knows(&here).await;
    here.say(&room, "potassium is climbing").await;
    there.reads("potassium is climbing").await;
    there.say(&room, "holding the supplements").await;
    here.reads("holding the supplements").await;

    let scan: Vec<u8> = (0..60_000_u32).map(|number| u8::try_from(number % 253).unwrap()).collect();
    let kind = "application/octet-stream".parse().unwrap();
    there.room(&room).await.send_attachment("scan.bin", &kind, scan.clone(), AttachmentConfig::new()).await.unwrap();
    let source = here.reads("scan.bin").await.file.unwrap();
    let asked = MediaRequestParameters { source, format: MediaFormat::File };
    assert!(here.client.media().get_media_content(&asked, false).await.unwrap() == scan, "the file came out different");

    // A device that logs in later is heard of by the other trust, and reads what is said from then on.
    for (who, trust, other) in [(&visitor, guest, &here), (&owner, host, &there)] {
        let late = Device::of(who, trust).await;
        other.knows(&late).await;
        let text = format!("said to the new device of {}", UserId::parse(&who.id).unwrap().localpart());
        other.say(&room, &text).await;
        late.reads(&text).await;
    }
}
