//! A way out is always open: leaving, removing somebody, redacting a message.
//!
//! No fact and no failure may lock a person in, keep an intruder in, or keep a mistake on the screen.
//! Redacting a state event changes the room and is for [`super::protected_state`].
//!
//! What is always open is the act, not words that go with it: whoever gives a reason speaks, and is judged like a
//! speaker. A leave or removal that has happened on another server has happened, whatever is said in it.

use super::{Case, Finding, reason};
use crate::request::{Action, PrincipalKind, RedactTarget};
use crate::verdict::{Obligation, Reason, ReasonCode, RuleId};
use crate::wording::Words;

pub(super) fn check(case: &Case<'_>) -> Finding {
    if speaks(case) {
        return Finding::Silent;
    }
    let (sentence, obligations) = match case.act {
        Action::Leave => ("Everybody may leave a room at any time.", Vec::new()),
        Action::Remove { .. } => ("Removing somebody from a room is always possible.", Vec::new()),
        Action::Redact(RedactTarget::Message | RedactTarget::Unknown) => {
            let kept = case.policy.layer().redacted_content_kept_ms;
            (
                "Taking a message back is always possible.",
                kept.map(|within_ms| Obligation::EraseRedacted { within_ms }).into_iter().collect(),
            )
        }
        _ => return Finding::Silent,
    };
    Finding::Pass(reason(RuleId::WayOut, ReasonCode::AlwaysPossible, sentence), obligations)
}

/// That it could be done without words, if it could.
pub(super) fn without_words(case: &Case<'_>) -> Option<Reason> {
    let sentence = match case.act {
        Action::Leave => "Leaving without a reason or other words is always possible.",
        Action::Remove { .. } => "Removing somebody without a reason or other words is always possible.",
        Action::Redact(RedactTarget::Message | RedactTarget::Unknown) => {
            "Taking a message back without a reason or other words is always possible."
        }
        _ => return None,
    };
    speaks(case).then(|| reason(RuleId::WayOut, ReasonCode::AlwaysPossible, sentence))
}

/// Whether words go with the act that are judged.
fn speaks(case: &Case<'_>) -> bool {
    let Some(words) = case.words() else { return false };
    let has_happened = case.request.action.is_federated() && matches!(case.act, Action::Leave | Action::Remove { .. });
    // An eviction says why, and may not fail because the register is out of reach.
    let is_machines =
        words == Words::Reason && matches!(case.request.principal.kind, PrincipalKind::Bot | PrincipalKind::AppService);
    !has_happened && !is_machines
}
