//! How one event relates to another, as its content states it.
//!
//! SPEC: v1.19 Client-Server API, "Forming relationships between events".

use matron_room::Pdu;
use serde::Deserialize;

#[derive(Deserialize)]
struct Relates {
    #[serde(rename = "m.relates_to")]
    relates_to: Option<Relation>,
}

/// An event's relation to another (Client-Server API, "Forming relationships between events").
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Relation {
    /// What kind of relation.
    pub rel_type: Option<String>,
    /// The other event.
    pub event_id: Option<ruma::OwnedEventId>,
    /// The reaction, for annotations.
    pub key: Option<String>,
}

/// The relation that the event's content states, if any.
#[must_use]
pub fn relation_of(pdu: &Pdu) -> Option<Relation> {
    if !pdu.content_str().contains("m.relates_to") {
        return None;
    }
    pdu.content_as::<Relates>().ok()?.relates_to
}
