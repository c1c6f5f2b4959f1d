//! `POST /keys/device_signing/upload`.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload>.

use matron_storage::{Batch, CommitError, Key, Table};
use ruma::UserId;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    local::Usage,
    signed_json::{has_sound_signatures, is_signed_by, only_key, same_but_signatures},
    upload::MAX_TRIES,
};
use crate::{
    Core, Error,
    house::{from_json, to_json},
};

/// The largest cross-signing key, bytes.
const MAX_KEY_BYTES: usize = 32 * 1024;

/// A user's identity, or parts of it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct CrossSigningUpload {
    /// Signs the other two.
    #[serde(default)]
    pub master_key: Option<Value>,
    /// Signs the user's devices.
    #[serde(default)]
    pub self_signing_key: Option<Value>,
    /// Signs other users.
    #[serde(default)]
    pub user_signing_key: Option<Value>,
}

impl CrossSigningUpload {
    fn parts(&self) -> impl Iterator<Item = (Usage, &Value)> {
        [
            (Usage::Master, &self.master_key),
            (Usage::SelfSigning, &self.self_signing_key),
            (Usage::UserSigning, &self.user_signing_key),
        ]
        .into_iter()
        .filter_map(|(usage, key)| key.as_ref().map(|key| (usage, key)))
    }
}

/// A cross-signing key as it was read.
struct Stored {
    row: Key,
    bytes: Option<Vec<u8>>,
    key: Option<Value>,
}

impl Core {
    /// Whether the user must authenticate before these keys are taken: unless there is no identity yet, or nothing is new.
    ///
    /// # Errors
    /// [`Error::Store`].
    // MSC: 3967, merged in v1.11.
    pub fn cross_signing_needs_auth(&self, user: &UserId, upload: &CrossSigningUpload) -> Result<bool, Error> {
        if self.stored_cross_signing(user, Usage::Master)?.key.is_none() {
            return Ok(false);
        }
        for (usage, key) in upload.parts() {
            let stored = self.stored_cross_signing(user, usage)?.key;
            if !stored.is_some_and(|stored| same_but_signatures(&stored, key)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The keys could be the user's identity; to be asked before the user is asked to authenticate.
    ///
    /// # Errors
    /// `M_BAD_JSON`, `M_INVALID_PARAM` for keys of another user or use, `M_MISSING_PARAM` without a master key,
    /// `M_INVALID_SIGNATURE` (400) for keys that the master key has not signed, `M_FORBIDDEN` for a key id in use.
    pub fn check_cross_signing_keys(&self, user: &UserId, upload: &CrossSigningUpload) -> Result<(), Error> {
        for (usage, key) in upload.parts() {
            check_form(key, user, usage)?;
            let device = only_key(key).map(|(_, public)| public).unwrap_or_default();
            if self.find_device(user, device.into())?.is_some() {
                return Err(Error::forbidden("a key has the id of a device"));
            }
        }
        self.write_identity(&mut Batch::new(), user, upload).map(|_| ())
    }

    /// The user has this identity, and everyone who shares a room hears of it.
    ///
    /// # Errors
    /// As [`Core::check_cross_signing_keys`], [`Error::Store`].
    pub async fn upload_cross_signing_keys(&self, user: &UserId, upload: &CrossSigningUpload) -> Result<(), Error> {
        self.check_cross_signing_keys(user, upload)?;
        for _ in 0..MAX_TRIES {
            let mut batch = Batch::new();
            let update = self.write_identity(&mut batch, user, upload)?;
            if batch.ops.is_empty() {
                return Ok(());
            }
            match self.store.submit(batch).await {
                Ok(_) if update.is_empty() => {
                    // A user-signing key is nobody else's business.
                    return self.tell_owner_alone(user).await;
                }
                Ok(_) => {
                    let mut update = update;
                    update.insert("user_id".to_owned(), Value::String(user.to_string()));
                    return self.identity_changed(user, Value::Object(update)).await;
                }
                Err(CommitError::Conflict(_)) => tokio::task::yield_now().await,
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 1_000 })
    }

    /// Writes the keys that are new; the answer is what other servers are told.
    fn write_identity(
        &self,
        batch: &mut Batch,
        user: &UserId,
        upload: &CrossSigningUpload,
    ) -> Result<Map<String, Value>, Error> {
        let stored_master = self.stored_cross_signing(user, Usage::Master)?;
        let master = upload.master_key.as_ref().or(stored_master.key.as_ref());
        let Some((master_id, master_public)) = master.and_then(only_key) else {
            return Err(Error::MissingParam("there is no master key yet, and none is given".into()));
        };
        if upload.master_key.is_none() {
            // What the others are checked against must still be the master key when they are written.
            if let Some(bytes) = &stored_master.bytes {
                batch.expect_equals(Table::CrossSigningKey, stored_master.row.clone(), bytes.clone());
            }
        }
        let mut update = Map::new();
        for (usage, key) in upload.parts() {
            if usage != Usage::Master && !is_signed_by(key, user, master_id, master_public) {
                return Err(Error::Custom {
                    status: 400,
                    errcode: "M_INVALID_SIGNATURE",
                    message: format!("the {} key is not signed by the master key", usage.as_str()).into(),
                });
            }
            let stored = self.stored_cross_signing(user, usage)?;
            match stored.bytes {
                Some(bytes) => batch.expect_equals(Table::CrossSigningKey, stored.row.clone(), bytes),
                None => batch.expect_absent(Table::CrossSigningKey, stored.row.clone()),
            };
            if stored.key.as_ref() == Some(key) {
                continue;
            }
            batch.put(Table::CrossSigningKey, stored.row, to_json(key)?);
            match usage {
                Usage::Master => update.insert("master_key".to_owned(), key.clone()),
                Usage::SelfSigning => update.insert("self_signing_key".to_owned(), key.clone()),
                Usage::UserSigning => None,
            };
        }
        Ok(update)
    }

    async fn tell_owner_alone(&self, user: &UserId) -> Result<(), Error> {
        let mut batch = Batch::new();
        self.write_private_signature_row(&mut batch, user, user)?;
        self.commit(batch).await?;
        self.notifier.wake_user(user);
        Ok(())
    }

    fn stored_cross_signing(&self, user: &UserId, usage: Usage) -> Result<Stored, Error> {
        let row = Key::new().text(user).text(usage.as_str());
        let bytes = self.store.get(Table::CrossSigningKey, row.as_bytes())?;
        let key = bytes.as_deref().map(|bytes| from_json(Table::CrossSigningKey, bytes)).transpose()?;
        Ok(Stored { row, bytes, key })
    }
}

fn check_form(key: &Value, user: &UserId, usage: Usage) -> Result<(), Error> {
    let Some(owner) = key.get("user_id").and_then(Value::as_str) else {
        return Err(Error::bad_json("a cross-signing key lacks `user_id`"));
    };
    if owner != user.as_str() {
        return Err(Error::invalid("a cross-signing key belongs to another user"));
    }
    let Some(usages) = key.get("usage").and_then(Value::as_array) else {
        return Err(Error::bad_json("a cross-signing key lacks `usage`"));
    };
    if !usages.iter().any(|named| named.as_str() == Some(usage.as_str())) {
        return Err(Error::invalid(format!("the {} key's `usage` names another use", usage.as_str())));
    }
    if only_key(key).is_none_or(|(id, public)| id.strip_prefix("ed25519:") != Some(public)) {
        return Err(Error::bad_json("a cross-signing key has exactly one ed25519 key, named after itself"));
    }
    if !has_sound_signatures(key) {
        return Err(Error::bad_json("`signatures` has the wrong form"));
    }
    if to_json(key)?.len() > MAX_KEY_BYTES {
        return Err(Error::TooLarge("a cross-signing key is too large".into()));
    }
    Ok(())
}
