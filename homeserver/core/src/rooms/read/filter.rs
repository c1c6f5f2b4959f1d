//! Whether a filter lets an event through.

use matron_storage::{Key, Order, Table};

use crate::{
    Core, Error,
    accounts::EventFilter,
    rooms::{EventRef, append::RelationRow},
};

/// How many relations of one event are looked at.
const MAX_RELATIONS: usize = 1_000;

impl Core {
    /// Whether the filter lets the event through.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn filter_allows(&self, filter: &EventFilter, event: &EventRef) -> Result<bool, Error> {
        let pdu = &event.pdu;
        if !filter.is_open() {
            let has_url = filter.contains_url.is_some() && pdu.content_value().get("url").is_some();
            if !filter.allows(pdu.kind(), Some(pdu.sender()))
                || !filter.allows_url(has_url)
                || !filter.allows_room(pdu.room_id())
            {
                return Ok(false);
            }
        }
        if filter.related_by_rel_types.is_none() && filter.related_by_senders.is_none() {
            return Ok(true);
        }
        Ok(self.relations_to(event.pdu.room_id(), event.id())?.iter().any(|(_, relation)| {
            filter.related_by_rel_types.as_ref().is_none_or(|types| types.contains(&relation.rel_type))
                && filter.related_by_senders.as_ref().is_none_or(|senders| senders.contains(&relation.sender))
        }))
    }

    /// What relates to the event, oldest first, with its place; the newest [`MAX_RELATIONS`] of it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn relations_to(
        &self,
        room: &ruma::RoomId,
        target: &ruma::EventId,
    ) -> Result<Vec<(u64, RelationRow)>, Error> {
        let prefix = Key::new().text(room).text(target);
        let page = self.store.scan(Table::RoomRelation, &prefix.prefix(), Order::Descending, MAX_RELATIONS)?;
        let mut relations = Vec::with_capacity(page.len());
        for (key, value) in page.iter().rev() {
            let mut reader = matron_storage::KeyReader::new(key.get(prefix.as_bytes().len()..).unwrap_or_default());
            let Some(order) = reader.number() else { continue };
            relations.push((order, crate::house::from_json(Table::RoomRelation, value)?));
        }
        Ok(relations)
    }
}
