//! An address becomes an account's.

use ruma::UserId;
use serde_json::Value;

use super::{EMAIL, EmailCredentials, Purpose};
use crate::{Core, Error, Requester, accounts::threepid::Assurance};

/// How many addresses an account may have.
const MAX_ADDRESSES: usize = 20;

impl Core {
    /// The proved address is the requester's, also for a lost password.
    ///
    /// # Errors
    /// [`Error::Interactive`] until the requester has proved again who they are; `M_THREEPID_AUTH_FAILED`;
    /// `M_THREEPID_IN_USE`; `M_THREEPID_MEDIUM_NOT_SUPPORTED`; [`Error::Forbidden`] for a closed account.
    pub async fn add_email(
        &self,
        requester: &Requester,
        credentials: &EmailCredentials,
        auth: Option<&Value>,
    ) -> Result<(), Error> {
        self.check_sends_letters()?;
        self.check_not_guest(requester)?;
        self.authenticate_interactively(requester, "POST /account/3pid/add", auth).await?;
        self.own_email(&requester.user_id, credentials, Assurance::Full).await
    }

    /// As [`Core::add_email`], by the deprecated endpoint that asks for no other proof than an access token: the address is
    /// good for signing in, and not for a lost password. Whoever found an open session could take the account with it.
    ///
    /// # Errors
    /// As [`Core::add_email`].
    pub async fn add_email_unconfirmed(
        &self,
        requester: &Requester,
        credentials: &EmailCredentials,
    ) -> Result<(), Error> {
        self.check_not_guest(requester)?;
        self.own_email(&requester.user_id, credentials, Assurance::TokenAlone).await
    }

    async fn own_email(
        &self,
        user: &UserId,
        credentials: &EmailCredentials,
        assurance: Assurance,
    ) -> Result<(), Error> {
        self.commit_anew(|batch| {
            let email = self.proven_email(Purpose::Add, credentials)?;
            if self.threepids(user)?.len() >= MAX_ADDRESSES {
                return Err(Error::forbidden("you have as many addresses as you may"));
            }
            self.put_threepid(batch, user, EMAIL, &email.address, email.validated_at, assurance)?;
            email.use_up(batch);
            Ok(())
        })
        .await
    }
}
