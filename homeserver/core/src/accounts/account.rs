//! The account of a local user, as it is stored.

use std::{num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use matron_storage::{Batch, CommitError, Key, KeyRange, Order, Table};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    Core, Error,
    house::{MAX_ATTEMPTS, to_json},
};

/// The account of a local user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// When it was made, ms since the epoch.
    pub created_ms: u64,
    /// Argon2id, in PHC form; `None`: no password opens it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
    /// May use the admin API.
    pub admin: bool,
    /// A guest.
    pub guest: bool,
    /// Closed for good.
    pub deactivated: bool,
    /// Closed with the wish that what they said is hidden from new readers.
    pub erased: bool,
    /// Closed until an operator opens it again; sessions survive.
    pub locked: bool,
    /// May read and leave, but not speak.
    pub suspended: bool,
    /// Until when the user's identity may be replaced without further proof: they agreed on the account's page, ms since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_reset_until_ms: Option<u64>,
    /// Counts what ends every browser's sign-in: a new password, logging out everywhere, closing.
    #[serde(skip_serializing_if = "is_zero")]
    pub browser_epoch: u64,
    /// Who this is at identity providers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<crate::oauth::Identity>,
    /// The application service that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appservice: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Accounts read lately. INVARIANT: an entry is only added if no change was committed since it was read,
/// which `generation` tells.
#[derive(Debug)]
pub(super) struct AccountCache {
    pub(super) generation: u64,
    pub(super) known: LruCache<OwnedUserId, Arc<Account>>,
}

impl AccountCache {
    pub(super) fn new(capacity: NonZeroUsize) -> Self {
        Self { generation: 0, known: LruCache::new(capacity) }
    }
}

fn account_key(user: &UserId) -> Key {
    Key::new().text(user)
}

impl Core {
    /// The account of a local user, closed ones included; warm ones without reading a disk.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn account(&self, user: &UserId) -> Result<Option<Arc<Account>>, Error> {
        let generation = {
            let mut cache = self.accounts.accounts.lock();
            if let Some(account) = cache.known.get(user) {
                return Ok(Some(Arc::clone(account)));
            }
            cache.generation
        };
        let Some(account) = self.load::<Account>(Table::UserAccount, &account_key(user))?.map(Arc::new) else {
            return Ok(None);
        };
        let mut cache = self.accounts.accounts.lock();
        if cache.generation == generation {
            cache.known.put(user.to_owned(), Arc::clone(&account));
        }
        Ok(Some(account))
    }

    /// Whether a local user exists and is not deactivated.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn account_exists(&self, user: &UserId) -> Result<bool, Error> {
        Ok(self.account(user)?.is_some_and(|account| !account.deactivated))
    }

    /// Whether a local user closed the account with the wish that what they said is hidden from those who were not there.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn is_erased(&self, user: &UserId) -> Result<bool, Error> {
        Ok(self.is_local_user(user) && self.account(user)?.is_some_and(|account| account.erased))
    }

    /// The account is stored, if the name was free; what `extra` writes is written with it, in one batch.
    ///
    /// # Errors
    /// `M_USER_IN_USE`; what `extra` refuses; [`Error::LimitExceeded`]; [`Error::Store`].
    pub(crate) async fn insert_account(
        &self,
        user: &UserId,
        account: &Account,
        extra: impl Fn(&mut Batch) -> Result<(), Error> + Send + Sync,
    ) -> Result<(), Error> {
        let key = account_key(user);
        let row = to_json(account)?;
        self.commit_anew(|batch| {
            if self.account(user)?.is_some() {
                return Err(Error::UserInUse);
            }
            extra(batch)?;
            batch.expect_absent(Table::UserAccount, key.clone());
            batch.put(Table::UserAccount, key.clone(), row.clone());
            Ok(())
        })
        .await
    }

    /// The account is changed by `change`, whatever others do to it meanwhile; warm copies and tokens are forgotten.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for a user without account; what `change` refuses; [`Error::Store`].
    pub async fn update_account(
        &self,
        user: &UserId,
        change: impl Fn(&mut Account) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let key = account_key(user);
        for _ in 0..MAX_ATTEMPTS {
            let Some(before) = self.store.get(Table::UserAccount, key.as_bytes())? else {
                return Err(Error::not_found("there is no such user"));
            };
            let mut account: Account = crate::house::from_json(Table::UserAccount, &before)?;
            change(&mut account)?;
            let mut batch = Batch::new();
            batch.expect_equals(Table::UserAccount, key.clone(), before);
            batch.put(Table::UserAccount, key.clone(), to_json(&account)?);
            match self.store.submit(batch).await {
                Ok(_) => {
                    self.forget_account(user);
                    self.forget_tokens_of(user);
                    return Ok(());
                }
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::internal("an account changed too often to be changed"))
    }

    /// The account is read from the store the next time.
    fn forget_account(&self, user: &UserId) {
        let mut cache = self.accounts.accounts.lock();
        cache.generation = cache.generation.wrapping_add(1);
        cache.known.pop(user);
    }

    /// A page of accounts in order of user id, after `after`.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn list_accounts(&self, after: Option<&UserId>, limit: usize) -> Result<Vec<(OwnedUserId, Account)>, Error> {
        let mut range = KeyRange::all();
        if let Some(after) = after {
            range = range.after(account_key(after).as_bytes());
        }
        let rows = self.store.scan(Table::UserAccount, &range, Order::Ascending, limit)?;
        rows.into_iter()
            .map(|(key, value)| {
                let user =
                    matron_storage::KeyReader::new(&key).text().and_then(|text| OwnedUserId::try_from(text).ok());
                let user = user.ok_or_else(|| Error::internal("user_account holds a key that is no user id"))?;
                Ok((user, crate::house::from_json(Table::UserAccount, &value)?))
            })
            .collect()
    }
}
