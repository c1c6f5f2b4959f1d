//! The state that holds the policy up may not be torn down.
//!
//! Policy, encryption, lifetime and server lists are changed by governance alone; a first value that only protects
//! more may be set by anybody with the power. Where credentials are demanded, governance alone redacts the member events
//! that carry them. Nobody at all may open the room or its history to the world.

use super::{Case, Finding, reason};
use crate::facts::Fact;
use crate::request::{Action, RedactTarget, StateChange, StateEffect};
use crate::room_policy::ROOM_POLICY_TYPE;
use crate::verdict::{Reason, ReasonCode, RuleId};

const RULE: RuleId = RuleId::ProtectedState;

/// The types of state events that governance alone may change or redact.
const PROTECTED: [&str; 6] = [
    ROOM_POLICY_TYPE,
    "m.room.encryption",
    "m.room.retention",
    "m.room.server_acl",
    "m.room.policy",
    "m.room.tombstone",
];
/// Join rules under which nobody enters unasked.
const CLOSED_JOIN_RULES: [&str; 5] = ["invite", "knock", "restricted", "knock_restricted", "private"];
/// Histories that members alone read.
const CLOSED_HISTORIES: [&str; 3] = ["joined", "invited", "shared"];

pub(super) fn check(case: &Case<'_>) -> Finding {
    match case.act {
        Action::SendState(change) => set(case, change),
        Action::Redact(RedactTarget::State(event_type)) => {
            // A redacted member event shows no credential: its user would speak on, and nobody would hear.
            let shows_credential = event_type == "m.room.member" && case.demands_credential();
            if PROTECTED.contains(&event_type.as_str()) || shows_credential { by_governance(case) } else { harmless() }
        }
        _ => Finding::Silent,
    }
}

fn set(case: &Case<'_>, change: &StateChange) -> Finding {
    match &change.effect {
        StateEffect::RoomPolicy(Fact::Absent | Fact::Unavailable(_)) => Finding::Refuse(because(
            ReasonCode::PolicyMalformed,
            "The new room policy cannot be read, so nobody could keep it.",
        )),
        StateEffect::RoomPolicy(Fact::Known(_)) | StateEffect::Guarded => first_or_by_governance(case, false),
        StateEffect::Encryption(_) => first_or_by_governance(case, matches!(case.facts.room.encryption, Fact::Absent)),
        StateEffect::Retention(_) => first_or_by_governance(case, matches!(case.facts.room.lifetime_ms, Fact::Absent)),
        StateEffect::JoinRule(rule) => one_of(
            rule,
            &CLOSED_JOIN_RULES,
            ReasonCode::RoomWouldBeOpen,
            "This would let anybody into the room unasked.",
        ),
        StateEffect::HistoryVisibility(visibility) => one_of(
            visibility,
            &CLOSED_HISTORIES,
            ReasonCode::HistoryWouldBeOpen,
            "This would let anybody read the room's history.",
        ),
        StateEffect::GuestAccess(true) => {
            Finding::Refuse(because(ReasonCode::GuestsWouldEnter, "Guests may not enter this room."))
        }
        StateEffect::GuestAccess(false) | StateEffect::AddressInvite | StateEffect::Other => harmless(),
    }
}

fn first_or_by_governance(case: &Case<'_>, is_first: bool) -> Finding {
    // The word of another server that a room is only just being created would open every room.
    let is_created_here = case.request.context.room_being_created && !case.request.action.is_federated();
    if is_first || is_created_here { harmless() } else { by_governance(case) }
}

fn by_governance(case: &Case<'_>) -> Finding {
    if case.is_governance() {
        return Finding::Pass(
            because(ReasonCode::ChangedByGovernance, "The room's governance may change this."),
            Vec::new(),
        );
    }
    Finding::Refuse(because(
        ReasonCode::NotGovernance,
        "This part of the room's policy is changed by its governance bot or a compliance officer alone.",
    ))
}

fn one_of(value: &Fact<String>, allowed: &[&str], code: ReasonCode, sentence: &str) -> Finding {
    match value {
        Fact::Known(value) if allowed.contains(&value.as_str()) => harmless(),
        _ => Finding::Refuse(because(code, sentence)),
    }
}

fn harmless() -> Finding {
    Finding::Pass(
        because(ReasonCode::ChangeIsHarmless, "The change takes nothing away from the room's protection."),
        Vec::new(),
    )
}

fn because(code: ReasonCode, sentence: &str) -> Reason {
    reason(RULE, code, sentence)
}
