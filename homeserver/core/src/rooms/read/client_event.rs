//! An event as one client sees it: the stored bytes, and around them what only this reader is told.

use matron_room::{Membership, Unsigned, client_event, sync_event};
use ruma::{DeviceId, UserId};
use serde_json::value::RawValue;

use crate::{
    Core, Error,
    rooms::{EventRef, record::StoredEvent, state_map::find_in, visibility::Reader},
};

impl Core {
    /// The event in client form: age, transaction id (to the device that sent it), what state it replaced, the
    /// redaction, bundled relations, and the reader's membership at the event.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn client_event_for(
        &self,
        event: &EventRef,
        viewer: &UserId,
        device: Option<&DeviceId>,
        with_room_id: bool,
    ) -> Result<Box<RawValue>, Error> {
        self.client_event_to(&mut Reader::new(viewer), event, device, with_room_id)
    }

    /// As [`Core::client_event_for`], for one of many events.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn client_event_to(
        &self,
        reader: &mut Reader<'_>,
        event: &EventRef,
        device: Option<&DeviceId>,
        with_room_id: bool,
    ) -> Result<Box<RawValue>, Error> {
        let viewer = reader.user;
        let pdu = &event.pdu;
        let mut unsigned = Unsigned {
            age: i64::try_from(self.now_ms().saturating_sub(pdu.origin_server_ts_ms())).ok(),
            ..Unsigned::default()
        };
        if pdu.sender() == viewer
            && let Some(device) = device
        {
            unsigned.transaction_id = self.transaction_id_of(event, viewer, device)?;
        }
        unsigned.membership = self.membership_at(reader, event)?;
        let was_there = unsigned.membership == Some(Membership::Join.as_str());
        if pdu.is_state() {
            self.add_replaced_state(reader, was_there, event, &mut unsigned)?;
        }
        if let Some(redaction) = &event.record.redacted_by
            && let Some(redaction) = self.load_event(redaction)?
        {
            unsigned.redacted_by.clone_from(&event.record.redacted_by);
            unsigned.redacted_because = Some(client_event(&redaction.pdu, &Unsigned::default()));
        }
        unsigned.relations = self.bundled(event, viewer, true)?;
        // SPEC: v1.19 "Account erasure": who was not joined then sees what redaction would leave.
        let erased = !was_there && !pdu.is_state() && self.is_erased(pdu.sender())?;
        let skeleton = if erased { pdu.skeleton().ok() } else { None };
        let pdu = skeleton.as_ref().unwrap_or(pdu);
        Ok(if with_room_id { client_event(pdu, &unsigned) } else { sync_event(pdu, &unsigned) })
    }

    /// What the state event replaced, from the state before it, for readers who were there or may see it anyhow.
    fn add_replaced_state(
        &self,
        reader: &mut Reader<'_>,
        was_there: bool,
        event: &StoredEvent,
        unsigned: &mut Unsigned,
    ) -> Result<(), Error> {
        let Some(key) = event.pdu.state_key() else { return Ok(()) };
        let before = self.load_state_group(event.record.state_before)?;
        let Some(replaced) = find_in(&before, event.pdu.kind(), key) else { return Ok(()) };
        if **replaced == *event.id() {
            return Ok(());
        }
        if let Some(replaced) = self.load_event(replaced)?
            && (was_there || self.reader_can_see(reader, &replaced)?)
        {
            unsigned.prev_content = RawValue::from_string(replaced.pdu.content().get().to_owned()).ok();
            unsigned.prev_sender = Some(replaced.pdu.sender().to_owned());
            unsigned.replaces_state = Some(replaced.id().to_owned());
        }
        Ok(())
    }

    /// The reader's membership when the event was sent; after it, if it is the event that sets it.
    fn membership_at(&self, reader: &mut Reader<'_>, event: &EventRef) -> Result<Option<&'static str>, Error> {
        let viewer = reader.user;
        if event.pdu.kind() == "m.room.member" && event.pdu.state_key() == Some(viewer.as_str()) {
            return Ok(event.pdu.membership_state().map(Membership::as_str));
        }
        Ok(Some(self.reader_was(reader, event)?.as_str()))
    }

    /// The transaction id with which this device sent the event, as far as memory goes.
    fn transaction_id_of(
        &self,
        event: &StoredEvent,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<Option<String>, Error> {
        let sent = self.rooms.sent.lock().get(event.id()).cloned();
        Ok(sent.filter(|txn| txn.user == user && txn.owner == device.as_str()).map(|txn| txn.id))
    }
}
