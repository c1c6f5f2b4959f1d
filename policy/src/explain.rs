//! Decisions in plain words, for a nurse and for an auditor.

use std::fmt::Write as _;

use crate::audit::{AuditEntry, AuditKind, RequestSummary};
use crate::rules::span;
use crate::verdict::{Obligation, Outcome, Reason, Verdict};

/// Something that can be told in plain words.
pub trait Explain {
    /// The text: a few lines, no message content.
    fn explain(&self) -> String;
}

/// What was decided, and why, in plain words.
#[must_use]
pub fn explain<E: Explain + ?Sized>(what: &E) -> String {
    what.explain()
}

impl Explain for Verdict {
    fn explain(&self) -> String {
        let mut text = String::new();
        tell_outcome(&mut text, self.outcome(), self.reasons());
        let _ = write!(text, "\nPolicy revision {}.", self.revision().short());
        text
    }
}

impl Explain for AuditEntry {
    fn explain(&self) -> String {
        let mut text = format!("{} at {}: ", self.decision_id, utc(self.at_ms));
        match &self.kind {
            AuditKind::Decision { request, outcome, reasons, .. } => {
                tell_request(&mut text, request);
                text.push('\n');
                tell_outcome(&mut text, outcome, reasons);
            }
            other => tell_act(&mut text, other),
        }
        if let Some(revision) = &self.revision {
            let _ = write!(text, "\nPolicy revision {}.", revision.short());
        }
        let _ = write!(text, "\nEntry {} of the audit log, hash {}.", self.seq, self.hash.short());
        text
    }
}

fn tell_request(text: &mut String, request: &RequestSummary) {
    let what = match request.action.as_str() {
        "create_room" => "create a room",
        "invite" | "federated_invite" => "invite",
        "join" | "federated_join" => "join",
        "knock" | "federated_knock" => "ask to be let in",
        "leave" => "leave",
        "remove" => "remove",
        "remain" => "stay",
        "send" => "send a message",
        "send_state" => "change the room",
        "redact" => "take something back",
        "upload_media" => "upload a file",
        "read" => "read",
        _ => "do something",
    };
    let _ = write!(text, "{} wanted to {what}", request.user_id);
    if let Some(target) = &request.target {
        let _ = write!(text, " {target}");
    }
    if let Some(event_type) = &request.event_type {
        let _ = write!(text, " ({event_type})");
    }
    if let Some(room_id) = &request.room_id {
        let _ = write!(text, " in room {room_id}");
    }
    if request.federated {
        text.push_str(", from another server");
    }
    text.push('.');
}

fn tell_outcome(text: &mut String, outcome: &Outcome, reasons: &[Reason]) {
    text.push_str(match outcome {
        Outcome::Permit(_) => "Permitted:",
        Outcome::Deny => "Refused:",
        Outcome::Undetermined => "Not decided, because something is not known yet:",
    });
    for reason in reasons {
        let _ = write!(text, "\n- {} [{}: {}]", reason.sentence, word(&reason.rule), word(&reason.code));
    }
    if let Outcome::Permit(obligations) = outcome {
        for obligation in obligations {
            let _ = write!(text, "\n+ {}", duty(obligation));
        }
    }
}

fn duty(obligation: &Obligation) -> String {
    match obligation {
        Obligation::Expire { after_ms } => {
            format!("The message must be destroyed after {}.", span(*after_ms))
        }
        Obligation::SetLifetime { max_ms } => {
            format!("The room must have a lifetime of {} at most.", span(*max_ms))
        }
        Obligation::Encrypt => "The room must be encrypted.".to_owned(),
        Obligation::RotateKeys { every_ms } => {
            format!("Room keys must be changed every {}.", span(*every_ms))
        }
        Obligation::StayLocal => "The room must stay on this server.".to_owned(),
        Obligation::EraseRedacted { within_ms } => {
            format!("What was taken back must be destroyed within {}.", span(*within_ms))
        }
    }
}

fn tell_act(text: &mut String, kind: &AuditKind) {
    let _ = match kind {
        AuditKind::Decision { request, .. } => {
            tell_request(text, request);
            Ok(())
        }
        AuditKind::Deletion { room_id, events, media, up_to_ms, key_destroyed } => write!(
            text,
            "{events} message(s) and {media} file(s) of room {room_id} that expired up to {} were destroyed{}.",
            utc(*up_to_ms),
            if *key_destroyed { ", and the key to every copy of them" } else { "" }
        ),
        AuditKind::Eviction { room_id, user_id, code } => {
            write!(text, "{user_id} was removed from room {room_id} [{}].", word(code))
        }
        AuditKind::Revocation { organisation, serial } => {
            write!(text, "Organisation {organisation} took credential {serial} back.")
        }
        AuditKind::RegisterAccepted { version, digest } => {
            write!(text, "Federation register version {version} ({}) came into use.", digest.short())
        }
        AuditKind::PolicyChanged { room_id, to, changed_by, .. } => match room_id {
            Some(room_id) => write!(text, "{changed_by} changed the policy of room {room_id} to {}.", to.short()),
            None => write!(text, "{changed_by} changed this server's policy to {}.", to.short()),
        },
        AuditKind::OperatorAct { operator, act, target } => match target {
            Some(target) => write!(text, "Operator {operator}: {act} {target}."),
            None => write!(text, "Operator {operator}: {act}."),
        },
    };
}

/// The word by which JSON knows a rule or code.
fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// `2026-11-21 20:13:06 UTC`.
fn utc(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // The calendar repeats after 400 years, so at most 400 are counted one by one.
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let mut year = 1970 + days / DAYS_IN_400_YEARS * 400;
    let mut rest = days % DAYS_IN_400_YEARS;
    while rest >= 365 + leap_day(year) {
        rest -= 365 + leap_day(year);
        year += 1;
    }
    let lengths = [31, 28 + leap_day(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

/// 1 in a leap year, else 0.
fn leap_day(year: u64) -> u64 {
    u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)))
}
