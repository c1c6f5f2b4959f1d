//! The keys that events need before their signatures can be checked.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream};
use matron_room::{UncheckedPdu, VerifyKey};
use ruma::OwnedServerName;

use crate::{Core, Error};

/// How many servers are asked at once.
const AT_ONCE: usize = 16;

/// Keys by server and key id: what [`UncheckedPdu::verify`] takes.
pub type EventKeys = BTreeMap<OwnedServerName, BTreeMap<String, VerifyKey>>;

impl Core {
    /// The keys for the event's signatures that are known or could be fetched, valid when the event says it was
    /// sent (room versions 1 to 4: whenever).
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn keys_for_event(&self, pdu: &UncheckedPdu) -> Result<EventKeys, Error> {
        let mut keys = EventKeys::new();
        for (server, key_ids) in pdu.required_key_ids() {
            let found = self.server_keys(&server, &key_ids, pdu.keys_valid_at_ms()).await?;
            keys.insert(server, found);
        }
        Ok(keys)
    }

    /// The keys of all servers that these events need are in memory, as far as they can be had: fetched once per
    /// server, many servers at a time. [`Core::keys_for_event`] then answers without waiting.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn prepare_keys_for_events<'a>(
        &self,
        pdus: impl IntoIterator<Item = &'a UncheckedPdu>,
    ) -> Result<(), Error> {
        let mut wanted: BTreeMap<OwnedServerName, (BTreeSet<String>, Option<u64>)> = BTreeMap::new();
        for pdu in pdus {
            for (server, key_ids) in pdu.required_key_ids() {
                let entry = wanted.entry(server).or_default();
                entry.0.extend(key_ids);
                // The latest event decides: a key that was valid then has been for all before it, or is retired.
                entry.1 = entry.1.max(pdu.keys_valid_at_ms());
            }
        }
        let answers: Vec<Result<(), Error>> = stream::iter(wanted)
            .map(|(server, (key_ids, valid_at_ms))| async move {
                self.server_keys(&server, &key_ids, valid_at_ms).await.map(|_known| ())
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        answers.into_iter().collect()
    }
}
