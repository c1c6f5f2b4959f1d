//! Registration tokens: made by operators, used up by registering.

use matron_storage::{Batch, Key, KeyRange, KeyReader, Order, Table};
use serde::{Deserialize, Serialize};

use super::token::fresh_name;
use crate::{Core, Error, house::to_json};

/// A registration token, as it is stored and shown to operators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistrationToken {
    /// How often it may be used; `None`: without limit.
    pub uses_allowed: Option<u64>,
    /// How often it was used.
    pub completed: u64,
    /// When it ends, ms since the epoch.
    pub expiry_time: Option<u64>,
}

impl RegistrationToken {
    fn is_valid(&self, now_ms: u64) -> bool {
        self.uses_allowed.is_none_or(|allowed| self.completed < allowed)
            && self.expiry_time.is_none_or(|end| end > now_ms)
    }
}

impl Core {
    /// Whether somebody could register with this token now.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn registration_token_is_valid(&self, token: &str) -> Result<bool, Error> {
        let row = self.load::<RegistrationToken>(Table::RegistrationToken, &Key::new().text(token))?;
        Ok(row.is_some_and(|row| row.is_valid(self.now_ms())))
    }

    /// Adds one use of the token to `batch`, which fails if another use came first.
    pub(super) fn use_registration_token(&self, batch: &mut Batch, token: &str) -> Result<(), Error> {
        let key = Key::new().text(token);
        let before = self.store.get(Table::RegistrationToken, key.as_bytes())?;
        let invalid = || Error::forbidden("the registration token is not valid any more");
        let before = before.ok_or_else(invalid)?;
        let mut row: RegistrationToken = crate::house::from_json(Table::RegistrationToken, &before)?;
        if !row.is_valid(self.now_ms()) {
            return Err(invalid());
        }
        row.completed = row.completed.saturating_add(1);
        batch.expect_equals(Table::RegistrationToken, key.clone(), before);
        batch.put(Table::RegistrationToken, key, to_json(&row)?);
        Ok(())
    }

    /// A registration token exists, made by an operator; without a text it is a random one.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for a text that is not 1 to 64 characters of `[A-Za-z0-9._~-]`, or that exists.
    pub async fn create_registration_token(
        &self,
        token: Option<String>,
        uses_allowed: Option<u64>,
        expiry_time: Option<u64>,
    ) -> Result<String, Error> {
        let token = token.unwrap_or_else(|| fresh_name(16));
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
        if token.is_empty() || token.len() > 64 || !token.chars().all(allowed) {
            return Err(Error::invalid("a registration token has 1 to 64 characters of A-Z a-z 0-9 . _ ~ -"));
        }
        let mut batch = Batch::new();
        let key = Key::new().text(&token);
        batch.expect_absent(Table::RegistrationToken, key.clone());
        batch.put(
            Table::RegistrationToken,
            key,
            to_json(&RegistrationToken { uses_allowed, completed: 0, expiry_time })?,
        );
        self.commit_or(batch, Error::invalid("this registration token exists")).await?;
        Ok(token)
    }

    /// The registration tokens, for operators.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn registration_tokens(&self) -> Result<Vec<(String, RegistrationToken)>, Error> {
        let rows = self.store.scan(Table::RegistrationToken, &KeyRange::all(), Order::Ascending, 10_000)?;
        rows.into_iter()
            .filter_map(|(key, value)| Some((KeyReader::new(&key).text()?, value)))
            .map(|(token, value)| Ok((token, crate::house::from_json(Table::RegistrationToken, &value)?)))
            .collect()
    }

    /// The registration token is gone.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn delete_registration_token(&self, token: &str) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.delete(Table::RegistrationToken, Key::new().text(token));
        self.commit(batch).await.map(drop)
    }
}
