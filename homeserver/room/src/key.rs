//! Ed25519 keys: the server's own, and other servers'.
//!
//! Spec: <https://spec.matrix.org/v1.19/appendices/#cryptographic-key-representation>.

use std::fmt;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD_NO_PAD},
};
use ed25519_dalek::Signer as _;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

/// Reads unpadded base64, and padded too: both are met in the wild.
pub(crate) const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Why key material was refused. No variant holds any of it.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// A key file line is not `ed25519 <name> <base64 seed>`.
    #[error("not a signing key of the form `ed25519 <name> <base64>`")]
    NotAKeyLine,
    /// The algorithm is not `ed25519`.
    #[error("the signing key's algorithm is not ed25519")]
    Algorithm,
    /// The key's name has characters outside `[a-zA-Z0-9_]`, or is empty or longer than 64.
    #[error("the signing key's name is not 1 to 64 letters, digits and underscores")]
    Name,
    /// The base64 does not decode to 32 bytes.
    #[error("the key is not 32 bytes in base64")]
    Length,
}

/// Our ed25519 key with its key id. The seed is wiped on drop and never printed.
#[derive(Clone)]
pub struct SigningKey {
    key_id: String,
    key: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// The key made of this seed, under the id `ed25519:<name>`.
    ///
    /// # Errors
    /// [`KeyError::Name`].
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
            return Err(KeyError::Name);
        }
        Ok(Self { key_id: format!("ed25519:{name}"), key: ed25519_dalek::SigningKey::from_bytes(seed) })
    }

    /// A fresh key from 32 random bytes, named after its public half (`a_` and eight hex digits).
    pub fn generate(mut random: [u8; 32]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(&random);
        random.zeroize();
        let digest = Sha256::digest(key.verifying_key().as_bytes());
        let name: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Self { key_id: format!("ed25519:a_{name}"), key }
    }

    /// The key that a key file of the form `ed25519 <name> <base64 seed>` holds; blank lines around it are ignored.
    ///
    /// # Errors
    /// [`KeyError`], by what is wrong with the line.
    pub fn from_key_file(text: &str) -> Result<Self, KeyError> {
        let line = text.lines().map(str::trim).find(|line| !line.is_empty()).ok_or(KeyError::NotAKeyLine)?;
        let mut words = line.split_ascii_whitespace();
        let (Some(algorithm), Some(name), Some(seed), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(KeyError::NotAKeyLine);
        };
        if algorithm != "ed25519" {
            return Err(KeyError::Algorithm);
        }
        let bytes = Zeroizing::new(LENIENT.decode(seed).map_err(|_undecodable| KeyError::Length)?);
        let seed: Zeroizing<[u8; 32]> =
            Zeroizing::new(bytes.as_slice().try_into().map_err(|_wrong_length| KeyError::Length)?);
        Self::from_seed(name, &seed)
    }

    /// The key file's line, with a line feed. The caller writes it with mode 0600.
    pub fn to_key_file(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(self.key.to_bytes());
        let encoded = Zeroizing::new(STANDARD_NO_PAD.encode(seed.as_slice()));
        let name = self.key_id.strip_prefix("ed25519:").unwrap_or_default();
        Zeroizing::new(format!("ed25519 {name} {}\n", encoded.as_str()))
    }

    /// The key's id, `ed25519:<name>`.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public half.
    pub fn verify_key(&self) -> VerifyKey {
        let key = self.key.verifying_key();
        VerifyKey { bytes: key.to_bytes(), point: Some(key) }
    }

    /// The signature of these bytes, in unpadded base64.
    pub fn sign_bytes(&self, message: &[u8]) -> String {
        STANDARD_NO_PAD.encode(self.key.sign(message).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Somebody's public ed25519 key.
#[derive(Clone, Copy)]
pub struct VerifyKey {
    bytes: [u8; 32],
    /// What verifies, worked out once for all the signatures of a key; none if the bytes are no point.
    point: Option<ed25519_dalek::VerifyingKey>,
}

impl VerifyKey {
    /// The key of these bytes; bytes that are no point of the curve are a key that verifies nothing.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { bytes, point: ed25519_dalek::VerifyingKey::from_bytes(&bytes).ok() }
    }

    /// The key that this base64 spells, padded or not.
    ///
    /// # Errors
    /// [`KeyError::Length`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = LENIENT.decode(text).map_err(|_undecodable| KeyError::Length)?;
        Ok(Self::from_bytes(bytes.as_slice().try_into().map_err(|_wrong_length| KeyError::Length)?))
    }

    /// The key in unpadded base64, as in `/_matrix/key/v2/server`.
    pub fn to_base64(&self) -> String {
        STANDARD_NO_PAD.encode(self.bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Whether the base64 signature is this key's over the message. Small-order points are refused.
    pub fn verifies(&self, message: &[u8], signature_base64: &str) -> bool {
        let Ok(bytes) = LENIENT.decode(signature_base64) else {
            return false;
        };
        let Ok(bytes) = <[u8; 64]>::try_from(bytes.as_slice()) else {
            return false;
        };
        let signature = ed25519_dalek::Signature::from_bytes(&bytes);
        self.point.is_some_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

impl PartialEq for VerifyKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for VerifyKey {}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyKey({})", self.to_base64())
    }
}
