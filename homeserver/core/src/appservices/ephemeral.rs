//! Typing, receipts, presence and to-device messages for the application services that asked for them.

use matron_storage::{KeyRange, KeyReader, Order, StreamPos, Table};
use ruma::{DeviceId, OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value, json};

use super::{
    Appservice,
    queue::{Inbox, MAX_EPHEMERAL_PER_TRANSACTION, Queue},
};
use crate::{Core, Error};

impl Core {
    /// Whether any application service asked for what is never stored.
    #[must_use]
    pub fn appservices_want_ephemeral(&self) -> bool {
        self.appservices.services.iter().any(|service| service.registration.receive_ephemeral)
    }

    /// Queues typing or receipts of a room for the services that have a user there or own the room.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn appservices_room_edu(&self, room: &RoomId, kind: &str, content: &Value) -> Result<(), Error> {
        if !self.appservices_want_ephemeral() {
            return Ok(());
        }
        let Some(open) = self.find_room(room)? else { return Ok(()) };
        let among = self.services_among(room, &open.joined());
        for ((service, queue), has_user) in self.appservices.services.iter().zip(&self.appservices.queues).zip(among) {
            if service.registration.receive_ephemeral && (has_user || service.is_interested_in_room(room)) {
                queue.add_ephemeral(json!({ "type": kind, "room_id": room, "content": content }));
            }
        }
        Ok(())
    }

    /// Queues a user's presence for the services that share a room with them through one of their users.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn appservices_presence(&self, user: &UserId, content: &Value) -> Result<(), Error> {
        if !self.appservices_want_ephemeral() {
            return Ok(());
        }
        let mut concerned = vec![false; self.appservices.services.len()];
        for room in self.joined_rooms(user)? {
            let Some(open) = self.find_room(&room)? else { continue };
            for (known, has_user) in concerned.iter_mut().zip(self.services_among(&room, &open.joined())) {
                *known |= has_user;
            }
        }
        for ((service, queue), concerned) in
            self.appservices.services.iter().zip(&self.appservices.queues).zip(concerned)
        {
            if concerned && service.registration.receive_ephemeral {
                queue.add_ephemeral(json!({ "type": "m.presence", "sender": user, "content": content }));
            }
        }
        Ok(())
    }

    /// A user's device has to-device messages waiting: the service whose user it is receives them, if it asked to.
    pub(crate) fn appservices_inbox(&self, user: &UserId, device: &DeviceId) {
        for (service, queue) in self.appservices.services.iter().zip(&self.appservices.queues) {
            if service.registration.receive_ephemeral && service.is_interested_in_user(user) {
                queue.add_inbox((user.to_owned(), device.to_owned()));
            }
        }
    }

    /// Finds the inboxes that were filled before this process began.
    pub(super) fn find_inboxes(&self, service: &Appservice, queue: &Queue) -> Result<(), Error> {
        let mut range = KeyRange::all();
        loop {
            let rows = self.store.scan(Table::ToDeviceInbox, &range, Order::Ascending, 1_000)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            range = range.after(last);
            for (key, _) in &rows {
                let mut reader = KeyReader::new(key);
                let user = reader.text().and_then(|user| OwnedUserId::try_from(user).ok());
                if let (Some(user), Some(device)) = (user, reader.text())
                    && service.is_interested_in_user(&user)
                {
                    queue.add_inbox((user, device.into()));
                }
            }
        }
    }

    /// What waits in the inboxes, as a transaction has it; and up to where each was read.
    pub(super) fn read_inboxes(&self, inboxes: &[Inbox]) -> Result<(Vec<Value>, Vec<ReadInbox>), Error> {
        let mut messages = Vec::new();
        let mut read = Vec::new();
        for (user, device) in inboxes {
            let page =
                self.to_device_since(user, device, StreamPos(0), self.position(), MAX_EPHEMERAL_PER_TRANSACTION)?;
            for event in &page.events {
                let mut message: Map<String, Value> = serde_json::from_str(event.get())
                    .map_err(|_| Error::internal("to_device_inbox holds something that is no object"))?;
                message.insert("to_user_id".to_owned(), user.as_str().into());
                message.insert("to_device_id".to_owned(), device.as_str().into());
                messages.push(Value::Object(message));
            }
            read.push(ReadInbox { inbox: (user.clone(), device.clone()), upto: page.next, more: page.more });
        }
        Ok((messages, read))
    }

    /// The service has what was read: it is gone, and what is left is read next.
    pub(super) async fn acknowledge_inboxes(&self, queue: &Queue, read: Vec<ReadInbox>) -> Result<(), Error> {
        for ReadInbox { inbox, upto, more } in read {
            self.to_device_acknowledge(&inbox.0, &inbox.1, upto).await?;
            if more {
                queue.add_inbox(inbox);
            }
        }
        Ok(())
    }
}

/// How far an inbox was read.
pub(super) struct ReadInbox {
    inbox: Inbox,
    upto: StreamPos,
    more: bool,
}
