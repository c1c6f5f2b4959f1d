//! `POST /keys/upload`.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload>.

use std::collections::BTreeMap;

use matron_storage::{Batch, CommitError, Key, SlotForm, Table};
use ruma::{DeviceId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    one_time::{FallbackKey, MAX_ONE_TIME_KEYS, ReadTally, Tally, fallback_key, one_time_prefix},
    signed_json::{has_sound_signatures, same_but_signatures},
};
use crate::{
    Core, Error, Requester,
    house::{from_json, to_json},
};

/// The largest key object, bytes.
const MAX_KEY_BYTES: usize = 32 * 1024;

/// How many algorithms may have a fallback key.
const MAX_FALLBACK_KEYS: usize = 16;

/// How often a write is tried again when another writer comes between.
pub(super) const MAX_TRIES: usize = 1_000;

/// What a device publishes.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct KeysUpload {
    /// Identity keys.
    #[serde(default)]
    pub device_keys: Option<Value>,
    /// `<algorithm>:<id>` to key.
    #[serde(default)]
    pub one_time_keys: Option<Map<String, Value>>,
    /// `<algorithm>:<id>` to key, one per algorithm.
    // MSC: 2732 used the prefixed name.
    #[serde(default, alias = "org.matrix.msc2732.fallback_keys")]
    pub fallback_keys: Option<Map<String, Value>>,
}

impl Core {
    /// The device's keys are published; the answer is how many one-time keys it has by algorithm.
    ///
    /// # Errors
    /// `M_BAD_JSON` for keys of the wrong form, `M_INVALID_PARAM` for keys of another user or device, `M_UNKNOWN` (400) for
    /// a one-time key whose id has another value, `M_TOO_LARGE` beyond the bounds.
    pub async fn upload_keys(&self, requester: &Requester, upload: KeysUpload) -> Result<BTreeMap<String, u64>, Error> {
        let Some(device) = &requester.device_id else {
            return Err(Error::invalid("keys belong to a device, and this access token has none"));
        };
        let user = &requester.user_id;
        if let Some(keys) = &upload.device_keys {
            check_device_keys(keys, user, device)?;
        }
        let one_time = upload.one_time_keys.unwrap_or_default();
        let fallback = upload.fallback_keys.unwrap_or_default();
        check_key_map(&one_time)?;
        check_key_map(&fallback)?;
        if fallback.len() > MAX_FALLBACK_KEYS {
            return Err(Error::TooLarge("too many fallback keys".into()));
        }
        let counts = self.store_one_time_keys(user, device, &one_time, &fallback).await?;
        if let Some(keys) = upload.device_keys {
            self.store_device_keys(user, device, keys).await?;
        }
        Ok(counts)
    }

    async fn store_one_time_keys(
        &self,
        user: &UserId,
        device: &DeviceId,
        one_time: &Map<String, Value>,
        fallback: &Map<String, Value>,
    ) -> Result<BTreeMap<String, u64>, Error> {
        for _ in 0..MAX_TRIES {
            let mut batch = Batch::new();
            let mut tally = self.read_tally(user, device)?;
            self.add_one_time_keys(&mut batch, &mut tally, user, device, one_time)?;
            self.set_fallback_keys(&mut batch, &mut tally, user, device, fallback)?;
            if batch.is_empty() {
                return Ok(tally.tally.counts);
            }
            let Tally { counts, .. } = tally.write(&mut batch)?;
            match self.store.submit(batch).await {
                Ok(_) => return Ok(counts),
                Err(CommitError::Conflict(_)) => tokio::task::yield_now().await,
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 1_000 })
    }

    fn add_one_time_keys(
        &self,
        batch: &mut Batch,
        tally: &mut ReadTally,
        user: &UserId,
        device: &DeviceId,
        keys: &Map<String, Value>,
    ) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let stored = self.one_time_keys(user, device, None, MAX_ONE_TIME_KEYS)?;
        let mut room_left = MAX_ONE_TIME_KEYS.saturating_sub(stored.len());
        let by_name: BTreeMap<_, _> = stored.into_iter().map(|key| (key.name, key.bytes)).collect();
        let mut position = None;
        for (name, value) in keys {
            if let Some(bytes) = by_name.get(name) {
                if from_json::<Value>(Table::DeviceOneTimeKey, bytes)? == *value {
                    continue;
                }
                return Err(Error::Unknown(format!("the one-time key {name} exists with another value").into()));
            }
            room_left = room_left
                .checked_sub(1)
                .ok_or_else(|| Error::TooLarge(format!("at most {MAX_ONE_TIME_KEYS} one-time keys are kept").into()))?;
            let (algorithm, id) = split_name(name)?;
            let index = *position.get_or_insert_with(|| batch.reserve_position());
            let (row, slot) = one_time_prefix(user, device).text(algorithm).position(index, SlotForm::Plain);
            batch.put_at(Table::DeviceOneTimeKey, row.text(id), Some(slot), to_json(value)?, None);
            let count = tally.tally.counts.entry(algorithm.to_owned()).or_default();
            *count = count.saturating_add(1);
        }
        Ok(())
    }

    fn set_fallback_keys(
        &self,
        batch: &mut Batch,
        tally: &mut ReadTally,
        user: &UserId,
        device: &DeviceId,
        keys: &Map<String, Value>,
    ) -> Result<(), Error> {
        for (name, value) in keys {
            let (algorithm, _id) = split_name(name)?;
            let row = fallback_key(user, device, algorithm);
            let stored: Option<FallbackKey> = self.load(Table::DeviceFallbackKey, &row)?;
            if stored.is_some_and(|stored| stored.name == *name && stored.key == *value) {
                continue;
            }
            let fresh = FallbackKey { name: name.clone(), key: value.clone(), used: false };
            batch.put(Table::DeviceFallbackKey, row, to_json(&fresh)?);
            let unused = &mut tally.tally.unused_fallback;
            if !unused.iter().any(|known| known == algorithm) {
                unused.push(algorithm.to_owned());
            }
        }
        Ok(())
    }

    async fn store_device_keys(&self, user: &UserId, device: &DeviceId, mut keys: Value) -> Result<(), Error> {
        if let Some(fields) = keys.as_object_mut() {
            fields.remove("unsigned");
        }
        let row = Key::new().text(user).text(device);
        let stored: Option<Value> = self.load(Table::DeviceKeys, &row)?;
        if stored.as_ref() == Some(&keys) {
            return Ok(());
        }
        let mut batch = Batch::new();
        if stored.is_some_and(|stored| !same_but_signatures(&stored, &keys)) {
            // What others signed was the old identity.
            batch.delete_range(Table::KeySignature, row.prefix());
        }
        batch.put(Table::DeviceKeys, row, to_json(&keys)?);
        self.commit(batch).await?;
        self.device_list_changed(user).await
    }
}

/// `<algorithm>:<id>` in its parts.
fn split_name(name: &str) -> Result<(&str, &str), Error> {
    match name.split_once(':') {
        Some((algorithm, id)) if !algorithm.is_empty() && !id.is_empty() && name.len() <= 255 => Ok((algorithm, id)),
        _ => Err(Error::bad_json("a key's name is not `<algorithm>:<id>`")),
    }
}

/// Keys are strings, or objects with a `key` and sound signatures.
fn check_key_map(keys: &Map<String, Value>) -> Result<(), Error> {
    if keys.len() > MAX_ONE_TIME_KEYS {
        return Err(Error::TooLarge(format!("at most {MAX_ONE_TIME_KEYS} keys in one request").into()));
    }
    for (name, value) in keys {
        split_name(name)?;
        let sound = match value {
            Value::String(_) => true,
            Value::Object(object) => object.get("key").is_some_and(Value::is_string) && has_sound_signatures(value),
            _ => false,
        };
        if !sound {
            return Err(Error::bad_json("a key is neither a string nor an object with `key` and `signatures`"));
        }
        if to_json(value)?.len() > MAX_KEY_BYTES {
            return Err(Error::TooLarge("a key is too large".into()));
        }
    }
    Ok(())
}

/// Device keys have the form that the specification demands and name the device that uploads them.
fn check_device_keys(keys: &Value, user: &UserId, device: &DeviceId) -> Result<(), Error> {
    let Some(fields) = keys.as_object() else { return Err(Error::bad_json("`device_keys` is not an object")) };
    let strings = |name: &str| fields.get(name).and_then(Value::as_str);
    let (Some(owner), Some(of_device)) = (strings("user_id"), strings("device_id")) else {
        return Err(Error::bad_json("`device_keys` lacks `user_id` or `device_id`"));
    };
    if owner != user.as_str() || of_device != device.as_str() {
        return Err(Error::invalid("`device_keys` belong to another user or device"));
    }
    let algorithms = fields.get("algorithms").and_then(Value::as_array);
    let public = fields.get("keys").and_then(Value::as_object);
    let sound = algorithms.is_some_and(|list| list.iter().all(Value::is_string))
        && public.is_some_and(|keys| keys.values().all(Value::is_string))
        && fields.contains_key("signatures")
        && has_sound_signatures(keys);
    if !sound {
        return Err(Error::bad_json(
            "`device_keys` lacks `algorithms`, `keys` or `signatures`, or they have the wrong form",
        ));
    }
    if to_json(keys)?.len() > MAX_KEY_BYTES {
        return Err(Error::TooLarge("`device_keys` is too large".into()));
    }
    Ok(())
}
