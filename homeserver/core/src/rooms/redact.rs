//! Redaction: an event loses its content, on disk too.

use matron_room::Pdu;
use matron_storage::{Batch, Order, Table};
use ruma::OwnedEventId;

use super::{
    record::{Record, Status},
    room::Inner,
};
use crate::{Core, Error};

impl Core {
    /// Adds to the batch what the redaction takes away, if its target is known and may be redacted by its sender.
    /// Returns the events whose cached form is stale.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn apply_redaction(
        &self,
        batch: &mut Batch,
        inner: &mut Inner,
        redaction: &Pdu,
    ) -> Result<Vec<OwnedEventId>, Error> {
        let Some(target_id) = redaction.redacts() else { return Ok(Vec::new()) };
        let Some(target) = self.load_event(&target_id)? else {
            // Applied when the target arrives.
            let key = matron_storage::Key::new().text("redaction before its target").text(&target_id);
            batch.put(Table::Misc, key, redaction.event_id().as_bytes());
            return Ok(Vec::new());
        };
        if target.pdu.room_id() != redaction.room_id() || target.record.redacted_by.is_some() {
            return Ok(Vec::new());
        }
        // SPEC: rooms v3 and later: the redaction applies if its sender has the power to redact, or if the
        // sender's server is the target's sender's.
        let levels = inner.power_levels(self)?;
        if !levels.can_redact(redaction.sender(), target.pdu.sender()) {
            return Ok(Vec::new());
        }
        self.write_redacted(batch, &target.pdu, &target.record, redaction.event_id().to_owned())?;
        Ok(vec![target_id])
    }

    /// Adds to the batch that the event is a skeleton from now on.
    ///
    /// # Errors
    /// [`Error::Internal`] for an event without a redacted form.
    pub(crate) fn write_redacted(
        &self,
        batch: &mut Batch,
        target: &Pdu,
        record: &Record,
        by: OwnedEventId,
    ) -> Result<(), Error> {
        let skeleton =
            target.skeleton().map_err(|error| Error::internal(format!("an event has no redacted form: {error}")))?;
        let record = Record { redacted_by: Some(by), bucket: 0, expires_ms: 0, ..record.clone() };
        batch.put(Table::EventPdu, target.event_id().as_bytes(), record.encode(skeleton.json().get()));
        batch.delete(Table::EventContent, target.event_id().as_bytes());
        Ok(())
    }

    /// The redaction of an event which just arrived, if it came before it and its sender may redact it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn redaction_that_waits(&self, inner: &mut Inner, pdu: &Pdu) -> Result<Option<OwnedEventId>, Error> {
        let all = matron_storage::Key::new().text("redaction before its target");
        let mark = self.store.mark(Table::Misc, all.as_bytes());
        let none = self.rooms.without_redactions.get_or_read(&(), mark, || {
            Ok(self.store.scan(Table::Misc, &all.prefix(), Order::Ascending, 1)?.is_empty())
        })?;
        if none {
            return Ok(None);
        }
        let key = all.text(pdu.event_id());
        let Some(bytes) = self.store.get(Table::Misc, key.as_bytes())? else { return Ok(None) };
        let Some(redaction) = std::str::from_utf8(&bytes).ok().and_then(|id| OwnedEventId::try_from(id).ok()) else {
            return Ok(None);
        };
        let Some(event) = self.load_event(&redaction)? else { return Ok(None) };
        if event.pdu.room_id() != pdu.room_id() || event.record.status != Status::Accepted {
            return Ok(None);
        }
        let levels = inner.power_levels(self)?;
        Ok(levels.can_redact(event.pdu.sender(), pdu.sender()).then_some(redaction))
    }
}

impl Core {
    /// The redaction is in the room, and what it names has lost its content.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a target that is not in the room, [`Error::Forbidden`] without the power to redact it;
    /// [`Error::UserSuspended`] for another's event; as [`Core::send_event`].
    pub async fn redact_event(self: &std::sync::Arc<Self>, new: super::send::NewEvent) -> Result<OwnedEventId, Error> {
        let Some(target) = &new.redacts else { return Err(Error::MissingParam("what to redact is missing".into())) };
        let room = self.open_room(&new.room_id)?;
        self.require_joined(&room, &new.sender)?;
        let target = self.load_event_in(&new.room_id, target).map_err(|error| match error {
            Error::NotFound(_) => Error::invalid("this room has no such event"),
            error => error,
        })?;
        // SPEC: Client-Server API, "Redactions": one's own events need no power beyond sending redactions.
        if target.pdu.sender() != new.sender {
            // SPEC: v1.19 Client-Server API, "Account suspension".
            self.check_may_speak(&new.sender)?;
            let levels = room.lock().power_levels(self)?;
            if !levels.user(&new.sender).reaches(levels.redact()) {
                return Err(Error::forbidden("you may not redact this event"));
            }
        }
        self.send_event(new).await
    }
}
