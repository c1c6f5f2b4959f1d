//! What is said dies in time: messages have a lifetime, and never a longer one than any layer allows.

use super::{Case, Finding, reason, span};
use crate::facts::Fact;
use crate::request::{Action, StateEffect};
use crate::verdict::{Obligation, Reason, ReasonCode, RuleId};

const RULE: RuleId = RuleId::LifetimeRequired;

pub(super) fn check(case: &Case<'_>) -> Finding {
    match case.act {
        Action::Send { .. } => message(case),
        Action::CreateRoom { .. } => creation(case),
        Action::SendState(change) => match &change.effect {
            StateEffect::Retention(lifetime) => retention(case, lifetime),
            _ => Finding::Silent,
        },
        // Their words die; a join is no place for any.
        Action::Leave | Action::Remove { .. } | Action::Redact(_) if case.words().is_some() => message(case),
        _ => Finding::Silent,
    }
}

fn message(case: &Case<'_>) -> Finding {
    let required = case.policy.requires_lifetime();
    match case.lifetime_ms() {
        Err(()) if required || case.policy.layer().max_lifetime_ms.is_some() => Finding::Unclear(because(
            ReasonCode::LifetimeUnavailable,
            "It cannot be told at the moment how long messages in this room may live.".to_owned(),
        )),
        Ok(Some(after_ms)) => Finding::Pass(
            because(ReasonCode::LifetimeSet, format!("The message is destroyed after {}.", span(after_ms))),
            vec![Obligation::Expire { after_ms }],
        ),
        Ok(None) if required => Finding::Refuse(because(
            ReasonCode::LifetimeMissing,
            "Messages in this room must have a lifetime, and none is set.".to_owned(),
        )),
        Ok(None) | Err(()) => Finding::Silent,
    }
}

/// A new room is told its lifetime, so that other servers learn it from `m.room.retention`.
fn creation(case: &Case<'_>) -> Finding {
    match case.policy.layer().max_lifetime_ms {
        Some(after_ms) => Finding::Pass(
            because(
                ReasonCode::LifetimeSet,
                format!("Messages in the room will be destroyed after {}.", span(after_ms)),
            ),
            vec![Obligation::SetLifetime { max_ms: after_ms }],
        ),
        None => Finding::Silent,
    }
}

fn retention(case: &Case<'_>, lifetime: &Fact<u64>) -> Finding {
    let limit = case.policy.layer().max_lifetime_ms;
    match (lifetime, limit) {
        (Fact::Known(0), _) => {
            Finding::Refuse(because(ReasonCode::LifetimeZero, "A lifetime of no time is none.".to_owned()))
        }
        (Fact::Known(lifetime), Some(limit)) if *lifetime > limit => Finding::Refuse(because(
            ReasonCode::LifetimeTooLong,
            format!("Messages in this room may live for {} at most.", span(limit)),
        )),
        (Fact::Known(lifetime), _) => Finding::Pass(
            because(ReasonCode::LifetimeSet, format!("Messages are destroyed after {}.", span(*lifetime))),
            Vec::new(),
        ),
        (Fact::Absent | Fact::Unavailable(_), None) if !case.policy.requires_lifetime() => Finding::Silent,
        (Fact::Absent | Fact::Unavailable(_), _) => Finding::Refuse(because(
            ReasonCode::LifetimeMissing,
            "Messages in this room must have a lifetime, and this would take it away.".to_owned(),
        )),
    }
}

fn because(code: ReasonCode, sentence: String) -> Reason {
    reason(RULE, code, sentence)
}
