//! A lost password: whoever reads the letters to the account's address sets another.

use matron_storage::Batch;
use serde_json::Value;

use super::EMAIL;
use crate::{
    Core, Error,
    accounts::{
        Account,
        uia::{Challenge, EMAIL_IDENTITY, RESET},
    },
};

impl Core {
    /// The account with the proved address has a new password; unless they say otherwise, its sessions are gone.
    ///
    /// # Errors
    /// [`Error::MissingToken`] where no letters are sent; [`Error::Interactive`] until the address is proved;
    /// [`Error::Forbidden`] for an account that has no password to lose, or has the address without having proved who they are;
    /// `M_WEAK_PASSWORD`; `M_USER_DEACTIVATED`.
    ///
    /// SPEC: v1.19 Client-Server API, `POST /account/password`.
    pub async fn replace_lost_password(
        &self,
        new_password: &str,
        log_out_devices: bool,
        auth: Option<&Value>,
    ) -> Result<(), Error> {
        if !self.sends_letters() {
            return Err(Error::MissingToken);
        }
        let challenge = Challenge { user: None, operation: RESET, flows: &[&[EMAIL_IDENTITY]] };
        let proof = self.challenge(&challenge, auth).await?;
        let email = proof.email.ok_or_else(|| Error::internal("a proof without an address"))?;
        self.check_unused(&email)?;
        let user = self.user_of_threepid(EMAIL, &email.address)?;
        let user = user.filter(|user| self.may_reset_by(user, EMAIL, &email.address).unwrap_or(false));
        let has_password = |account: &Account| account.password_hash.is_some();
        let user = user.ok_or_else(|| Error::forbidden("this address resets no password"))?;
        if !self.account(&user)?.is_some_and(|account| has_password(&account)) {
            return Err(Error::forbidden("this account has no password; sign in as you are used to"));
        }
        self.set_password(&user, new_password, false).await?;
        let mut batch = Batch::new();
        email.use_up(&mut batch);
        self.commit(batch).await?;
        if log_out_devices {
            self.log_out_all(&user).await?;
        }
        Ok(())
    }
}
