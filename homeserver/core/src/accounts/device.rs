//! Devices: made at login, gone at logout, with their tokens and keys.

use std::net::IpAddr;

use matron_storage::{Batch, CommitError, Key, KeyReader, Order, Table};
use ruma::{DeviceId, OwnedDeviceId, UserId};
use serde::{Deserialize, Serialize};

use super::token::{Issued, TokenHash, mint};
use crate::{
    Core, Error,
    house::{MAX_ATTEMPTS, from_json, to_json},
    oauth::OAuthSession,
};

/// How many devices one user may have; a login past it is refused.
const MAX_DEVICES: usize = 2_000;

/// How many devices that were seen wait for their lazy write.
const MAX_SEEN: usize = 65_536;

/// A device, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// What its user calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// When it was made, ms since the epoch.
    pub created_ms: u64,
    /// When it was last used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_ms: Option<u64>,
    /// From where it was last used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_ip: Option<String>,
    /// Hashes of its access tokens.
    #[serde(with = "hashes")]
    pub access: Vec<TokenHash>,
    /// Hashes of its refresh tokens.
    #[serde(with = "hashes")]
    pub refresh: Vec<TokenHash>,
    /// Hashes of the access tokens before the last refreshing, good until the new one is used.
    #[serde(with = "hashes", skip_serializing_if = "Vec::is_empty")]
    pub previous_access: Vec<TokenHash>,
    /// Hashes of the refresh tokens before the last refreshing, good until the new tokens are used.
    #[serde(with = "hashes", skip_serializing_if = "Vec::is_empty")]
    pub previous_refresh: Vec<TokenHash>,
    /// The client that holds it, if the session was opened through the OAuth 2.0 API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OAuthSession>,
}

impl Device {
    /// The hashes of everything that is a token of this device, or tells of one: access and refresh.
    pub(super) fn all_tokens(&self) -> (Vec<TokenHash>, Vec<TokenHash>) {
        let access = [self.access.as_slice(), &self.previous_access].concat();
        let mut refresh = [self.refresh.as_slice(), &self.previous_refresh].concat();
        refresh.extend(self.oauth.as_ref().map(|session| session.family));
        (access, refresh)
    }
}

/// What kind of session begins.
#[derive(Clone)]
pub(crate) enum SessionKind {
    /// Its access token never ends.
    Plain,
    /// Its tokens are refreshed.
    Refreshable,
    /// As [`SessionKind::Refreshable`], and an OAuth client holds it.
    OAuth {
        /// Which, and for what.
        session: OAuthSession,
        /// What its refresh tokens begin with.
        family: String,
    },
}

impl SessionKind {
    /// The kind of a session of the legacy API.
    pub(super) fn legacy(refreshable: bool) -> Self {
        if refreshable { Self::Refreshable } else { Self::Plain }
    }
}

/// A device, as the Client-Server API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceView {
    /// The device.
    pub device_id: OwnedDeviceId,
    /// What its user calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// From where it was last used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_ip: Option<String>,
    /// When it was last used, ms since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_ts: Option<u64>,
}

/// When and from where a device was last seen, not written yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    at_ms: u64,
    address: Option<IpAddr>,
}

fn device_key(user: &UserId, device: &DeviceId) -> Key {
    Key::new().text(user).text(device)
}

impl Core {
    /// A device of a local user.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn find_device(&self, user: &UserId, device: &DeviceId) -> Result<Option<Device>, Error> {
        self.load(Table::UserDevice, &device_key(user, device))
    }

    /// Every device of a local user, in order of id.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn load_devices(&self, user: &UserId) -> Result<Vec<(OwnedDeviceId, Device)>, Error> {
        let rows =
            self.store.scan(Table::UserDevice, &Key::new().text(user).prefix(), Order::Ascending, MAX_DEVICES)?;
        rows.into_iter()
            .map(|(key, value)| {
                let mut reader = KeyReader::new(&key);
                let device = reader.text().and_then(|_| reader.text());
                let device = device.ok_or_else(|| Error::internal("user_device holds a malformed key"))?;
                Ok((OwnedDeviceId::from(device), from_json(Table::UserDevice, &value)?))
            })
            .collect()
    }

    /// The devices of a user as their owner sees them.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn devices(&self, user: &UserId) -> Result<Vec<DeviceView>, Error> {
        Ok(self.load_devices(user)?.into_iter().map(|(id, device)| self.device_view(user, id, device)).collect())
    }

    /// One device as its owner sees it.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub fn device(&self, user: &UserId, device_id: &DeviceId) -> Result<DeviceView, Error> {
        let device = self.find_device(user, device_id)?.ok_or_else(no_device)?;
        Ok(self.device_view(user, device_id.to_owned(), device))
    }

    fn device_view(&self, user: &UserId, device_id: OwnedDeviceId, device: Device) -> DeviceView {
        let seen = self.accounts.seen.lock().get(&(user.to_owned(), device_id.clone())).copied();
        DeviceView {
            device_id,
            display_name: device.display_name,
            last_seen_ip: seen.and_then(|seen| seen.address).map(|ip| ip.to_string()).or(device.last_seen_ip),
            last_seen_ts: seen.map(|seen| seen.at_ms).or(device.last_seen_ms),
        }
    }

    /// The device has this name. An application service also makes a device this way.
    ///
    /// # Errors
    /// `M_NOT_FOUND`; `M_TOO_LARGE` for more than 255 bytes.
    pub async fn rename_device(&self, user: &UserId, device: &DeviceId, name: Option<String>) -> Result<(), Error> {
        if name.as_ref().is_some_and(|name| name.len() > 255) {
            return Err(Error::TooLarge("a device's name has at most 255 bytes".into()));
        }
        self.update_device(user, device, |device| device.display_name.clone_from(&name)).await?;
        self.device_list_changed(user).await
    }

    /// The device exists without tokens of its own, as application services need for their users.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for an id that is not allowed; [`Error::Store`].
    // MSC: 4190.
    pub async fn create_device(&self, user: &UserId, id: &DeviceId, name: Option<String>) -> Result<(), Error> {
        check_device_id(id)?;
        let device = Device { display_name: name, created_ms: self.now_ms(), ..Device::default() };
        let mut batch = Batch::new();
        batch.put(Table::UserDevice, device_key(user, id), to_json(&device)?);
        self.commit(batch).await?;
        self.device_list_changed(user).await
    }

    /// The device is changed by `change`, whatever others do to it meanwhile.
    ///
    /// # Errors
    /// `M_NOT_FOUND`; [`Error::Store`].
    pub(super) async fn update_device(
        &self,
        user: &UserId,
        device: &DeviceId,
        change: impl Fn(&mut Device) + Send,
    ) -> Result<(), Error> {
        let key = device_key(user, device);
        for _ in 0..MAX_ATTEMPTS {
            let Some(before) = self.store.get(Table::UserDevice, key.as_bytes())? else { return Err(no_device()) };
            let mut device: Device = from_json(Table::UserDevice, &before)?;
            change(&mut device);
            let mut batch = Batch::new();
            batch.expect_equals(Table::UserDevice, key.clone(), before);
            batch.put(Table::UserDevice, key.clone(), to_json(&device)?);
            match self.store.submit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::internal("a device changed too often to be changed"))
    }

    /// The user has a session on this device; tokens that the device had are gone.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for a device id that is not allowed; `M_LIMIT_EXCEEDED` for too many devices.
    pub(crate) async fn start_session(
        &self,
        user: &UserId,
        device_id: Option<OwnedDeviceId>,
        name: Option<String>,
        kind: SessionKind,
    ) -> Result<(OwnedDeviceId, Issued), Error> {
        let device_id = device_id.unwrap_or_else(|| super::token::fresh_name(10).to_uppercase().into());
        check_device_id(&device_id)?;
        let lifetime_ms = (!matches!(kind, SessionKind::Plain)).then_some(self.settings.access_token_lifetime_ms);
        let (oauth, family) = match kind {
            SessionKind::OAuth { session, family } => (Some(session), Some(family)),
            SessionKind::Plain | SessionKind::Refreshable => (None, None),
        };
        let key = device_key(user, &device_id);
        let now_ms = self.now_ms();
        for _ in 0..MAX_ATTEMPTS {
            let before = self.store.get(Table::UserDevice, key.as_bytes())?;
            let mut batch = Batch::new();
            let mut device = match &before {
                Some(bytes) => {
                    batch.expect_equals(Table::UserDevice, key.clone(), bytes.clone());
                    from_json(Table::UserDevice, bytes)?
                }
                None => {
                    batch.expect_absent(Table::UserDevice, key.clone());
                    self.check_room_for_device(user)?;
                    Device { display_name: name.clone(), created_ms: now_ms, ..Device::default() }
                }
            };
            let (old, old_refresh) = device.all_tokens();
            remove_tokens(&mut batch, &old, &old_refresh);
            let minted = mint(&mut batch, user, &device_id, lifetime_ms, now_ms, false, family.as_deref())?;
            if let Some(session) = &oauth {
                write_family(&mut batch, session, user, &device_id)?;
            }
            device.access = vec![minted.access];
            device.refresh = minted.refresh.into_iter().collect();
            device.previous_access = Vec::new();
            device.previous_refresh = Vec::new();
            device.oauth.clone_from(&oauth);
            batch.put(Table::UserDevice, key.clone(), to_json(&device)?);
            match self.store.submit(batch).await {
                Ok(_) => {
                    self.forget_tokens(&old);
                    if before.is_none() {
                        self.device_list_changed(user).await?;
                    }
                    return Ok((device_id, minted.issued));
                }
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::internal("a device changed too often to be logged in"))
    }

    fn check_room_for_device(&self, user: &UserId) -> Result<(), Error> {
        let devices =
            self.store.scan(Table::UserDevice, &Key::new().text(user).prefix(), Order::Ascending, MAX_DEVICES)?;
        if devices.len() < MAX_DEVICES {
            return Ok(());
        }
        Err(Error::Custom {
            status: 403,
            errcode: "M_RESOURCE_LIMIT_EXCEEDED",
            message: format!("a user may have at most {MAX_DEVICES} devices; log some out").into(),
        })
    }

    /// The devices are gone, with tokens, keys, pushers and what waited for them. Unknown ids are ignored.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn delete_devices(&self, user: &UserId, ids: &[OwnedDeviceId]) -> Result<(), Error> {
        let mut gone = false;
        for id in ids {
            let Some(device) = self.find_device(user, id)? else { continue };
            let mut batch = Batch::new();
            let (access, refresh) = device.all_tokens();
            remove_tokens(&mut batch, &access, &refresh);
            batch.delete(Table::UserDevice, device_key(user, id));
            self.forget_device_keys(&mut batch, user, id);
            self.remove_pushers_of_device(&mut batch, user, id)?;
            self.forget_peeks(&mut batch, user, id);
            self.commit(batch).await?;
            self.forget_tokens(&access);
            self.forget_pushers(user);
            self.accounts.seen.lock().remove(&(user.to_owned(), id.clone()));
            gone = true;
        }
        if gone {
            self.forget_tokens_of(user);
            self.device_list_changed(user).await?;
            self.notifier.wake_user(user);
        }
        Ok(())
    }

    /// Remembers that a device was used; it is written later, with others.
    pub(super) fn note_seen(&self, user: &UserId, device: &DeviceId, address: Option<IpAddr>, now_ms: u64) {
        let mut seen = self.accounts.seen.lock();
        if seen.len() < MAX_SEEN {
            seen.insert((user.to_owned(), device.to_owned()), Seen { at_ms: now_ms, address });
        }
    }

    /// When devices were last seen is in the store.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn flush_seen(&self) -> Result<(), Error> {
        let seen = std::mem::take(&mut *self.accounts.seen.lock());
        for ((user, id), seen) in seen {
            let written = self
                .update_device(&user, &id, |device| {
                    device.last_seen_ms = Some(seen.at_ms);
                    if let Some(address) = seen.address {
                        device.last_seen_ip = Some(address.to_string());
                    }
                })
                .await;
            match written {
                Ok(()) | Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn no_device() -> Error {
    Error::not_found("there is no such device")
}

/// Device ids are the client's choice, within reason: they are part of keys and of other servers' requests.
fn check_device_id(id: &DeviceId) -> Result<(), Error> {
    let text = id.as_str();
    if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        return Err(Error::invalid("a device id has 1 to 255 bytes and no control characters"));
    }
    Ok(())
}

/// The rows of these tokens go.
pub(super) fn remove_tokens(batch: &mut Batch, access: &[TokenHash], refresh: &[TokenHash]) {
    for hash in access {
        batch.delete(Table::TokenAccess, *hash);
    }
    for hash in refresh {
        batch.delete(Table::TokenRefresh, *hash);
    }
}

/// The row by which a used refresh token is told from one that never was.
fn write_family(batch: &mut Batch, session: &OAuthSession, user: &UserId, device: &DeviceId) -> Result<(), Error> {
    let row = super::token::RefreshToken { user_id: user.to_owned(), device_id: device.to_owned() };
    batch.put(Table::TokenRefresh, session.family, to_json(&row)?);
    Ok(())
}

/// A hash as base64 text.
pub(crate) mod one_hash {
    use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use super::TokenHash;

    pub(crate) fn serialize<S: Serializer>(hash: &TokenHash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD_NO_PAD.encode(hash))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TokenHash, D::Error> {
        let bytes = STANDARD_NO_PAD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        TokenHash::try_from(bytes.as_slice()).map_err(D::Error::custom)
    }
}

/// Hashes as base64 text.
mod hashes {
    use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use super::TokenHash;

    pub(super) fn serialize<S: Serializer>(hashes: &[TokenHash], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(hashes.iter().map(|hash| STANDARD_NO_PAD.encode(hash)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TokenHash>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts
            .into_iter()
            .map(|text| {
                let bytes = STANDARD_NO_PAD.decode(text).map_err(D::Error::custom)?;
                TokenHash::try_from(bytes.as_slice()).map_err(D::Error::custom)
            })
            .collect()
    }
}
