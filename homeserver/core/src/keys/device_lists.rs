//! Who must hear that a user's devices or identity changed: a stream for local clients, EDUs for other servers.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>,
//! <https://spec.matrix.org/v1.19/server-server-api/#device-management>.

use std::collections::{BTreeMap, BTreeSet};

use matron_room::Membership;
use matron_storage::{Batch, CommitError, Key, KeyRange, KeyReader, MAX_PAGE, Order, SlotForm, StreamPos, Table};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{local::LocalDevice, upload::MAX_TRIES};
use crate::{
    Core, Error,
    house::{from_json, to_json},
};

/// How many rows one answer looks at; a token older than that is told that everyone changed.
const MAX_ROWS: usize = 5 * MAX_PAGE;

/// How long changes are remembered, ms.
const MAX_AGE_MS: u64 = 60 * 24 * 60 * 60 * 1000;

/// Whose keys a client must ask for again, and whose it need not track any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceListChanges {
    /// Devices or identity changed, or a first room is shared.
    pub changed: BTreeSet<OwnedUserId>,
    /// No room is shared any more.
    pub left: BTreeSet<OwnedUserId>,
}

/// A row of `device_list_stream`; the key is position and user.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    what: What,
    at_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    /// Devices or identity: for everyone who shares a room.
    Keys,
    /// A signature that this observer alone may see.
    SeenBy(OwnedUserId),
    /// The user came to share this room.
    Joined(OwnedRoomId),
    /// The user was invited to this room; its members may encrypt for them from now on.
    Invited(OwnedRoomId),
    /// The user left this room.
    Left(OwnedRoomId),
}

/// What was last told to other servers about a local user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Told {
    /// Of the last EDU; what `GET /user/devices` answers.
    pub stream_id: u64,
    /// Device to a digest of what was told.
    devices: BTreeMap<String, String>,
}

fn told_key(user: &UserId) -> Key {
    Key::new().text("device_list_told").text(user)
}

impl Core {
    /// Local clients that share a room are told, and other servers receive an EDU per device that differs from what they know.
    ///
    /// Whatever changed a local user's devices calls it after its commit. Calling it without a change costs a stream row.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn device_list_changed(&self, user: &UserId) -> Result<(), Error> {
        self.tell_device_list(user, None).await
    }

    /// As [`Core::device_list_changed`], and other servers receive the new identity.
    pub(super) async fn identity_changed(&self, user: &UserId, update: Value) -> Result<(), Error> {
        self.tell_device_list(user, Some(update)).await
    }

    async fn tell_device_list(&self, user: &UserId, identity: Option<Value>) -> Result<(), Error> {
        let servers = self.other_servers(user)?;
        for _ in 0..MAX_TRIES {
            let mut batch = Batch::new();
            self.write_device_list_row(&mut batch, user, What::Keys)?;
            self.write_device_edus(&mut batch, user, &servers)?;
            if let Some(identity) = &identity {
                for server in &servers {
                    self.queue_edu(&mut batch, server, "m.signing_key_update", identity)?;
                }
            }
            match self.store.submit(batch).await {
                Ok(_) => {
                    self.wake_for_device_list(user, &servers)?;
                    return Ok(());
                }
                Err(CommitError::Conflict(_)) => tokio::task::yield_now().await,
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::internal("a device list changed too often to be told"))
    }

    fn other_servers(&self, user: &UserId) -> Result<BTreeSet<OwnedServerName>, Error> {
        let mut servers = self.servers_sharing_room(user)?;
        servers.retain(|server| !self.is_local(server));
        Ok(servers)
    }

    fn wake_for_device_list(&self, user: &UserId, servers: &BTreeSet<OwnedServerName>) -> Result<(), Error> {
        self.notifier.wake_user(user);
        let sharing = self.users_sharing_room(user)?;
        self.notifier.wake_users(sharing.iter().map(|user| &**user));
        for server in servers {
            self.wake_outbox(server);
        }
        Ok(())
    }

    /// A position is reserved and the row goes with the batch.
    fn write_device_list_row(&self, batch: &mut Batch, user: &UserId, what: What) -> Result<(), Error> {
        let index = batch.reserve_position();
        let (key, slot) = Key::new().position(index, SlotForm::Plain);
        let row = Row { what, at_ms: self.now_ms() };
        batch.put_at(Table::DeviceListStream, key.text(user), Some(slot), to_json(&row)?, None);
        Ok(())
    }

    /// The EDUs that bring other servers from what they were told to what is.
    fn write_device_edus(
        &self,
        batch: &mut Batch,
        user: &UserId,
        servers: &BTreeSet<OwnedServerName>,
    ) -> Result<(), Error> {
        let key = told_key(user);
        let before = self.store.get(Table::Misc, key.as_bytes())?;
        let mut told: Told =
            before.as_deref().map(|bytes| from_json(Table::Misc, bytes)).transpose()?.unwrap_or_default();
        let mut gone = std::mem::take(&mut told.devices);
        let mut edus = Vec::new();
        for device in self.local_devices(user)? {
            let digest = digest_of(&device)?;
            let id = device.device_id.to_string();
            if gone.remove(&id).as_ref() != Some(&digest) {
                edus.push(device_edu(user, &id, Some(&device)));
            }
            told.devices.insert(id, digest);
        }
        edus.extend(gone.keys().map(|id| device_edu(user, id, None)));
        if edus.is_empty() {
            return Ok(());
        }
        for mut edu in edus {
            let previous = told.stream_id;
            told.stream_id = told.stream_id.saturating_add(1);
            if let Some(fields) = edu.as_object_mut() {
                fields.insert("stream_id".to_owned(), told.stream_id.into());
                let known = if previous == 0 { json!([]) } else { json!([previous]) };
                fields.insert("prev_id".to_owned(), known);
            }
            for server in servers {
                self.queue_edu(batch, server, "m.device_list_update", &edu)?;
            }
        }
        match before {
            Some(bytes) => batch.expect_equals(Table::Misc, key.clone(), bytes),
            None => batch.expect_absent(Table::Misc, key.clone()),
        };
        batch.put(Table::Misc, key, to_json(&told)?);
        Ok(())
    }

    pub(super) fn device_list_stream_id(&self, user: &UserId) -> Result<u64, Error> {
        Ok(self.load::<Told>(Table::Misc, &told_key(user))?.unwrap_or_default().stream_id)
    }

    /// SPEC: v1.19 Server-Server API, "Device Management": an update is sent when a user joins a room with servers that did
    /// not receive updates before. One device is enough: who has no list, or an old one, fetches it.
    async fn announce_devices_to(
        &self,
        user: &UserId,
        servers: impl IntoIterator<Item = OwnedServerName>,
    ) -> Result<(), Error> {
        let servers: Vec<_> = servers.into_iter().filter(|server| !self.is_local(server)).collect();
        if servers.is_empty() {
            return Ok(());
        }
        let stream_id = self.device_list_stream_id(user)?;
        if stream_id == 0 {
            return Ok(());
        }
        let mut batch = Batch::new();
        for device in self.local_devices(user)?.iter().take(1) {
            let mut edu = device_edu(user, device.device_id.as_str(), Some(device));
            if let Some(fields) = edu.as_object_mut() {
                fields.insert("stream_id".to_owned(), stream_id.into());
                let known = if stream_id == 1 { json!([]) } else { json!([stream_id.saturating_sub(1)]) };
                fields.insert("prev_id".to_owned(), known);
            }
            for server in &servers {
                self.queue_edu(&mut batch, server, "m.device_list_update", &edu)?;
            }
        }
        if !batch.is_empty() {
            self.commit(batch).await?;
            servers.iter().for_each(|server| self.wake_outbox(server));
        }
        Ok(())
    }

    /// Local clients hear, by the batch that changes a membership, who shares a room with them and who does not any more.
    ///
    /// # Errors
    /// [`Error::Internal`], never in practice.
    pub(crate) fn write_sharing(
        &self,
        batch: &mut Batch,
        room: &RoomId,
        user: &UserId,
        membership: Membership,
    ) -> Result<(), Error> {
        let what = match membership {
            Membership::Join => What::Joined(room.to_owned()),
            Membership::Invite => What::Invited(room.to_owned()),
            Membership::Knock => return Ok(()),
            Membership::Leave | Membership::Ban => What::Left(room.to_owned()),
        };
        self.write_device_list_row(batch, user, what)
    }

    /// What follows from a changed membership, after its commit: servers that a local user newly shares a room with learn of
    /// the user's devices, and the lists of those who share no room any more are forgotten.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn device_lists_after_memberships(
        &self,
        room: &RoomId,
        users: &[OwnedUserId],
        joined: &imbl::OrdSet<OwnedUserId>,
    ) -> Result<(), Error> {
        for user in users.iter().filter(|user| joined.contains(*user) && self.is_local_user(user)) {
            self.announce_devices_to(user, self.joined_servers(room)?).await?;
        }
        self.presence_after_joins(room, users, joined).await?;
        for user in users.iter().filter(|user| !joined.contains(*user)) {
            let membership = self.standing(user, room)?.map(|standing| standing.membership);
            if !matches!(membership, Some(Membership::Invite | Membership::Knock)) {
                self.forget_lists_after_leaving(room, user).await?;
            }
        }
        Ok(())
    }

    /// A remote user's keys changed: local clients that share a room are told. The batch may carry the cause.
    pub(super) async fn remote_keys_changed(&self, mut batch: Batch, user: &UserId) -> Result<(), CommitError> {
        let row = self.write_device_list_row(&mut batch, user, What::Keys);
        if let Err(error) = row {
            tracing::error!(%error, "a change of a device list was not written");
        }
        self.store.submit(batch).await?;
        match self.users_sharing_room(user) {
            Ok(sharing) => self.notifier.wake_users(sharing.iter().map(|user| &**user)),
            Err(error) => tracing::warn!(%error, "nobody was woken for a change of a device list"),
        }
        Ok(())
    }

    /// The batch also tells `observer`, alone, that a signature of theirs on `user`'s identity appeared.
    pub(super) fn write_private_signature_row(
        &self,
        batch: &mut Batch,
        user: &UserId,
        observer: &UserId,
    ) -> Result<(), Error> {
        self.write_device_list_row(batch, user, What::SeenBy(observer.to_owned()))
    }

    /// Whose keys the user must fetch again after `from`, up to `to`, and whom they share no room with any more.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn device_list_changes_between(
        &self,
        user: &UserId,
        from: StreamPos,
        to: StreamPos,
    ) -> Result<DeviceListChanges, Error> {
        // The rows, and the floor below which they are gone.
        if self.store.mark(Table::DeviceListStream, &[]).position <= from {
            return Ok(DeviceListChanges::default());
        }
        let mut range =
            KeyRange::between(Key::new().number(from.0.saturating_add(1)), Key::new().number(to.0.saturating_add(1)));
        let mut changes = Collector::default();
        let mut seen = 0_usize;
        loop {
            let page = self.store.scan(Table::DeviceListStream, &range, Order::Ascending, MAX_PAGE)?;
            for (key, bytes) in &page {
                let mut reader = KeyReader::new(key);
                let subject = reader.number().and_then(|_| reader.text()).and_then(|id| OwnedUserId::try_from(id).ok());
                let Some(subject) = subject else { continue };
                changes.add(user, subject, from_json::<Row>(Table::DeviceListStream, bytes)?.what);
            }
            seen = seen.saturating_add(page.len());
            match page.last() {
                Some((last, _)) if page.len() == MAX_PAGE && seen < MAX_ROWS => range = range.after(last),
                Some(_) if page.len() == MAX_PAGE => return self.everyone_changed(user),
                _ => break,
            }
        }
        if from.0 < self.device_list_floor()? {
            return self.everyone_changed(user);
        }
        if changes.is_empty() {
            return Ok(DeviceListChanges::default());
        }
        self.judge_changes(user, changes)
    }

    fn everyone_changed(&self, user: &UserId) -> Result<DeviceListChanges, Error> {
        let mut changed = self.users_sharing_room(user)?;
        changed.insert(user.to_owned());
        Ok(DeviceListChanges { changed, left: BTreeSet::new() })
    }

    fn judge_changes(&self, user: &UserId, mut changes: Collector) -> Result<DeviceListChanges, Error> {
        let mut sharing = self.users_sharing_room(user)?;
        sharing.insert(user.to_owned());
        for room in &changes.own_joins {
            changes.subjects.extend(self.joined_members(room)?);
        }
        let mut invited = BTreeSet::new();
        for (subject, room) in changes.invited {
            if self.is_joined(user, &room)? {
                invited.insert(subject);
            }
        }
        for room in &changes.own_leaves {
            changes.leavers.extend(self.joined_members(room)?);
        }
        let left =
            changes.leavers.into_iter().filter(|other| !sharing.contains(other) && !invited.contains(other)).collect();
        let mut changed: BTreeSet<_> = changes.subjects.intersection(&sharing).cloned().collect();
        changed.extend(changes.private);
        changed.extend(invited);
        Ok(DeviceListChanges { changed, left })
    }

    fn device_list_floor(&self) -> Result<u64, Error> {
        Ok(self.load(Table::Misc, &floor_key())?.unwrap_or(0))
    }

    /// Rows older than their age are gone; tokens older than the floor are told that everyone changed.
    pub(super) async fn prune_device_lists(&self) -> Result<(), Error> {
        let limit_ms = self.now_ms().saturating_sub(MAX_AGE_MS);
        let page = self.store.scan(Table::DeviceListStream, &KeyRange::all(), Order::Ascending, MAX_PAGE)?;
        let mut floor = None;
        for (key, bytes) in &page {
            if from_json::<Row>(Table::DeviceListStream, bytes)?.at_ms >= limit_ms {
                break;
            }
            floor = KeyReader::new(key).number();
        }
        let Some(floor) = floor else { return Ok(()) };
        let mut batch = Batch::new();
        let end = Key::new().number(floor.saturating_add(1));
        batch.delete_range(Table::DeviceListStream, KeyRange::between(Key::new(), end));
        batch.put(Table::Misc, floor_key(), to_json(&floor)?);
        self.commit(batch).await?;
        Ok(())
    }
}

fn floor_key() -> Key {
    Key::new().text("device_list_floor")
}

/// What the rows say, before it is known who still shares a room.
#[derive(Debug, Default)]
struct Collector {
    subjects: BTreeSet<OwnedUserId>,
    private: BTreeSet<OwnedUserId>,
    leavers: BTreeSet<OwnedUserId>,
    invited: BTreeSet<(OwnedUserId, OwnedRoomId)>,
    own_joins: BTreeSet<OwnedRoomId>,
    own_leaves: BTreeSet<OwnedRoomId>,
}

impl Collector {
    fn add(&mut self, user: &UserId, subject: OwnedUserId, what: What) {
        match what {
            What::Keys => {
                self.subjects.insert(subject);
            }
            What::SeenBy(observer) => {
                if observer == user {
                    self.private.insert(subject);
                }
            }
            What::Joined(room) if subject == user => {
                self.own_joins.insert(room);
            }
            What::Joined(_) => {
                self.subjects.insert(subject);
            }
            What::Invited(room) => {
                self.invited.insert((subject, room));
            }
            What::Left(room) if subject == user => {
                self.own_leaves.insert(room);
            }
            What::Left(_) => {
                self.leavers.insert(subject);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.subjects.is_empty()
            && self.private.is_empty()
            && self.leavers.is_empty()
            && self.invited.is_empty()
            && self.own_joins.is_empty()
            && self.own_leaves.is_empty()
    }
}

fn digest_of(device: &LocalDevice) -> Result<String, Error> {
    let told = to_json(&(&device.display_name, &device.keys))?;
    Ok(Sha256::digest(&told).iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// `m.device_list_update` without its place in the sequence; no device means that it was deleted.
fn device_edu(user: &UserId, id: &str, device: Option<&LocalDevice>) -> Value {
    let Some(device) = device else {
        return json!({ "user_id": user, "device_id": id, "deleted": true });
    };
    let mut edu = json!({ "user_id": user, "device_id": id });
    if let Some(fields) = edu.as_object_mut() {
        if let Some(name) = &device.display_name {
            fields.insert("device_display_name".to_owned(), name.as_str().into());
        }
        if let Some(keys) = &device.keys {
            fields.insert("keys".to_owned(), keys.clone());
        }
    }
    edu
}
