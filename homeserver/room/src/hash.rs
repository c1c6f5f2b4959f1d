//! Content hashes and reference hashes.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#calculating-the-content-hash-for-an-event>.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use ruma::{CanonicalJsonObject, room_version_rules::EventIdFormatVersion};
use sha2::{Digest, Sha256};

use crate::{
    canonical::{CanonicalError, print_event},
    version::RoomVersion,
};

/// The SHA-256 of the event without `unsigned`, `signatures` and `hashes`.
///
/// # Errors
/// [`CanonicalError::NotJson`] if the object cannot be printed.
pub fn content_hash(event: &CanonicalJsonObject, version: &RoomVersion) -> Result<[u8; 32], CanonicalError> {
    let text = print_event(event, version, &["hashes", "signatures", "unsigned"], false)?;
    Ok(Sha256::digest(text.as_bytes()).into())
}

/// The SHA-256 of the redacted event without `unsigned` and `signatures`, in the alphabet of the version's event ids.
///
/// # Errors
/// [`CanonicalError::NotAnEvent`] when `type` is missing.
pub fn reference_hash(event: &CanonicalJsonObject, version: &RoomVersion) -> Result<String, CanonicalError> {
    Ok(reference_hash_of(&print_event(event, version, &["signatures", "unsigned"], true)?, version))
}

/// As [`reference_hash`], of the text that is signed of the event, which is the same.
pub(crate) fn reference_hash_of(signing_text: &str, version: &RoomVersion) -> String {
    let digest = Sha256::digest(signing_text.as_bytes());
    match version.rules.event_id_format {
        EventIdFormatVersion::V1 | EventIdFormatVersion::V2 => STANDARD_NO_PAD.encode(digest),
        _ => URL_SAFE_NO_PAD.encode(digest),
    }
}
