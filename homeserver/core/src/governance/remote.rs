//! Policy's word on events from outside.

use matron_policy::{Action, AuditDraft, Context, Outcome, ROOM_POLICY_TYPE, Request, Resource, decide_with};
use matron_room::Pdu;
use matron_storage::{Batch, Key, Table};

use super::{facts::is_ordinary, permit::Permit};
use crate::{
    Core, Error,
    house::to_json,
    rooms::{Room, StateMap, Status, room::Inner, state_map::difference},
};

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

/// A verdict on an event from outside, and what the log will say of it.
#[derive(Debug)]
#[must_use = "a verdict is recorded by the commit of what it is about"]
pub(crate) struct Judged<'a> {
    verdict: RemoteVerdict,
    permit: Permit<'a>,
    held: Option<(Key, Vec<u8>)>,
}

impl<'a> Judged<'a> {
    /// What policy says.
    pub(crate) fn verdict(&self) -> RemoteVerdict {
        self.verdict
    }

    /// The record of the verdict alone, for an event that is not kept here.
    pub(crate) fn into_permit(self) -> Permit<'a> {
        self.permit
    }

    /// Adds the audit entry, and that the event waits if it does, to the batch that keeps the event.
    ///
    /// # Errors
    /// [`Error::Internal`], never in practice.
    pub(crate) fn write(&self, batch: &mut Batch) -> Result<(), Error> {
        if let Some((key, value)) = &self.held {
            batch.put(Table::EventHeld, key.clone(), value.clone());
        }
        self.permit.write(batch)
    }

    /// The batch is on its way.
    pub(crate) fn submitted(self) {
        self.permit.submitted();
    }
}

/// A row of `event_held`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct HeldRow {
    /// Since when it waits, ms since the epoch.
    pub(super) since_ms: u64,
    /// Its depth: those that come before it are judged before it.
    pub(super) depth: u64,
}

pub(super) fn held_key(pdu: &Pdu) -> Key {
    Key::new().text(pdu.room_id()).text(pdu.event_id())
}

impl Core {
    /// The state, but with what the room has now wherever it would come from an event that policy keeps back.
    ///
    /// Other servers may have built upon such an event; the graph keeps it, our users' room does not.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn without_withheld(&self, inner: &Inner, mut after: StateMap) -> Result<StateMap, Error> {
        if is_ordinary(&self.rules(), inner) {
            return Ok(after);
        }
        for (key, id) in difference(&inner.current, &after) {
            let Some(id) = id else { continue };
            let kept_back = self
                .load_event(&id)?
                .is_some_and(|event| matches!(event.record.status, Status::Withheld | Status::Held));
            if kept_back {
                match inner.current.get(&key) {
                    Some(now) => after.insert(key, std::sync::Arc::clone(now)),
                    None => after.remove(&key),
                };
            }
        }
        Ok(after)
    }

    /// What policy says of an event from outside, in this room as it stands.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn judge_remote<'a>(&'a self, room: &Room, inner: &mut Inner, pdu: &Pdu) -> Result<Judged<'a>, Error> {
        let rules = self.rules();
        if is_ordinary(&rules, inner) && pdu.kind() != ROOM_POLICY_TYPE {
            return Ok(Judged { verdict: RemoteVerdict::Permit, permit: Permit::silent(self), held: None });
        }
        let in_force = self.in_force(&rules, inner)?;
        let content = pdu.content_value();
        let target = self.redact_target(pdu.redacts().as_deref())?;
        let action =
            Action::of_event(pdu.sender().as_str(), pdu.kind(), pdu.state_key(), &content, target).from_outside();
        let request = Request {
            principal: self.principal(&rules, pdu.sender()),
            action,
            resource: Resource::Room(room.id().as_str().to_owned()),
            context: Context::default(),
        };
        let facts = self.facts_in_room(&rules, inner, &in_force, pdu.sender(), &request.action, Some(&content))?;
        let verdict = decide_with(&request, &facts, &in_force.policy);
        let draft = AuditDraft::decision(&request, &verdict, facts.now_ms, self.new_decision_id());
        let (said, held) = match verdict.outcome() {
            Outcome::Permit(_) => (RemoteVerdict::Permit, None),
            Outcome::Deny => (RemoteVerdict::Withhold, None),
            Outcome::Undetermined => {
                let row = HeldRow { since_ms: facts.now_ms, depth: pdu.depth() };
                (RemoteVerdict::Hold, Some((held_key(pdu), to_json(&row)?)))
            }
        };
        if said != RemoteVerdict::Permit {
            tracing::info!(
                room.id = %room.id(), event.id = %pdu.event_id(), decision.id = %draft.decision_id, verdict = ?said,
                "policy keeps back an event from outside"
            );
        }
        let mut permit = Permit::recorded_as(self, vec![draft]);
        if said == RemoteVerdict::Permit
            && let Some(draft) = self.policy_change(&request, &in_force.policy, &rules.policies)
        {
            permit.also(draft);
        }
        Ok(Judged { verdict: said, permit, held })
    }
}
