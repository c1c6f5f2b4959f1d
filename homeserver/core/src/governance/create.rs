//! Asking policy before a room exists.

use std::collections::BTreeMap;

use matron_policy::{
    Action, Context, EffectivePolicy, Fact, Facts, MEGOLM, Obligation, ROOM_POLICY_TYPE, Request, Resource,
};
use ruma::UserId;
use serde_json::Value;

use super::permit::{Permit, Refusal};
use crate::{
    Core, Error,
    rooms::{Room, send::NewEvent},
};

impl Core {
    /// Policy permits this user to create a room that begins with this create event and this state, piece by piece.
    ///
    /// # Errors
    /// As [`Core::permit_local`]; [`Error::Forbidden`] naming the state without which the room may not begin.
    pub(crate) fn permit_create<'a>(
        &'a self,
        creator: &UserId,
        room: &Room,
        create: &Value,
        state: &[NewEvent],
    ) -> Result<Permit<'a>, Refusal> {
        let rules = self.rules();
        let by_kind: BTreeMap<&str, &Value> = state
            .iter()
            .filter(|new| new.state_key.as_deref() == Some(""))
            .map(|new| (new.kind.as_str(), &new.content))
            .collect();
        if rules.ordinary && !by_kind.contains_key(ROOM_POLICY_TYPE) {
            return Ok(Permit::silent(self));
        }
        let now_ms = self.now_ms();
        let in_force =
            self.in_force_of(&rules, |kind| Fact::from_option(by_kind.get(kind).map(|value| (*value).clone())));
        let federates = create.get("m.federate").and_then(Value::as_bool).unwrap_or(true);
        let context = Context { room_being_created: true };
        let request = Request {
            principal: self.principal(&rules, creator),
            action: Action::CreateRoom { federates },
            resource: Resource::Room(room.id().as_str().to_owned()),
            context,
        };
        let person = self.stored_facts(&rules, creator, now_ms)?;
        let facts = self.facts(&rules, &in_force, person, &request.action, now_ms);
        let mut permit = self.judge(&request, &facts, &in_force.policy)?;
        for new in state {
            let asked = self.request_of(&rules, room, new, context)?;
            let facts = Facts { invitee: Fact::Absent, ..facts.clone() };
            let _part_of_the_whole = self.judge(&asked, &facts, &in_force.policy)?;
            if let Some(draft) = self.policy_change(&asked, &rules.policies.effective(&Fact::Absent), &rules.policies) {
                permit.also(draft);
            }
        }
        if let Some(sentence) = missing(&request, &facts, &in_force.policy, federates, &by_kind) {
            return Err(Error::forbidden(sentence).into());
        }
        Ok(permit)
    }
}

/// The first duty of a new room that its first state does not fulfil, as a sentence.
fn missing(
    request: &Request,
    facts: &Facts,
    policy: &EffectivePolicy,
    federates: bool,
    state: &BTreeMap<&str, &Value>,
) -> Option<String> {
    let number =
        |kind: &str, field: &str| state.get(kind).and_then(|content| content.get(field)).and_then(Value::as_u64);
    let verdict = matron_policy::decide_with(request, facts, policy);
    verdict.obligations().iter().find_map(|duty| match duty {
        Obligation::Encrypt => {
            let algorithm = state.get("m.room.encryption").and_then(|content| content.get("algorithm"));
            (algorithm.and_then(Value::as_str) != Some(MEGOLM)).then(|| {
                format!("Rooms here are encrypted: create the room with m.room.encryption and the algorithm {MEGOLM}.")
            })
        }
        Obligation::SetLifetime { max_ms } => {
            (!number("m.room.retention", "max_lifetime").is_some_and(|ms| (1..=*max_ms).contains(&ms))).then(|| {
                format!("Messages here die in time: create the room with m.room.retention and a max_lifetime of at most {max_ms} ms.")
            })
        }
        Obligation::RotateKeys { every_ms } => {
            (!number("m.room.encryption", "rotation_period_ms").is_some_and(|ms| (1..=*every_ms).contains(&ms))).then(|| {
                format!("Keys here live no longer than messages: create the room with a rotation_period_ms of at most {every_ms} ms in m.room.encryption.")
            })
        }
        Obligation::StayLocal => {
            federates.then(|| "Rooms here stay on this server: create the room with m.federate false.".to_owned())
        }
        Obligation::Expire { .. } | Obligation::EraseRedacted { .. } => None,
    })
}
