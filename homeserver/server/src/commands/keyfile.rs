//! Key files of registers and organisations: the form of a Matrix signing key, mode 0600.

use std::path::Path;

use matron_policy::{SigningKey, VerifyingKey, keys};
use zeroize::Zeroizing;

use crate::{data, failure::Failure};

/// A secret key with the id under which its signatures are known.
pub(super) struct NamedKey {
    /// `ed25519:a_…`
    pub(super) id: String,
    /// Wiped when dropped.
    pub(super) key: SigningKey,
}

impl NamedKey {
    /// The public half in base64.
    pub(super) fn public(&self) -> String {
        keys::encode_verifying_key(&self.key.verifying_key())
    }
}

/// The key in a file; a new one when the file is missing.
///
/// # Errors
/// [`Failure::Data`] for a file that others can read, or that holds no key.
pub(super) fn load_or_create(path: &Path) -> Result<NamedKey, Failure> {
    named(&data::signing_key(path)?)
}

/// The key in a file, which must exist.
///
/// # Errors
/// As [`load_or_create`].
pub(super) fn load(path: &Path) -> Result<NamedKey, Failure> {
    if !path.exists() {
        return Err(Failure::Document(format!("there is no key file {}", path.display())));
    }
    load_or_create(path)
}

fn named(key: &matron_room::SigningKey) -> Result<NamedKey, Failure> {
    let file: Zeroizing<String> = key.to_key_file();
    let seed = file.split_ascii_whitespace().nth(2).unwrap_or_default();
    let secret = keys::decode_signing_key(seed).map_err(|error| Failure::Document(error.to_string()))?;
    Ok(NamedKey { id: key.key_id().to_owned(), key: secret })
}

/// Public keys from base64 texts.
///
/// # Errors
/// [`Failure::Document`] naming the text that is no key; it is public.
pub(super) fn public_keys<'a>(texts: impl IntoIterator<Item = &'a String>) -> Result<Vec<VerifyingKey>, Failure> {
    texts
        .into_iter()
        .map(|text| {
            let text = text.strip_prefix("ed25519:").unwrap_or(text);
            keys::decode_verifying_key(text)
                .map_err(|error| Failure::Document(format!("the public key {text}: {error}")))
        })
        .collect()
}
