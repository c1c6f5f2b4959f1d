//! # matron-policy: who may do what in a clinical room, and how we know
//!
//! A pure crate: no input or output, no async, no clock, no randomness. Time, keys and random bytes are
//! parameters; documents are bytes; a missing fact is a value. It can be read, tested and proved alone.
//!
//! ## Index of the house
//!
//! | you want to | go to |
//! |---|---|
//! | ask whether somebody may do something | [`decide()`], [`Request`], [`Facts`], [`PolicySet`], [`Verdict`] |
//! | turn an event into the question to ask | [`Action::of_event`], [`RoomFacts::from_state`], [`PersonFacts::gather`] |
//! | read or write one rule | `src/rules/`, one file per rule, listed in [`RuleId`] |
//! | set limits for a federation, an organisation, a kind of room | [`PolicyLayer`] |
//! | know what all layers together demand | [`EffectivePolicy`], [`PolicyRevision`] |
//! | bound one room | [`RoomPolicy`], and [`RoomPolicy::mirror`] for what other servers understand |
//! | know which organisations exist and which servers are theirs | [`SignedRegister`], [`VerifiedRegister`] |
//! | verify a clinician | [`Credential`], [`CredentialStatus`] |
//! | take a credential back, everywhere | [`RevocationNotice`], [`Revocations`] |
//! | keep a log that cannot be altered unseen | [`AuditEntry`], [`append`], [`verify_chain`] |
//! | tell a person what was decided, and why, or what a policy asks | [`explain()`] |
//! | hash or sign JSON | [`canonical`], [`keys`] |
//!
//! ## Three habits
//!
//! 1. **An ordinary room stays ordinary.** Without `org.matron.room.policy` in the room and without any
//!    layer in the deployment, everything that Matrix allows is permitted.
//! 2. **An error never permits.** In a clinical room a fact that is missing makes the verdict
//!    [`Outcome::Undetermined`]: ask again when it is there.
//! 3. **A way out is always open.** Leaving, removing somebody and redacting a message are always possible.
//!
//! ```
//! use matron_policy::{Action, Facts, Outcome, PolicySet, Principal, PrincipalKind, Request, Resource, decide};
//!
//! let request = Request {
//!     principal: Principal::new("@amira:trust-a.example", PrincipalKind::Clinician),
//!     action: Action::Join,
//!     resource: Resource::Room("!ward:trust-a.example".to_owned()),
//!     context: Default::default(),
//! };
//! // No layer, no room policy: a plain Matrix server.
//! let verdict = decide(&request, &Facts::ordinary(0), &PolicySet::default());
//! assert!(matches!(verdict.outcome(), Outcome::Permit(_)));
//! ```

pub mod audit;
pub mod canonical;
pub mod credential;
mod decide;
mod describe;
mod effective;
mod explain;
mod facts;
pub mod keys;
mod layer;
pub mod names;
mod of_event;
pub mod register;
mod request;
pub mod revision;
pub mod revocation;
pub mod room_policy;
mod rules;
mod verdict;
mod wording;

pub use audit::{
    AuditDraft, AuditEntry, AuditKind, BrokenChain, BrokenLink, ChainHead, DecisionId, DecisionIdError, RequestSummary,
    append, verify_chain, verify_chain_from,
};
pub use credential::{
    CREDENTIAL_FIELD, Credential, CredentialClaims, CredentialError, CredentialStatus, Forgery, OFFICER_ROLE,
    VerificationLevel,
};
pub use decide::{decide, decide_with};
pub use effective::{EffectivePolicy, PolicySet, RoomPolicyState};
pub use explain::{Explain, explain};
pub use facts::{
    Fact, Facts, Invitee, OrganisationFact, PersonFacts, RegisterStatus, RoomEncryption, RoomFacts, Unavailable,
};
pub use layer::{LayerError, PolicyLayer};
pub use register::{Organisation, Register, RegisterError, Revocation, SignedRegister, VerifiedRegister, accept};
pub use request::{
    Action, Context, Principal, PrincipalKind, RedactTarget, Request, Resource, StateChange, StateEffect,
};
pub use revision::{Digest, PolicyRevision};
pub use revocation::{RevocationError, RevocationNotice, Revocations};
pub use room_policy::{MEGOLM, Mirror, MirrorError, ROOM_POLICY_TYPE, RoomPolicy, RoomPolicyError};
pub use verdict::{Obligation, Outcome, Permit, Reason, ReasonCode, Refusal, RuleId, Verdict};
pub use wording::{Form, Words};

pub use ed25519_dalek::{SigningKey, VerifyingKey};
