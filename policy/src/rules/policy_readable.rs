//! A room whose policy cannot be read stands still, until its governance sets one that can.

use super::{Case, Finding, reason};
use crate::effective::RoomPolicyState;
use crate::facts::Fact;
use crate::request::{Action, StateEffect};
use crate::verdict::{ReasonCode, RuleId};

pub(super) fn check(case: &Case<'_>) -> Finding {
    let RoomPolicyState::Unreadable(_) = case.policy.room() else {
        return Finding::Silent;
    };
    if case.is_governance()
        && let Action::SendState(change) = case.act
        && let StateEffect::RoomPolicy(Fact::Known(_)) = change.effect
    {
        return Finding::Silent;
    }
    Finding::Unclear(reason(
        RuleId::PolicyReadable,
        ReasonCode::PolicyUnavailable,
        "The policy of this room cannot be read at the moment, so nothing but leaving is possible.",
    ))
}
