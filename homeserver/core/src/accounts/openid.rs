//! OpenID tokens: prove a user to someone who is not us.

use matron_storage::{Batch, Key, Table};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use super::token::{fresh_token, hash_token};
use crate::{Core, Error, Requester, house::to_json};

/// How long a token lives, seconds.
const LIFETIME_S: u64 = 60 * 60;

/// The answer to `POST /user/{userId}/openid/request_token`.
#[derive(Clone, Serialize)]
pub struct OpenIdToken {
    /// Shown to the third party, who shows it to us.
    pub access_token: String,
    /// Seconds.
    pub expires_in: u64,
    /// Whom the third party asks.
    pub matrix_server_name: String,
    /// `Bearer`.
    pub token_type: &'static str,
}

impl std::fmt::Debug for OpenIdToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OpenIdToken").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Row {
    user_id: OwnedUserId,
    expires_at_ms: u64,
}

impl Core {
    /// A token with which a third party can ask us who this is.
    ///
    /// # Errors
    /// `M_FORBIDDEN` for another user than the requester.
    pub async fn create_openid_token(&self, requester: &Requester, user: &UserId) -> Result<OpenIdToken, Error> {
        if *user != requester.user_id {
            return Err(Error::forbidden("you may only ask for a token of your own"));
        }
        let token = fresh_token("mot");
        let row = Row {
            user_id: user.to_owned(),
            expires_at_ms: self.now_ms().saturating_add(LIFETIME_S.saturating_mul(1000)),
        };
        let mut batch = Batch::new();
        batch.put(Table::TokenOpenid, hash_token(&token), to_json(&row)?);
        self.commit(batch).await?;
        Ok(OpenIdToken {
            access_token: token,
            expires_in: LIFETIME_S,
            matrix_server_name: self.server_name.to_string(),
            token_type: "Bearer",
        })
    }

    /// Whom an OpenID token proves: the answer to `GET /_matrix/federation/v1/openid/userinfo`.
    ///
    /// # Errors
    /// `M_UNKNOWN_TOKEN`.
    pub fn openid_userinfo(&self, token: &str) -> Result<OwnedUserId, Error> {
        let row = self.load::<Row>(Table::TokenOpenid, &Key::new().raw(&hash_token(token)))?;
        let row = row.filter(|row| row.expires_at_ms > self.now_ms());
        let row = row.ok_or(Error::UnknownToken { soft_logout: false })?;
        if !self.account_exists(&row.user_id)? {
            return Err(Error::UnknownToken { soft_logout: false });
        }
        Ok(row.user_id)
    }
}
