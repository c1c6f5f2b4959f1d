//! How long an event's content lives, and under which data key.

use matron_policy::Words;
use matron_room::{Membership, Pdu};
use matron_storage::{Batch, Key, Table};
use serde::{Deserialize, Serialize};

use crate::{Core, Error, house::to_json, rooms::Record, rooms::room::Inner};

/// Buckets of content without a lifetime have this bit set; the rest is the day it came.
pub const WITHOUT_END: u64 = 1 << 63;

/// The longest session id that is kept, bytes.
const MAX_SESSION_BYTES: usize = 255;

pub(super) const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A row of `event_expiry`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ExpiryRow {
    /// The event's room.
    pub(super) room_id: ruma::OwnedRoomId,
    /// The bucket of its data key.
    pub(super) bucket: u64,
    /// The Megolm session that opens it, for encrypted events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<String>,
}

#[derive(Deserialize)]
struct EncryptedContent {
    session_id: Option<String>,
}

/// Where it is kept until when a Megolm session is needed.
pub(super) fn session_key(room: &ruma::RoomId, session: &str) -> Key {
    Key::new().text("megolm_session").text(room).text(session)
}

/// The session that opens an encrypted event.
fn session_of(pdu: &Pdu) -> Option<String> {
    if pdu.kind() != "m.room.encrypted" {
        return None;
    }
    let content = pdu.content_as::<EncryptedContent>().ok()?;
    content.session_id.filter(|id| (1..=MAX_SESSION_BYTES).contains(&id.len()))
}

#[derive(Deserialize)]
struct RetentionContent {
    max_lifetime: Option<u64>,
}

/// The end of the bucket in which content that dies at `expires_ms` is sealed: at most a tenth of the lifetime
/// later, and at most a day.
#[must_use]
pub(super) fn bucket_end(expires_ms: u64, lifetime_ms: u64) -> u64 {
    let step = (lifetime_ms / 10).clamp(1000, DAY_MS);
    expires_ms.div_ceil(step).saturating_mul(step)
}

/// Whether the event goes on when what was said in it is gone: who is a member and what was redacted does not end.
pub(crate) fn outlives_words(pdu: &Pdu) -> bool {
    pdu.is_state() || pdu.kind() == "m.room.redaction"
}

/// Whether it is a redaction or one of the member events that can do without all that redaction takes.
fn may_carry_words(pdu: &Pdu) -> bool {
    match pdu.membership_state() {
        // A join shows the credential by which its sender is a member.
        Some(Membership::Join) => false,
        Some(_) => true,
        None => !pdu.is_state() && pdu.kind() == "m.room.redaction",
    }
}

/// Whether it carries words that die before it.
pub(crate) fn carries_words(pdu: &Pdu) -> bool {
    if !may_carry_words(pdu) {
        return false;
    }
    let content = pdu.content_value();
    // Before version 11 a redaction would take what authorises such an invite.
    content.get("third_party_invite").is_none() && Words::of(pdu.kind(), pdu.is_state(), &content).is_some()
}

impl Core {
    /// The bucket under whose key the event's content is sealed, and when it dies (0: never). State and redactions are
    /// not sealed, (0, 0), unless they carry words that die: then the event goes on without them.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn life_of(&self, inner: &mut Inner, pdu: &Pdu, received_ms: u64) -> Result<(u64, u64), Error> {
        let outlives = outlives_words(pdu);
        if outlives && !may_carry_words(pdu) {
            return Ok((0, 0));
        }
        let Some(lifetime_ms) = self.room_lifetime_ms(inner)? else {
            return Ok(if outlives { (0, 0) } else { (WITHOUT_END | (received_ms / DAY_MS), 0) });
        };
        if outlives && !carries_words(pdu) {
            return Ok((0, 0));
        }
        // A sender's clock may be ahead: the earlier of its claim and the receipt counts.
        let expires_ms = pdu.origin_server_ts_ms().min(received_ms).saturating_add(lifetime_ms).max(1);
        Ok((bucket_end(expires_ms, lifetime_ms), expires_ms))
    }

    /// The bucket under whose key content is sealed that will be sent at `sent_ms`.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn bucket_of_later(&self, inner: &mut Inner, sent_ms: u64) -> Result<u64, Error> {
        Ok(match self.room_lifetime_ms(inner)? {
            Some(lifetime_ms) => bucket_end(sent_ms.saturating_add(lifetime_ms), lifetime_ms),
            None => WITHOUT_END | (sent_ms / DAY_MS),
        })
    }

    /// How long content of this room lives, ms: the strictest of the room's policy, its `m.room.retention` and
    /// the deployment's floor; `None`: without end.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn room_lifetime_ms(&self, inner: &mut Inner) -> Result<Option<u64>, Error> {
        let retention: Option<RetentionContent> = inner.state_content(self, "m.room.retention", "")?;
        let stated = retention.and_then(|content| content.max_lifetime);
        let policy = self.policy_lifetime_ms(inner)?;
        Ok([stated, policy].into_iter().flatten().min())
    }

    /// Adds the event to the expiry index, if it dies.
    pub(crate) fn write_expiry(&self, batch: &mut Batch, pdu: &Pdu, record: &Record) {
        if record.expires_ms == 0 {
            return;
        }
        let row = ExpiryRow { room_id: pdu.room_id().to_owned(), bucket: record.bucket, session: session_of(pdu) };
        if let Some(session) = &row.session {
            batch.put(Table::Misc, session_key(pdu.room_id(), session), record.expires_ms.to_be_bytes());
        }
        if let Ok(value) = to_json(&row) {
            batch.put(Table::EventExpiry, Key::new().number(record.expires_ms).text(pdu.event_id()), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_after_its_content_and_soon() {
        for lifetime in [1_000, 30_000, DAY_MS, 30 * DAY_MS] {
            for expires in [1, 999, 1_000, 1_700_000_000_123] {
                let end = bucket_end(expires, lifetime);
                assert!(end >= expires);
                assert!(end - expires < (lifetime / 10).clamp(1000, DAY_MS));
            }
        }
    }
}
