//! The keys that events need before their signatures can be checked.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use matron_room::{UncheckedPdu, VerifyKey};
use ruma::OwnedServerName;

use super::{fetch::Wanted, record::ServerKeys};
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
        let mut wanted: BTreeMap<OwnedServerName, Wanted> = BTreeMap::new();
        for pdu in pdus {
            for (server, key_ids) in pdu.required_key_ids() {
                let wanted = wanted.entry(server).or_default();
                for key_id in key_ids {
                    // Of each key the latest event decides: if it was valid then, it has been for all before.
                    let valid_at_ms = wanted.entry(key_id).or_default();
                    *valid_at_ms = (*valid_at_ms).max(pdu.keys_valid_at_ms().unwrap_or(0));
                }
            }
        }
        wanted.retain(|server, _| !self.is_local(server));
        let answers: Vec<Result<(), Error>> = stream::iter(wanted)
            .map(|(server, wanted)| async move {
                let satisfies =
                    |known: &ServerKeys| wanted.iter().all(|(key_id, at)| known.find(key_id, Some(*at)).is_some());
                self.keys_satisfying(&server, &wanted, satisfies).await.map(|_known| ())
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        answers.into_iter().collect()
    }
}
