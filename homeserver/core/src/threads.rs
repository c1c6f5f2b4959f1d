//! Which threads a user follows, and what changed of that.
//!
//! A row is the position of its last change, eight bytes, and JSON. One that was ended stays: a device that comes back
//! late must not begin it again for what the user had seen by then.
// MSC: 4306 and 4308.

use std::collections::BTreeMap;

use matron_storage::{Batch, CommitError, Key, KeyReader, Slot, SlotForm, StreamPos, Table};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::{Core, Error, house::to_json, rooms::record::EventRef, sync::timeline::timeline_of};

/// How many threads a user may follow, those no longer followed included.
const MAX_SUBSCRIPTIONS: usize = 10_000;
/// How often a change is tried again when another was faster.
const MAX_ATTEMPTS: usize = 32;
/// The most changes on one page.
const MAX_PAGE: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    subscribed: bool,
    automatic: bool,
}

/// A thread that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Subscribed {
    /// Whether a client began it by itself.
    pub automatic: bool,
    /// Orders changes: larger is later.
    pub bump_stamp: u64,
}

/// A thread that is followed no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Unsubscribed {
    /// Orders changes: larger is later.
    pub bump_stamp: u64,
}

type ByThread<T> = BTreeMap<OwnedRoomId, BTreeMap<OwnedEventId, T>>;

/// A stretch of changes, the latest of each thread alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SubscriptionChanges {
    /// What is followed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub subscribed: ByThread<Subscribed>,
    /// What is not followed any more.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unsubscribed: ByThread<Unsubscribed>,
    /// Where those before go on, if there are any.
    #[serde(skip)]
    pub before: Option<StreamPos>,
}

fn key(user: &UserId, room: &RoomId, root: &EventId) -> Key {
    Key::new().text(user).text(room).text(root)
}

fn decode(bytes: &[u8]) -> Result<(StreamPos, Row), Error> {
    let corrupt = || Error::internal("thread_subscription holds a malformed value");
    let (position, json) = bytes.split_first_chunk::<8>().ok_or_else(corrupt)?;
    Ok((StreamPos(u64::from_be_bytes(*position)), crate::house::from_json(Table::ThreadSubscription, json)?))
}

impl Core {
    /// Whether the user follows the thread.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn is_subscribed(&self, user: &UserId, room: &RoomId, root: &EventId) -> Result<bool, Error> {
        let row = self.store.get(Table::ThreadSubscription, key(user, room, root).as_bytes())?;
        row.map_or(Ok(false), |bytes| Ok(decode(&bytes)?.1.subscribed))
    }

    /// Whether the user follows the thread by a client's decision (`true`) or their own.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a thread that the user does not follow, or may not see.
    pub fn thread_subscription(&self, user: &UserId, room: &RoomId, root: &EventId) -> Result<bool, Error> {
        self.seen_event(user, room, root)?;
        let row = self.store.get(Table::ThreadSubscription, key(user, room, root).as_bytes())?;
        let row = row.map(|bytes| decode(&bytes)).transpose()?;
        match row {
            Some((_, Row { subscribed: true, automatic })) => Ok(automatic),
            _ => Err(Error::not_found("you have not subscribed to this thread")),
        }
    }

    /// The user follows the thread; because of the event `cause`, if a client decided that.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a thread that the user may not see; `M_NOT_IN_THREAD` for a cause elsewhere;
    /// `M_CONFLICTING_UNSUBSCRIPTION` if the user ended the subscription after the cause had come.
    pub async fn subscribe_thread(
        &self,
        user: &UserId,
        room: &RoomId,
        root: &EventId,
        cause: Option<&EventId>,
    ) -> Result<(), Error> {
        self.seen_event(user, room, root)?;
        let cause = cause.map(|cause| self.cause_in_thread(user, room, root, cause)).transpose()?;
        self.edit_subscription(user, room, root, |before| match (before, &cause) {
            (Some((_, Row { subscribed: true, .. })), Some(_)) => Ok(None),
            (Some((_, Row { subscribed: true, automatic: false })), None) => Ok(None),
            (Some((ended, Row { subscribed: false, .. })), Some(cause))
                if cause.record.timeline <= timeline_of(ended) =>
            {
                Err(Error::Custom {
                    status: 409,
                    errcode: "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION",
                    message: "you have unsubscribed since".into(),
                })
            }
            _ => Ok(Some(Row { subscribed: true, automatic: cause.is_some() })),
        })
        .await
    }

    /// The user follows the thread no longer, if they did.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a thread that the user may not see.
    pub async fn unsubscribe_thread(&self, user: &UserId, room: &RoomId, root: &EventId) -> Result<(), Error> {
        self.seen_event(user, room, root)?;
        self.edit_subscription(user, room, root, |before| {
            let followed = before.is_some_and(|(_, row)| row.subscribed);
            Ok(followed.then_some(Row { subscribed: false, automatic: false }))
        })
        .await
    }

    fn seen_event(&self, user: &UserId, room: &RoomId, id: &EventId) -> Result<EventRef, Error> {
        let nothing = || Error::not_found("there is no such thread");
        let event = self.load_event(id)?.filter(|event| event.pdu.room_id() == room).ok_or_else(nothing)?;
        if self.can_see_event(user, &event)? { Ok(event) } else { Err(nothing()) }
    }

    fn cause_in_thread(
        &self,
        user: &UserId,
        room: &RoomId,
        root: &EventId,
        cause: &EventId,
    ) -> Result<EventRef, Error> {
        let elsewhere = || Error::Custom {
            status: 400,
            errcode: "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD",
            message: "the event is not in this thread".into(),
        };
        let event = self.seen_event(user, room, cause).map_err(|error| match error {
            Error::NotFound(_) => elsewhere(),
            error => error,
        })?;
        if self.thread_of(&event)?.as_deref() == Some(root) { Ok(event) } else { Err(elsewhere()) }
    }

    /// The row becomes what `change` makes of it, whatever the user's other devices do meanwhile.
    async fn edit_subscription(
        &self,
        user: &UserId,
        room: &RoomId,
        root: &EventId,
        change: impl Fn(Option<(StreamPos, Row)>) -> Result<Option<Row>, Error> + Send + Sync,
    ) -> Result<(), Error> {
        let key = key(user, room, root);
        for _ in 0..MAX_ATTEMPTS {
            let before = self.store.get(Table::ThreadSubscription, key.as_bytes())?;
            let known = before.as_deref().map(decode).transpose()?;
            let Some(row) = change(known)? else { return Ok(()) };
            let mut batch = Batch::new();
            match before {
                Some(before) => batch.expect_equals(Table::ThreadSubscription, key.clone(), before),
                None => {
                    let all = self.scan_all(Table::ThreadSubscription, &Key::new().text(user))?;
                    if all.len() >= MAX_SUBSCRIPTIONS {
                        return Err(Error::invalid(format!("a user follows at most {MAX_SUBSCRIPTIONS} threads")));
                    }
                    batch.expect_absent(Table::ThreadSubscription, key.clone())
                }
            };
            let slot = Slot { offset: 0, index: batch.reserve_position(), form: SlotForm::Plain };
            let mut value = vec![0; 8];
            value.extend(to_json(&row)?);
            batch.put_at(Table::ThreadSubscription, key.clone(), None, value, Some(slot));
            match self.store.submit(batch).await {
                Ok(_) => {
                    self.unread_changed(user, room);
                    return Ok(());
                }
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::internal("a thread's subscription changed too often to be changed"))
    }

    /// The latest changes in `(after, to]`, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn subscription_changes(
        &self,
        user: &UserId,
        after: StreamPos,
        to: StreamPos,
        limit: Option<u64>,
    ) -> Result<SubscriptionChanges, Error> {
        let mut changes = SubscriptionChanges::default();
        let prefix = Key::new().text(user);
        if self.store.mark(Table::ThreadSubscription, prefix.as_bytes()).position <= after {
            return Ok(changes);
        }
        let mut rows = Vec::new();
        for (key, value) in self.scan_all(Table::ThreadSubscription, &prefix)? {
            let (position, row) = decode(&value)?;
            let mut reader = KeyReader::new(&key);
            let (_, room, root) = (reader.text(), reader.text(), reader.text());
            let room = room.and_then(|room| OwnedRoomId::try_from(room).ok());
            let root = root.and_then(|root| OwnedEventId::try_from(root).ok());
            if let (Some(room), Some(root)) = (room, root)
                && position > after
                && position <= to
            {
                rows.push((position, room, root, row));
            }
        }
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.0));
        let limit = limit.map_or(MAX_PAGE, |limit| usize::try_from(limit).unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE));
        if rows.len() > limit {
            rows.truncate(limit);
            changes.before = rows.last().map(|(position, ..)| *position);
        }
        for (position, room, root, row) in rows {
            let bump_stamp = position.0;
            if row.subscribed {
                let told = Subscribed { automatic: row.automatic, bump_stamp };
                changes.subscribed.entry(room).or_default().insert(root, told);
            } else {
                changes.unsubscribed.entry(room).or_default().insert(root, Unsubscribed { bump_stamp });
            }
        }
        Ok(changes)
    }
}
