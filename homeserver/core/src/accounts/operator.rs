//! What operators do to accounts, from the command line or the admin API.

use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};

use super::Account;
use crate::{Core, Error, Requester};

impl Core {
    /// The account exists, whoever else may register. Without a password only an operator can open it later.
    ///
    /// # Errors
    /// `M_USER_IN_USE`; `M_INVALID_USERNAME`; `M_EXCLUSIVE`; `M_WEAK_PASSWORD`.
    pub async fn create_user(
        &self,
        localpart: &str,
        password: Option<&str>,
        admin: bool,
    ) -> Result<OwnedUserId, Error> {
        let user = self.free_user_id(localpart, None)?;
        let password_hash = match password {
            Some(password) => Some(self.hash_password(password).await?),
            None => None,
        };
        let account = Account { created_ms: self.now_ms(), password_hash, admin, ..Account::default() };
        self.insert_account(&user, &account, |_| Ok(())).await?;
        Ok(user)
    }

    /// The user has a new password; with `log_out`, no session survives.
    ///
    /// # Errors
    /// `M_NOT_FOUND`; `M_WEAK_PASSWORD`; `M_USER_DEACTIVATED`.
    pub async fn set_password(&self, user: &UserId, password: &str, log_out: bool) -> Result<(), Error> {
        let hash = self.hash_password(password).await?;
        self.update_account(user, |account| {
            if account.deactivated {
                return Err(Error::UserDeactivated);
            }
            account.password_hash = Some(hash.clone());
            account.browser_epoch = account.browser_epoch.wrapping_add(1);
            Ok(())
        })
        .await?;
        if log_out {
            self.log_out_all(user).await?;
        }
        Ok(())
    }

    /// The user may, or may no longer, use the admin API.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub async fn set_admin(&self, user: &UserId, admin: bool) -> Result<(), Error> {
        self.update_account(user, |account| {
            account.admin = admin;
            Ok(())
        })
        .await
    }

    /// Where a user's devices were last seen: `GET /admin/whois/{userId}`.
    ///
    /// # Errors
    /// `M_FORBIDDEN` for another user's, unless the requester is an operator.
    pub fn whois(&self, requester: &Requester, user: &UserId) -> Result<Value, Error> {
        if *user != requester.user_id {
            self.moderated_account(requester, user)?;
        }
        let mut devices = Map::new();
        for device in self.devices(user)? {
            let mut connection = serde_json::Map::new();
            connection.extend(device.last_seen_ip.map(|ip| ("ip".to_owned(), json!(ip))));
            connection.extend(device.last_seen_ts.map(|ts| ("last_seen".to_owned(), json!(ts))));
            // User agents are not kept; tools expect the key all the same.
            connection.insert("user_agent".to_owned(), json!(""));
            devices.insert(device.device_id.to_string(), json!({ "sessions": [{ "connections": [connection] }] }));
        }
        Ok(json!({ "user_id": user, "devices": devices }))
    }
}
