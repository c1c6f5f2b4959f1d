//! Passwords: Argon2id on threads of their own, a bounded number at a time.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use zeroize::Zeroizing;

use crate::{Core, Error};

/// The longest password, bytes: longer ones only buy computing time.
const MAX_PASSWORD_BYTES: usize = 512;

/// A hash of nothing in particular, so that unknown users take as long as known ones.
const DECOY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bWF0cm9uLWRlY295LXNhbHQ$FvZ2cWAkEJVLIu0CZ6TUlcBtJbbs1FV2lDfJxgrKnJo";

/// Parameters for hashing. SPEC: OWASP's first choice for Argon2id: 19 MiB, two passes, one lane.
fn hasher(cheap: bool) -> Result<Argon2<'static>, Error> {
    let params = if cheap { Params::new(8, 1, 1, None) } else { Params::new(19_456, 2, 1, None) };
    let params = params.map_err(|error| Error::internal(format!("the parameters of Argon2 are wrong: {error}")))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

impl Core {
    /// The PHC form of a password's hash.
    ///
    /// # Errors
    /// `M_WEAK_PASSWORD` for an empty or overlong password.
    pub(super) async fn hash_password(&self, password: &str) -> Result<String, Error> {
        if password.is_empty() {
            return Err(Error::WeakPassword("the password is empty".into()));
        }
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(Error::WeakPassword(format!("a password has at most {MAX_PASSWORD_BYTES} bytes").into()));
        }
        let password = Zeroizing::new(password.to_owned());
        let cheap = self.settings.insecure_fast_password_hash;
        self.blocking_hash(move || {
            let salt: [u8; 16] = rand::random();
            let hash = hasher(cheap)?
                .hash_password_with_salt(password.as_bytes(), &salt)
                .map_err(|error| Error::internal(format!("hashing a password failed: {error}")))?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether a password fits a hash; without a hash it takes as long and does not fit.
    ///
    /// # Errors
    /// [`Error::Internal`] when the hash is not in PHC form.
    pub(super) async fn verify_password(&self, password: &str, hash: Option<&str>) -> Result<bool, Error> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Ok(false);
        }
        let known = hash.is_some();
        if !known && self.settings.insecure_fast_password_hash {
            return Ok(false);
        }
        let hash = hash.unwrap_or(DECOY).to_owned();
        let password = Zeroizing::new(password.to_owned());
        self.blocking_hash(move || {
            let hash = PasswordHash::new(&hash)
                .map_err(|error| Error::internal(format!("a stored password hash is unreadable: {error}")))?;
            Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok() && known)
        })
        .await
    }

    async fn blocking_hash<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.accounts.hashing).acquire_owned().await;
        let permit = permit.map_err(|_| Error::internal("the server is stopping"))?;
        self.accounts
            .hashers
            .run(move || {
                let result = work();
                drop(permit);
                result
            })
            .await
            .ok_or_else(|| Error::internal("hashing a password failed"))?
    }
}
