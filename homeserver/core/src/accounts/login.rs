//! Logging in: by password, by a short-lived token, as an application service.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use matron_storage::{Batch, CommitError, Key, Table};
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    SessionKind,
    token::{Issued, fresh_token, hash_token},
};
use crate::{Core, Error, Requester, appservices::Appservice, house::to_json};

/// How long a token of `POST /v1/login/get_token` lives, ms.
const LOGIN_TOKEN_LIFETIME_MS: u64 = 2 * 60 * 1000;

/// Who wants to log in (Client-Server API, "Identifier types").
#[derive(Clone, Deserialize)]
pub struct Identifier {
    /// `m.id.user`, `m.id.thirdparty`, `m.id.phone`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For `m.id.user`: a localpart or a user id.
    pub user: Option<String>,
    /// For `m.id.thirdparty`.
    pub medium: Option<String>,
    /// For `m.id.thirdparty`.
    pub address: Option<String>,
}

/// The body of `POST /login`.
#[derive(Clone, Deserialize)]
pub struct Login {
    /// `m.login.password`, `m.login.token`, `m.login.application_service`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who.
    pub identifier: Option<Identifier>,
    /// Who, as clients said before identifiers.
    pub user: Option<String>,
    /// Deprecated: as in [`Identifier`].
    pub medium: Option<String>,
    /// Deprecated: as in [`Identifier`].
    pub address: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The login token.
    pub token: Option<String>,
    /// The device to log in; absent: a new one.
    pub device_id: Option<OwnedDeviceId>,
    /// The name of a new device.
    pub initial_device_display_name: Option<String>,
    /// Whether the client can refresh tokens.
    #[serde(default)]
    pub refresh_token: bool,
}

impl std::fmt::Debug for Identifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Identifier").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Login").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// A new session.
#[derive(Clone, Debug, Serialize)]
pub struct LoggedIn {
    /// Who.
    pub user_id: OwnedUserId,
    /// On which device.
    pub device_id: OwnedDeviceId,
    /// Deprecated: the server's name.
    pub home_server: String,
    /// The tokens.
    #[serde(flatten)]
    pub issued: Issued,
}

/// A login token, as it is stored.
#[derive(Serialize, Deserialize)]
struct LoginToken {
    user_id: OwnedUserId,
    expires_at_ms: u64,
}

fn wrong() -> Error {
    Error::forbidden("the user name or password is wrong")
}

impl Core {
    /// The user is logged in on a device.
    ///
    /// # Errors
    /// `M_FORBIDDEN` for wrong proof; `M_USER_DEACTIVATED`; `M_USER_LOCKED`; `M_MISSING_PARAM`; `M_EXCLUSIVE` for an
    /// application service that logs in a user of others; `M_UNKNOWN` for an unknown type.
    pub async fn log_in(&self, login: Login, appservice: Option<&Appservice>) -> Result<LoggedIn, Error> {
        let user = match login.kind.as_str() {
            "m.login.password" => {
                let user = self.named_user(&login)?;
                let password = login.password.as_deref();
                let password = password.ok_or_else(|| Error::MissingParam("`password` is missing".into()))?;
                // An address that is nobody's is guessed at no longer than one that is somebody's.
                let guessed = user.clone().or_else(|| self.stand_in_of(&login));
                self.prove_by_password(user, guessed, password).await?
            }
            "m.login.token" => {
                let token = login.token.as_deref().ok_or_else(|| Error::MissingParam("`token` is missing".into()))?;
                self.use_login_token(token).await?
            }
            "m.login.application_service" => {
                let appservice = appservice.ok_or(Error::MissingToken)?;
                let user = self.named_user(&login)?.ok_or_else(wrong)?;
                if !appservice.is_interested_in_user(&user) {
                    return Err(Error::Exclusive("the application service may not log this user in".into()));
                }
                user
            }
            _ => return Err(Error::Unknown("this way to log in is not supported".into())),
        };
        let account = self.account(&user)?;
        let is_own_sender = appservice.is_some_and(|appservice| *appservice.sender() == user);
        match &account {
            None if !is_own_sender => return Err(wrong()),
            Some(account) if account.deactivated => return Err(Error::UserDeactivated),
            Some(account) if account.locked => return Err(Error::UserLocked),
            _ => {}
        }
        let (device_id, issued) = self
            .start_session(
                &user,
                login.device_id,
                login.initial_device_display_name,
                SessionKind::legacy(login.refresh_token),
            )
            .await?;
        Ok(LoggedIn { user_id: user, device_id, home_server: self.server_name.to_string(), issued })
    }

    /// The user, if the password is right; wrong ones count as guesses at `guessed`.
    async fn prove_by_password(
        &self,
        user: Option<OwnedUserId>,
        guessed: Option<OwnedUserId>,
        password: &str,
    ) -> Result<OwnedUserId, Error> {
        if let Some(guessed) = &guessed {
            self.check_may_guess(guessed)?;
        }
        let account = match &user {
            Some(user) => self.account(user)?,
            None => None,
        };
        if account.as_ref().is_some_and(|account| account.deactivated) {
            return Err(Error::UserDeactivated);
        }
        let hash = account.as_ref().and_then(|account| account.password_hash.clone());
        if !self.verify_password(password, hash.as_deref()).await? {
            if let Some(guessed) = &guessed {
                self.note_wrong_guess(guessed);
            }
            return Err(wrong());
        }
        user.ok_or_else(wrong)
    }

    /// A name that no account can have, for what an address that is nobody's is guessed at.
    fn stand_in_of(&self, login: &Login) -> Option<OwnedUserId> {
        let named = login.identifier.as_ref().and_then(|identifier| identifier.address.as_ref());
        let address = named.or(login.address.as_ref())?;
        let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(address.trim().to_lowercase().as_bytes()));
        OwnedUserId::try_from(format!("@NOBODY-{hash}:{}", self.server_name)).ok()
    }

    fn named_user(&self, login: &Login) -> Result<Option<OwnedUserId>, Error> {
        match (&login.identifier, &login.user) {
            (Some(identifier), _) => self.identify(identifier),
            (None, Some(name)) => Ok(self.user_of_name(name)),
            (None, None) if login.medium.is_some() || login.address.is_some() => {
                match (&login.medium, &login.address) {
                    (Some(medium), Some(address)) => self.user_of_threepid(medium, address),
                    _ => Err(Error::MissingParam("`medium` and `address` go together".into())),
                }
            }
            (None, None) => Err(Error::MissingParam("`identifier` is missing".into())),
        }
    }

    /// The local user that an identifier names, whether or not it exists.
    pub(super) fn identify(&self, identifier: &Identifier) -> Result<Option<OwnedUserId>, Error> {
        match identifier.kind.as_str() {
            "m.id.user" => {
                let name = identifier
                    .user
                    .as_deref()
                    .ok_or_else(|| Error::MissingParam("`identifier.user` is missing".into()))?;
                Ok(self.user_of_name(name))
            }
            "m.id.thirdparty" => match (&identifier.medium, &identifier.address) {
                (Some(medium), Some(address)) => self.user_of_threepid(medium, address),
                _ => Err(Error::MissingParam("`identifier.medium` and `identifier.address` are needed".into())),
            },
            "m.id.phone" => Ok(None),
            _ => Err(Error::Unknown("this type of identifier is not supported".into())),
        }
    }

    /// The local user of a localpart or a user id; names are not case-sensitive unless a user has exactly this one.
    pub(super) fn user_of_name(&self, name: &str) -> Option<OwnedUserId> {
        let user = if name.starts_with('@') {
            OwnedUserId::try_from(name).ok()?
        } else {
            UserId::parse_with_server_name(name, &self.server_name).ok()?
        };
        if !self.is_local_user(&user) {
            return None;
        }
        if matches!(self.account(&user), Ok(Some(_))) {
            return Some(user);
        }
        let lower = UserId::parse_with_server_name(user.localpart().to_ascii_lowercase(), &self.server_name).ok()?;
        Some(lower)
    }

    /// A token that logs this user in once, for another device of theirs.
    ///
    /// # Errors
    /// [`Error::Interactive`] until the user has proved who they are.
    pub async fn create_login_token(
        &self,
        requester: &Requester,
        auth: Option<&Value>,
    ) -> Result<(String, u64), Error> {
        self.authenticate_interactively(requester, "POST /login/get_token", auth).await?;
        let token = self.write_login_token(&requester.user_id, LOGIN_TOKEN_LIFETIME_MS).await?;
        Ok((token, LOGIN_TOKEN_LIFETIME_MS))
    }

    /// A token that logs this user in once, good for so long.
    pub(crate) async fn write_login_token(&self, user: &UserId, lifetime_ms: u64) -> Result<String, Error> {
        let token = fresh_token("mlt");
        let row = LoginToken { user_id: user.to_owned(), expires_at_ms: self.now_ms().saturating_add(lifetime_ms) };
        let mut batch = Batch::new();
        batch.put(Table::TokenLogin, hash_token(&token), to_json(&row)?);
        self.commit(batch).await?;
        Ok(token)
    }

    /// The user whose name and password these are.
    ///
    /// # Errors
    /// `M_FORBIDDEN`; `M_LIMIT_EXCEEDED` after too many tries; `M_USER_DEACTIVATED`; `M_USER_LOCKED`.
    pub async fn check_password(&self, name: &str, password: &str) -> Result<OwnedUserId, Error> {
        let user = self.user_of_name(name);
        let user = self.prove_by_password(user.clone(), user, password).await?;
        self.check_may_sign_in(&user)?;
        Ok(user)
    }

    /// The token's user; the token is used up, even by one of two requests at the same time.
    async fn use_login_token(&self, token: &str) -> Result<OwnedUserId, Error> {
        let invalid = || Error::forbidden("the login token is not valid");
        let hash = hash_token(token);
        let bytes = self.store.get(Table::TokenLogin, &hash)?.ok_or_else(invalid)?;
        let row: LoginToken = crate::house::from_json(Table::TokenLogin, &bytes)?;
        let mut batch = Batch::new();
        batch.expect_equals(Table::TokenLogin, hash, bytes);
        batch.delete(Table::TokenLogin, Key::new().raw(&hash));
        match self.store.submit(batch).await {
            Ok(_) if row.expires_at_ms > self.now_ms() => Ok(row.user_id),
            Ok(_) | Err(CommitError::Conflict(_)) => Err(invalid()),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}
