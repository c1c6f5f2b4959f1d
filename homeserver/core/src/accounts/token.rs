//! Tokens: 256 random bits, kept as their hash only.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use matron_storage::Batch;
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a token is found by.
pub type TokenHash = [u8; 32];

/// A fresh token. `prefix` tells people who find one what it is.
pub(crate) fn fresh_token(prefix: &str) -> String {
    let bits: [u8; 32] = rand::random();
    format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(bits))
}

/// What all refresh tokens of one OAuth session have in common. Only its hash is stored: whoever shows it had one.
pub(crate) fn fresh_family() -> String {
    let bits: [u8; 16] = rand::random();
    URL_SAFE_NO_PAD.encode(bits)
}

/// The family of a refresh token, if it has one.
pub(crate) fn family_of(token: &str) -> Option<&str> {
    token.strip_prefix("mrt_")?.split_once('.').map(|(family, _)| family).filter(|family| family.len() == 22)
}

/// Lower-case letters and digits, for names and ids that people may have to type.
pub(crate) fn fresh_name(length: usize) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    (0..length)
        .filter_map(|_| LETTERS.get(usize::from(rand::random::<u8>() % 32)))
        .map(|letter| char::from(*letter))
        .collect()
}

/// The hash under which a token is stored. A token has 256 bits of its own, so that no salt is needed, and
/// looking a hash up tells no time about the token.
#[must_use]
pub(crate) fn hash_token(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// The row of an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccessToken {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
    /// When it ends, ms since the epoch; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at_ms: Option<u64>,
    /// Its first use retires the tokens before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) retires: bool,
}

/// The row of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefreshToken {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
}

/// What login, registration and refreshing give to a client.
#[derive(Clone, Serialize)]
pub struct Issued {
    /// Proves the user and the device.
    pub access_token: String,
    /// Gives the next access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// How long the access token lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Issued").field("expires_in_ms", &self.expires_in_ms).finish_non_exhaustive()
    }
}

/// Fresh tokens of a device, with the rows that make them valid.
pub(super) struct Minted {
    pub(super) issued: Issued,
    pub(super) access: TokenHash,
    pub(super) refresh: Option<TokenHash>,
}

/// Makes the tokens of a device and adds their rows to `batch`.
pub(super) fn mint(
    batch: &mut Batch,
    user_id: &ruma::UserId,
    device_id: &ruma::DeviceId,
    lifetime_ms: Option<u64>,
    now_ms: u64,
    retires: bool,
    family: Option<&str>,
) -> Result<Minted, crate::Error> {
    use crate::house::to_json;
    use matron_storage::Table;
    let access_token = fresh_token("mat");
    let access = hash_token(&access_token);
    let row = AccessToken {
        user_id: user_id.to_owned(),
        device_id: device_id.to_owned(),
        expires_at_ms: lifetime_ms.map(|lifetime| now_ms.saturating_add(lifetime)),
        retires,
    };
    batch.put(Table::TokenAccess, access, to_json(&row)?);
    let mut issued = Issued { access_token, refresh_token: None, expires_in_ms: lifetime_ms };
    let mut refresh = None;
    if lifetime_ms.is_some() {
        let token = match family {
            Some(family) => fresh_token("").replacen('_', &format!("mrt_{family}."), 1),
            None => fresh_token("mrt"),
        };
        let hash = hash_token(&token);
        let row = RefreshToken { user_id: user_id.to_owned(), device_id: device_id.to_owned() };
        batch.put(Table::TokenRefresh, hash, to_json(&row)?);
        issued.refresh_token = Some(token);
        refresh = Some(hash);
    }
    Ok(Minted { issued, access, refresh })
}
