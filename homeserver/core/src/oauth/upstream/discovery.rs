//! What a provider says of itself, remembered for a while.
//!
//! OpenID Connect Discovery 1.0.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use url::Url;

use super::{
    failed,
    jwt::Jwk,
    openid::{MAX_ANSWER_BYTES, TIMEOUT},
};
use crate::{
    Core, Error,
    ports::{OutboundRequest, http_method::Method},
    settings::Upstream,
};

/// How long a provider's metadata and keys are believed, ms.
const LIFETIME_MS: u64 = 60 * 60 * 1000;

/// How soon keys are fetched again for a token whose key is not known, ms.
const KEYS_INTERVAL_MS: u64 = 60_000;

/// How many keys a provider may have.
const MAX_KEYS: usize = 100;

/// A provider, as it describes itself.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) issuer: String,
    pub(super) authorization_endpoint: Url,
    pub(super) token_endpoint: Url,
    pub(super) userinfo_endpoint: Option<Url>,
    /// RFC 9207: its answers name it.
    pub(super) names_issuer: bool,
    /// It takes secrets in a header.
    pub(super) takes_basic: bool,
    jwks_uri: Url,
    home: Url,
    fetched_ms: u64,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    known: Arc<Vec<Jwk>>,
    fetched_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct KeySet {
    // Keys of kinds that are not known must not spoil the others.
    keys: Vec<serde_json::Value>,
}

impl Provider {
    /// Whether the operator's word for the issuer covers this URL: then it may be at a private address.
    pub(super) fn trusts(&self, url: &Url) -> bool {
        url.origin() == self.home.origin()
    }
}

impl Core {
    /// The provider, as it describes itself.
    ///
    /// # Errors
    /// 502 when it does not answer, or describes another.
    pub(super) async fn provider(&self, upstream: &Upstream) -> Result<Arc<Provider>, Error> {
        let now_ms = self.now_ms();
        let known = self.oauth.upstream.providers.lock().get(&upstream.id).cloned();
        if let Some(known) = &known
            && known.fetched_ms.saturating_add(LIFETIME_MS) > now_ms
        {
            return Ok(Arc::clone(known));
        }
        match self.fetch_provider(upstream, now_ms).await {
            Ok(provider) => {
                let provider = Arc::new(provider);
                self.oauth.upstream.providers.lock().insert(upstream.id.clone(), Arc::clone(&provider));
                Ok(provider)
            }
            // What was true an hour ago serves better than nothing.
            Err(error) => known.ok_or(error),
        }
    }

    async fn fetch_provider(&self, upstream: &Upstream, now_ms: u64) -> Result<Provider, Error> {
        let malformed = || Error::Peer(format!("{} does not describe itself as it should", upstream.name).into());
        let base = upstream.issuer.trim_end_matches('/');
        let home = Url::parse(base).map_err(|_| Error::internal("`oauth.upstreams.issuer` is no URL"))?;
        let request = OutboundRequest {
            trusted: true,
            method: Method::Get,
            url: format!("{base}/.well-known/openid-configuration"),
            bearer: None,
            body: None,
            timeout: TIMEOUT,
            max_bytes: MAX_ANSWER_BYTES,
        };
        let answer = self.federation.outbound(request).await.map_err(|error| failed(upstream, &error))?;
        let metadata: Metadata = serde_json::from_slice(&answer.body).map_err(|_| malformed())?;
        if metadata.issuer.trim_end_matches('/') != base {
            return Err(malformed());
        }
        let absolute = |text: &str| Url::parse(text).map_err(|_| malformed());
        let authorization_endpoint = absolute(&metadata.authorization_endpoint)?;
        if home.scheme() == "https" && authorization_endpoint.scheme() != "https" {
            return Err(malformed());
        }
        let methods = metadata.token_endpoint_auth_methods_supported;
        Ok(Provider {
            issuer: metadata.issuer,
            authorization_endpoint,
            token_endpoint: absolute(&metadata.token_endpoint)?,
            userinfo_endpoint: metadata.userinfo_endpoint.as_deref().map(absolute).transpose()?,
            names_issuer: metadata.authorization_response_iss_parameter_supported,
            takes_basic: methods.is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic")),
            jwks_uri: absolute(&metadata.jwks_uri)?,
            home,
            fetched_ms: now_ms,
            keys: Mutex::default(),
        })
    }

    /// The provider's keys; fetched again, but not often, when `wanted` is none of them.
    ///
    /// # Errors
    /// 502 when it does not answer.
    pub(super) async fn provider_keys(
        &self,
        upstream: &Upstream,
        provider: &Provider,
        wanted: Option<&str>,
    ) -> Result<Arc<Vec<Jwk>>, Error> {
        let now_ms = self.now_ms();
        {
            let keys = provider.keys.lock();
            let has_wanted = wanted.is_none_or(|wanted| keys.known.iter().any(|key| key.is(wanted)));
            let lately = |ms: u64| keys.fetched_ms.is_some_and(|at| at.saturating_add(ms) > now_ms);
            if lately(KEYS_INTERVAL_MS) || (has_wanted && lately(LIFETIME_MS)) {
                return Ok(Arc::clone(&keys.known));
            }
        }
        let request = OutboundRequest {
            trusted: provider.trusts(&provider.jwks_uri),
            method: Method::Get,
            url: provider.jwks_uri.to_string(),
            bearer: None,
            body: None,
            timeout: TIMEOUT,
            max_bytes: MAX_ANSWER_BYTES,
        };
        let answer = self.federation.outbound(request).await.map_err(|error| failed(upstream, &error))?;
        let set: KeySet = serde_json::from_slice(&answer.body)
            .map_err(|_| Error::Peer(format!("{} gives no keys", upstream.name).into()))?;
        let keys = set.keys.into_iter().take(MAX_KEYS).filter_map(|key| serde_json::from_value(key).ok()).collect();
        let keys = Arc::new(keys);
        *provider.keys.lock() = Keys { known: Arc::clone(&keys), fetched_ms: Some(now_ms) };
        Ok(keys)
    }
}
