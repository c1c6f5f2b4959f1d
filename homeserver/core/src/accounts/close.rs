//! Ending sessions and accounts: logging out, changing the password, deactivating, locking, suspending.

use std::sync::Arc;

use matron_storage::{Batch, Key, Table};
use ruma::{OwnedDeviceId, UserId};
use serde_json::Value;

use super::Account;
use crate::{Core, Error, Requester, identity::Unbound};

impl Core {
    /// The requester's session is gone with its device.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn log_out(&self, requester: &Requester) -> Result<(), Error> {
        match &requester.device_id {
            Some(device) => self.delete_devices(&requester.user_id, std::slice::from_ref(device)).await,
            None => Ok(()),
        }
    }

    /// All sessions of the user are gone with their devices.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn log_out_all(&self, user: &UserId) -> Result<(), Error> {
        self.sign_out_browsers(user).await?;
        self.log_out_others(user, None).await
    }

    /// The user is signed in at no browser any more.
    async fn sign_out_browsers(&self, user: &UserId) -> Result<(), Error> {
        let signed_out = self.update_account(user, |account| {
            account.browser_epoch = account.browser_epoch.wrapping_add(1);
            Ok(())
        });
        match signed_out.await {
            // An application service's own user may have no account.
            Ok(()) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// All sessions of the user but one are gone with their devices.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn log_out_others(&self, user: &UserId, keep: Option<&OwnedDeviceId>) -> Result<(), Error> {
        let ids: Vec<_> =
            self.load_devices(user)?.into_iter().map(|(id, _)| id).filter(|id| Some(id) != keep).collect();
        self.delete_devices(user, &ids).await
    }

    /// The requester has a new password; unless they say otherwise, their other sessions are gone.
    ///
    /// # Errors
    /// [`Error::Interactive`] until proved; `M_WEAK_PASSWORD`.
    pub async fn change_password(
        &self,
        requester: &Requester,
        new_password: &str,
        log_out_devices: bool,
        auth: Option<&Value>,
    ) -> Result<(), Error> {
        self.check_not_guest(requester)?;
        self.authenticate_interactively(requester, "POST /account/password", auth).await?;
        self.set_password(&requester.user_id, new_password, false).await?;
        if log_out_devices {
            self.log_out_others(&requester.user_id, requester.device_id.as_ref()).await?;
        }
        Ok(())
    }

    /// The requester's account is closed for good.
    ///
    /// # Errors
    /// [`Error::Interactive`] until proved.
    pub async fn deactivate_own(
        self: &Arc<Self>,
        requester: &Requester,
        erase: bool,
        id_server: Option<&str>,
        auth: Option<&Value>,
    ) -> Result<Unbound, Error> {
        self.authenticate_interactively(requester, "POST /account/deactivate", auth).await?;
        self.close_account(&requester.user_id, erase, id_server).await
    }

    /// The account is closed for good: no password, no session, no profile, no room, no address. The name stays taken.
    /// Says whether identity servers have forgotten it too.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for a user without account.
    pub async fn deactivate(self: &Arc<Self>, user: &UserId, erase: bool) -> Result<Unbound, Error> {
        self.close_account(user, erase, None).await
    }

    /// As [`Core::deactivate`]; `id_server` is asked to forget the account's addresses, beside those where they were bound.
    async fn close_account(
        self: &Arc<Self>,
        user: &UserId,
        erase: bool,
        id_server: Option<&str>,
    ) -> Result<Unbound, Error> {
        self.update_account(user, |account| {
            account.deactivated = true;
            account.erased |= erase;
            account.password_hash = None;
            account.admin = false;
            Ok(())
        })
        .await?;
        self.log_out_all(user).await?;
        let mut batch = Batch::new();
        let theirs = Key::new().text(user).prefix();
        for table in [
            Table::UserProfile,
            Table::UserAccountData,
            Table::ThreadSubscription,
            Table::UserPusher,
            Table::UserFilter,
            Table::BackupVersion,
            Table::BackupSession,
            Table::CrossSigningKey,
            Table::RoomNotification,
        ] {
            batch.delete_range(table, theirs.clone());
        }
        self.commit(batch).await?;
        let mut addresses = Vec::new();
        for threepid in self.threepids(user)? {
            self.remove_threepid(user, &threepid.medium, &threepid.address).await?;
            addresses.push((threepid.medium, threepid.address));
        }
        self.forget_derived(user);
        self.leave_rooms_for_good(user).await?;
        self.unbind_all(user, id_server, &addresses).await
    }

    fn forget_derived(&self, user: &UserId) {
        self.accounts.account_data.forget(user);
        self.accounts.ignored.forget(user);
        self.push.forget_rules(user);
        self.forget_pushers(user);
    }

    /// The account is locked or open again; sessions survive, but are refused while it is locked.
    ///
    /// # Errors
    /// `M_FORBIDDEN` for whoever may not; `M_NOT_FOUND`; `M_INVALID_PARAM` for a user of another server.
    pub async fn set_locked(&self, requester: &Requester, user: &UserId, locked: bool) -> Result<(), Error> {
        self.check_may_moderate(requester, user)?;
        self.update_account(user, |account| {
            account.locked = locked;
            Ok(())
        })
        .await
    }

    /// The account is suspended or free again.
    ///
    /// # Errors
    /// As [`Core::set_locked`].
    pub async fn set_suspended(&self, requester: &Requester, user: &UserId, suspended: bool) -> Result<(), Error> {
        self.check_may_moderate(requester, user)?;
        self.update_account(user, |account| {
            account.suspended = suspended;
            Ok(())
        })
        .await
    }

    /// The account of a local user, for an operator.
    ///
    /// # Errors
    /// As [`Core::set_locked`].
    pub fn moderated_account(&self, requester: &Requester, user: &UserId) -> Result<Arc<Account>, Error> {
        self.check_admin(requester)?;
        if !self.is_local_user(user) {
            return Err(Error::invalid("this user has no account here"));
        }
        let account = self.account(user)?.filter(|account| !account.deactivated);
        account.ok_or_else(|| Error::not_found("there is no such user"))
    }

    fn check_may_moderate(&self, requester: &Requester, user: &UserId) -> Result<(), Error> {
        let account = self.moderated_account(requester, user)?;
        if *user == requester.user_id || account.admin {
            return Err(Error::forbidden("operators cannot be locked or suspended"));
        }
        Ok(())
    }
}
