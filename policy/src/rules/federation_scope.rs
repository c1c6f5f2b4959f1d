//! A room that may not federate stays on its server.

use super::{Case, Finding, reason};
use crate::names;
use crate::request::Action;
use crate::verdict::{Obligation, ReasonCode, RuleId};

pub(super) fn check(case: &Case<'_>) -> Finding {
    if case.policy.layer().federate != Some(false) {
        return Finding::Silent;
    }
    let leaves_the_server = match case.act {
        Action::Invite { invitee } | Action::FederatedInvite { invitee } => {
            names::server_of(invitee) != Some(case.request.principal.server.as_str())
        }
        _ => false,
    };
    if case.request.action.is_federated() || leaves_the_server {
        return Finding::Refuse(reason(
            RuleId::FederationScope,
            ReasonCode::FederationForbidden,
            "Rooms here may not reach other servers.",
        ));
    }
    match case.act {
        Action::CreateRoom { .. } => Finding::Pass(
            reason(RuleId::FederationScope, ReasonCode::CreatorAllowed, "The room is created for this server alone."),
            vec![Obligation::StayLocal],
        ),
        _ => Finding::Silent,
    }
}
