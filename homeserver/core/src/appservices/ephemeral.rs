//! Typing, receipts, presence and to-device messages for the application services that asked for them.

use ruma::{DeviceId, RoomId, UserId};
use serde_json::{Value, json};

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

    /// Queues a to-device message for the services whose user it is for.
    pub fn appservices_to_device(&self, sender: &UserId, user: &UserId, device: &DeviceId, kind: &str, content: &Value) {
        for (service, queue) in self.appservices.services.iter().zip(&self.appservices.queues) {
            if service.registration.receive_ephemeral && service.is_interested_in_user(user) {
                queue.add_to_device(json!({
                    "type": kind,
                    "sender": sender,
                    "to_user_id": user,
                    "to_device_id": device,
                    "content": content,
                }));
            }
        }
    }
}
