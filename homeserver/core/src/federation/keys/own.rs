//! `GET /_matrix/key/v2/server`: what we publish.

use std::{collections::BTreeMap, sync::Arc};

use matron_storage::{Batch, Key, Table};
use ruma::CanonicalJsonObject;

use super::record::{KeyRecord, ServerKeys, unsigned_document};
use crate::{Core, Error, house::to_json};

/// For how long others may rely on our key without asking again, ms. Within the seven days of the specification;
/// short enough that a replaced key is noticed within a day.
const PUBLISHED_VALIDITY_MS: u64 = 24 * 60 * 60 * 1000;

impl Core {
    /// Our key document, signed with the key inside. Keys that this server used before are listed as retired.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn own_key_document(&self) -> Result<CanonicalJsonObject, Error> {
        let own = self.own_keys().await?;
        let current = (self.signing_key.key_id(), self.signing_key.verify_key().to_base64());
        let retired: BTreeMap<String, KeyRecord> = own
            .keys
            .iter()
            .filter(|(key_id, _)| *key_id != current.0)
            .map(|(key_id, record)| (key_id.clone(), record.clone()))
            .collect();
        let valid_until_ts = self.now_ms().saturating_add(PUBLISHED_VALIDITY_MS);
        let mut document = unsigned_document(&self.server_name, current, &retired, valid_until_ts);
        self.sign_as_server(&mut document)?;
        Ok(document)
    }

    /// Our signature stands in the object.
    ///
    /// # Errors
    /// [`Error::BadJson`] (`M_BAD_JSON`) when its `signatures` is not an object of objects.
    pub fn sign_as_server(&self, object: &mut CanonicalJsonObject) -> Result<(), Error> {
        self.signing_key
            .sign_json(object, self.server_name.as_str())
            .map_err(|_malformed| Error::bad_json("signatures is not an object of objects"))
    }

    /// The keys that this server has ever signed with; all but the present one are retired as of now, once.
    pub(crate) async fn own_keys(&self) -> Result<Arc<ServerKeys>, Error> {
        let current_id = self.signing_key.key_id();
        let current =
            KeyRecord { key: self.signing_key.verify_key().to_base64(), valid_until_ts: u64::MAX, retired: false };
        if let Some(own) = self.find_known_keys(&self.server_name)?
            && own.keys.iter().all(|(key_id, record)| (key_id == current_id) == (*record == current))
            && own.keys.contains_key(current_id)
        {
            return Ok(own);
        }
        let now_ms = self.now_ms();
        let mut own = self.find_known_keys(&self.server_name)?.map_or_else(ServerKeys::default, |own| (*own).clone());
        for record in own.keys.values_mut() {
            record.valid_until_ts = record.valid_until_ts.min(now_ms);
        }
        own.keys.insert(current_id.to_owned(), current);
        self.remember_keys(&self.server_name, own).await
    }

    /// What is known of a server's keys without asking anyone.
    pub(crate) fn find_known_keys(&self, server: &ruma::ServerName) -> Result<Option<Arc<ServerKeys>>, Error> {
        if let Some(known) = self.inbound.keys.known.lock().get(server) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(stored) = self.load::<ServerKeys>(Table::ServerKey, &Key::new().text(server))? else {
            return Ok(None);
        };
        let stored = Arc::new(stored);
        self.inbound.keys.known.lock().put(server.to_owned(), Arc::clone(&stored));
        Ok(Some(stored))
    }

    /// The keys are stored and in memory.
    pub(crate) async fn remember_keys(
        &self,
        server: &ruma::ServerName,
        keys: ServerKeys,
    ) -> Result<Arc<ServerKeys>, Error> {
        let mut batch = Batch::new();
        batch.put(Table::ServerKey, Key::new().text(server), to_json(&keys)?);
        self.commit(batch).await?;
        let keys = Arc::new(keys);
        self.inbound.keys.known.lock().put(server.to_owned(), Arc::clone(&keys));
        Ok(keys)
    }
}
