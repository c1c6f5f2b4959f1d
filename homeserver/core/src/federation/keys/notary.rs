//! `/_matrix/key/v2/query`: other servers' key documents, with our signature beside theirs.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#querying-keys-through-another-server>.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream};
use ruma::{CanonicalJsonObject, OwnedServerName};

use super::record::{LONGEST_VALIDITY_MS, ServerKeys, StoredDocument};
use crate::{Core, Error};

/// How many servers one query may name.
const MAX_SERVERS: usize = 100;
/// How many of them are asked at once.
const AT_ONCE: usize = 8;

/// What somebody wants to know of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyQuery {
    /// Which server.
    pub server: OwnedServerName,
    /// Which keys, and until when they should be valid at least (ms; `None`: now); empty: all.
    pub keys: BTreeMap<String, Option<u64>>,
    /// Until when all should be valid at least, if no key is named; ms; `None`: now.
    pub until_ms: Option<u64>,
}

impl KeyQuery {
    /// Whether what is known answers the query, so that the server need not be asked.
    fn is_answered_by(&self, known: &ServerKeys, now_ms: u64) -> bool {
        // No key is valid for longer than this, whatever is asked.
        let latest_ms = now_ms.saturating_add(LONGEST_VALIDITY_MS / 2);
        let lasts = |document: &StoredDocument, until_ms: Option<u64>| match until_ms {
            // What is asked for the past needs nothing new.
            Some(until_ms) if until_ms <= now_ms => document.valid_until_ts >= until_ms,
            until_ms => {
                document.is_fresh(now_ms) && document.valid_until_ts >= until_ms.unwrap_or(now_ms).min(latest_ms)
            }
        };
        let holds = |key_id: Option<&str>, until_ms: Option<u64>| {
            known.document_with(key_id).is_some_and(|document| lasts(document, until_ms))
        };
        // Nobody makes an old key valid for longer.
        let is_retired = |key_id: &str| {
            known.keys.get(key_id).is_some_and(|key| key.retired)
                && known.documents.first().is_some_and(|newest| newest.is_fresh(now_ms))
        };
        if self.keys.is_empty() {
            return holds(None, self.until_ms);
        }
        self.keys.iter().all(|(key_id, until_ms)| holds(Some(key_id), *until_ms) || is_retired(key_id))
    }

    /// The documents with these keys, each once; the newest, if none has them.
    fn pick<'a>(&self, known: &'a ServerKeys) -> Vec<&'a StoredDocument> {
        let mut seen = BTreeSet::new();
        let mut picked: Vec<_> = self
            .keys
            .keys()
            .filter_map(|key_id| known.document_with(Some(key_id)))
            .filter(|document| seen.insert(document.text.as_str()))
            .collect();
        if picked.is_empty() {
            picked.extend(known.document_with(None));
        }
        picked
    }
}

impl Core {
    /// The key documents that answer these queries as far as they can be had, each signed by its server and by us.
    /// Servers that cannot be reached and were never heard of are left out.
    ///
    /// # Errors
    /// [`Error::TooLarge`] (`M_TOO_LARGE`) for more than 100 servers, [`Error::Store`].
    pub async fn notarised_keys(&self, queries: Vec<KeyQuery>) -> Result<Vec<CanonicalJsonObject>, Error> {
        if queries.len() > MAX_SERVERS {
            return Err(Error::TooLarge("at most 100 servers can be asked for at once".into()));
        }
        let found: Vec<Result<Vec<CanonicalJsonObject>, Error>> =
            stream::iter(queries).map(|query| self.notarised_keys_of(query)).buffered(AT_ONCE).collect().await;
        let found: Result<Vec<Vec<CanonicalJsonObject>>, Error> = found.into_iter().collect();
        Ok(found?.into_iter().flatten().collect())
    }

    async fn notarised_keys_of(&self, query: KeyQuery) -> Result<Vec<CanonicalJsonObject>, Error> {
        if self.is_local(&query.server) {
            return Ok(vec![self.own_key_document().await?]);
        }
        let now_ms = self.now_ms();
        // Of no key in particular: a notary that asked others of the past could be asked by them in turn, for ever.
        let wanted = super::fetch::Wanted::new();
        let known = self.keys_satisfying(&query.server, &wanted, |known| query.is_answered_by(known, now_ms)).await?;
        let Some(known) = known else { return Ok(Vec::new()) };
        let mut objects: Vec<CanonicalJsonObject> =
            query.pick(&known).into_iter().filter_map(StoredDocument::object).collect();
        for object in &mut objects {
            self.sign_as_server(object)?;
        }
        Ok(objects)
    }
}
