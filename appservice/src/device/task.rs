//! The device's task: syncs, keeps keys published, encrypts and decrypts, one thing at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

use super::open::{Opened, is_logged_out};
use super::{Command, DeviceError, DeviceSetup, DeviceTask, Outgoing, Secrecy};
use crate::client::{ClientError, SyncResponse};
use crate::crypto::{Decrypted, RoomEncryption, ToDeviceRequest, UploadKind};

/// How long one sync waits at the homeserver.
const SYNC: Duration = Duration::from_secs(30);
/// Longest pause after failures.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Rooms whose settings are remembered.
const MAX_ROOMS: usize = 10_000;

/// What a room's members may expect of a message to it.
#[derive(Debug, Clone)]
struct RoomSettings {
    encryption: Option<RoomEncryption>,
    /// History visibility lets the invited read what is said before they join.
    invited_may_read: bool,
}

struct Running<'a> {
    setup: &'a DeviceSetup,
    opened: Opened,
    rooms: BTreeMap<String, RoomSettings>,
    new_keys: &'a tokio::sync::watch::Sender<u64>,
}

impl DeviceTask {
    /// Logs in, keeps the device alive and answers requests, until every [`super::Device`] is dropped.
    pub async fn run(mut self) {
        let mut failures = 0u32;
        loop {
            let error = match self.setup.open().await {
                Ok(opened) => {
                    let mut running =
                        Running { setup: &self.setup, opened, rooms: BTreeMap::new(), new_keys: &self.new_keys };
                    match running.publish().await {
                        Ok(()) => {
                            failures = 0;
                            self.ready.send_replace(true);
                            let error = running.serve(&mut self.commands).await;
                            self.ready.send_replace(false);
                            error
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if matches!(error, DeviceError::Stopped) {
                return;
            }
            failures = failures.saturating_add(1);
            tracing::warn!(user = %self.setup.localpart, %error, failures, "the device starts again");
            tokio::time::sleep(pause(failures)).await;
        }
    }
}

fn pause(failures: u32) -> Duration {
    Duration::from_millis(250).saturating_mul(1 << failures.min(8)).min(MAX_PAUSE)
}

impl Running<'_> {
    fn now_ms(&self) -> u64 {
        self.setup.clock.now_ms()
    }

    /// Every change of the machine is on disk afterwards.
    async fn save(&mut self) -> Result<(), DeviceError> {
        for (part, content) in self.opened.machine.take_changes()? {
            self.setup.write(part, content).await?;
        }
        Ok(())
    }

    /// The homeserver has our keys afterwards.
    async fn publish(&mut self) -> Result<(), DeviceError> {
        if self.opened.since.is_none() {
            self.opened.machine.mark_all_stale();
            self.opened.machine.refill_keys(0, true);
        }
        self.upload_keys().await?;
        if let Err(error) = self.cross_sign().await {
            // The device works without; some clients show a warning beside it.
            tracing::info!(%error, "cross-signing keys were not published");
        }
        Ok(())
    }

    async fn upload_keys(&mut self) -> Result<(), DeviceError> {
        self.save().await?;
        if let Some((kind, body)) = self.opened.machine.keys_to_upload()? {
            match self.opened.session.upload_keys(&body).await {
                Ok(_) => {}
                // One-time keys of a state that was restored from a backup: others will be made.
                Err(error) if error.is_status(400) && kind == UploadKind::Refill => {
                    tracing::warn!(%error, "the homeserver refused keys; they are replaced");
                }
                Err(error) => return Err(error.into()),
            }
            self.opened.machine.mark_uploaded();
            self.save().await?;
        }
        Ok(())
    }

    async fn cross_sign(&mut self) -> Result<(), DeviceError> {
        let Some(upload) = self.opened.machine.cross_signing_to_upload()? else {
            return Ok(());
        };
        self.save().await?;
        // SPEC: Application Service API, "Cross-signing": no interactive authentication with the as_token.
        let user_id = self.opened.machine.user_id().to_owned();
        let masquerade = self.setup.client.as_user(&user_id);
        masquerade.upload_cross_signing(&upload.keys).await?;
        self.opened.session.upload_signatures(&upload.signatures).await?;
        self.opened.machine.mark_cross_signed();
        self.save().await
    }

    /// Answers and syncs until something breaks that only starting again mends.
    async fn serve(&mut self, commands: &mut tokio::sync::mpsc::Receiver<Command>) -> DeviceError {
        let mut failures = 0u32;
        loop {
            let wait = if failures == 0 { Duration::ZERO } else { pause(failures) };
            let session = self.opened.session.clone();
            let since = self.opened.since.clone();
            // The first sync after a start says at once what is there.
            let timeout = if since.is_some() { SYNC } else { Duration::ZERO };
            let mut syncing = std::pin::pin!(async move {
                tokio::time::sleep(wait).await;
                session.sync(since.as_deref(), timeout).await
            });
            let synced = loop {
                tokio::select! {
                    synced = &mut syncing => break synced,
                    command = commands.recv() => match command {
                        Some(command) => self.obey(command).await,
                        None => return DeviceError::Stopped,
                    },
                }
            };
            match synced {
                Ok(response) => {
                    failures = 0;
                    if let Err(error) = self.receive(response).await {
                        return error;
                    }
                }
                Err(error) if is_logged_out(&error) => return error.into(),
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::debug!(%error, failures, "sync failed");
                }
            }
        }
    }

    /// Takes a sync; its position is kept only after its keys are.
    async fn receive(&mut self, response: SyncResponse) -> Result<(), DeviceError> {
        let now_ms = self.now_ms();
        let received = self.opened.machine.receive_sync(&response, now_ms);
        self.save().await?;
        let mut any = received.new_room_keys > 0;
        if received.dropped > 0 {
            tracing::info!(dropped = received.dropped, "to-device messages were dropped");
        }
        match self.keep_up().await {
            Ok(more) => any |= more,
            Err(DeviceError::Store(error)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "keys were not kept up; the next sync tries again")
            }
        }
        self.setup.write("since", Zeroizing::new(response.next_batch.clone().into_bytes())).await?;
        self.opened.since = Some(response.next_batch);
        if any {
            self.new_keys.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Uploads what runs short, asks for devices whose keys wait, replaces broken sessions.
    async fn keep_up(&mut self) -> Result<bool, DeviceError> {
        self.upload_keys().await?;
        let any = self.query(&[]).await?;
        let wedged = self.opened.machine.wedged_users();
        if !wedged.is_empty() {
            self.claim(&wedged).await?;
            let now_ms = self.now_ms();
            let requests = self.opened.machine.dummies(now_ms)?;
            self.save().await?;
            for request in requests {
                self.send_to_device(&request).await?;
            }
        }
        Ok(any)
    }

    async fn query(&mut self, users: &[String]) -> Result<bool, DeviceError> {
        let asked = self.opened.machine.users_to_query(users);
        if asked.is_empty() {
            return Ok(false);
        }
        let response = self.opened.session.query_keys(&asked).await?;
        let now_ms = self.now_ms();
        let any = self.opened.machine.receive_keys_query(&asked, &response, now_ms);
        self.save().await?;
        Ok(any)
    }

    async fn claim(&mut self, users: &[String]) -> Result<(), DeviceError> {
        let wanted = self.opened.machine.devices_to_claim(users, self.now_ms());
        if wanted.is_empty() {
            return Ok(());
        }
        let response = self.opened.session.claim_keys(&wanted).await?;
        let now_ms = self.now_ms();
        self.opened.machine.receive_keys_claim(&wanted, &response, now_ms);
        self.save().await
    }

    async fn send_to_device(&self, request: &ToDeviceRequest) -> Result<(), DeviceError> {
        let event_type = ToDeviceRequest::EVENT_TYPE;
        Ok(self.opened.session.send_to_device(event_type, &request.txn_id, &request.messages).await?)
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Send { message, reply } => {
                // Who asked may have given up meanwhile; then nobody wants it sent.
                if !reply.is_closed() {
                    let _gone = reply.send(self.send(&message).await);
                }
            }
            Command::Decrypt { room_id, event, reply } => {
                let decrypted: Decrypted = self.opened.machine.decrypt(&room_id, &event);
                let _gone = reply.send(decrypted);
            }
            Command::RoomChanged { room_id } => {
                self.rooms.remove(&room_id);
            }
        }
    }

    async fn send(&mut self, message: &Outgoing) -> Result<String, DeviceError> {
        let room_id = message.room_id.as_str();
        let settings = self.settings(room_id).await?;
        let Some(encryption) = settings.encryption else {
            if message.secrecy == Secrecy::Required {
                self.rooms.remove(room_id);
                return Err(DeviceError::NotEncrypted);
            }
            let session = &self.opened.session;
            return Ok(session.send_event(room_id, &message.event_type, &message.txn_id, &message.content).await?);
        };
        let mut members = self.opened.session.fetch_joined_members(room_id).await?;
        if settings.invited_may_read {
            members.extend(self.opened.session.fetch_invited_members(room_id).await?);
        }
        self.query(&members).await?;
        self.claim(&members).await?;
        let now_ms = self.now_ms();
        let requests = self.opened.machine.share_room_key(room_id, &members, &encryption, now_ms)?;
        // INVARIANT: the ratchets are on disk before what they encrypted leaves.
        self.save().await?;
        for request in &requests {
            self.send_to_device(request).await?;
            self.opened.machine.mark_shared(request);
        }
        let content = self.opened.machine.encrypt(room_id, &message.event_type, &message.content)?;
        let session = &self.opened.session;
        Ok(session.send_event(room_id, "m.room.encrypted", &message.txn_id, &content).await?)
    }

    async fn settings(&mut self, room_id: &str) -> Result<RoomSettings, DeviceError> {
        if let Some(settings) = self.rooms.get(room_id) {
            return Ok(settings.clone());
        }
        let session = &self.opened.session;
        let encryption = session.fetch_state(room_id, "m.room.encryption", "").await?;
        let visibility = session.fetch_state(room_id, "m.room.history_visibility", "").await?;
        let visibility =
            visibility.as_ref().and_then(|content| content.get("history_visibility")).and_then(Value::as_str);
        let known = self.opened.encrypted_rooms.contains(room_id);
        let settings = RoomSettings {
            // INVARIANT: a room that was encrypted once is encrypted for ever, whatever the homeserver says.
            encryption: encryption
                .or_else(|| known.then_some(Value::Null))
                .map(|content| RoomEncryption::from_content(&content)),
            invited_may_read: visibility != Some("joined"),
        };
        if settings.encryption.is_some() && !known {
            self.opened.encrypted_rooms.insert(room_id.to_owned());
            let rooms = serde_json::to_vec(&self.opened.encrypted_rooms).map_err(ClientError::Json)?;
            self.setup.write("rooms", Zeroizing::new(rooms)).await?;
        }
        if self.rooms.len() >= MAX_ROOMS {
            self.rooms.clear();
        }
        self.rooms.insert(room_id.to_owned(), settings.clone());
        Ok(settings)
    }
}
