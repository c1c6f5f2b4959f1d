//! Token revocation: whoever shows a token may end its session.
//!
//! SPEC: v1.19 Client-Server API, "Token revocation"; RFC 7009.

use crate::{Core, Error};

impl Core {
    /// The session of this access or refresh token is gone, its device with it; a token that is not known is no error.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn revoke_token(&self, token: &str) -> Result<(), Error> {
        self.check_oauth_enabled()?;
        match self.holder_of_token(token)? {
            Some((user, device)) => self.delete_devices(&user, &[device]).await,
            None => Ok(()),
        }
    }
}
