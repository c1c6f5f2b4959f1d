//! Redacting what expired, when nobody did in time.

use std::sync::Arc;

use ruma::{OwnedUserId, RoomId, UserId};
use serde_json::json;

use super::purge::Doomed;
use crate::{Core, Error, rooms::send::NewEvent};

/// How long the governance bot is waited for, ms; no longer than half of the grace.
const PATIENCE_MS: u64 = 10_000;
/// How many redactions one round sends.
const MAX_ROUND: usize = 200;

pub(super) fn patience_ms(grace_ms: u64) -> u64 {
    (grace_ms / 2).min(PATIENCE_MS)
}

impl Core {
    /// A user of this server who may redact what this sender said: one who governs rooms, or the sender.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn find_redactor(&self, room_id: &RoomId, sender: &UserId) -> Result<Option<OwnedUserId>, Error> {
        let Some(room) = self.find_room(room_id)?.filter(|room| room.has_server(&self.server_name)) else {
            return Ok(None);
        };
        let mut inner = room.lock();
        let levels = inner.power_levels(self)?;
        let may = |user: &UserId| levels.can_send(user, "m.room.redaction", false);
        let senders = || self.appservices.services.iter().map(|service| service.sender());
        let governs = |user: &OwnedUserId| {
            self.is_local_user(user) && (self.is_governance_user(user) || senders().any(|one| one == user))
        };
        let governor =
            inner.joined.iter().find(|user| governs(user) && levels.user(user).reaches(levels.redact()) && may(user));
        if let Some(governor) = governor {
            return Ok(Some(governor.clone()));
        }
        let own = self.is_local_user(sender) && inner.joined.contains(sender) && may(sender);
        Ok(own.then(|| sender.to_owned()))
    }

    /// These events are redacted, as far as the rooms let their redactors. How many.
    pub(super) async fn redact_expired(self: &Arc<Self>, events: &[(Doomed, OwnedUserId)]) -> u64 {
        let mut redacted = 0_u64;
        for (doomed, redactor) in events.iter().take(MAX_ROUND) {
            // Without a reason: it would be one more thing that has to die.
            let content = json!({});
            let mut new = NewEvent::message(doomed.room_id.clone(), redactor.clone(), "m.room.redaction", content);
            new.redacts = Some(doomed.event_id.clone());
            match self.redact_event(new).await {
                Ok(_) => redacted = redacted.saturating_add(1),
                Err(error) => {
                    tracing::debug!(room.id = %doomed.room_id, event.id = %doomed.event_id, %error, "an expired event is not redacted");
                }
            }
        }
        redacted
    }
}
