//! What trusted notaries know of a server that cannot be reached, or that no longer tells of its past.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#post_matrixkeyv2query>.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ruma::{CanonicalJsonObject, ServerName};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{fetch::Wanted, record::ServerKeys};
use crate::{
    Core,
    ports::{FederationRequest, http_method::Method},
};

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// How many documents of one answer are looked at.
const MAX_DOCUMENTS: usize = 16;

#[derive(Deserialize)]
struct Answer {
    server_keys: Vec<serde_json::Value>,
}

impl Core {
    /// The server's keys, as the first of the configured notaries that knows any signs them.
    pub(super) async fn fetch_keys_from_notaries(&self, server: &ServerName, wanted: &Wanted) -> Option<ServerKeys> {
        for notary in &self.settings.key_notaries {
            if notary == server || self.is_local(notary) || !self.peer_allowed(notary) {
                continue;
            }
            match self.fetch_keys_from_notary(notary, server, wanted).await {
                Some(keys) => return Some(keys),
                None => tracing::debug!(peer.name = %notary, "the notary knows no keys of a server"),
            }
        }
        None
    }

    async fn fetch_keys_from_notary(
        &self,
        notary: &ServerName,
        server: &ServerName,
        wanted: &Wanted,
    ) -> Option<ServerKeys> {
        let vouching = self.keys_of_notary(notary).await?;
        // SPEC: room version 5, "Signing key validity period": with it the notary sees whether it must ask anew.
        let criteria: Map<String, Value> = wanted
            .iter()
            .take(MAX_DOCUMENTS)
            .map(|(key_id, until_ms)| (key_id.clone(), json!({ "minimum_valid_until_ts": until_ms })))
            .collect();
        let body = json!({ "server_keys": { server.as_str(): criteria } });
        let request = FederationRequest {
            destination: notary.to_owned(),
            method: Method::Post,
            path_and_query: "/_matrix/key/v2/query".to_owned(),
            body: Some(body),
            signed: false,
            timeout: TIMEOUT,
            max_bytes: MAX_ANSWER_BYTES,
        };
        let response = self.federation.request(request).await.ok()?;
        let answer: Answer = serde_json::from_slice(&response.body).ok()?;
        let now_ms = self.now_ms();
        let mut found: Vec<ServerKeys> = answer
            .server_keys
            .iter()
            .take(MAX_DOCUMENTS)
            .filter_map(|document| {
                let document: CanonicalJsonObject = matron_room::canonical_object(document).ok()?;
                matron_room::verify_json_signature(&document, notary.as_str(), &vouching).ok()?;
                ServerKeys::from_document(server, &document, now_ms).ok()
            })
            .collect();
        found.sort_by_key(|keys| keys.documents.first().map_or(0, |document| document.valid_until_ts));
        found.into_iter().reduce(|older, newer| newer.over(&older))
    }

    /// The notary's own keys, from memory or from itself; never through another notary.
    async fn keys_of_notary(&self, notary: &ServerName) -> Option<BTreeMap<String, String>> {
        let now_ms = self.now_ms();
        let current = |keys: &ServerKeys| -> BTreeMap<String, String> {
            let valid = keys.keys.iter().filter(|(_, record)| record.valid_until_ts >= now_ms);
            valid.map(|(key_id, record)| (key_id.clone(), record.key.clone())).collect()
        };
        let known = self.find_known_keys(notary).ok().flatten().map(|known| current(&known)).unwrap_or_default();
        if !known.is_empty() {
            return Some(known);
        }
        let fetched = self.fetch_key_document(notary).await.ok()?;
        let merged = match self.find_known_keys(notary).ok().flatten() {
            Some(known) => fetched.over(&known),
            None => fetched,
        };
        let stored: Arc<ServerKeys> = self.remember_keys(notary, merged).await.ok()?;
        Some(current(&stored))
    }
}
