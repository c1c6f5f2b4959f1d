//! Matrix events without IO: formats, hashes, signatures, redaction, authorisation and state resolution.
//!
//! The crate knows no clock, no runtime, no network and no storage; whatever it needs to look up arrives as a closure,
//! whatever is random arrives as bytes. An event travels `UncheckedPdu` → `SignedPdu` → [`Pdu`]; our own travel
//! [`DraftPdu`] → [`Pdu`]. Only those steps construct a `Pdu`, so holding one means that its id was computed here.
//!
//! Spec: <https://spec.matrix.org/v1.19/rooms/>, <https://spec.matrix.org/v1.19/server-server-api/#pdus>.

mod auth;
mod auth_types;
mod canonical;
mod client;
mod draft;
mod format;
mod hash;
mod key;
mod lenient;
mod membership;
mod pdu;
mod power_levels;
mod raw;
mod resolve;
mod resolve_v1;
mod sign;
mod template;
mod unchecked;
mod version;
mod wire;

pub use self::{
    auth::{AuthError, AuthEvent, check_auth, check_state_independent},
    auth_types::auth_types_for,
    canonical::{CanonicalError, canonical_json, canonical_object, canonical_value, parse_canonical, redact_object},
    client::{Unsigned, client_event, stripped_event, sync_event, write_client_event},
    draft::{CreateNonce, DraftPdu, SealError},
    format::{FormatError, MAX_AUTH_EVENTS, MAX_ID_BYTES, MAX_PDU_BYTES, MAX_PREV_EVENTS},
    hash::{content_hash, reference_hash},
    key::{KeyError, SigningKey, VerifyKey},
    membership::{HistoryVisibility, JoinRule, Membership},
    pdu::{ContentError, Pdu, PduError},
    power_levels::{PowerLevels, UserLevel},
    resolve::{ResolveError, StateKey, StateMap, resolve},
    sign::{KeySource, SignatureError, sign_json, verify_json_signature},
    template::TemplateError,
    unchecked::{ContentState, SignedPdu, UncheckedPdu},
    version::RoomVersion,
};
pub use ruma::{CanonicalJsonObject, CanonicalJsonValue, RoomVersionId};
