//! Nobody is invited whom policy cannot judge.
//!
//! An invite by e-mail address or telephone number that belongs to no Matrix id yet is a door for whoever comes to prove
//! the address later. What an address stands for no register says, so such a door is not made. Who has a Matrix id is
//! invited by it, and judged by it.

use super::{Case, Finding, reason};
use crate::request::{Action, StateEffect};
use crate::verdict::{ReasonCode, RuleId};

pub(super) fn check(case: &Case<'_>) -> Finding {
    match case.act {
        Action::SendState(change) if change.effect == StateEffect::AddressInvite => Finding::Refuse(reason(
            RuleId::KnownInvitee,
            ReasonCode::InviteeUnknown,
            "The invited person is known by an address alone: into a room with a policy only people with a Matrix id are \
             invited, because only they can be judged.",
        )),
        _ => Finding::Silent,
    }
}
