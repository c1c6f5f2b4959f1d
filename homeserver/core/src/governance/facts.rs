//! Facts for policy: of a room, of a person, of both together.

use std::sync::{Arc, LazyLock};

use matron_policy::{
    Action, CREDENTIAL_FIELD, CredentialStatus, EffectivePolicy, Fact, Facts, Invitee, PersonFacts, Principal,
    PrincipalKind, ROOM_POLICY_TYPE, RedactTarget, RoomFacts, Unavailable,
};
use matron_room::Pdu;
use matron_storage::{Key, Table};
use ruma::{EventId, UserId};
use serde_json::{Value, json};

use super::rules::Rules;
use crate::{
    Core, Error,
    rooms::{StateKey, room::Inner},
};

/// The state that room facts are read from.
const FACT_TYPES: [&str; 3] = [ROOM_POLICY_TYPE, "m.room.encryption", "m.room.retention"];

pub(super) static POLICY_KEY: LazyLock<StateKey> = LazyLock::new(|| StateKey::new(ROOM_POLICY_TYPE, ""));

/// The policy in force in a room, kept with the room as long as what it was made of stands.
#[derive(Debug)]
pub(crate) struct InForce {
    made_of: [Option<Pdu>; 3],
    generation: u64,
    /// What the room's state says.
    pub(crate) room: RoomFacts,
    /// What all layers demand together.
    pub(crate) policy: EffectivePolicy,
}

/// A credential that was found valid.
#[derive(Debug)]
pub(super) struct KnownCredential {
    shown: Pdu,
    generation: u64,
    person: PersonFacts,
}

/// Whether two events are the very same in memory: an event that was redacted is read anew, and lies elsewhere.
fn same(one: &Option<Pdu>, other: &Option<Pdu>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => std::ptr::eq(one.json(), other.json()),
        _ => false,
    }
}

/// Whether neither room nor deployment has a policy: then nothing is gathered, and nothing recorded.
pub(super) fn is_ordinary(rules: &Rules, inner: &Inner) -> bool {
    rules.ordinary && !inner.current.contains_key(&*POLICY_KEY)
}

impl Core {
    /// What policy goes by at this moment.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.governance.rules.read())
    }

    /// The policy in force in the room, as it stands.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn in_force(&self, rules: &Rules, inner: &mut Inner) -> Result<Arc<InForce>, Error> {
        let mut made_of = [None, None, None];
        let mut facts = Vec::with_capacity(FACT_TYPES.len());
        for (kind, place) in FACT_TYPES.iter().zip(made_of.iter_mut()) {
            let known = inner.current.contains_key(&StateKey::new(kind, ""));
            *place = inner.state_pdu(self, kind, "")?;
            facts.push((*kind, known));
        }
        if let Some(kept) = &inner.policy
            && kept.generation == rules.generation
            && kept.made_of.iter().zip(&made_of).all(|(one, other)| same(one, other))
        {
            return Ok(Arc::clone(kept));
        }
        let room = RoomFacts::from_state(|kind| {
            let position = FACT_TYPES.iter().position(|one| *one == kind);
            match position.and_then(|at| made_of.get(at)) {
                Some(Some(pdu)) => Fact::Known(pdu.content_value()),
                _ if facts.iter().any(|(one, known)| *one == kind && *known) => {
                    Fact::Unavailable(Unavailable::NotLoaded)
                }
                _ => Fact::Absent,
            }
        });
        let policy = rules.policies.effective(&room.policy);
        let made = Arc::new(InForce { made_of, generation: rules.generation, room, policy });
        inner.policy = Some(Arc::clone(&made));
        Ok(made)
    }

    /// The policy of a room of which only these pieces of state are known.
    pub(super) fn in_force_of(&self, rules: &Rules, content_of: impl Fn(&str) -> Fact<Value>) -> InForce {
        let room = RoomFacts::from_state(content_of);
        let policy = rules.policies.effective(&room.policy);
        InForce { made_of: [None, None, None], generation: rules.generation, room, policy }
    }

    /// The user as a party: the register's word goes before the configuration's.
    pub(super) fn principal(&self, rules: &Rules, user: &UserId) -> Principal {
        let local = self.is_local_user(user).then(|| {
            if rules.officers.contains(user) {
                PrincipalKind::Bot
            } else if self.appservices.services.iter().any(|service| service.owns_user(user)) {
                PrincipalKind::AppService
            } else {
                PrincipalKind::Clinician
            }
        });
        let kind = match &rules.register {
            Some(register) => register.kind_of(user.as_str(), local),
            None => local.unwrap_or(PrincipalKind::Remote),
        };
        Principal::new(user.as_str(), kind)
    }

    /// What is known of a person who shows this content.
    pub(super) fn person(&self, rules: &Rules, user: &UserId, shown: Option<&Value>, now_ms: u64) -> PersonFacts {
        PersonFacts::gather(user.as_str(), shown, rules.register.as_deref(), &rules.revocations, now_ms)
    }

    /// What is known of a member of the room, by the member event; of a local user also by what the operator stored.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn member_facts(
        &self,
        rules: &Rules,
        inner: &mut Inner,
        user: &UserId,
        now_ms: u64,
    ) -> Result<PersonFacts, Error> {
        let member = inner.state_pdu(self, "m.room.member", user.as_str())?;
        let Some(member) = member else { return self.stored_facts(rules, user, now_ms) };
        if let Some(known) = self.governance.credentials.lock().get(user)
            && known.generation == rules.generation
            && std::ptr::eq(known.shown.json(), member.json())
            && let CredentialStatus::Valid { credential } = &known.person.credential
            && now_ms < credential.expires_at_ms
        {
            return Ok(known.person.clone());
        }
        let person = self.person(rules, user, Some(&member.content_value()), now_ms);
        match &person.credential {
            CredentialStatus::Valid { .. } => {
                let known = KnownCredential { shown: member, generation: rules.generation, person: person.clone() };
                self.governance.credentials.lock().put(user.to_owned(), known);
                Ok(person)
            }
            CredentialStatus::Missing | CredentialStatus::Expired { .. } if self.is_local_user(user) => {
                self.stored_facts(rules, user, now_ms)
            }
            _ => Ok(person),
        }
    }

    /// What is known of a user without a member event: of a local one, what the operator stored.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn stored_facts(&self, rules: &Rules, user: &UserId, now_ms: u64) -> Result<PersonFacts, Error> {
        let shown = self.credential_content(user)?.map(|credential| json!({ CREDENTIAL_FIELD: credential }));
        Ok(self.person(rules, user, shown.as_ref(), now_ms))
    }

    /// The signed credential of a local user, as member events carry it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn credential_content(&self, user: &UserId) -> Result<Option<Value>, Error> {
        if !self.is_local_user(user) {
            return Ok(None);
        }
        self.load(Table::UserCredential, &Key::new().text(user))
    }

    /// All facts for a question about an act of this user in the room.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn facts_in_room(
        &self,
        rules: &Rules,
        inner: &mut Inner,
        in_force: &InForce,
        user: &UserId,
        action: &Action,
        content: Option<&Value>,
    ) -> Result<Facts, Error> {
        let now_ms = self.now_ms();
        let person = match (action.essence(), content) {
            (Action::Join | Action::Knock, Some(content)) => self.person(rules, user, Some(content), now_ms),
            _ => self.member_facts(rules, inner, user, now_ms)?,
        };
        Ok(self.facts(rules, in_force, person, action, now_ms))
    }

    /// The facts, put together.
    pub(super) fn facts(
        &self,
        rules: &Rules,
        in_force: &InForce,
        person: PersonFacts,
        action: &Action,
        now_ms: u64,
    ) -> Facts {
        let invitee = match action.essence() {
            Action::Invite { invitee } | Action::FederatedInvite { invitee } => {
                Fact::Known(Invitee::gather(invitee, rules.register.as_deref()))
            }
            _ => Fact::Absent,
        };
        Facts { now_ms, register: rules.register_status(now_ms), person, room: in_force.room.clone(), invitee }
    }

    /// What a redaction is aimed at.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn redact_target(&self, redacts: Option<&EventId>) -> Result<RedactTarget, Error> {
        let Some(id) = redacts else { return Ok(RedactTarget::Unknown) };
        Ok(match self.load_event(id)? {
            Some(event) if event.pdu.is_state() => RedactTarget::State(event.pdu.kind().to_owned()),
            Some(_) => RedactTarget::Message,
            None => RedactTarget::Unknown,
        })
    }
}
