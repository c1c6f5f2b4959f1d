//! Whoever joins and whoever speaks holds a current, signed, revocable credential.
//!
//! The bots and machines of a member organisation need none: the organisation answers for them in the register.
//! Staying in the room needs none that is current, but ends with one that was taken back or forged.

use super::{Case, Finding, reason, span};
use crate::credential::{Credential, CredentialStatus, Forgery};
use crate::request::Action;
use crate::verdict::{Reason, ReasonCode, RuleId};

const RULE: RuleId = RuleId::CurrentCredential;

pub(super) fn check(case: &Case<'_>) -> Finding {
    let layer = case.policy.layer();
    if !case.demands_credential() || matches!(case.act, Action::UploadMedia { .. }) {
        return Finding::Silent;
    }
    // SPEC: an invite at the door carries no credential of its sender; joining and speaking are judged when they come.
    if matches!(case.act, Action::FederatedInvite { .. }) {
        return Finding::Silent;
    }
    if case.is_organisations_machine() {
        return Finding::Pass(
            reason(RULE, ReasonCode::CredentialNotNeeded, "The organisation answers for its own bots and machines."),
            Vec::new(),
        );
    }
    let status = &case.facts.person.credential;
    match case.act {
        Action::Remain => stays(status),
        Action::Read if layer.unverified_may_read != Some(false) => Finding::Silent,
        _ => speaks(case, status),
    }
}

fn stays(status: &CredentialStatus) -> Finding {
    match status {
        CredentialStatus::Revoked { .. } | CredentialStatus::Forged(_) => refuse_status(status),
        CredentialStatus::Unverifiable => unverifiable(),
        CredentialStatus::Valid { .. } | CredentialStatus::Expired { .. } | CredentialStatus::Missing => {
            Finding::Silent
        }
    }
}

fn speaks(case: &Case<'_>, status: &CredentialStatus) -> Finding {
    match status {
        CredentialStatus::Valid { credential } => fits(case, credential),
        CredentialStatus::Unverifiable => unverifiable(),
        _ => refuse_status(status),
    }
}

fn fits(case: &Case<'_>, credential: &Credential) -> Finding {
    let layer = case.policy.layer();
    let refuse = |code, sentence: String| Finding::Refuse(because(code, sentence));
    if let Some(limit) = layer.credential_max_age_ms
        && case.facts.now_ms.saturating_sub(credential.checked_at_ms) > limit
    {
        return refuse(
            ReasonCode::CredentialTooOld,
            format!("This person's credential was last checked more than {} ago.", span(limit)),
        );
    }
    if layer.minimum_level.is_some_and(|least| credential.level < least) {
        return refuse(
            ReasonCode::LevelTooLow,
            "This person's credential does not verify as much as this room asks for.".to_owned(),
        );
    }
    if layer.professions.as_ref().is_some_and(|allowed| !allowed.contains(&credential.profession)) {
        return refuse(
            ReasonCode::ProfessionNotAllowed,
            "This room is for other professions than this person's.".to_owned(),
        );
    }
    if layer.roles.as_ref().is_some_and(|allowed| allowed.is_disjoint(&credential.roles)) {
        return refuse(ReasonCode::RoleNotAllowed, "This person holds none of the roles of this room.".to_owned());
    }
    let left_ms = credential.expires_at_ms.saturating_sub(case.facts.now_ms);
    Finding::Pass(
        because(
            ReasonCode::CredentialCurrent,
            format!(
                "This person's credential was issued by {} and holds for another {}.",
                credential.organisation,
                span(left_ms)
            ),
        ),
        Vec::new(),
    )
}

fn refuse_status(status: &CredentialStatus) -> Finding {
    let (code, sentence) = match status {
        CredentialStatus::Missing => {
            (ReasonCode::CredentialMissing, "This person has shown no credential of an organisation.")
        }
        CredentialStatus::Expired { .. } => {
            (ReasonCode::CredentialExpired, "This person's credential has expired and must be renewed.")
        }
        CredentialStatus::Revoked { .. } => {
            (ReasonCode::CredentialRevoked, "This person's organisation has taken the credential back.")
        }
        CredentialStatus::Forged(forgery) => (ReasonCode::CredentialForged, forgery_sentence(*forgery)),
        CredentialStatus::Valid { .. } | CredentialStatus::Unverifiable => return unverifiable(),
    };
    Finding::Refuse(because(code, sentence.to_owned()))
}

fn forgery_sentence(forgery: Forgery) -> &'static str {
    match forgery {
        Forgery::Unreadable => "The credential that this person has shown cannot be read.",
        Forgery::OtherPerson => "The credential that this person has shown was issued to somebody else.",
        Forgery::OtherOrganisation => {
            "The credential was issued by an organisation to which this person's server does not belong."
        }
        Forgery::UnknownOrganisation => "The credential was issued by an organisation that is not in the federation.",
        Forgery::UnknownKey => "The credential was signed with a key that its organisation does not have.",
        Forgery::BadSignature => "The credential was altered: its signature does not fit.",
        Forgery::FromTheFuture => "The credential says that it was checked in the future.",
    }
}

fn unverifiable() -> Finding {
    Finding::Unclear(because(
        ReasonCode::CredentialUnverifiable,
        "This person's credential cannot be verified at the moment.".to_owned(),
    ))
}

fn because(code: ReasonCode, sentence: String) -> Reason {
    reason(RULE, code, sentence)
}
