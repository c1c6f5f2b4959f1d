//! The rows of one event.

use matron_room::Pdu;
use matron_storage::{Batch, Key, SlotForm, Table};
use ruma::OwnedUserId;
use serde::Deserialize;

use super::Relation;
use crate::{
    Core, Error,
    house::to_json,
    rooms::{
        members::UserRoom,
        record::{Record, TIMELINE_OFFSET},
    },
};

impl Core {
    /// Adds the event's rows: the whole event if it is state, else its skeleton and the sealed whole; so too state and
    /// redactions with words that die.
    pub(crate) fn write_event(
        &self,
        batch: &mut Batch,
        pdu: &Pdu,
        record: &Record,
        timeline: Option<(u32, SlotForm)>,
    ) -> Result<(), Error> {
        let slot = timeline.map(|(index, form)| matron_storage::Slot { offset: TIMELINE_OFFSET, index, form });
        let key = pdu.event_id().as_bytes().to_vec();
        if record.bucket == 0 {
            batch.put_at(Table::EventPdu, key, None, record.encode(pdu.json().get()), slot);
            return Ok(());
        }
        let skeleton =
            pdu.without_words().map_err(|error| Error::internal(format!("an event has no redacted form: {error}")))?;
        let sealed = self
            .keyring
            .seal(pdu.room_id().as_str(), record.bucket, pdu.event_id().as_bytes(), pdu.json().get().as_bytes())
            .map_err(|error| Error::internal(format!("content cannot be sealed: {error}")))?;
        batch.put_at(Table::EventPdu, key.clone(), None, record.encode(skeleton.json().get()), slot);
        batch.put(Table::EventContent, key, sealed);
        Ok(())
    }

    /// Adds a user's standing in a room to both indexes; its position is filled at commit.
    pub(crate) fn write_standing(
        &self,
        batch: &mut Batch,
        room: &ruma::RoomId,
        user: &ruma::UserId,
        standing: &UserRoom,
        position_index: u32,
    ) -> Result<(), Error> {
        let slot = matron_storage::Slot { offset: 0, index: position_index, form: SlotForm::Plain };
        let value = standing.encode()?;
        batch.put_at(Table::RoomUser, Key::new().text(room).text(user), None, value.clone(), Some(slot));
        batch.put_at(Table::UserRoom, Key::new().text(user).text(room), None, value, Some(slot));
        Ok(())
    }

    pub(super) fn write_relation(
        &self,
        batch: &mut Batch,
        pdu: &Pdu,
        relation: &Relation,
        index: u32,
    ) -> Result<(), Error> {
        let Some(target) = &relation.event_id else { return Ok(()) };
        let (key, slot) = Key::new().text(pdu.room_id()).text(target).position(index, SlotForm::Timeline);
        let row = RelationRow {
            rel_type: relation.rel_type.clone().unwrap_or_default(),
            kind: pdu.kind().to_owned(),
            event_id: pdu.event_id().to_owned(),
            sender: pdu.sender().to_owned(),
            key: relation.key.clone(),
        };
        batch.put_at(Table::RoomRelation, key, Some(slot), to_json(&row)?, None);
        if relation.rel_type.as_deref() == Some("m.thread") {
            let slot = matron_storage::Slot { offset: 0, index, form: SlotForm::Plain };
            let mut value = vec![0; 8];
            value.extend_from_slice(pdu.event_id().as_bytes());
            batch.put_at(Table::RoomThread, Key::new().text(pdu.room_id()).text(target), None, value, Some(slot));
        }
        Ok(())
    }
}

/// A row of `room_relation`.
#[derive(Clone, Debug, serde::Serialize, Deserialize)]
pub struct RelationRow {
    /// `m.annotation`, `m.replace`, `m.thread`, `m.reference`; empty for a rich reply.
    pub rel_type: String,
    /// The related event's type.
    pub kind: String,
    /// The related event.
    pub event_id: ruma::OwnedEventId,
    /// Its sender.
    pub sender: OwnedUserId,
    /// The reaction, for annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}
