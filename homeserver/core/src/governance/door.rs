//! The door: invites, joins and knocks between this server and others, judged before an event exists.

use std::sync::Arc;

use matron_policy::{
    Action, AuditDraft, CREDENTIAL_FIELD, Context, Fact, Facts, ReasonCode, Request, Resource, decide_with,
};
use matron_room::{Membership, Pdu};
use matron_storage::{Batch, Key, Table};
use ruma::{RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    facts::{InForce, is_ordinary},
    permit::Refusal,
    rules::Rules,
};
use crate::{
    Core, Error,
    rooms::{Room, room::Inner},
};

/// State in stripped form, as far as policy looks at it.
#[derive(Deserialize)]
struct Stripped {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    state_key: String,
    #[serde(default)]
    content: Value,
}

/// What an invite or a knock told of a room elsewhere.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    invite_state: Vec<Stripped>,
    knock_state: Vec<Stripped>,
}

impl Core {
    /// Whether this server may speak with that one at all: federation is on, and the deployment's bounds allow it.
    ///
    /// Where the deployment's own layer names organisations or jurisdictions, only their servers in the register.
    #[must_use]
    pub fn peer_allowed(&self, server: &ServerName) -> bool {
        if !self.settings.federation {
            return false;
        }
        let rules = self.rules();
        let Some(floor) = &rules.policies.floor else { return true };
        if floor.federate == Some(false) {
            return self.is_local(server);
        }
        self.is_local(server) || rules.has_within(floor, server)
    }

    /// Policy lets a user of ours ask another server for admission: as far as is known of a room elsewhere.
    /// [`Core::permit_joined_room`] asks again with the room's whole state.
    ///
    /// # Errors
    /// [`Error::PolicyDenied`], [`Error::PolicyUndetermined`].
    pub(crate) async fn permit_remote_join(
        &self,
        user: &UserId,
        room_id: &RoomId,
        membership: Membership,
    ) -> Result<(), Error> {
        let rules = self.rules();
        let told: Told = self.load(Table::RoomStripped, &Key::new().text(user).text(room_id))?.unwrap_or_default();
        let known: Vec<Stripped> = told.invite_state.into_iter().chain(told.knock_state).collect();
        let in_force = self.in_force_of(&rules, |kind| told_of(&known, kind));
        if in_force.policy.is_ordinary() {
            return Ok(());
        }
        let action = if membership == Membership::Knock { Action::Knock } else { Action::Join };
        let shown = self.credential_content(user)?.map(|credential| json!({ CREDENTIAL_FIELD: credential }));
        let refused = self.ask(&rules, &in_force, user, action, room_id, shown.as_ref()).err();
        told_no(refused).await
    }

    /// Policy lets a user of ours into a room elsewhere, of which the whole state is known now.
    ///
    /// # Errors
    /// As [`Core::permit_remote_join`].
    pub(crate) async fn permit_joined_room(&self, join: &Pdu, state: &[Pdu]) -> Result<(), Error> {
        let rules = self.rules();
        let in_force = self.in_force_of(&rules, |kind| {
            Fact::from_option(state.iter().find(|pdu| pdu.is_state_of(kind, "")).map(Pdu::content_value))
        });
        if in_force.policy.is_ordinary() {
            return Ok(());
        }
        let content = join.content_value();
        let asked = self.ask(&rules, &in_force, join.sender(), Action::Join, join.room_id(), Some(&content));
        match asked {
            Ok(draft) => self.commit_audited(&Batch::new(), vec![draft]).await,
            Err(refusal) => Err(refusal.recorded().await),
        }
    }

    /// Policy lets a user of another server invite a user of ours.
    ///
    /// # Errors
    /// As [`Core::permit_remote_join`].
    pub(crate) async fn permit_invite_in(
        &self,
        invite: &Pdu,
        invitee: &UserId,
        state: &[Box<RawValue>],
    ) -> Result<(), Error> {
        let rules = self.rules();
        let known: Vec<Stripped> = state.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect();
        let here = self.find_room(invite.room_id())?.filter(|room| room.has_server(&self.server_name));
        let in_force = match here {
            Some(room) => self.in_force(&rules, &mut room.lock())?,
            None => Arc::new(self.in_force_of(&rules, |kind| told_of(&known, kind))),
        };
        if in_force.policy.is_ordinary() {
            return Ok(());
        }
        let action = Action::FederatedInvite { invitee: invitee.as_str().to_owned() };
        let asked = self.ask(&rules, &in_force, invite.sender(), action, invite.room_id(), None);
        match asked {
            Ok(draft) => self.commit_audited(&Batch::new(), vec![draft]).await,
            Err(refusal) => Err(refusal.recorded().await),
        }
    }

    /// Policy lets a user of another server have a template for a join or a knock. Credentials come with the event
    /// itself: [`Core::permit_admission`].
    ///
    /// # Errors
    /// As [`Core::permit_remote_join`].
    pub(crate) fn permit_template(
        &self,
        room: &Room,
        inner: &mut Inner,
        user: &UserId,
        membership: Membership,
    ) -> Result<(), Error> {
        let rules = self.rules();
        if is_ordinary(&rules, inner) || membership == Membership::Leave {
            return Ok(());
        }
        let in_force = self.in_force(&rules, inner)?;
        let request = self.admission(&rules, user, membership, room.id());
        let now_ms = self.now_ms();
        let facts = self.facts(&rules, &in_force, self.person(&rules, user, None, now_ms), &request.action, now_ms);
        let verdict = decide_with(&request, &facts, &in_force.policy);
        let lacks_only_what_comes = verdict.reasons().iter().all(|reason| reason.code == ReasonCode::CredentialMissing);
        if verdict.is_permit() || lacks_only_what_comes {
            return Ok(());
        }
        match self.judge(&request, &facts, &in_force.policy) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(refusal.recorded_soon()),
        }
    }

    /// Policy lets this join or knock of a user of another server become an event of the room. The event's own
    /// verdict follows when it is received, and is the one that is recorded.
    ///
    /// # Errors
    /// As [`Core::permit_remote_join`].
    pub(crate) async fn permit_admission(&self, room: &Room, event: &Pdu, membership: Membership) -> Result<(), Error> {
        let rules = self.rules();
        let refused = {
            let mut inner = room.lock();
            if is_ordinary(&rules, &inner) || membership == Membership::Leave {
                return Ok(());
            }
            let in_force = self.in_force(&rules, &mut inner)?;
            let request = self.admission(&rules, event.sender(), membership, room.id());
            let now_ms = self.now_ms();
            let person = self.person(&rules, event.sender(), Some(&event.content_value()), now_ms);
            let facts = self.facts(&rules, &in_force, person, &request.action, now_ms);
            self.judge(&request, &facts, &in_force.policy).err()
        };
        told_no(refused).await
    }

    fn admission(&self, rules: &Rules, user: &UserId, membership: Membership, room_id: &RoomId) -> Request {
        let action = if membership == Membership::Knock { Action::FederatedKnock } else { Action::FederatedJoin };
        Request::in_room(self.principal(rules, user), action, room_id.as_str())
    }

    /// One question about a room that this server may not be in.
    fn ask(
        &self,
        rules: &Rules,
        in_force: &InForce,
        user: &UserId,
        action: Action,
        room_id: &RoomId,
        shown: Option<&Value>,
    ) -> Result<AuditDraft, Refusal> {
        let now_ms = self.now_ms();
        let principal = self.principal(rules, user);
        let person = self.person(rules, user, shown, now_ms);
        let facts: Facts = self.facts(rules, in_force, person, &action, now_ms);
        let request = Request {
            principal,
            action,
            resource: Resource::Room(room_id.as_str().to_owned()),
            context: Context::default(),
        };
        self.judge(&request, &facts, &in_force.policy)
            .map(super::permit::Permit::into_draft)?
            .ok_or_else(|| Error::internal("a permit without an entry for the log").into())
    }
}

async fn told_no(refused: Option<Refusal>) -> Result<(), Error> {
    match refused {
        None => Ok(()),
        Some(refusal) => Err(refusal.recorded().await),
    }
}

fn told_of(known: &[Stripped], kind: &str) -> Fact<Value> {
    Fact::from_option(
        known.iter().find(|one| one.kind == kind && one.state_key.is_empty()).map(|one| one.content.clone()),
    )
}
