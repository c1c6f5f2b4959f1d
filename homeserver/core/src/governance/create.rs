//! Asking policy before a room exists.

use std::collections::BTreeMap;

use matron_policy::{
    Action, Context, EffectivePolicy, Fact, Facts, MEGOLM, Obligation, ROOM_POLICY_TYPE, Request, Resource,
};
use ruma::UserId;
use serde_json::{Value, json};

use super::{
    facts::InForce,
    permit::{Permit, Refusal},
};
use crate::{
    Core, Error,
    rooms::{Room, send::NewEvent},
};

impl Core {
    /// Adds what policy obliges a new room to begin with and the client did not say: ordinary clients know nothing of
    /// lifetimes. What the client did say stays, and is judged by [`Core::permit_create`].
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn add_obliged_state(
        &self,
        creator: &UserId,
        create: &Value,
        state: &mut Vec<NewEvent>,
    ) -> Result<(), Error> {
        let Some((asked, facts, in_force)) = self.question_of_creation(creator, None, create, state)? else {
            return Ok(());
        };
        let verdict = matron_policy::decide_with(&asked, &facts, &in_force.policy);
        for duty in verdict.obligations() {
            match duty {
                Obligation::Encrypt => add_absent(state, creator, "m.room.encryption", json!({"algorithm": MEGOLM})),
                Obligation::SetLifetime { max_ms } => {
                    add_absent(state, creator, "m.room.retention", json!({"max_lifetime": max_ms}));
                }
                Obligation::RotateKeys { every_ms } => {
                    let encryption = state.iter_mut().find(|new| is_of(new, "m.room.encryption"));
                    if let Some(Value::Object(content)) = encryption.map(|new| &mut new.content) {
                        content.entry("rotation_period_ms").or_insert_with(|| json!(every_ms));
                    }
                }
                Obligation::StayLocal | Obligation::Expire { .. } | Obligation::EraseRedacted { .. } => {}
            }
        }
        Ok(())
    }

    /// What is asked of policy about a new room; nothing, where there is no policy.
    fn question_of_creation(
        &self,
        creator: &UserId,
        room: Option<&Room>,
        create: &Value,
        state: &[NewEvent],
    ) -> Result<Option<(Request, Facts, InForce)>, Error> {
        let rules = self.rules();
        if rules.ordinary && !state.iter().any(|new| is_of(new, ROOM_POLICY_TYPE)) {
            return Ok(None);
        }
        let now_ms = self.now_ms();
        let content_of = |kind: &str| state.iter().rfind(|new| is_of(new, kind)).map(|new| new.content.clone());
        let in_force = self.in_force_of(&rules, |kind| Fact::from_option(content_of(kind)));
        let federates = create.get("m.federate").and_then(Value::as_bool).unwrap_or(true);
        let request = Request {
            principal: self.principal(&rules, creator),
            action: Action::CreateRoom { federates },
            resource: room.map_or(Resource::Server, |room| Resource::Room(room.id().as_str().to_owned())),
            context: Context { room_being_created: true },
        };
        let person = self.stored_facts(&rules, creator, now_ms)?;
        let facts = self.facts(&rules, &in_force, person, &request.action, now_ms);
        Ok(Some((request, facts, in_force)))
    }

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
        let Some((request, facts, in_force)) = self.question_of_creation(creator, Some(room), create, state)? else {
            return Ok(Permit::silent(self));
        };
        let by_kind: BTreeMap<&str, &Value> = state
            .iter()
            .filter(|new| new.state_key.as_deref() == Some(""))
            .map(|new| (new.kind.as_str(), &new.content))
            .collect();
        let federates = create.get("m.federate").and_then(Value::as_bool).unwrap_or(true);
        let context = request.context;
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

fn is_of(new: &NewEvent, kind: &str) -> bool {
    new.kind == kind && new.state_key.as_deref() == Some("")
}

fn add_absent(state: &mut Vec<NewEvent>, creator: &UserId, kind: &str, content: Value) {
    let Some(room_id) = state.first().map(|first| first.room_id.clone()) else { return };
    if !state.iter().any(|new| is_of(new, kind)) {
        state.push(NewEvent::state(room_id, creator.to_owned(), kind, "", content));
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
