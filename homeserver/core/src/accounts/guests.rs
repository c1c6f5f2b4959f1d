//! Guests: they join where guests may, and leave when they no longer may.

use std::sync::Arc;

use matron_room::Pdu;
use ruma::{OwnedUserId, RoomId, UserId};
use serde::Deserialize;

use crate::{Core, Error, Requester, rooms::EventRef};

#[derive(Deserialize)]
struct GuestAccess {
    guest_access: String,
}

impl GuestAccess {
    fn admits(&self) -> bool {
        self.guest_access == "can_join"
    }
}

/// What an invite told of guests.
#[derive(Deserialize)]
struct Shown {
    #[serde(rename = "type")]
    kind: String,
    content: GuestAccess,
}

impl Core {
    /// Passes for everyone but guests of a room that does not let guests join. Of a room elsewhere that is known as far as the
    /// invite tells; what it does not tell, the join brings ([`Core::check_guest_stays`]).
    ///
    /// # Errors
    /// `M_GUEST_ACCESS_FORBIDDEN`.
    pub fn check_guest_admitted(&self, requester: &Requester, room: &RoomId) -> Result<(), Error> {
        if requester.is_guest { self.check_admits_guest(&requester.user_id, room) } else { Ok(()) }
    }

    /// As [`Core::check_guest_admitted`], where only the user is known.
    ///
    /// # Errors
    /// As [`Core::check_guest_admitted`]; [`Error::Store`].
    pub(crate) fn check_user_admitted(&self, user: &UserId, room: &RoomId) -> Result<(), Error> {
        let is_guest = self.account(user)?.is_some_and(|account| account.guest);
        if is_guest { self.check_admits_guest(user, room) } else { Ok(()) }
    }

    fn check_admits_guest(&self, guest: &UserId, room: &RoomId) -> Result<(), Error> {
        let Some(ours) = self.room_of_ours(room)? else {
            let told = self.outside_standing(guest, room)?.map(|standing| standing.shown);
            let mut shown = told.iter().flatten().filter_map(|event| serde_json::from_str::<Shown>(event.get()).ok());
            let refused = shown.any(|shown| shown.kind == "m.room.guest_access" && !shown.content.admits());
            return if refused { Err(Error::GuestForbidden) } else { Ok(()) };
        };
        let access = ours.lock().state_content::<GuestAccess>(self, "m.room.guest_access", "")?;
        if access.is_some_and(|access| access.admits()) { Ok(()) } else { Err(Error::GuestForbidden) }
    }

    /// Passes for everyone who joined a room elsewhere but guests, if its state does not let them.
    ///
    /// # Errors
    /// `M_GUEST_ACCESS_FORBIDDEN`.
    pub(crate) fn check_guest_stays(&self, join: &Pdu, state: &[Pdu]) -> Result<(), Error> {
        // SPEC: v1.19 Client-Server API, "Guest access": no other server knows who is a guest.
        if !self.account(join.sender())?.is_some_and(|account| account.guest) {
            return Ok(());
        }
        let access = state.iter().find(|pdu| pdu.is_state_of("m.room.guest_access", ""));
        let access = access.and_then(|pdu| pdu.content_as::<GuestAccess>().ok());
        if access.is_some_and(|access| access.admits()) { Ok(()) } else { Err(Error::GuestForbidden) }
    }

    /// Guests leave a room that does not let them join any more. Begins a task: the event that says so must not wait.
    pub(crate) fn follow_guest_access(self: &Arc<Self>, event: &EventRef, joined: &imbl::OrdSet<OwnedUserId>) {
        if !event.pdu.is_state_of("m.room.guest_access", "") {
            return;
        }
        if event.pdu.content_as::<GuestAccess>().is_ok_and(|access| access.admits()) {
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
