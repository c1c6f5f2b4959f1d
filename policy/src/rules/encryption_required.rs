//! Where encryption is required, nothing that is said leaves a device in the clear.
//!
//! Two kinds of events are let through in the clear, because no client encrypts them: reactions, of which servers see
//! the symbol and which message it is about, and key verification. Their form leaves no room for other words
//! ([`Form`]). Of what cannot be encrypted, a `reason` may be said where it dies or leaves with its writer; state events
//! are those whose meaning is known, and no notes.

use super::{Case, Finding, reason};
use crate::facts::{Fact, RoomEncryption};
use crate::request::{Action, StateChange, StateEffect};
use crate::room_policy::{MEGOLM, ROOM_POLICY_TYPE};
use crate::verdict::{Obligation, Reason, ReasonCode, RuleId};
use crate::wording::{Form, Words};

const RULE: RuleId = RuleId::EncryptionRequired;

/// The state events that members write where encryption is required: those of the specification, of Matron, and of the
/// calls that clients of today make.
const KNOWN_STATE: [&str; 30] = [
    "m.room.aliases",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.create",
    "m.room.encryption",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.member",
    "m.room.name",
    "m.room.pinned_events",
    "m.room.policy",
    "m.room.power_levels",
    "m.room.retention",
    "m.room.server_acl",
    "m.room.third_party_invite",
    "m.room.tombstone",
    "m.room.topic",
    "m.space.child",
    "m.space.parent",
    ROOM_POLICY_TYPE,
    "m.call",
    "m.call.member",
    "org.matrix.msc3401.call",
    "org.matrix.msc3401.call.member",
    "m.rtc.member",
    "m.rtc.slot",
    "org.matrix.msc4143.rtc.member",
    "org.matrix.msc4143.rtc.slot",
    "org.matrix.room.preview_urls",
];

pub(super) fn check(case: &Case<'_>) -> Finding {
    if !case.policy.requires_encryption() {
        return Finding::Silent;
    }
    match case.act {
        Action::CreateRoom { .. } => Finding::Pass(
            because(ReasonCode::MessageEncrypted, "The room will be encrypted from its first message on."),
            [Obligation::Encrypt].into_iter().chain(rotation(case)).collect(),
        ),
        Action::Send { form, .. } => message(case, *form),
        Action::SendState(change) => match &change.effect {
            StateEffect::Encryption(encryption) => state(case, encryption),
            StateEffect::Other => other_state(case, change),
            _ => Finding::Silent,
        },
        act => case.words().map_or(Finding::Silent, |words| beside(case, act, words)),
    }
}

/// What may be said beside what is done.
fn beside(case: &Case<'_>, act: &Action, words: Words) -> Finding {
    let is_redaction = matches!(act, Action::Redact(_));
    // SPEC: who is a member is what the room's servers agree on; what one of them let through is not argued about.
    if case.request.action.is_federated() && !is_redaction {
        return Finding::Silent;
    }
    match (act, words) {
        (Action::Join, Words::Reason) => Finding::Refuse(because(
            ReasonCode::WordsInTheClear,
            "A reason would stay readable for as long as you are a member: join without one.",
        )),
        (_, Words::Reason) => Finding::Silent,
        (_, Words::More) => Finding::Refuse(because(
            ReasonCode::WordsInTheClear,
            "What is said in this room must be end-to-end encrypted; beside a short reason, this may say nothing.",
        )),
    }
}

fn other_state(case: &Case<'_>, change: &StateChange) -> Finding {
    if case.is_governance() || KNOWN_STATE.contains(&change.event_type.as_str()) {
        return Finding::Silent;
    }
    Finding::Refuse(because(
        ReasonCode::StateInTheClear,
        "State events cannot be encrypted, so in this room only those that Matrix clients need are written.",
    ))
}

fn message(case: &Case<'_>, form: Form) -> Finding {
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
        Fact::Known(_) if says_nothing_readable(case, form) => {
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

fn says_nothing_readable(case: &Case<'_>, form: Form) -> bool {
    match form {
        Form::Encrypted | Form::Sign => true,
        // Redacted on its way to us: there is nothing left to read.
        Form::Empty => case.request.action.is_federated(),
        Form::Clear => false,
    }
}

fn because(code: ReasonCode, sentence: &str) -> Reason {
    reason(RULE, code, sentence)
}
