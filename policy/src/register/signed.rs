//! Signing a register, and verifying one.

use std::collections::BTreeMap;

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{MAX_REGISTER_BYTES, REGISTER_TYPE, Register, RegisterError, VerifiedRegister};
use crate::canonical;
use crate::keys;
use crate::revision::Digest;

/// A register with signatures, as it is written to a file or served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRegister {
    document: Map<String, Value>,
}

impl SignedRegister {
    /// The register signed by each of the keys.
    ///
    /// # Errors
    /// Whatever would make the register useless to its readers: see [`RegisterError`].
    pub fn sign(register: &Register, signers: &[&SigningKey]) -> Result<Self, RegisterError> {
        register.check_consistency()?;
        let Value::Object(mut document) = serde_json::to_value(register).map_err(RegisterError::Unreadable)? else {
            return Err(RegisterError::NotARegister);
        };
        let payload = canonical::of(&document).map_err(RegisterError::Corrupt)?;
        let signatures: BTreeMap<String, String> = signers
            .iter()
            .map(|signer| (keys::self_named_key_id(&signer.verifying_key()), keys::sign(signer, &payload)))
            .collect();
        if signatures.is_empty() {
            return Err(RegisterError::Unsigned);
        }
        document.insert("signatures".to_owned(), serde_json::to_value(signatures).map_err(RegisterError::Unreadable)?);
        Ok(Self { document })
    }

    /// The document in canonical JSON.
    ///
    /// # Errors
    /// [`RegisterError::Corrupt`] if it holds a number beyond 2^53.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RegisterError> {
        canonical::of(&self.document).map_err(RegisterError::Corrupt)
    }

    /// The register that the bytes hold, if one of the trusted keys signed it.
    ///
    /// Whether it is current is another question: see [`VerifiedRegister::check_current`].
    ///
    /// # Errors
    /// A [`RegisterError`] that says whether the document is corrupt, unsigned, foreign, altered or inconsistent.
    pub fn verify(bytes: &[u8], trusted: &[VerifyingKey]) -> Result<VerifiedRegister, RegisterError> {
        let document = canonical::parse(bytes, MAX_REGISTER_BYTES).map_err(RegisterError::Corrupt)?;
        let Value::Object(mut document) = document else {
            return Err(RegisterError::NotARegister);
        };
        if document.get("type").and_then(Value::as_str) != Some(REGISTER_TYPE) {
            return Err(RegisterError::NotARegister);
        }
        let Some(Value::Object(signatures)) = document.remove("signatures") else {
            return Err(RegisterError::Unsigned);
        };
        let document = Value::Object(document);
        let payload = canonical::to_bytes(&document).map_err(RegisterError::Corrupt)?;
        check_signatures(&payload, &signatures, trusted)?;
        let register = Register::deserialize(&document).map_err(RegisterError::Unreadable)?;
        VerifiedRegister::index(register, Digest::of(&payload))
    }
}

/// INVARIANT: one good signature of a trusted key suffices; a bad one of a trusted key is never passed over.
fn check_signatures(
    payload: &[u8],
    signatures: &Map<String, Value>,
    trusted: &[VerifyingKey],
) -> Result<(), RegisterError> {
    if signatures.is_empty() {
        return Err(RegisterError::Unsigned);
    }
    let mut vouched = false;
    for key in trusted {
        let key_id = keys::self_named_key_id(key);
        let Some(signature) = signatures.get(&key_id) else {
            continue;
        };
        if !signature.as_str().is_some_and(|text| keys::verify(key, payload, text)) {
            return Err(RegisterError::BadSignature { key_id });
        }
        vouched = true;
    }
    if vouched { Ok(()) } else { Err(RegisterError::Foreign { named: signatures.len() }) }
}
