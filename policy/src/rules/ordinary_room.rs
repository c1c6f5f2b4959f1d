//! Without a room policy and without a layer all is permitted: a plain Matrix room.
//!
//! One act is looked at even here: a room policy that cannot be read would bring the room to a standstill, so it
//! is refused.

use super::{Case, Finding, reason};
use crate::facts::Fact;
use crate::request::{Action, StateEffect};
use crate::verdict::{ReasonCode, RuleId};

pub(super) fn check(case: &Case<'_>) -> Finding {
    if !case.policy.is_ordinary() {
        return Finding::Silent;
    }
    if let Action::SendState(change) = case.act
        && let StateEffect::RoomPolicy(Fact::Absent | Fact::Unavailable(_)) = change.effect
    {
        return Finding::Refuse(reason(
            RuleId::ProtectedState,
            ReasonCode::PolicyMalformed,
            "The new room policy cannot be read, so nobody could keep it.",
        ));
    }
    Finding::Pass(
        reason(
            RuleId::OrdinaryRoom,
            ReasonCode::RoomIsOrdinary,
            "Neither this room nor this server has a policy, so nothing stands against it.",
        ),
        Vec::new(),
    )
}
