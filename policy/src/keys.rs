//! Ed25519 keys and detached signatures over canonical JSON.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use thiserror::Error;

/// Unpadded base64 as Matrix writes it; padding is tolerated when reading.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a text is no usable key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not base64.
    #[error("the key is not base64")]
    NotBase64,
    /// Not 32 bytes.
    #[error("an ed25519 key has 32 bytes")]
    WrongLength,
    /// 32 bytes that are no point on the curve, or a weak one that would accept many signatures.
    #[error("the bytes are no sound ed25519 key")]
    NotAKey,
}

/// The public key that the base64 text holds.
///
/// # Errors
/// A [`KeyError`] if it holds none, or a weak one.
pub fn decode_verifying_key(text: &str) -> Result<VerifyingKey, KeyError> {
    let bytes = decode_32(text)?;
    let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::NotAKey)?;
    if key.is_weak() { Err(KeyError::NotAKey) } else { Ok(key) }
}

/// The public key as unpadded base64.
#[must_use]
pub fn encode_verifying_key(key: &VerifyingKey) -> String {
    BASE64.encode(key.as_bytes())
}

/// The secret key whose seed the base64 text holds. The key zeroises itself when dropped.
///
/// # Errors
/// A [`KeyError`] if it holds none.
pub fn decode_signing_key(text: &str) -> Result<SigningKey, KeyError> {
    Ok(SigningKey::from_bytes(&decode_32(text)?))
}

/// The name of a key that stands for itself: `ed25519:` and the public key in base64.
#[must_use]
pub fn self_named_key_id(key: &VerifyingKey) -> String {
    format!("ed25519:{}", encode_verifying_key(key))
}

pub(crate) fn sign(key: &SigningKey, message: &[u8]) -> String {
    BASE64.encode(key.sign(message).to_bytes())
}

pub(crate) fn verify(key: &VerifyingKey, message: &[u8], signature: &str) -> bool {
    let Ok(bytes) = BASE64.decode(signature) else {
        return false;
    };
    let Ok(signature) = Signature::from_slice(&bytes) else {
        return false;
    };
    key.verify_strict(message, &signature).is_ok()
}

fn decode_32(text: &str) -> Result<[u8; 32], KeyError> {
    let bytes = BASE64.decode(text.trim()).map_err(|_| KeyError::NotBase64)?;
    bytes.try_into().map_err(|_| KeyError::WrongLength)
}
