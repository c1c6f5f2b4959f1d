//! From nothing, or from what is stored, to a device with published keys.

use rand::Rng as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{DeviceError, DeviceSetup};
use crate::client::{ClientError, Session};
use crate::crypto::Machine;
use crate::secret::Secret;
use crate::store::StoreError;

/// The stored parts of a device.
const PARTS: [&str; 7] = ["login", "since", "rooms", "account", "olm", "devices", "inbound"];

#[derive(Serialize, Deserialize)]
struct StoredLogin {
    device_id: String,
    access_token: Secret,
}

/// A device that is logged in.
pub(super) struct Opened {
    pub(super) session: Session,
    pub(super) machine: Machine,
    pub(super) since: Option<String>,
    pub(super) encrypted_rooms: std::collections::BTreeSet<String>,
}

impl DeviceSetup {
    pub(super) fn file(&self, part: &str) -> String {
        format!("devices/{}/{part}", self.localpart)
    }

    /// Runs a blocking step on the store.
    pub(super) async fn with_store<T: Send + 'static>(
        &self,
        step: impl FnOnce(&crate::store::Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, DeviceError> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || step(&store)).await {
            Ok(result) => Ok(result?),
            Err(_stopping) => Err(DeviceError::Stopped),
        }
    }

    async fn load(&self, part: &str) -> Result<Option<Zeroizing<Vec<u8>>>, DeviceError> {
        let file = self.file(part);
        self.with_store(move |store| store.load(&file)).await
    }

    pub(super) async fn write(&self, part: &str, content: Zeroizing<Vec<u8>>) -> Result<(), DeviceError> {
        let file = self.file(part);
        self.with_store(move |store| store.write(&file, &content)).await
    }

    /// Logged in afterwards, as the device that is stored or as a new one.
    pub(super) async fn open(&self) -> Result<Opened, DeviceError> {
        let user_id = self.client.user_id(&self.localpart);
        let login = match self.stored_login(&user_id).await? {
            Some(login) => login,
            None => self.new_login(&user_id).await?,
        };
        let session = self.client.with_token(&user_id, login.access_token);
        let mut parts = std::collections::BTreeMap::new();
        for part in PARTS {
            if let Some(content) = self.load(part).await? {
                parts.insert(part, content);
            }
        }
        let machine = Machine::restore(&user_id, &login.device_id, |part| parts.remove(part))?
            .unwrap_or_else(|| Machine::new(&user_id, &login.device_id));
        let since = parts.remove("since").and_then(|since| String::from_utf8(since.to_vec()).ok());
        let encrypted_rooms = parts
            .remove("rooms")
            .map(|rooms| serde_json::from_slice(&rooms).map_err(DeviceError::Stored))
            .transpose()?
            .unwrap_or_default();
        Ok(Opened { session, machine, since, encrypted_rooms })
    }

    /// The stored login, if the homeserver still knows it; otherwise all that belonged to it is removed.
    async fn stored_login(&self, user_id: &str) -> Result<Option<StoredLogin>, DeviceError> {
        let Some(stored) = self.load("login").await? else {
            return Ok(None);
        };
        let login: StoredLogin = serde_json::from_slice(&stored).map_err(DeviceError::Stored)?;
        let session = self.client.with_token(user_id, login.access_token.clone());
        match session.whoami().await {
            Ok(_) => Ok(Some(login)),
            Err(error) if is_logged_out(&error) => {
                tracing::warn!(user.id = user_id, "the device was logged out; a new one takes its place");
                for part in PARTS {
                    let file = self.file(part);
                    self.with_store(move |store| store.remove(&file)).await?;
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn new_login(&self, user_id: &str) -> Result<StoredLogin, DeviceError> {
        let session = self.client.as_user(user_id);
        session.register().await?;
        if let Err(error) = session.set_displayname(&self.display_name).await {
            tracing::debug!(%error, "the display name was not set");
        }
        let login = session.login(&new_device_id(), &self.display_name).await?;
        let stored = StoredLogin { device_id: login.device_id, access_token: login.access_token };
        let bytes = serde_json::to_vec(&stored).map_err(DeviceError::Stored)?;
        self.write("login", Zeroizing::new(bytes)).await?;
        Ok(stored)
    }
}

pub(super) fn is_logged_out(error: &ClientError) -> bool {
    error.is_errcode("M_UNKNOWN_TOKEN")
}

/// Never the id of an earlier device: clients distrust new keys under a known id.
fn new_device_id() -> String {
    let letters = |byte: u8| char::from(b'A' + byte % 26);
    let mut bytes = [0u8; 10];
    rand::rng().fill_bytes(&mut bytes);
    bytes.into_iter().map(letters).collect()
}
