//! `POST /keys/signatures/upload`: a signature is kept only if it is right and its signer may make it.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload>.

use std::{collections::BTreeMap, time::Duration};

use matron_storage::{Batch, Key, Table};
use ruma::{DeviceId, OwnedUserId, UserId};
use serde_json::{Map, Value, json};

use super::{
    local::Usage,
    signed_json::{is_signed_by, only_key, same_but_signatures},
};
use crate::{Core, Error};

/// How many keys one request may sign.
const MAX_SIGNED_KEYS: usize = 1_000;

/// How long a remote user's server may take to show the key that was signed.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// User to key id to signed object.
pub type SignaturesUpload = BTreeMap<OwnedUserId, Map<String, Value>>;

/// User to key id to error.
pub type SignatureFailures = BTreeMap<OwnedUserId, Map<String, Value>>;

/// Why one signature was not taken.
struct Refusal {
    errcode: &'static str,
    sentence: &'static str,
}

const fn refusal(errcode: &'static str, sentence: &'static str) -> Refusal {
    Refusal { errcode, sentence }
}

const NOT_FOUND: Refusal = refusal("M_NOT_FOUND", "there is no such key");
const WRONG: Refusal =
    refusal("M_INVALID_SIGNATURE", "a signature is wrong, missing, or of a key that may not sign this");
const OTHER_KEY: Refusal = refusal("M_INVALID_PARAM", "the signed object is not the key that was published");

/// A signature that stands.
struct Sound {
    signer_key: String,
    signature: String,
}

impl Core {
    /// Right signatures are kept and told to those who may see them; the answer names the others.
    ///
    /// # Errors
    /// [`Error::Store`], `M_TOO_LARGE`.
    pub async fn upload_signatures(
        &self,
        signer: &UserId,
        upload: SignaturesUpload,
    ) -> Result<SignatureFailures, Error> {
        if upload.values().map(Map::len).sum::<usize>() > MAX_SIGNED_KEYS {
            return Err(Error::TooLarge(format!("at most {MAX_SIGNED_KEYS} keys in one request").into()));
        }
        let mut failures = SignatureFailures::new();
        let mut batch = Batch::new();
        let mut own_changed = false;
        let mut others = Vec::new();
        for (owner, objects) in upload {
            for (key_id, object) in objects {
                match self.check_signed(signer, &owner, &key_id, &object).await? {
                    Ok(signatures) => {
                        let changed = self.write_signatures(&mut batch, &owner, &key_id, signer, signatures)?;
                        if changed && owner == signer {
                            own_changed = true;
                        } else if changed {
                            others.push(owner.clone());
                        }
                    }
                    Err(Refusal { errcode, sentence }) => {
                        let error = json!({ "errcode": errcode, "error": sentence });
                        failures.entry(owner.clone()).or_default().insert(key_id, error);
                    }
                }
            }
        }
        for other in &others {
            self.write_private_signature_row(&mut batch, other, signer)?;
        }
        if batch.is_empty() {
            return Ok(failures);
        }
        self.commit(batch).await?;
        if own_changed {
            self.own_signatures_changed(signer).await?;
        }
        self.notifier.wake_user(signer);
        Ok(failures)
    }

    /// Devices travel with their signatures; so does the master key, when a device signed it.
    async fn own_signatures_changed(&self, user: &UserId) -> Result<(), Error> {
        self.device_list_changed(user).await
    }

    async fn check_signed(
        &self,
        signer: &UserId,
        owner: &UserId,
        key_id: &str,
        object: &Value,
    ) -> Result<Result<Vec<Sound>, Refusal>, Error> {
        if owner != signer {
            return self.check_verification_of_other(signer, owner, key_id, object).await;
        }
        let device: &DeviceId = key_id.into();
        if let Some(keys) = self.load::<Value>(Table::DeviceKeys, &Key::new().text(owner).text(device))? {
            let signing = self.cross_signing_key(signer, Usage::SelfSigning, None)?;
            return Ok(check_against(object, &keys, signer, signing.as_ref().and_then(only_key)));
        }
        let Some(master) = self.cross_signing_key(owner, Usage::Master, None)? else { return Ok(Err(NOT_FOUND)) };
        if only_key(&master).is_none_or(|(_, public)| public != key_id) {
            return Ok(Err(NOT_FOUND));
        }
        if !same_but_signatures(&master, object) {
            return Ok(Err(OTHER_KEY));
        }
        self.check_master_signed_by_device(signer, object)
    }

    /// The user's own devices vouch for the user's master key.
    fn check_master_signed_by_device(
        &self,
        user: &UserId,
        object: &Value,
    ) -> Result<Result<Vec<Sound>, Refusal>, Error> {
        let mut sound = Vec::new();
        for (key_id, signature) in signatures_of(object, user) {
            let device: &DeviceId = key_id.strip_prefix("ed25519:").unwrap_or_default().into();
            let keys = self.load::<Value>(Table::DeviceKeys, &Key::new().text(user).text(device))?;
            let public = keys.as_ref().and_then(|keys| keys.get("keys")?.get(key_id)?.as_str());
            match public {
                Some(public) if is_signed_by(object, user, key_id, public) => {
                    sound.push(Sound { signer_key: key_id.to_owned(), signature: signature.to_owned() });
                }
                _ => return Ok(Err(WRONG)),
            }
        }
        Ok(if sound.is_empty() { Err(WRONG) } else { Ok(sound) })
    }

    /// A user vouches for another user's master key, with the user-signing key.
    async fn check_verification_of_other(
        &self,
        signer: &UserId,
        owner: &UserId,
        key_id: &str,
        object: &Value,
    ) -> Result<Result<Vec<Sound>, Refusal>, Error> {
        let master = if self.is_local_user(owner) {
            self.cross_signing_key(owner, Usage::Master, None)?
        } else {
            self.remote_master_key(owner).await?
        };
        let Some(master) = master else { return Ok(Err(NOT_FOUND)) };
        if only_key(&master).is_none_or(|(_, public)| public != key_id) {
            return Ok(Err(NOT_FOUND));
        }
        let signing = self.cross_signing_key(signer, Usage::UserSigning, Some(signer))?;
        Ok(check_against(object, &master, signer, signing.as_ref().and_then(only_key)))
    }

    async fn remote_master_key(&self, user: &UserId) -> Result<Option<Value>, Error> {
        if let Some(list) = self.cached_devices(user)? {
            return Ok(list.master_key);
        }
        match self.fetch_devices(user, FETCH_TIMEOUT).await? {
            Ok(list) => Ok(list.master_key),
            Err(_) => Ok(None),
        }
    }

    /// Whether anything was new.
    fn write_signatures(
        &self,
        batch: &mut Batch,
        owner: &UserId,
        key_id: &str,
        signer: &UserId,
        signatures: Vec<Sound>,
    ) -> Result<bool, Error> {
        let mut changed = false;
        for Sound { signer_key, signature } in signatures {
            let row = Key::new().text(owner).text(key_id).text(signer).text(&signer_key);
            if self.store.get(Table::KeySignature, row.as_bytes())?.as_deref() != Some(signature.as_bytes()) {
                batch.put(Table::KeySignature, row, signature.into_bytes());
                changed = true;
            }
        }
        Ok(changed)
    }
}

/// The signatures of one user on an object.
fn signatures_of<'a>(object: &'a Value, user: &UserId) -> impl Iterator<Item = (&'a str, &'a str)> {
    let of_user = object.get("signatures").and_then(|all| all.get(user.as_str())).and_then(Value::as_object);
    of_user.into_iter().flatten().filter_map(|(key_id, signature)| Some((key_id.as_str(), signature.as_str()?)))
}

/// The object is the published key, and carries a right signature of the key that may sign it.
fn check_against(
    object: &Value,
    published: &Value,
    signer: &UserId,
    signing: Option<(&str, &str)>,
) -> Result<Vec<Sound>, Refusal> {
    if !same_but_signatures(object, published) {
        return Err(OTHER_KEY);
    }
    let Some((signing_id, public)) = signing else { return Err(WRONG) };
    let Some((_, signature)) = signatures_of(object, signer).find(|(key_id, _)| *key_id == signing_id) else {
        return Err(WRONG);
    };
    if !is_signed_by(object, signer, signing_id, public) {
        return Err(WRONG);
    }
    Ok(vec![Sound { signer_key: signing_id.to_owned(), signature: signature.to_owned() }])
}
