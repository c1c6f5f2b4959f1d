//! A person with a real client: matrix-rust-sdk, end-to-end encryption and all.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use matrix_sdk::{
    Client, Room, RoomState,
    attachment::AttachmentConfig,
    config::SyncSettings,
    event_handler::RawEvent,
    media::{MediaFormat, MediaRequestParameters},
    ruma::{
        OwnedEventId, RoomId,
        events::room::{
            MediaSource,
            message::{MessageType, OriginalSyncRoomMessageEvent, RoomMessageEventContent},
        },
    },
};
use tokio::task::JoinHandle;

use crate::story::{Step, fail};

/// A message as the client shows it, decrypted.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub sender: String,
    pub body: String,
    pub media: Option<MediaSource>,
    /// It came encrypted, and the client could read it.
    pub encrypted: bool,
}

/// A person at a client that syncs.
pub(crate) struct Clinician {
    pub client: Client,
    pub user_id: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    syncing: JoinHandle<()>,
}

impl Clinician {
    /// Logged in, syncing.
    pub(crate) async fn arrive(url: &str, localpart: &str, password: &str, device: &str) -> Step<Self> {
        let client = Client::builder().homeserver_url(url).build().await?;
        client.matrix_auth().login_username(localpart, password).initial_device_display_name(device).send().await?;
        let user_id = client.user_id().map(ToString::to_string).unwrap_or_default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noticed = Arc::clone(&seen);
        client.add_event_handler(
            move |event: OriginalSyncRoomMessageEvent,
                  info: Option<matrix_sdk::deserialized_responses::EncryptionInfo>,
                  _raw: RawEvent| {
                let noticed = Arc::clone(&noticed);
                async move {
                    let media = match &event.content.msgtype {
                        MessageType::Image(image) => Some(image.source.clone()),
                        MessageType::File(file) => Some(file.source.clone()),
                        _ => None,
                    };
                    let message = Seen {
                        sender: event.sender.to_string(),
                        body: event.content.body().to_owned(),
                        media,
                        encrypted: info.is_some(),
                    };
                    if let Ok(mut noticed) = noticed.lock() {
                        noticed.push(message);
                    }
                }
            },
        );
        client.sync_once(SyncSettings::default()).await?;
        let syncing = tokio::spawn({
            let client = client.clone();
            async move {
                // A client that is logged out by its server simply stops.
                let _ = client.sync(SyncSettings::default().timeout(Duration::from_secs(10))).await;
            }
        });
        Ok(Self { client, user_id, seen, syncing })
    }

    /// The room, joined.
    pub(crate) async fn join(&self, room: &RoomId) -> Step<Room> {
        self.client.join_room_by_id(room).await?;
        let began = Instant::now();
        loop {
            if let Some(room) = self.client.get_room(room).filter(|room| room.state() == RoomState::Joined)
                && room.latest_encryption_state().await?.is_encrypted()
            {
                return Ok(room);
            }
            if began.elapsed() > Duration::from_secs(15) {
                return fail(format!("{} joined, but the client does not see an encrypted room", self.user_id));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The room is among those that the person is invited to.
    pub(crate) async fn wait_for_invite(&self, room: &RoomId) -> Step {
        let began = Instant::now();
        while !self.client.get_room(room).is_some_and(|room| room.state() == RoomState::Invited) {
            if began.elapsed() > Duration::from_secs(15) {
                return fail(format!("{} was not invited", self.user_id));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// The text is sent, encrypted by the client.
    pub(crate) async fn say(&self, room: &RoomId, text: &str) -> Step<OwnedEventId> {
        let Some(room) = self.client.get_room(room) else { return fail("the client does not know the room") };
        Ok(room.send(RoomMessageEventContent::text_plain(text)).await?.response.event_id)
    }

    /// The picture is uploaded, encrypted by the client, and sent.
    pub(crate) async fn show_picture(&self, room: &RoomId, name: &str, png: Vec<u8>) -> Step<OwnedEventId> {
        let Some(room) = self.client.get_room(room) else { return fail("the client does not know the room") };
        Ok(room.send_attachment(name, &mime::IMAGE_PNG, png, AttachmentConfig::new()).await?.event_id)
    }

    /// The first message that `wanted` accepts, once the client shows it.
    pub(crate) async fn wait_for(&self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Step<Seen> {
        let began = Instant::now();
        loop {
            let found = self.seen.lock().ok().and_then(|seen| seen.iter().find(|seen| wanted(seen)).cloned());
            if let Some(found) = found {
                return Ok(found);
            }
            if began.elapsed() > Duration::from_secs(20) {
                let seen = self.seen.lock().map(|seen| seen.len()).unwrap_or_default();
                return fail(format!("{} does not see {what} (sees {seen} messages)", self.user_id));
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// The decrypted bytes of a medium.
    pub(crate) async fn open(&self, source: MediaSource) -> Step<Vec<u8>> {
        let request = MediaRequestParameters { source, format: MediaFormat::File };
        Ok(self.client.media().get_media_content(&request, false).await?)
    }

    /// The access token, to look at the API beside the client.
    pub(crate) fn token(&self) -> String {
        self.client.access_token().unwrap_or_default()
    }
}

impl Drop for Clinician {
    fn drop(&mut self) {
        self.syncing.abort();
    }
}
