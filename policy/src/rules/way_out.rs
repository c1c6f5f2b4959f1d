//! A way out is always open: leaving, removing somebody, redacting a message.
//!
//! No fact and no failure may lock a person in, keep an intruder in, or keep a mistake on the screen.
//! Redacting a state event changes the room and is for [`super::protected_state`].

use super::{Case, Finding, reason};
use crate::request::{Action, RedactTarget};
use crate::verdict::{Obligation, ReasonCode, RuleId};

pub(super) fn check(case: &Case<'_>) -> Finding {
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
