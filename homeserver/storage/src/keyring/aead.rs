//! AES-256-GCM, in place.

use aes_gcm::{AeadInOut as _, Aes256Gcm, KeyInit as _, Nonce, Tag};

use super::KeyRingError;

pub(super) const KEY_BYTES: usize = 32;
pub(super) const NONCE_BYTES: usize = 12;
pub(super) const TAG_BYTES: usize = 16;

/// A key ready for use; wiped when dropped.
pub(super) struct Cipher(Aes256Gcm);

impl Cipher {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(Aes256Gcm::new(key.into()))
    }

    /// `body` is encrypted; its tag.
    pub(super) fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        body: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], KeyRingError> {
        let nonce = Nonce::from(*nonce);
        self.0.encrypt_inout_detached(&nonce, aad, body.into()).map(Into::into).map_err(|_| KeyRingError::Tampered)
    }

    /// `body` is decrypted, or untouched if anything was changed.
    pub(super) fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), KeyRingError> {
        let (nonce, tag) = (Nonce::from(*nonce), Tag::from(*tag));
        self.0.decrypt_inout_detached(&nonce, aad, body.into(), &tag).map_err(|_| KeyRingError::Tampered)
    }
}
