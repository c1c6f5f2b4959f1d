//! A device that sleeps on the server: it receives room keys while its user has no other (MSC3814).
//!
//! Its secrets are sealed by the client under a key that the server does not have. There is one for each user.

use matron_storage::{Batch, Key, StreamPos, Table};
use ruma::{OwnedDeviceId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::upload::KeysUpload;
use crate::{Core, Error, Requester, house::to_json};

/// The largest sealed device, bytes.
const MAX_DATA_BYTES: usize = 256 * 1024;

/// How many messages one page holds.
const PAGE: usize = 100;

/// A sleeping device, as its client sealed it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DehydratedDevice {
    /// Which.
    pub device_id: OwnedDeviceId,
    /// What the client needs to wake it.
    pub device_data: Value,
}

/// What a client puts to sleep.
#[derive(Debug, Deserialize)]
pub struct NewDehydratedDevice {
    /// The device.
    #[serde(flatten)]
    pub device: DehydratedDevice,
    /// What the user calls it.
    pub initial_device_display_name: Option<String>,
    /// Its keys.
    #[serde(flatten)]
    pub keys: KeysUpload,
}

/// Messages that came for the sleeping device.
#[derive(Debug, Serialize)]
pub struct DehydratedEvents {
    /// Oldest first; empty when there are no more.
    pub events: Vec<Box<RawValue>>,
    /// Where to go on.
    pub next_batch: String,
}

fn key(user: &UserId) -> Key {
    Key::new().text("dehydrated_device").text(user)
}

impl Core {
    /// The device sleeps here, with its keys; the one before it is gone.
    ///
    /// # Errors
    /// `M_TOO_LARGE`; `M_INVALID_PARAM` for the id of a device that is awake; as [`Core::upload_keys`].
    pub async fn put_dehydrated_device(&self, requester: &Requester, new: NewDehydratedDevice) -> Result<(), Error> {
        let user = &requester.user_id;
        let NewDehydratedDevice { device, initial_device_display_name, keys } = new;
        if to_json(&device.device_data)?.len() > MAX_DATA_BYTES {
            return Err(Error::TooLarge("a dehydrated device has at most 256 KiB".into()));
        }
        if keys.device_keys.is_none() {
            return Err(Error::MissingParam("`device_keys` is missing".into()));
        }
        let id = device.device_id.clone();
        let before = self.find_dehydrated_device(user)?;
        let again = before.as_ref().is_some_and(|before| before.device_id == id);
        if !again && self.find_device(user, &id)?.is_some() {
            return Err(Error::invalid("there is a device with this id"));
        }
        if let Some(before) = before {
            self.delete_devices(user, &[before.device_id]).await?;
        }
        self.create_device(user, &id, initial_device_display_name).await?;
        let sleeper = Requester { device_id: Some(id.clone()), ..requester.clone() };
        if let Err(error) = self.upload_keys(&sleeper, keys).await {
            self.delete_devices(user, &[id]).await?;
            return Err(error);
        }
        let mut batch = Batch::new();
        batch.put(Table::Misc, key(user), to_json(&device)?);
        self.commit(batch).await.map(drop)
    }

    /// The user's sleeping device.
    ///
    /// # Errors
    /// `M_NOT_FOUND` if there is none.
    pub fn dehydrated_device(&self, user: &UserId) -> Result<DehydratedDevice, Error> {
        self.find_dehydrated_device(user)?.ok_or_else(|| Error::not_found("there is no dehydrated device"))
    }

    /// The user's sleeping device is gone; which it was.
    ///
    /// # Errors
    /// `M_NOT_FOUND` if there is none.
    pub async fn delete_dehydrated_device(&self, user: &UserId) -> Result<OwnedDeviceId, Error> {
        let device = self.dehydrated_device(user)?.device_id;
        let mut batch = Batch::new();
        batch.delete(Table::Misc, key(user));
        self.commit(batch).await?;
        self.delete_devices(user, std::slice::from_ref(&device)).await?;
        Ok(device)
    }

    /// A page of the messages that came for the sleeping device.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for another device; `M_INVALID_PARAM` for a token that is not ours.
    pub fn dehydrated_events(
        &self,
        user: &UserId,
        device: &OwnedDeviceId,
        from: Option<&str>,
    ) -> Result<DehydratedEvents, Error> {
        if self.dehydrated_device(user)?.device_id != *device {
            return Err(Error::not_found("this device does not sleep here"));
        }
        let from = match from {
            Some(from) => StreamPos(from.parse().map_err(|_| Error::invalid("this is not a token of this server"))?),
            None => StreamPos(0),
        };
        let page = self.to_device_since(user, device, from, self.position().max(from), PAGE)?;
        Ok(DehydratedEvents { events: page.events, next_batch: page.next.0.to_string() })
    }

    /// A device that was deleted like any other sleeps no more.
    fn find_dehydrated_device(&self, user: &UserId) -> Result<Option<DehydratedDevice>, Error> {
        let Some(device) = self.load::<DehydratedDevice>(Table::Misc, &key(user))? else { return Ok(None) };
        Ok(self.find_device(user, &device.device_id)?.map(|_| device))
    }
}
