//! The answer: permit, deny or not yet; always with reasons.

use serde::{Deserialize, Serialize};

use crate::revision::{Digest, PolicyRevision};

/// What the rules say together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It may be done, and these duties come with it.
    Permit(Vec<Obligation>),
    /// It may not be done.
    Deny,
    /// A fact is missing. Ask again when it is there; until then it may not be done.
    Undetermined,
}

/// What whoever carries out a permitted act must see to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Obligation {
    /// The message dies this long after the earlier of sending and receipt.
    Expire {
        /// In milliseconds.
        after_ms: u64,
    },
    /// The room that is created is told this lifetime: `max_lifetime` of `m.room.retention`. The create event itself
    /// does not expire.
    SetLifetime {
        /// In milliseconds.
        max_ms: u64,
    },
    /// The room is to be encrypted from its first message on.
    Encrypt,
    /// Room keys are used no longer than this: `rotation_period_ms` of `m.room.encryption`.
    RotateKeys {
        /// In milliseconds.
        every_ms: u64,
    },
    /// The room must be created with `m.federate: false`.
    StayLocal,
    /// The content of what was redacted is destroyed within this time.
    EraseRedacted {
        /// In milliseconds.
        within_ms: u64,
    },
}

/// The rules. Each has a file of its own in `src/rules/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleId {
    /// Without any policy all is permitted.
    OrdinaryRoom,
    /// Leaving, removing and redacting are always possible.
    WayOut,
    /// A room whose policy cannot be read stands still.
    PolicyReadable,
    /// The register must be current.
    RegisterCurrent,
    /// A room belongs to named organisations.
    OrganisationBounds,
    /// Nobody is invited who is known by an address alone.
    KnownInvitee,
    /// A room that may not federate stays on its server.
    FederationScope,
    /// Who creates rooms.
    RoomCreation,
    /// Joining and speaking need a current credential.
    CurrentCredential,
    /// Messages must be encrypted.
    EncryptionRequired,
    /// Messages must have a lifetime.
    LifetimeRequired,
    /// The state that holds the policy up may not be torn down.
    ProtectedState,
    /// Files have a largest size.
    MediaSize,
}

/// Why. A closed list, for machines; the sentence beside it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    // What speaks for it.
    /// Neither the room nor the deployment has a policy.
    RoomIsOrdinary,
    /// The act is always possible.
    AlwaysPossible,
    /// The organisation is one of the room's.
    OrganisationBelongs,
    /// The credential is current.
    CredentialCurrent,
    /// The organisation's bot or machine needs no credential.
    CredentialNotNeeded,
    /// The message is encrypted.
    MessageEncrypted,
    /// The message will expire.
    LifetimeSet,
    /// A governance bot or an officer changes the room's policy.
    ChangedByGovernance,
    /// The change takes nothing away from the room's protection.
    ChangeIsHarmless,
    /// The creator may create rooms.
    CreatorAllowed,
    /// The file is small enough.
    MediaFits,
    /// The register has expired, and the grace that the deployment gives has not.
    RegisterGrace,

    // What speaks against it.
    /// The server belongs to no organisation of the register.
    OutsideFederation,
    /// The organisation is not one of the room's.
    OutsideRoom,
    /// The organisation is in a jurisdiction that is not allowed.
    OutsideJurisdiction,
    /// The invited person's server belongs to no organisation of the register.
    InviteeOutsideFederation,
    /// The invited person's organisation is not one of the room's.
    InviteeOutsideRoom,
    /// The invited person's organisation is in a jurisdiction that is not allowed.
    InviteeOutsideJurisdiction,
    /// The invited person is known by an address alone.
    InviteeUnknown,
    /// The room may not reach other servers.
    FederationForbidden,
    /// Only a governance bot may create the room.
    CreatorNotGovernance,
    /// No credential.
    CredentialMissing,
    /// The credential has expired.
    CredentialExpired,
    /// The credential was taken back.
    CredentialRevoked,
    /// The credential is not what it says it is.
    CredentialForged,
    /// The credential was checked too long ago.
    CredentialTooOld,
    /// The credential verifies less than is needed.
    LevelTooLow,
    /// The profession is not allowed.
    ProfessionNotAllowed,
    /// No role that is allowed.
    RoleNotAllowed,
    /// The message is not encrypted.
    MessageNotEncrypted,
    /// Words would go with an act, which cannot be encrypted.
    WordsInTheClear,
    /// A state event of a type that is not known would hold words, which cannot be encrypted.
    StateInTheClear,
    /// The room is not encrypted.
    RoomNotEncrypted,
    /// The room's encryption is none that counts.
    EncryptionTooWeak,
    /// Messages have no lifetime.
    LifetimeMissing,
    /// The lifetime is longer than allowed.
    LifetimeTooLong,
    /// The lifetime is zero.
    LifetimeZero,
    /// Only a governance bot or an officer may change this.
    NotGovernance,
    /// The room policy in the event cannot be read.
    PolicyMalformed,
    /// The room would be open to anybody.
    RoomWouldBeOpen,
    /// The history would be open to anybody.
    HistoryWouldBeOpen,
    /// Guests would be let in.
    GuestsWouldEnter,
    /// The file is too large.
    MediaTooLarge,

    // What is missing.
    /// The room's policy cannot be read.
    PolicyUnavailable,
    /// There is no register.
    RegisterMissing,
    /// The register has expired.
    RegisterStale,
    /// The organisation cannot be told.
    OrganisationUnavailable,
    /// The invited person's organisation cannot be told.
    InviteeUnavailable,
    /// The credential cannot be verified now.
    CredentialUnverifiable,
    /// Whether the room is encrypted cannot be told.
    EncryptionUnavailable,
    /// The room's lifetime cannot be told.
    LifetimeUnavailable,
}

/// One rule's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The rule.
    pub rule: RuleId,
    /// Why, for machines.
    pub code: ReasonCode,
    /// Why, for people. Never holds message content, nor anything else that a sender could have written.
    pub sentence: String,
}

/// The answer to one request. Only [`crate::decide()`] makes one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    outcome: Outcome,
    reasons: Vec<Reason>,
    revision: PolicyRevision,
    request: Digest,
}

impl Verdict {
    pub(crate) fn new(outcome: Outcome, reasons: Vec<Reason>, revision: PolicyRevision, request: Digest) -> Self {
        Self { outcome, reasons, revision, request }
    }

    /// Permit, deny or not yet.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Why: for a permit what spoke for it, else what stands in the way. Never empty.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// Which policy said so.
    #[must_use]
    pub fn revision(&self) -> PolicyRevision {
        self.revision
    }

    /// The digest of the request that was judged: see [`crate::Request::digest`].
    #[must_use]
    pub fn request_digest(&self) -> Digest {
        self.request
    }

    /// Whether it may be done.
    #[must_use]
    pub fn is_permit(&self) -> bool {
        matches!(self.outcome, Outcome::Permit(_))
    }

    /// Whether a fact is missing: worth asking again.
    #[must_use]
    pub fn is_undetermined(&self) -> bool {
        self.outcome == Outcome::Undetermined
    }

    /// The duties that come with a permit; none otherwise.
    #[must_use]
    pub fn obligations(&self) -> &[Obligation] {
        match &self.outcome {
            Outcome::Permit(obligations) => obligations,
            Outcome::Deny | Outcome::Undetermined => &[],
        }
    }

    /// How long after sending the message dies, in milliseconds, if it does.
    #[must_use]
    pub fn expire_after_ms(&self) -> Option<u64> {
        self.obligations().iter().find_map(|obligation| match obligation {
            Obligation::Expire { after_ms } => Some(*after_ms),
            _ => None,
        })
    }

    /// The reasons in one line, for the `error` of a refusal.
    #[must_use]
    pub fn sentence(&self) -> String {
        self.reasons.iter().map(|reason| reason.sentence.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// The permit, which nothing else can make; or the refusal.
    ///
    /// # Errors
    /// The [`Refusal`], if it may not be done, now or at all.
    pub fn into_permit(self) -> Result<Permit, Refusal> {
        if self.is_permit() { Ok(Permit(self)) } else { Err(Refusal(self)) }
    }
}

/// Proof that policy permitted the request with this digest. It cannot be cloned, so one permit carries one act.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit(Verdict);

impl Permit {
    /// The verdict behind it.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.0
    }

    /// Whether it is for this request.
    #[must_use]
    pub fn is_for(&self, request: &crate::Request) -> bool {
        self.0.request == request.digest()
    }

    /// The duties that come with it.
    #[must_use]
    pub fn obligations(&self) -> &[Obligation] {
        self.0.obligations()
    }
}

/// Policy refused, now or at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(Verdict);

impl Refusal {
    /// The verdict behind it.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.0
    }

    /// Whether it is worth asking again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.is_undetermined()
    }
}
