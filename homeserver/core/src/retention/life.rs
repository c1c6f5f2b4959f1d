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

const YEAR_MS: u64 = 365 * DAY_MS;

/// What says that it was sent longer before it came than this, or than a tenth of what it lives, is late.
const LATE_MS: u64 = 60 * 1000;

/// Where a message says when it ends, ms since the epoch (MSC2228's `m.self_destruct_after`).
const SELF_DESTRUCT: &str = "org.matrix.self_destruct_after";

/// The latest end that a message may state.
const MAX_END_MS: u64 = (1 << 53) - 1;

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
pub(super) fn session_of(pdu: &Pdu) -> Option<String> {
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

/// As [`bucket_end`], for an end that the sender chose at `received_ms`: the room's messages share some twenty buckets for all
/// lives of about one length, so that nobody makes a room keep a key for each message.
fn chosen_bucket_end(expires_ms: u64, received_ms: u64) -> u64 {
    let lifetime_ms = expires_ms.saturating_sub(received_ms);
    let about_ms = lifetime_ms.checked_ilog2().map_or(0, |power| 1_u64 << power);
    if about_ms <= YEAR_MS {
        return bucket_end(expires_ms, about_ms);
    }
    let step = about_ms / 10;
    expires_ms.div_ceil(step).saturating_mul(step)
}

/// When an event dies where a room lets its content live for so long.
fn end_in_room(pdu: &Pdu, received_ms: u64, lifetime_ms: u64) -> u64 {
    // A sender's clock may be ahead: the earlier of its claim and the receipt counts.
    pdu.origin_server_ts_ms().min(received_ms).saturating_add(lifetime_ms).max(1)
}

/// When the message itself says that it ends.
fn chosen_end_ms(pdu: &Pdu) -> Option<u64> {
    // MSC: 2228. The field stands outside of what is encrypted; on redactions it is ignored.
    if outlives_words(pdu) || !pdu.json().get().contains(SELF_DESTRUCT) {
        return None;
    }
    let end_ms = pdu.content_value().get(SELF_DESTRUCT)?.as_u64()?;
    (end_ms <= MAX_END_MS).then_some(end_ms.max(1))
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
    /// The bucket under whose key the event's content is sealed, and when it dies (0: never): when the room says, or before
    /// that when the event itself says, where senders may. State and redactions are not sealed, (0, 0), unless they carry words
    /// that die: then the event goes on without them.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn life_of(&self, inner: &mut Inner, pdu: &Pdu, received_ms: u64) -> Result<(u64, u64), Error> {
        let by_room = self.life_by_room(inner, pdu, received_ms)?;
        let chosen = self.settings.retention.self_destruct.then(|| chosen_end_ms(pdu)).flatten();
        Ok(match chosen {
            Some(end_ms) if by_room.1 == 0 || end_ms < by_room.1 => (chosen_bucket_end(end_ms, received_ms), end_ms),
            _ => by_room,
        })
    }

    /// As [`Core::life_of`], whatever the event itself says.
    fn life_by_room(&self, inner: &mut Inner, pdu: &Pdu, received_ms: u64) -> Result<(u64, u64), Error> {
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
        let expires_ms = end_in_room(pdu, received_ms, lifetime_ms);
        Ok((bucket_end(expires_ms, lifetime_ms), expires_ms))
    }

    /// When a message that came at `received_ms` lets go of its session, whatever it says itself of its age and its end. By this
    /// no message that is late makes a session end before an earlier one said that it does, be it old, found late, or a lie; one
    /// that is not late goes by its own end, and may do so by `LATE_MS` at most.
    fn session_end_ms(&self, inner: &mut Inner, received_ms: u64) -> Result<Option<u64>, Error> {
        Ok(self.room_lifetime_ms(inner)?.map(|lifetime_ms| received_ms.saturating_add(lifetime_ms)))
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
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn write_expiry(
        &self,
        batch: &mut Batch,
        inner: &mut Inner,
        pdu: &Pdu,
        record: &Record,
    ) -> Result<(), Error> {
        if record.expires_ms == 0 {
            return Ok(());
        }
        let mut write = |expires_ms: u64, session: Option<String>| {
            if let Some(session) = &session {
                batch.put(Table::Misc, session_key(pdu.room_id(), session), expires_ms.to_be_bytes());
            }
            let row = ExpiryRow { room_id: pdu.room_id().to_owned(), bucket: record.bucket, session };
            batch.put(Table::EventExpiry, Key::new().number(expires_ms).text(pdu.event_id()), to_json(&row)?);
            Ok(())
        };
        let Some(session) = session_of(pdu) else { return write(record.expires_ms, None) };
        let chose = self.settings.retention.self_destruct && chosen_end_ms(pdu) == Some(record.expires_ms);
        let session_end_ms = self.session_end_ms(inner, record.received_ms)?;
        let lives_ms = session_end_ms.unwrap_or_default().saturating_sub(record.received_ms);
        let is_late = record.received_ms.saturating_sub(pdu.origin_server_ts_ms()) > LATE_MS.min(lives_ms / 10);
        if !chose && !is_late {
            return write(record.expires_ms, Some(session));
        }
        // A message that ends before its room's messages do leaves the session to those; it may be the last of them.
        write(record.expires_ms, None)?;
        match session_end_ms {
            Some(end_ms) => write(end_ms, Some(session)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_that_senders_choose_share_buckets_which_end_after_them_and_soon() {
        const NOW_MS: u64 = 1_800_000_000_000;
        let lives = || (0..2_000).map(|step: u64| step * step * step * 977 % (20 * YEAR_MS));
        let mut buckets = std::collections::BTreeSet::new();
        for life in lives() {
            let end = chosen_bucket_end(NOW_MS + life, NOW_MS);
            assert!(end >= NOW_MS + life);
            assert!(end - (NOW_MS + life) <= (life / 10).max(1000), "{life}");
            assert!(life > YEAR_MS || end - (NOW_MS + life) < DAY_MS.max(1000), "{life}");
            buckets.insert(end);
        }
        assert!(buckets.len() < 1_000, "{}", buckets.len());
        assert!(chosen_bucket_end(1, NOW_MS) < NOW_MS, "what was over before it came");
    }

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
