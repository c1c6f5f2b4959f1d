//! Whoever is judged by the register is judged by a current one.
//!
//! With an expired register nobody is let in. Members may go on speaking as long as the deployment's grace lasts,
//! so that a broken line does not silence a ward.

use super::{Case, Finding, reason, span};
use crate::facts::RegisterStatus;
use crate::request::Action;
use crate::verdict::{ReasonCode, RuleId};

pub(super) fn check(case: &Case<'_>) -> Finding {
    let layer = case.policy.layer();
    let asks_the_register =
        layer.organisations.is_some() || layer.jurisdictions.is_some() || case.policy.requires_credential();
    let concerns_people = case.is_admission() || case.is_speech() || matches!(case.act, Action::Remain | Action::Read);
    if !asks_the_register || !concerns_people {
        return Finding::Silent;
    }
    match case.facts.register {
        RegisterStatus::Fresh { .. } => Finding::Silent,
        RegisterStatus::None => Finding::Unclear(reason(
            RuleId::RegisterCurrent,
            ReasonCode::RegisterMissing,
            "This server has no valid federation register, so it cannot tell who belongs to this room.",
        )),
        RegisterStatus::Stale { expired_at_ms } => stale(case, expired_at_ms),
    }
}

fn stale(case: &Case<'_>, expired_at_ms: u64) -> Finding {
    let age_ms = case.facts.now_ms.saturating_sub(expired_at_ms);
    let in_grace = age_ms < case.policy.register_grace_ms();
    if in_grace && (case.is_speech() || matches!(case.act, Action::Read)) {
        return Finding::Pass(
            reason(
                RuleId::RegisterCurrent,
                ReasonCode::RegisterGrace,
                format!("The federation register expired {} ago; members may still speak.", span(age_ms)),
            ),
            Vec::new(),
        );
    }
    Finding::Unclear(reason(
        RuleId::RegisterCurrent,
        ReasonCode::RegisterStale,
        format!("The federation register expired {} ago and has to be renewed first.", span(age_ms)),
    ))
}
