//! Third-party identifiers that belong to a user: by proof ([`super::email`]), or by an operator's word.

#[cfg(test)]
mod tests;

use matron_storage::{Batch, Key, KeyReader, Order, Table};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use super::Account;
use crate::{
    Core, Error,
    house::{from_json, to_json},
    identity::canonical_address,
};

/// A third-party identifier of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threepid {
    /// `email` or `msisdn`.
    pub medium: String,
    /// The address.
    pub address: String,
    /// When it was validated, ms since the epoch.
    pub validated_at: u64,
    /// When it was added, ms since the epoch.
    pub added_at: u64,
}

#[derive(Serialize, Deserialize)]
struct Row {
    validated_at: u64,
    added_at: u64,
    #[serde(default = "yes")]
    resets_password: bool,
}

fn yes() -> bool {
    true
}

/// How sure it is that the account's owner wants the identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assurance {
    /// The owner proved again who they are, or an operator says so.
    Full,
    /// Somebody with an access token wants it.
    TokenAlone,
}

/// The refusal of an identifier that is another user's.
pub(super) fn in_use() -> Error {
    Error::Custom {
        status: 400,
        errcode: "M_THREEPID_IN_USE",
        message: "this identifier belongs to another user".into(),
    }
}

impl Core {
    /// The user's third-party identifiers.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn threepids(&self, user: &UserId) -> Result<Vec<Threepid>, Error> {
        let rows = self.store.scan(Table::UserThreepid, &Key::new().text(user).prefix(), Order::Ascending, 1000)?;
        rows.into_iter()
            .filter_map(|(key, value)| {
                let mut reader = KeyReader::new(&key);
                reader.text()?;
                Some((reader.text()?, reader.text()?, value))
            })
            .map(|(medium, address, value)| {
                let row: Row = from_json(Table::UserThreepid, &value)?;
                Ok(Threepid { medium, address, validated_at: row.validated_at, added_at: row.added_at })
            })
            .collect()
    }

    /// The identifier belongs to the user, as an operator says.
    ///
    /// # Errors
    /// `M_THREEPID_IN_USE` when it belongs to another user; [`Error::Forbidden`] for a closed account.
    pub async fn bind_threepid(&self, user: &UserId, medium: &str, address: &str) -> Result<(), Error> {
        let address = canonical_address(medium, address);
        self.commit_anew(|batch| self.put_threepid(batch, user, medium, &address, self.now_ms(), Assurance::Full)).await
    }

    /// The batch makes the identifier the user's, and fails if it becomes another's before, or the account is changed: one that
    /// is being closed gets no address that closing it would not take.
    ///
    /// # Errors
    /// `M_THREEPID_IN_USE`; [`Error::Forbidden`] for a closed account.
    pub(super) fn put_threepid(
        &self,
        batch: &mut Batch,
        user: &UserId,
        medium: &str,
        address: &str,
        validated_at: u64,
        assurance: Assurance,
    ) -> Result<(), Error> {
        // Who registers has no account yet.
        if let Some(account) = self.store.get(Table::UserAccount, Key::new().text(user).as_bytes())? {
            if from_json::<Account>(Table::UserAccount, &account)?.deactivated {
                return Err(Error::forbidden("this account is closed"));
            }
            batch.expect_equals(Table::UserAccount, Key::new().text(user), account);
        }
        let by_address = by_address(medium, address);
        match self.store.get(Table::Misc, by_address.as_bytes())? {
            None => batch.expect_absent(Table::Misc, by_address.clone()),
            Some(owner) => {
                if from_json::<OwnedUserId>(Table::Misc, &owner)? != user {
                    return Err(in_use());
                }
                batch.expect_equals(Table::Misc, by_address.clone(), owner.to_vec())
            }
        };
        let key = Key::new().text(user).text(medium).text(address);
        let before: Option<Row> = self.load(Table::UserThreepid, &key)?;
        let resets_password = assurance == Assurance::Full || before.is_some_and(|row| row.resets_password);
        let row = Row { validated_at, added_at: self.now_ms(), resets_password };
        batch.put(Table::UserThreepid, key, to_json(&row)?);
        batch.put(Table::Misc, by_address, to_json(user.as_str())?);
        Ok(())
    }

    /// Whether somebody who has the identifier may set another password for the user.
    pub(super) fn may_reset_by(&self, user: &UserId, medium: &str, address: &str) -> Result<bool, Error> {
        let row: Option<Row> = self.load(Table::UserThreepid, &Key::new().text(user).text(medium).text(address))?;
        Ok(row.is_some_and(|row| row.resets_password))
    }

    /// The identifier belongs to the user no longer, whatever others do to it meanwhile.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] where others were quicker every time; [`Error::Store`].
    pub async fn remove_threepid(&self, user: &UserId, medium: &str, address: &str) -> Result<(), Error> {
        let address = canonical_address(medium, address);
        let own = to_json(user.as_str())?;
        let mapping = by_address(medium, &address);
        self.commit_anew(|batch| {
            batch.delete(Table::UserThreepid, Key::new().text(user).text(medium).text(&address));
            match self.store.get(Table::Misc, mapping.as_bytes())? {
                None => drop(batch.expect_absent(Table::Misc, mapping.clone())),
                Some(owner) => {
                    if owner == own {
                        batch.delete(Table::Misc, mapping.clone());
                    }
                    batch.expect_equals(Table::Misc, mapping.clone(), owner);
                }
            }
            Ok(())
        })
        .await
    }

    /// Whose identifier this is.
    pub(super) fn user_of_threepid(&self, medium: &str, address: &str) -> Result<Option<OwnedUserId>, Error> {
        self.load(Table::Misc, &by_address(medium, &canonical_address(medium, address)))
    }
}

fn by_address(medium: &str, address: &str) -> Key {
    Key::new().text("threepid").text(medium).text(address)
}
