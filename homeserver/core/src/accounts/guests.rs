//! Guests: they join where guests may, and leave when they no longer may.

use std::sync::Arc;

use ruma::{OwnedUserId, RoomId};
use serde::Deserialize;

use crate::{Core, Error, Requester, rooms::EventRef};

#[derive(Deserialize)]
struct GuestAccess {
    guest_access: String,
}

impl Core {
    /// Passes for everyone but guests of a room that does not let guests join. What is not known here, its servers decide.
    ///
    /// # Errors
    /// `M_GUEST_ACCESS_FORBIDDEN`.
    pub fn check_guest_admitted(&self, requester: &Requester, room: &RoomId) -> Result<(), Error> {
        if !requester.is_guest {
            return Ok(());
        }
        let Some(room) = self.find_room(room)? else { return Ok(()) };
        let access = room.lock().state_content::<GuestAccess>(self, "m.room.guest_access", "")?;
        if access.is_some_and(|access| access.guest_access == "can_join") { Ok(()) } else { Err(Error::GuestForbidden) }
    }

    /// Guests leave a room that does not let them join any more. Begins a task: the event that says so must not wait.
    pub(crate) fn follow_guest_access(self: &Arc<Self>, event: &EventRef, joined: &imbl::OrdSet<OwnedUserId>) {
        if !event.pdu.is_state_of("m.room.guest_access", "") {
            return;
        }
        if event.pdu.content_as::<GuestAccess>().is_ok_and(|access| access.guest_access == "can_join") {
            return;
        }
        let locals: Vec<OwnedUserId> = joined.iter().filter(|user| self.is_local_user(user)).cloned().collect();
        let (core, room) = (Arc::clone(self), event.pdu.room_id().to_owned());
        // Boxed: leaving appends an event, whose publishing may begin this again.
        let leaving: futures_util::future::BoxFuture<'static, ()> = Box::pin(async move {
            for user in locals {
                if !matches!(core.account(&user), Ok(Some(account)) if account.guest) {
                    continue;
                }
                if let Err(error) = core.leave_room(&user, &room, None).await {
                    tracing::warn!(%error, room.id = %room, "a guest could not leave");
                }
            }
        });
        tokio::spawn(leaving);
    }
}
