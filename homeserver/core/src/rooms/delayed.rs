//! Events that are sent later, unless their sender says otherwise meanwhile (MSC4140).
//!
//! A call's participant schedules its own leaving and puts it off again and again; when it is gone, the leaving is sent.
//! What is scheduled survives a restart, sealed like any content, and is sent once: its id is its transaction.

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use lru::LruCache;
use matron_storage::{Batch, Key, KeyReader, Table};
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::send::{NewEvent, Txn};
use crate::{
    Core, Error,
    house::{from_json, to_json},
};

/// The longest delay, ms.
pub const MAX_DELAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How many events one user may have scheduled.
const MAX_PER_USER: usize = 100;
/// How many may be scheduled in all.
const MAX_SCHEDULED: usize = 100_000;
/// How many clients' transactions are remembered.
const KEPT_TXNS: usize = 8_192;
/// When a send that could not be done is tried again, ms.
const RETRY_MS: u64 = 5_000;
/// How long the worker rests at most, ms.
const REST_MS: u64 = 60_000;

/// A row: when, where, and what, sealed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    room_id: OwnedRoomId,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redacts: Option<OwnedEventId>,
    delay_ms: u64,
    since_ms: u64,
    bucket: u64,
    sealed: Vec<u8>,
}

/// When and whose.
#[derive(Clone, Debug)]
struct Entry {
    user: OwnedUserId,
    due_ms: u64,
}

#[derive(Debug, Default)]
struct Schedule {
    by_time: BTreeSet<(u64, String)>,
    by_id: HashMap<String, Entry>,
    by_user: HashMap<OwnedUserId, usize>,
    loaded: bool,
}

impl Schedule {
    fn add(&mut self, id: &str, user: &UserId, due_ms: u64) {
        self.remove(id);
        self.by_time.insert((due_ms, id.to_owned()));
        self.by_id.insert(id.to_owned(), Entry { user: user.to_owned(), due_ms });
        let count = self.by_user.entry(user.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
    }

    fn remove(&mut self, id: &str) {
        let Some(entry) = self.by_id.remove(id) else { return };
        self.by_time.remove(&(entry.due_ms, id.to_owned()));
        if let Some(count) = self.by_user.get_mut(&entry.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_user.remove(&entry.user);
            }
        }
    }
}

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug)]
pub struct State {
    schedule: Mutex<Schedule>,
    /// Which client's transaction scheduled what.
    txns: Mutex<LruCache<Vec<u8>, String>>,
    changed: Notify,
}

impl Default for State {
    fn default() -> Self {
        Self {
            schedule: Mutex::default(),
            txns: Mutex::new(LruCache::new(NonZeroUsize::new(KEPT_TXNS).unwrap_or(NonZeroUsize::MIN))),
            changed: Notify::new(),
        }
    }
}

/// What is done with a scheduled event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DelayedAction {
    /// Its delay begins anew.
    Restart,
    /// It is sent now.
    Send,
    /// It is never sent.
    Cancel,
}

fn key(user: &UserId, id: &str) -> Key {
    Key::new().text("delayed_event").text(user).text(id)
}

fn unknown() -> Error {
    Error::not_found("no event is scheduled under this id")
}

impl Core {
    /// The event is sent after the delay, also over a restart, unless it is cancelled; its id. The same transaction
    /// gives the same id.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for more than [`MAX_DELAY_MS`]; [`Error::Forbidden`] for who is not in the room;
    /// [`Error::LimitExceeded`] with too many scheduled.
    pub async fn schedule_event(self: &Arc<Self>, new: NewEvent, delay_ms: u64) -> Result<String, Error> {
        if delay_ms > MAX_DELAY_MS {
            return Err(Error::invalid(format!("an event is delayed by at most {MAX_DELAY_MS} ms")));
        }
        let txn = new.txn.as_ref().map(Txn::key);
        if let Some(id) = txn.as_ref().and_then(|txn| self.delayed.txns.lock().get(txn).cloned()) {
            return Ok(id);
        }
        self.load_schedule()?;
        let room = self.find_room(&new.room_id)?.ok_or_else(|| Error::forbidden("you are not in this room"))?;
        self.require_joined(&room, &new.sender)?;
        let now_ms = self.now_ms();
        let random: [u8; 16] = rand::random();
        let id = URL_SAFE_NO_PAD.encode(random);
        let bucket = self.bucket_of_later(&mut room.lock(), now_ms.saturating_add(delay_ms))?;
        let sealed = self.seal_delayed(&id, &new.room_id, bucket, &new.content)?;
        let row = Row {
            room_id: new.room_id,
            kind: new.kind,
            state_key: new.state_key,
            redacts: new.redacts,
            delay_ms,
            since_ms: now_ms,
            bucket,
            sealed,
        };
        {
            let mut schedule = self.delayed.schedule.lock();
            let own = schedule.by_user.get(&new.sender).copied().unwrap_or(0);
            if own >= MAX_PER_USER || schedule.by_id.len() >= MAX_SCHEDULED {
                return Err(Error::LimitExceeded { retry_after_ms: RETRY_MS });
            }
            // It counts from here; it is due only when it is written.
            schedule.add(&id, &new.sender, u64::MAX);
        }
        let mut batch = Batch::new();
        batch.put(Table::Misc, key(&new.sender, &id), to_json(&row)?);
        if let Err(error) = self.commit(batch).await {
            self.delayed.schedule.lock().remove(&id);
            return Err(error);
        }
        self.delayed.schedule.lock().add(&id, &new.sender, now_ms.saturating_add(delay_ms));
        if let Some(txn) = txn {
            self.delayed.txns.lock().put(txn, id.clone());
        }
        self.delayed.changed.notify_one();
        Ok(id)
    }

    /// The scheduled event is put off, sent or cancelled. Whoever knows its id may: a call's server acts for a client.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an id under which nothing is scheduled, or whose content is gone with the lifetime of its
    /// room; as [`Core::send_event`] when it is sent.
    pub async fn update_delayed(self: &Arc<Self>, id: &str, action: DelayedAction) -> Result<(), Error> {
        self.load_schedule()?;
        let user = self.delayed.schedule.lock().by_id.get(id).map(|entry| entry.user.clone()).ok_or_else(unknown)?;
        match action {
            DelayedAction::Restart => self.restart_delayed(&user, id).await,
            DelayedAction::Send => self.send_delayed(&user, id).await,
            DelayedAction::Cancel => self.drop_delayed(&user, id).await,
        }
    }

    /// Its delay begins anew, and so does its content's life: that is sealed for the time when it will be sent.
    async fn restart_delayed(&self, user: &UserId, id: &str) -> Result<(), Error> {
        let bytes = self.store.get(Table::Misc, key(user, id).as_bytes())?.ok_or_else(unknown)?;
        let mut row: Row = from_json(Table::Misc, &bytes)?;
        let (Some(content), Some(room)) = (self.open_delayed(id, &row)?, self.find_room(&row.room_id)?) else {
            self.drop_delayed(user, id).await?;
            return Err(unknown());
        };
        row.since_ms = self.now_ms();
        let due_ms = row.since_ms.saturating_add(row.delay_ms);
        row.bucket = self.bucket_of_later(&mut room.lock(), due_ms)?;
        row.sealed = self.seal_delayed(id, &row.room_id, row.bucket, &content)?;
        let mut batch = Batch::new();
        // One that was sent or cancelled meanwhile does not come back.
        batch.expect_equals(Table::Misc, key(user, id), bytes);
        batch.put(Table::Misc, key(user, id), to_json(&row)?);
        self.store.submit(batch).await.map_err(|_| unknown())?;
        self.delayed.schedule.lock().add(id, user, due_ms);
        self.delayed.changed.notify_one();
        Ok(())
    }

    /// What the user has scheduled, the next to be sent first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn delayed_events(&self, user: &UserId) -> Result<Vec<Value>, Error> {
        let mut rows = Vec::new();
        for (row_key, bytes) in self.scan_all(Table::Misc, &Key::new().text("delayed_event").text(user))? {
            let Some(id) = id_of(&row_key) else { continue };
            rows.push((id.1, from_json::<Row>(Table::Misc, &bytes)?));
        }
        rows.sort_by_key(|(_, row)| row.since_ms.saturating_add(row.delay_ms));
        let mut told = Vec::with_capacity(rows.len());
        for (id, row) in rows {
            let Some(content) = self.open_delayed(&id, &row)? else { continue };
            let mut event = json!({
                "delay_id": id,
                "room_id": row.room_id,
                "type": row.kind,
                "delay": row.delay_ms,
                "running_since": row.since_ms,
                "content": content,
            });
            if let (Some(state_key), Some(event)) = (row.state_key, event.as_object_mut()) {
                event.insert("state_key".to_owned(), state_key.into());
            }
            told.push(event);
        }
        Ok(told)
    }

    /// Sends what is due, until `stop` turns true.
    pub async fn run_delayed(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let rest_ms = match self.send_due().await {
                Ok(next_ms) => next_ms.map_or(REST_MS, |next_ms| next_ms.saturating_sub(self.now_ms()).min(REST_MS)),
                Err(error) => {
                    tracing::warn!(%error, "scheduled events could not be sent");
                    RETRY_MS
                }
            };
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(rest_ms.max(1))) => {}
                () = self.delayed.changed.notified() => {}
                changed = stop.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Sends what is due now; when the next one is.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn send_due(self: &Arc<Self>) -> Result<Option<u64>, Error> {
        self.load_schedule()?;
        loop {
            let next = self.delayed.schedule.lock().by_time.first().cloned();
            let Some((due_ms, id)) = next.filter(|(due_ms, _)| *due_ms != u64::MAX) else { return Ok(None) };
            if due_ms > self.now_ms() {
                return Ok(Some(due_ms));
            }
            let Some(user) = self.delayed.schedule.lock().by_id.get(&id).map(|entry| entry.user.clone()) else {
                continue;
            };
            match self.send_delayed(&user, &id).await {
                Ok(()) | Err(Error::NotFound(_)) => {}
                Err(error @ (Error::Store(_) | Error::LimitExceeded { .. } | Error::Internal(_))) => {
                    tracing::warn!(%error, "a scheduled event could not be sent; it is tried again");
                    self.delayed.schedule.lock().add(&id, &user, self.now_ms().saturating_add(RETRY_MS));
                }
                // It may not be sent any more.
                Err(_) => self.drop_delayed(&user, &id).await?,
            }
        }
    }

    async fn send_delayed(self: &Arc<Self>, user: &UserId, id: &str) -> Result<(), Error> {
        let Some(row) = self.load::<Row>(Table::Misc, &key(user, id))? else {
            self.delayed.schedule.lock().remove(id);
            return Err(unknown());
        };
        // Who was suspended meanwhile does not go on speaking.
        self.check_may_speak(user)?;
        let Some(content) = self.open_delayed(id, &row)? else {
            self.drop_delayed(user, id).await?;
            return Err(unknown());
        };
        if !self.is_overtaken(user, &row)? {
            if let Some(state_key) = &row.state_key {
                // Setting the same state again does nothing.
                self.set_state(user, &row.room_id, &row.kind, state_key, content, None).await?;
            } else {
                let mut new = NewEvent::message(row.room_id.clone(), user.to_owned(), row.kind, content);
                new.redacts = row.redacts;
                let scope = format!("delayed {}", row.room_id);
                let owner = "delayed".to_owned();
                new.txn = Some(Txn { user: user.to_owned(), owner, scope, id: id.to_owned() });
                self.send_event(new).await?;
            }
        }
        self.drop_delayed(user, id).await
    }

    /// Whether another set this piece of state after the event was scheduled.
    fn is_overtaken(&self, user: &UserId, row: &Row) -> Result<bool, Error> {
        let (Some(state_key), Some(room)) = (&row.state_key, self.find_room(&row.room_id)?) else { return Ok(false) };
        let current = room.current().get(&super::StateKey::new(&row.kind, state_key)).cloned();
        let Some(current) = current.map(|id| self.load_event(&id)).transpose()?.flatten() else { return Ok(false) };
        Ok(current.pdu.sender() != user && current.record.received_ms > row.since_ms)
    }

    async fn drop_delayed(&self, user: &UserId, id: &str) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.delete(Table::Misc, key(user, id));
        self.commit(batch).await?;
        self.delayed.schedule.lock().remove(id);
        Ok(())
    }

    fn seal_delayed(&self, id: &str, room: &RoomId, bucket: u64, content: &Value) -> Result<Vec<u8>, Error> {
        self.keyring
            .seal(room.as_str(), bucket, id.as_bytes(), content.to_string().as_bytes())
            .map_err(|error| Error::internal(format!("content cannot be sealed: {error}")))
    }

    /// The content; `None` if its data key was destroyed.
    fn open_delayed(&self, id: &str, row: &Row) -> Result<Option<Value>, Error> {
        match self.keyring.open_sealed(row.room_id.as_str(), row.bucket, id.as_bytes(), &row.sealed) {
            Ok(plain) => serde_json::from_slice(&plain)
                .map(Some)
                .map_err(|error| Error::internal(format!("a scheduled event is not JSON: {error}"))),
            Err(matron_storage::keyring::KeyRingError::KeyDestroyed) => Ok(None),
            Err(error) => Err(Error::internal(format!("the content of an event cannot be opened: {error}"))),
        }
    }

    fn load_schedule(&self) -> Result<(), Error> {
        if self.delayed.schedule.lock().loaded {
            return Ok(());
        }
        let rows = self.scan_all(Table::Misc, &Key::new().text("delayed_event"))?;
        let mut schedule = self.delayed.schedule.lock();
        if schedule.loaded {
            return Ok(());
        }
        for (row_key, bytes) in rows {
            let Some((user, id)) = id_of(&row_key) else { continue };
            let row: Row = from_json(Table::Misc, &bytes)?;
            schedule.add(&id, &user, row.since_ms.saturating_add(row.delay_ms));
        }
        schedule.loaded = true;
        Ok(())
    }
}

fn id_of(row_key: &[u8]) -> Option<(OwnedUserId, String)> {
    let mut reader = KeyReader::new(row_key);
    reader.text()?;
    let user = reader.text()?.try_into().ok()?;
    Some((user, reader.text()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_world::World;

    async fn bodies(world: &World, room: &ruma::RoomId) -> Vec<String> {
        let rows = world.core.timeline_rows(room, 0, u64::MAX, matron_storage::Order::Ascending, 1000).unwrap();
        let events = world.core.load_events(rows.iter().map(|row| &*row.event_id)).unwrap();
        let body = |event: crate::rooms::EventRef| Some(event.pdu.content_value().get("body")?.as_str()?.to_owned());
        events.into_iter().filter_map(body).collect()
    }

    fn say(room: &ruma::RoomId, user: &UserId, body: &str) -> NewEvent {
        NewEvent::message(room.to_owned(), user.to_owned(), "m.room.message", json!({"body": body}))
    }

    #[tokio::test]
    async fn an_event_is_sent_when_its_time_has_come_and_only_then() {
        let world = World::new();
        let alice = world.user("alice").await;
        let room = world.room(&[&alice]).await;
        let later = world.core.schedule_event(say(&room, &alice, "later"), 2_000).await.unwrap();
        world.core.schedule_event(say(&room, &alice, "soon"), 1_000).await.unwrap();
        let never = world.core.schedule_event(say(&room, &alice, "never"), 1_500).await.unwrap();
        assert_eq!(world.core.delayed_events(&alice).unwrap().len(), 3);
        world.core.update_delayed(&never, DelayedAction::Cancel).await.unwrap();
        world.core.send_due().await.unwrap();
        assert!(bodies(&world, &room).await.is_empty());
        world.advance_ms(1_500);
        world.core.update_delayed(&later, DelayedAction::Restart).await.unwrap();
        world.core.send_due().await.unwrap();
        assert_eq!(bodies(&world, &room).await, ["soon"]);
        world.advance_ms(1_500);
        world.core.send_due().await.unwrap();
        assert_eq!(bodies(&world, &room).await, ["soon"], "it was put off");
        world.core.update_delayed(&later, DelayedAction::Send).await.unwrap();
        assert_eq!(bodies(&world, &room).await, ["soon", "later"]);
        assert!(world.core.update_delayed(&later, DelayedAction::Send).await.is_err());
        assert!(world.core.delayed_events(&alice).unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_memory_forgot_is_sent_once() {
        let world = World::new();
        let alice = world.user("alice").await;
        let room = world.room(&[&alice]).await;
        let id = world.core.schedule_event(say(&room, &alice, "once"), 1_000).await.unwrap();
        let bytes = world.core.store.get(Table::Misc, key(&alice, &id).as_bytes()).unwrap().unwrap();
        *world.core.delayed.schedule.lock() = Schedule::default();
        world.advance_ms(1_000);
        world.core.send_due().await.unwrap();
        // As after a crash between the sending and the end of the row.
        let mut batch = Batch::new();
        batch.put(Table::Misc, key(&alice, &id), bytes);
        world.core.commit(batch).await.unwrap();
        *world.core.delayed.schedule.lock() = Schedule::default();
        world.core.send_due().await.unwrap();
        assert_eq!(bodies(&world, &room).await, ["once"]);
    }

    #[tokio::test]
    async fn what_is_scheduled_is_bounded_and_sealed() {
        let world = World::new();
        let alice = world.user("alice").await;
        let bob = world.user("bob").await;
        let room = world.room(&[&alice]).await;
        assert!(world.core.schedule_event(say(&room, &alice, "x"), MAX_DELAY_MS + 1).await.is_err());
        assert!(world.core.schedule_event(say(&room, &bob, "x"), 1).await.is_err());
        let id = world.core.schedule_event(say(&room, &alice, "a secret of patients"), 1).await.unwrap();
        let bytes = world.core.store.get(Table::Misc, key(&alice, &id).as_bytes()).unwrap().unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("secret"));
        for _ in 1..MAX_PER_USER {
            world.core.schedule_event(say(&room, &alice, "x"), 1).await.unwrap();
        }
        assert!(world.core.schedule_event(say(&room, &alice, "x"), 1).await.is_err());
    }

    #[tokio::test]
    async fn what_is_put_off_beyond_the_lifetime_of_its_room_is_sent_all_the_same() {
        let world = World::new();
        let alice = world.user("alice").await;
        let room = world.room(&[&alice]).await;
        let retention = json!({"max_lifetime": 5_000});
        world
            .core
            .send_event(NewEvent::state(room.clone(), alice.clone(), "m.room.retention", "", retention))
            .await
            .unwrap();
        let kept = world.core.schedule_event(say(&room, &alice, "kept"), 4_000).await.unwrap();
        let lost = world.core.schedule_event(say(&room, &alice, "lost"), MAX_DELAY_MS).await.unwrap();
        let first = bucket(&world, &alice, &kept);
        for _ in 0..8 {
            world.advance_ms(3_000);
            world.core.update_delayed(&kept, DelayedAction::Restart).await.unwrap();
        }
        assert!(bucket(&world, &alice, &kept) > first);
        // As the purge does when the time of the first sealing is over.
        world.core.keyring.destroy(room.as_str(), first).unwrap();
        world.core.update_delayed(&kept, DelayedAction::Send).await.unwrap();
        assert_eq!(bodies(&world, &room).await, ["kept"]);
        world.core.keyring.destroy(room.as_str(), bucket(&world, &alice, &lost)).unwrap();
        let gone = world.core.update_delayed(&lost, DelayedAction::Restart).await.unwrap_err();
        assert!(matches!(gone, Error::NotFound(_)), "{gone}");
        assert!(world.core.delayed_events(&alice).unwrap().is_empty());
    }

    fn bucket(world: &World, user: &UserId, id: &str) -> u64 {
        world.core.load::<Row>(Table::Misc, &key(user, id)).unwrap().unwrap().bucket
    }

    #[tokio::test]
    async fn state_that_another_set_since_is_not_undone() {
        let world = World::new();
        let alice = world.user("alice").await;
        let room = world.room(&[&alice]).await;
        let new = NewEvent::state(room.clone(), alice.clone(), "m.room.topic", "", json!({"topic": "late"}));
        world.core.schedule_event(new, 1_000).await.unwrap();
        world.advance_ms(1_000);
        world.core.send_due().await.unwrap();
        let room = world.core.open_room(&room).unwrap();
        let topic = room.lock().state_pdu(&world.core, "m.room.topic", "").unwrap().unwrap();
        assert_eq!(topic.content_value()["topic"], "late");
    }
}
