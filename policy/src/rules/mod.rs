//! The rules. One file each; none knows of another.

mod current_credential;
mod encryption_required;
mod federation_scope;
mod known_invitee;
mod lifetime_required;
mod media_size;
mod ordinary_room;
mod organisation_bounds;
mod policy_readable;
mod protected_state;
mod register_current;
mod room_creation;
mod way_out;

use crate::credential::{CredentialStatus, OFFICER_ROLE};
use crate::effective::EffectivePolicy;
use crate::facts::{Fact, Facts};
use crate::request::{Action, PrincipalKind, Request};
use crate::verdict::{Obligation, Reason, ReasonCode, RuleId};
use crate::wording::Words;

/// What a rule looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) request: &'a Request,
    /// The act, whichever way it came.
    pub(crate) act: &'a Action,
    pub(crate) facts: &'a Facts,
    pub(crate) policy: &'a EffectivePolicy,
}

/// What a rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Nothing: it is not about this.
    Silent,
    /// Nothing against it.
    Pass(Reason, Vec<Obligation>),
    /// No.
    Refuse(Reason),
    /// A fact is missing.
    Unclear(Reason),
}

/// The rules that all are asked, in the order in which their reasons are told.
pub(crate) const ALL: [fn(&Case<'_>) -> Finding; 11] = [
    policy_readable::check,
    register_current::check,
    organisation_bounds::check,
    known_invitee::check,
    federation_scope::check,
    room_creation::check,
    current_credential::check,
    encryption_required::check,
    lifetime_required::check,
    protected_state::check,
    media_size::check,
];

/// The rules that end the matter: a way out, and the ordinary room.
pub(crate) fn shortcut(case: &Case<'_>) -> Option<Finding> {
    [way_out::check(case), ordinary_room::check(case)].into_iter().find(|finding| *finding != Finding::Silent)
}

/// What whoever is refused can do instead.
pub(crate) fn instead(case: &Case<'_>) -> Option<Reason> {
    way_out::without_words(case)
}

/// No rule is about this act.
pub(crate) fn nothing_to_say() -> Reason {
    reason(RuleId::OrdinaryRoom, ReasonCode::ChangeIsHarmless, "No rule of this room is about this.")
}

pub(crate) fn reason(rule: RuleId, code: ReasonCode, sentence: impl Into<String>) -> Reason {
    Reason { rule, code, sentence: sentence.into() }
}

impl Case<'_> {
    /// Coming in: the acts by which somebody or something new enters.
    pub(crate) fn is_admission(&self) -> bool {
        matches!(
            self.act,
            Action::CreateRoom { .. }
                | Action::Invite { .. }
                | Action::Join
                | Action::Knock
                | Action::FederatedInvite { .. }
                | Action::FederatedJoin
                | Action::FederatedKnock
        )
    }

    /// Speaking: the acts by which a member says or changes something.
    pub(crate) fn is_speech(&self) -> bool {
        matches!(self.act, Action::Send { .. } | Action::SendState(_) | Action::Redact(_)) || self.words().is_some()
    }

    /// The words that go with the act.
    pub(crate) fn words(&self) -> Option<Words> {
        self.request.action.words()
    }

    /// Whether the organisation's bot or machine asks, and the organisation is known.
    pub(crate) fn is_organisations_machine(&self) -> bool {
        matches!(self.request.principal.kind, PrincipalKind::Bot | PrincipalKind::AppService)
            && self.facts.person.organisation.known().is_some()
    }

    /// Whether the asker may change the policy state: a governance bot, or a person whose valid credential says so.
    pub(crate) fn is_governance(&self) -> bool {
        if self.facts.person.organisation.known().is_none() {
            return false;
        }
        let officer = match &self.facts.person.credential {
            CredentialStatus::Valid { credential } => credential.roles.contains(OFFICER_ROLE),
            _ => false,
        };
        officer || self.request.principal.kind == PrincipalKind::Bot
    }

    /// Whether people need a credential here.
    pub(crate) fn demands_credential(&self) -> bool {
        let layer = self.policy.layer();
        self.policy.requires_credential()
            || layer.minimum_level.is_some()
            || layer.professions.is_some()
            || layer.roles.is_some()
            || layer.credential_max_age_ms.is_some()
    }

    /// `Some(ms)`: the shorter of what policy and room demand; `Err` if the room's own lifetime is not known.
    pub(crate) fn lifetime_ms(&self) -> Result<Option<u64>, ()> {
        let demanded = self.policy.layer().max_lifetime_ms;
        match self.facts.room.lifetime_ms {
            Fact::Known(room) => Ok(Some(demanded.map_or(room, |limit| limit.min(room)))),
            Fact::Absent => Ok(demanded),
            Fact::Unavailable(_) => Err(()),
        }
    }
}

/// A span of time for people: the two largest units.
pub(crate) fn span(ms: u64) -> String {
    let units = [(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second"), (1, "millisecond")];
    let mut rest = ms;
    let mut parts = Vec::new();
    for (size, name) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 && parts.len() < 2 {
            parts.push(format!("{count} {name}{}", if count == 1 { "" } else { "s" }));
        }
    }
    if parts.is_empty() { "no time".to_owned() } else { parts.join(" and ") }
}
