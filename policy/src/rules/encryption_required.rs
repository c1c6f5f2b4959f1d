//! Where encryption is required, nothing that is said leaves a device in the clear.
//!
//! Two kinds of events are let through in the clear, because no client encrypts them: reactions, of which servers see
//! the symbol and which message it is about, and key verification.

use super::{Case, Finding, reason};
use crate::facts::{Fact, RoomEncryption};
use crate::request::{Action, StateEffect};
use crate::room_policy::MEGOLM;
use crate::verdict::{Obligation, Reason, ReasonCode, RuleId};

const RULE: RuleId = RuleId::EncryptionRequired;

pub(super) fn check(case: &Case<'_>) -> Finding {
    if !case.policy.requires_encryption() {
        return Finding::Silent;
    }
    match case.act {
        Action::CreateRoom { .. } => Finding::Pass(
            because(ReasonCode::MessageEncrypted, "The room will be encrypted from its first message on."),
            [Obligation::Encrypt].into_iter().chain(rotation(case)).collect(),
        ),
        Action::Send { event_type, encrypted } => message(case, event_type, *encrypted),
        Action::SendState(change) => match &change.effect {
            StateEffect::Encryption(encryption) => state(case, encryption),
            _ => Finding::Silent,
        },
        _ => Finding::Silent,
    }
}

fn message(case: &Case<'_>, event_type: &str, encrypted: bool) -> Finding {
    match &case.facts.room.encryption {
        Fact::Unavailable(_) => Finding::Unclear(because(
            ReasonCode::EncryptionUnavailable,
            "It cannot be told at the moment whether this room is encrypted.",
        )),
        Fact::Absent => Finding::Refuse(because(
            ReasonCode::RoomNotEncrypted,
            "This room must be encrypted before anybody may write in it.",
        )),
        Fact::Known(encryption) if encryption.algorithm != MEGOLM => Finding::Refuse(because(
            ReasonCode::EncryptionTooWeak,
            "This room is encrypted in a way that is not recognised as safe.",
        )),
        Fact::Known(_) if encrypted || is_never_encrypted(event_type) => {
            Finding::Pass(because(ReasonCode::MessageEncrypted, "The message is end-to-end encrypted."), Vec::new())
        }
        Fact::Known(_) => Finding::Refuse(because(
            ReasonCode::MessageNotEncrypted,
            "Messages in this room must be end-to-end encrypted, and this one is not.",
        )),
    }
}

fn state(case: &Case<'_>, encryption: &Fact<RoomEncryption>) -> Finding {
    match encryption {
        Fact::Known(encryption) if encryption.algorithm == MEGOLM => {
            let wanted = rotation(case);
            let soon_enough = match (wanted, encryption.rotation_period_ms) {
                (Some(Obligation::RotateKeys { every_ms }), Some(period_ms)) => period_ms <= every_ms,
                (Some(_), None) => false,
                _ => true,
            };
            Finding::Pass(
                because(ReasonCode::MessageEncrypted, "The room is end-to-end encrypted."),
                wanted.filter(|_| !soon_enough).into_iter().collect(),
            )
        }
        _ => Finding::Refuse(because(
            ReasonCode::EncryptionTooWeak,
            "This way of encrypting the room is not recognised as safe.",
        )),
    }
}

/// Keys live no longer than messages.
fn rotation(case: &Case<'_>) -> Option<Obligation> {
    case.policy.layer().max_lifetime_ms.map(|every_ms| Obligation::RotateKeys { every_ms })
}

fn is_never_encrypted(event_type: &str) -> bool {
    event_type == "m.reaction" || event_type.starts_with("m.key.verification.")
}

fn because(code: ReasonCode, sentence: &str) -> Reason {
    reason(RULE, code, sentence)
}
