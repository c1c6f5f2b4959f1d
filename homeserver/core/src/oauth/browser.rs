//! Browsers that are signed in to this server's own pages.
//!
//! One cookie with 256 random bits; the store knows its hash. It changes at sign-in, so that nobody can plant one, and
//! what guards forms follows from it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use matron_storage::{Batch, Key, Table};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    Core, Error,
    accounts::{Account, fresh_token, hash_token},
    house::to_json,
};

/// How long a browser stays signed in, ms: short, since wards share machines.
const LIFETIME_MS: u64 = 30 * 60 * 1000;

/// For how long a sign-in proves that the person is still there, ms.
const FRESH_MS: u64 = 5 * 60 * 1000;

#[derive(Serialize, Deserialize)]
struct Row {
    user_id: OwnedUserId,
    signed_in_ms: u64,
    expires_at_ms: u64,
    /// The account's count of what ends all browser sessions, at sign-in.
    epoch: u64,
}

/// Who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Browser {
    /// The user.
    pub user_id: OwnedUserId,
    /// They proved it within the last minutes.
    pub is_fresh: bool,
}

/// A browser, signed in or not.
#[derive(Clone)]
pub struct Visitor {
    cookie: String,
    /// The cookie must be set: the browser had none.
    pub is_new: bool,
    /// Who is signed in.
    pub browser: Option<Browser>,
}

impl std::fmt::Debug for Visitor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Visitor").field("is_new", &self.is_new).finish_non_exhaustive()
    }
}

impl Visitor {
    fn new() -> Self {
        Self { cookie: fresh_token("mbs"), is_new: true, browser: None }
    }

    /// The cookie's value.
    #[must_use]
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    /// What every form holds: it follows from the cookie, which no other site can read.
    #[must_use]
    pub fn form_token(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(format!("matron form {}", self.cookie)))
    }

    /// Passes when a form came from a page that this browser was given.
    ///
    /// # Errors
    /// `M_FORBIDDEN`.
    pub fn check_form_token(&self, given: &str) -> Result<(), Error> {
        if bool::from(self.form_token().as_bytes().ct_eq(given.as_bytes())) {
            return Ok(());
        }
        Err(Error::forbidden("this form has expired, or did not come from this site; go back and try again"))
    }
}

impl Core {
    /// The browser with this cookie, or a new one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn visitor(&self, cookie: Option<&str>) -> Result<Visitor, Error> {
        let Some(cookie) = cookie.filter(|cookie| cookie.len() == 47 && cookie.starts_with("mbs_")) else {
            return Ok(Visitor::new());
        };
        let browser = self.signed_in(cookie)?;
        Ok(Visitor { cookie: cookie.to_owned(), is_new: false, browser })
    }

    fn signed_in(&self, cookie: &str) -> Result<Option<Browser>, Error> {
        let now_ms = self.now_ms();
        let row = self.load::<Row>(Table::OauthBrowser, &Key::new().raw(&hash_token(cookie)))?;
        let Some(row) = row.filter(|row| row.expires_at_ms > now_ms) else { return Ok(None) };
        let lives = |account: &Account| !account.deactivated && !account.locked && account.browser_epoch == row.epoch;
        if !self.account(&row.user_id)?.is_some_and(|account| lives(&account)) {
            return Ok(None);
        }
        let is_fresh = row.signed_in_ms.saturating_add(FRESH_MS) > now_ms;
        Ok(Some(Browser { user_id: row.user_id, is_fresh }))
    }

    /// The user is signed in at this browser, under a new cookie; `is_fresh` if they have just proved who they are.
    ///
    /// # Errors
    /// `M_USER_LOCKED`, `M_USER_DEACTIVATED`.
    pub async fn sign_in_browser(&self, before: &Visitor, user: &UserId, is_fresh: bool) -> Result<Visitor, Error> {
        let account = self.check_may_sign_in(user)?;
        let visitor = Visitor::new();
        let now_ms = self.now_ms();
        let row = Row {
            user_id: user.to_owned(),
            signed_in_ms: if is_fresh { now_ms } else { 0 },
            expires_at_ms: now_ms.saturating_add(LIFETIME_MS),
            epoch: account.browser_epoch,
        };
        let mut batch = Batch::new();
        batch.delete(Table::OauthBrowser, hash_token(&before.cookie));
        batch.put(Table::OauthBrowser, hash_token(&visitor.cookie), to_json(&row)?);
        self.commit(batch).await?;
        Ok(Visitor { browser: Some(Browser { user_id: user.to_owned(), is_fresh }), ..visitor })
    }

    /// Nobody is signed in at this browser any more.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn sign_out_browser(&self, visitor: &Visitor) -> Result<Visitor, Error> {
        let mut batch = Batch::new();
        batch.delete(Table::OauthBrowser, hash_token(&visitor.cookie));
        self.commit(batch).await?;
        Ok(Visitor::new())
    }

    /// Passes for an account that may begin sessions.
    pub(crate) fn check_may_sign_in(&self, user: &UserId) -> Result<std::sync::Arc<Account>, Error> {
        let account = self.account(user)?.ok_or_else(|| Error::forbidden("there is no such account"))?;
        if account.deactivated {
            return Err(Error::UserDeactivated);
        }
        if account.locked {
            return Err(Error::UserLocked);
        }
        Ok(account)
    }
}
