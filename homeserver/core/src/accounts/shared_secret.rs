//! Registering with a secret that the operator shares with tools: `/_synapse/admin/v1/register`.

use std::{collections::HashMap, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use subtle::ConstantTimeEq;

use super::{Register, Registered, token::fresh_name};
use crate::{Core, Error};

/// How long a nonce is good, ms.
const NONCE_LIFETIME_MS: u64 = 60_000;

/// How many nonces are remembered.
const MAX_NONCES: usize = 1_000;

/// Nonces given out and not used, with their end.
pub(super) type Nonces = HashMap<String, u64>;

/// The body of `POST /_synapse/admin/v1/register`.
#[derive(Clone, serde::Deserialize)]
pub struct SharedSecretRegister {
    /// From the GET.
    pub nonce: String,
    /// The localpart.
    pub username: String,
    /// The password.
    pub password: String,
    /// Whether the account may use the admin API.
    #[serde(default)]
    pub admin: bool,
    /// Synapse's user type, part of the MAC.
    pub user_type: Option<String>,
    /// The profile's name.
    pub displayname: Option<String>,
    /// Hex HMAC-SHA1 over nonce, name, password, `admin` or `notadmin` (and the type), joined by zero bytes.
    pub mac: String,
    /// No session is wanted.
    #[serde(default)]
    pub inhibit_login: bool,
}

impl std::fmt::Debug for SharedSecretRegister {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SharedSecretRegister").finish_non_exhaustive()
    }
}

impl Core {
    /// A nonce, good once and for a minute.
    ///
    /// # Errors
    /// `M_UNRECOGNIZED` where no secret is set; `M_LIMIT_EXCEEDED` for too many at once.
    pub fn shared_secret_nonce(&self) -> Result<String, Error> {
        if self.settings.registration.shared_secret.is_none() {
            return Err(Error::Unrecognized);
        }
        let now_ms = self.now_ms();
        let mut nonces = self.accounts.nonces.lock();
        nonces.retain(|_, end| *end > now_ms);
        if nonces.len() >= MAX_NONCES {
            return Err(Error::LimitExceeded { retry_after_ms: NONCE_LIFETIME_MS });
        }
        let nonce = fresh_name(32);
        nonces.insert(nonce.clone(), now_ms.saturating_add(NONCE_LIFETIME_MS));
        Ok(nonce)
    }

    /// The account exists as the holder of the secret wished, whoever else may register.
    ///
    /// # Errors
    /// `M_UNRECOGNIZED` where no secret is set; `M_UNKNOWN` for a nonce that is not known; `M_FORBIDDEN` for a wrong MAC.
    pub async fn register_by_shared_secret(
        self: &Arc<Self>,
        request: SharedSecretRegister,
    ) -> Result<Registered, Error> {
        let Some(secret) = &self.settings.registration.shared_secret else { return Err(Error::Unrecognized) };
        let known = self.accounts.nonces.lock().remove(&request.nonce).is_some_and(|end| end > self.now_ms());
        if !known {
            return Err(Error::Unknown("this nonce is not known".into()));
        }
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes())
            .map_err(|_| Error::internal("the shared secret cannot be a key"))?;
        let admin = if request.admin { "admin" } else { "notadmin" };
        let mut parts = vec![request.nonce.as_str(), &request.username, &request.password, admin];
        parts.extend(request.user_type.as_deref());
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                mac.update(&[0]);
            }
            mac.update(part.as_bytes());
        }
        let expected = lower_hex(&mac.finalize().into_bytes());
        if !bool::from(expected.as_bytes().ct_eq(request.mac.to_ascii_lowercase().as_bytes())) {
            return Err(Error::forbidden("the MAC is wrong"));
        }
        let user = self.create_user(&request.username, Some(&request.password), request.admin).await?;
        if let Some(name) = request.displayname {
            self.set_profile_field(&user, "displayname", Some(name.into())).await?;
        }
        let session = Register { inhibit_login: request.inhibit_login, ..Register::default() };
        self.first_session(user, session).await
    }
}

fn lower_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
