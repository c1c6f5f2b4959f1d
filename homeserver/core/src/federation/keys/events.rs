//! The keys that events need before their signatures can be checked.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt as _, stream};
use matron_room::{KeySource, UncheckedPdu, VerifyKey};
use ruma::{OwnedServerName, ServerName};
use tokio::time::Instant;

use super::{fetch::Wanted, record::ServerKeys};
use crate::{Core, Error, policy_server};

/// How many servers are asked at once.
const AT_ONCE: usize = 16;

/// Keys by server and key id: what [`UncheckedPdu::verify`] takes.
pub type EventKeys = BTreeMap<OwnedServerName, BTreeMap<String, VerifyKey>>;

/// What is known of the servers that have signed some events: [`UncheckedPdu::verify`] takes it for each of them.
#[derive(Debug, Default)]
pub(crate) struct KnownKeys {
    keys: BTreeMap<OwnedServerName, Arc<ServerKeys>>,
    /// Every server that is not known had its chance to answer.
    pub(crate) all_asked: bool,
}

impl KeySource for KnownKeys {
    fn find_key(&self, server: &ServerName, key_id: &str, valid_at_ms: Option<u64>) -> Option<VerifyKey> {
        // A policy server's key stands in the room's state, never among a server's published keys.
        if key_id == policy_server::KEY_ID {
            return None;
        }
        self.keys.get(server)?.find(key_id, valid_at_ms)
    }
}

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
        self.prepare_keys(wanted_by(pdus)).await
    }

    async fn prepare_keys(&self, mut wanted: BTreeMap<OwnedServerName, Wanted>) -> Result<(), Error> {
        wanted.retain(|server, _| !self.is_local(server));
        // Those that answered when they were last asked come first: who is dead holds up nobody who is not.
        let mut wanted: Vec<_> = wanted.into_iter().collect();
        wanted.sort_by_key(|(server, _)| self.key_failures(server));
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

    /// The keys for all these events, as far as they are known or can be had until then: whoever names servers without
    /// end that do not answer has no more time than others.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn known_keys_for_events<'a>(
        &self,
        pdus: impl IntoIterator<Item = &'a UncheckedPdu>,
        until: Instant,
    ) -> Result<KnownKeys, Error> {
        let wanted = wanted_by(pdus);
        let servers: Vec<OwnedServerName> = wanted.keys().cloned().collect();
        let all_asked = match tokio::time::timeout_at(until, self.prepare_keys(wanted)).await {
            Ok(prepared) => prepared.map(|()| true)?,
            Err(_elapsed) => {
                tracing::info!("events are judged by the keys that are known: fetching the others takes too long");
                false
            }
        };
        let mut known = BTreeMap::new();
        for server in servers {
            let keys =
                if self.is_local(&server) { Some(self.own_keys().await?) } else { self.find_known_keys(&server)? };
            known.extend(keys.map(|keys| (server, keys)));
        }
        Ok(KnownKeys { keys: known, all_asked })
    }
}

/// The keys that the events' signatures name, by server.
fn wanted_by<'a>(pdus: impl IntoIterator<Item = &'a UncheckedPdu>) -> BTreeMap<OwnedServerName, Wanted> {
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
    wanted
}
