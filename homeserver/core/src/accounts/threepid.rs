//! Third-party identifiers that belong to a user. Validation by e-mail or phone is not offered; operators may bind.

use matron_storage::{Batch, Key, KeyReader, Order, Table};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

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
    /// `M_THREEPID_IN_USE` when it belongs to another user.
    pub async fn bind_threepid(&self, user: &UserId, medium: &str, address: &str) -> Result<(), Error> {
        if self.user_of_threepid(medium, address)?.is_some_and(|other| *other != *user) {
            return Err(Error::Custom {
                status: 400,
                errcode: "M_THREEPID_IN_USE",
                message: "this identifier belongs to another user".into(),
            });
        }
        let address = canonical_address(medium, address);
        let now_ms = self.now_ms();
        let mut batch = Batch::new();
        let row = Row { validated_at: now_ms, added_at: now_ms };
        batch.put(Table::UserThreepid, Key::new().text(user).text(medium).text(&address), to_json(&row)?);
        batch.put(Table::Misc, by_address(medium, &address), to_json(user.as_str())?);
        self.commit(batch).await.map(drop)
    }

    /// The identifier belongs to the user no longer.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn remove_threepid(&self, user: &UserId, medium: &str, address: &str) -> Result<(), Error> {
        let address = canonical_address(medium, address);
        let mut batch = Batch::new();
        batch.delete(Table::UserThreepid, Key::new().text(user).text(medium).text(&address));
        if self.user_of_threepid(medium, &address)?.is_some_and(|owner| *owner == *user) {
            batch.delete(Table::Misc, by_address(medium, &address));
        }
        self.commit(batch).await.map(drop)
    }

    /// Whose identifier this is.
    pub(super) fn user_of_threepid(&self, medium: &str, address: &str) -> Result<Option<OwnedUserId>, Error> {
        self.load(Table::Misc, &by_address(medium, &canonical_address(medium, address)))
    }
}

fn by_address(medium: &str, address: &str) -> Key {
    Key::new().text("threepid").text(medium).text(address)
}
