//! A room belongs to named organisations, and nobody else gets in, by any path.
//!
//! The asker's organisation is the one to which the register gives the asker's server. Bots and machines are no
//! exception. For invites the invited person is looked at too.

use super::{Case, Finding, reason};
use crate::facts::{Fact, OrganisationFact};
use crate::request::Action;
use crate::verdict::{Reason, ReasonCode, RuleId};

const RULE: RuleId = RuleId::OrganisationBounds;

pub(super) fn check(case: &Case<'_>) -> Finding {
    let layer = case.policy.layer();
    if layer.organisations.is_none() && layer.jurisdictions.is_none() {
        return Finding::Silent;
    }
    if matches!(case.act, Action::UploadMedia { .. }) {
        return Finding::Silent;
    }
    let asker = match locate(case, &case.facts.person.organisation) {
        Ok(organisation) => organisation,
        Err(place) => return place.of_asker(),
    };
    if let Action::Invite { .. } | Action::FederatedInvite { .. } = case.act {
        let known = case.facts.invitee.known().filter(|invitee| Some(invitee.user_id.as_str()) == case.act.target());
        let Some(invitee) = known else {
            return Place::Unclear.of_invitee();
        };
        if let Err(place) = locate(case, &invitee.organisation) {
            return place.of_invitee();
        }
    }
    Finding::Pass(
        reason(
            RULE,
            ReasonCode::OrganisationBelongs,
            format!("{} ({}) is one of the organisations of this room.", asker.name, asker.code),
        ),
        Vec::new(),
    )
}

/// Where somebody stands who is not inside.
enum Place {
    Unclear,
    OutsideFederation,
    OutsideRoom(String),
    OutsideJurisdiction(String),
}

fn locate<'a>(case: &Case<'_>, organisation: &'a Fact<OrganisationFact>) -> Result<&'a OrganisationFact, Place> {
    let layer = case.policy.layer();
    let organisation = match organisation {
        Fact::Known(organisation) => organisation,
        Fact::Absent => return Err(Place::OutsideFederation),
        Fact::Unavailable(_) => return Err(Place::Unclear),
    };
    if layer.organisations.as_ref().is_some_and(|allowed| !allowed.contains(&organisation.code)) {
        return Err(Place::OutsideRoom(organisation.code.clone()));
    }
    if layer.jurisdictions.as_ref().is_some_and(|allowed| !allowed.contains(&organisation.jurisdiction)) {
        return Err(Place::OutsideJurisdiction(organisation.code.clone()));
    }
    Ok(organisation)
}

impl Place {
    fn of_asker(self) -> Finding {
        match self {
            Self::Unclear => Finding::Unclear(because(
                ReasonCode::OrganisationUnavailable,
                "It cannot be told at the moment to which organisation this person belongs.".to_owned(),
            )),
            Self::OutsideFederation => Finding::Refuse(because(
                ReasonCode::OutsideFederation,
                "This person's server belongs to no organisation of the federation.".to_owned(),
            )),
            Self::OutsideRoom(code) => Finding::Refuse(because(
                ReasonCode::OutsideRoom,
                format!("This person's organisation ({code}) is not one of the organisations of this room."),
            )),
            Self::OutsideJurisdiction(code) => Finding::Refuse(because(
                ReasonCode::OutsideJurisdiction,
                format!("This person's organisation ({code}) is in a jurisdiction that is not allowed here."),
            )),
        }
    }

    fn of_invitee(self) -> Finding {
        match self {
            Self::Unclear => Finding::Unclear(because(
                ReasonCode::InviteeUnavailable,
                "It cannot be told at the moment to which organisation the invited person belongs.".to_owned(),
            )),
            Self::OutsideFederation => Finding::Refuse(because(
                ReasonCode::InviteeOutsideFederation,
                "The invited person's server belongs to no organisation of the federation.".to_owned(),
            )),
            Self::OutsideRoom(code) => Finding::Refuse(because(
                ReasonCode::InviteeOutsideRoom,
                format!("The invited person's organisation ({code}) is not one of the organisations of this room."),
            )),
            Self::OutsideJurisdiction(code) => Finding::Refuse(because(
                ReasonCode::InviteeOutsideJurisdiction,
                format!("The invited person's organisation ({code}) is in a jurisdiction that is not allowed here."),
            )),
        }
    }
}

fn because(code: ReasonCode, sentence: String) -> Reason {
    reason(RULE, code, sentence)
}
