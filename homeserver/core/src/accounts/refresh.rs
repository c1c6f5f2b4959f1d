//! Refreshing: the next access token, and the next refresh token.

use matron_storage::{Batch, CommitError, Key, Table};
use ruma::{OwnedDeviceId, OwnedUserId};

use super::{
    Device, Issued,
    device::remove_tokens,
    token::{AccessToken, RefreshToken, TokenHash, family_of, hash_token, mint},
};
use crate::{
    Core, Error,
    house::{MAX_ATTEMPTS, from_json, to_json},
};

impl Core {
    /// The device has new tokens. The ones before stay good until the new ones are used, so that an answer that is
    /// lost on its way ends no session.
    ///
    /// # Errors
    /// `M_UNKNOWN_TOKEN`, hard, for a refresh token that is not known or was used.
    ///
    /// SPEC: v1.19 Client-Server API, "Refreshing access tokens".
    pub async fn refresh(&self, refresh_token: &str) -> Result<Issued, Error> {
        Ok(self.rotate(refresh_token, None).await?.0)
    }

    /// As [`Core::refresh`], for the client that holds the session; with the scope. A token that was used before ends
    /// the session: somebody else has it too.
    ///
    /// # Errors
    /// As [`Core::refresh`]; also for a token of another client.
    ///
    /// SPEC: v1.19 Client-Server API, "Refresh token grant".
    pub(crate) async fn refresh_oauth(&self, token: &str, client_id: &str) -> Result<(Issued, String), Error> {
        match self.rotate(token, Some(client_id)).await {
            Err(Error::UnknownToken { soft_logout }) => {
                if let Some((user, device)) = self.holder_of_used_token(token)? {
                    tracing::warn!("a refresh token was used twice; its session is ended");
                    self.delete_devices(&user, &[device]).await?;
                }
                Err(Error::UnknownToken { soft_logout })
            }
            other => other,
        }
    }

    /// Whose token this is: access or refresh, good, expired or used.
    pub(crate) fn holder_of_token(&self, token: &str) -> Result<Option<(OwnedUserId, OwnedDeviceId)>, Error> {
        let key = Key::new().raw(&hash_token(token));
        if let Some(row) = self.load::<AccessToken>(Table::TokenAccess, &key)? {
            return Ok(Some((row.user_id, row.device_id)));
        }
        if let Some(row) = self.load::<RefreshToken>(Table::TokenRefresh, &key)? {
            return Ok(Some((row.user_id, row.device_id)));
        }
        self.holder_of_used_token(token)
    }

    /// Whose session a refresh token belonged to that is not good any more.
    fn holder_of_used_token(&self, token: &str) -> Result<Option<(OwnedUserId, OwnedDeviceId)>, Error> {
        if self.load::<RefreshToken>(Table::TokenRefresh, &Key::new().raw(&hash_token(token)))?.is_some() {
            return Ok(None);
        }
        let Some(family) = family_of(token).map(hash_token) else { return Ok(None) };
        let row = self.load::<RefreshToken>(Table::TokenRefresh, &Key::new().raw(&family))?;
        Ok(row.map(|row| (row.user_id, row.device_id)))
    }

    async fn rotate(&self, refresh_token: &str, client_id: Option<&str>) -> Result<(Issued, String), Error> {
        let unknown = || Error::UnknownToken { soft_logout: false };
        let hash = hash_token(refresh_token);
        let key = Key::new().raw(&hash);
        for _ in 0..MAX_ATTEMPTS {
            let row = self.load::<RefreshToken>(Table::TokenRefresh, &key)?.ok_or_else(unknown)?;
            match self.account(&row.user_id)? {
                Some(account) if account.locked => return Err(Error::UserLocked),
                Some(account) if !account.deactivated => {}
                _ => return Err(unknown()),
            }
            let device_key = Key::new().text(&row.user_id).text(&row.device_id);
            let before = self.store.get(Table::UserDevice, device_key.as_bytes())?.ok_or_else(unknown)?;
            let mut device: Device = from_json(Table::UserDevice, &before)?;
            if device.oauth.as_ref().map(|session| session.client_id.as_str()) != client_id {
                return Err(unknown());
            }
            let mut batch = Batch::new();
            let mut gone = Vec::new();
            if device.refresh.contains(&hash) {
                gone.append(&mut device.previous_access);
                remove_tokens(&mut batch, &gone, &std::mem::take(&mut device.previous_refresh));
                device.previous_access = std::mem::take(&mut device.access);
                device.previous_refresh = std::mem::take(&mut device.refresh);
            } else if device.previous_refresh.contains(&hash) {
                // The client never saw the answer to its last try: what that gave is worthless.
                gone.append(&mut device.access);
                remove_tokens(&mut batch, &gone, &std::mem::take(&mut device.refresh));
            } else {
                return Err(unknown());
            }
            let lifetime_ms = Some(self.settings.access_token_lifetime_ms);
            let family = family_of(refresh_token);
            let minted = mint(&mut batch, &row.user_id, &row.device_id, lifetime_ms, self.now_ms(), true, family)?;
            device.access.push(minted.access);
            device.refresh.extend(minted.refresh);
            batch.expect_equals(Table::UserDevice, device_key.clone(), before);
            batch.put(Table::UserDevice, device_key, to_json(&device)?);
            match self.store.submit(batch).await {
                Ok(_) => {
                    self.forget_tokens(&gone);
                    return Ok((minted.issued, device.oauth.map(|session| session.scope).unwrap_or_default()));
                }
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::internal("a device changed too often to be refreshed"))
    }

    /// The tokens before the last refreshing are gone: the new access token was used.
    pub(super) async fn retire_previous(&self, row: &AccessToken, hash: TokenHash) -> Result<(), Error> {
        let key = Key::new().text(&row.user_id).text(&row.device_id);
        for _ in 0..MAX_ATTEMPTS {
            let Some(before) = self.store.get(Table::UserDevice, key.as_bytes())? else { return Ok(()) };
            let mut device: Device = from_json(Table::UserDevice, &before)?;
            if !device.access.contains(&hash) {
                return Ok(());
            }
            let gone = std::mem::take(&mut device.previous_access);
            let mut batch = Batch::new();
            remove_tokens(&mut batch, &gone, &std::mem::take(&mut device.previous_refresh));
            batch.put(Table::TokenAccess, hash, to_json(&AccessToken { retires: false, ..row.clone() })?);
            batch.expect_equals(Table::UserDevice, key.clone(), before);
            batch.put(Table::UserDevice, key.clone(), to_json(&device)?);
            match self.store.submit(batch).await {
                Ok(_) => {
                    self.forget_tokens(&gone);
                    return Ok(());
                }
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::internal("a device changed too often to retire its tokens"))
    }
}
