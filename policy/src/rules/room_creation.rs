//! Who creates rooms.
//!
//! The creator of a room of version 12 has all power in it for ever. So where governance is to hold the power, a
//! governance bot creates the room.

use super::{Case, Finding, reason};
use crate::request::Action;
use crate::verdict::{ReasonCode, RuleId};

const RULE: RuleId = RuleId::RoomCreation;

pub(super) fn check(case: &Case<'_>) -> Finding {
    let Action::CreateRoom { .. } = case.act else {
        return Finding::Silent;
    };
    if case.policy.layer().governance_creates_rooms != Some(true) {
        return Finding::Silent;
    }
    if case.is_governance() {
        return Finding::Pass(
            reason(RULE, ReasonCode::CreatorAllowed, "The organisation's governance creates the room."),
            Vec::new(),
        );
    }
    Finding::Refuse(reason(
        RULE,
        ReasonCode::CreatorNotGovernance,
        "Rooms are created by the organisation's governance bot; ask it for one.",
    ))
}
