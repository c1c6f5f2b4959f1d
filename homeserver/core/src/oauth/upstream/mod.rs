//! OpenID Connect providers that sign people in.
//!
//! OpenID Connect Core 1.0, "Authentication using the Authorization Code Flow", with PKCE and a nonce. The provider proves
//! who somebody is; what they may do here is decided here.

mod claims;
mod discovery;
mod identity;
mod jwt;

pub use identity::Identity;

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use lru::LruCache;
use parking_lot::Mutex;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Visitor;
use crate::{
    Core, Error,
    accounts::{TokenHash, fresh_token, hash_token},
    ports::{OutboundForm, OutboundRequest, PeerError, http_method::Method},
    settings::Upstream,
};

/// How long a person may take at the provider, ms.
const ATTEMPT_LIFETIME_MS: u64 = 10 * 60 * 1000;

/// How many people may be at providers at one time.
const MAX_ATTEMPTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

/// How old a sign-in at the provider may be where a fresh one is asked for, seconds.
const FRESH_S: u64 = 5 * 60;

/// How far clocks may be apart, seconds.
const SKEW_S: u64 = 60;

const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// What this concern keeps in memory.
#[derive(Debug)]
pub(super) struct State {
    attempts: Mutex<LruCache<TokenHash, Attempt>>,
    providers: Mutex<HashMap<String, Arc<discovery::Provider>>>,
}

impl Default for State {
    fn default() -> Self {
        Self { attempts: Mutex::new(LruCache::new(MAX_ATTEMPTS)), providers: Mutex::default() }
    }
}

/// Somebody is at a provider.
#[derive(Debug)]
struct Attempt {
    provider: String,
    /// Only the browser that began may end.
    browser: TokenHash,
    nonce: String,
    verifier: String,
    next: String,
    fresh: bool,
    ends_ms: u64,
}

/// What the browser brings back from the provider.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct UpstreamAnswer {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

/// Somebody is back.
#[derive(Clone, Debug)]
pub struct UpstreamSignIn {
    /// Who.
    pub user_id: OwnedUserId,
    /// Where they wanted to go.
    pub next: String,
    /// They proved it to the provider within the last minutes.
    pub is_fresh: bool,
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: String,
    access_token: Option<String>,
}

impl Core {
    /// The URL at the provider to which the browser goes. With `fresh`, the provider must ask again who it is.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for a provider that is not configured; 502 when it does not answer as it should.
    pub async fn begin_upstream(
        &self,
        id: &str,
        visitor: &Visitor,
        next: String,
        fresh: bool,
    ) -> Result<String, Error> {
        let upstream = self.upstream(id)?;
        let provider = self.provider(upstream).await?;
        let (state, nonce, verifier) = (fresh_token("mus"), fresh_token("mun"), fresh_token("muv"));
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let redirect_uri = self.upstream_redirect_uri(id);
        let mut url = provider.authorization_endpoint.clone();
        {
            let mut query = url.query_pairs_mut();
            query
                .append_pair("response_type", "code")
                .append_pair("client_id", &upstream.client_id)
                .append_pair("redirect_uri", &redirect_uri)
                .append_pair("scope", &upstream.scopes.join(" "))
                .append_pair("state", &state)
                .append_pair("nonce", &nonce)
                .append_pair("code_challenge", &challenge)
                .append_pair("code_challenge_method", "S256");
            if !upstream.acr_values.is_empty() {
                query.append_pair("acr_values", &upstream.acr_values.join(" "));
            }
            if fresh {
                query.append_pair("prompt", "login").append_pair("max_age", &FRESH_S.to_string());
            }
        }
        let attempt = Attempt {
            provider: id.to_owned(),
            browser: hash_token(visitor.cookie()),
            nonce,
            verifier,
            next,
            fresh,
            ends_ms: self.now_ms().saturating_add(ATTEMPT_LIFETIME_MS),
        };
        self.oauth.upstream.attempts.lock().put(hash_token(&state), attempt);
        Ok(url.into())
    }

    /// Who came back from the provider; they have an account.
    ///
    /// # Errors
    /// `M_FORBIDDEN` for an answer that this browser did not ask for, that is not proved, or that the settings refuse; 502
    /// when the provider does not answer as it should.
    pub async fn finish_upstream(
        self: &Arc<Self>,
        id: &str,
        visitor: &Visitor,
        answer: &UpstreamAnswer,
    ) -> Result<UpstreamSignIn, Error> {
        let upstream = self.upstream(id)?;
        let attempt = self.take_attempt(id, visitor, answer.state.as_deref().unwrap_or_default())?;
        if answer.error.is_some() {
            return Err(Error::forbidden(format!("{} did not sign you in", upstream.name)));
        }
        let provider = self.provider(upstream).await?;
        let issuer_fits = match &answer.iss {
            Some(issuer) => *issuer == provider.issuer,
            None => !provider.names_issuer,
        };
        if !issuer_fits {
            return Err(Error::forbidden("the answer comes from another provider than the one that was asked"));
        }
        let code = answer.code.as_deref().ok_or_else(|| Error::MissingParam("`code` is missing".into()))?;
        let tokens = self.fetch_tokens(upstream, &provider, code, &attempt.verifier).await?;
        let mut claims = self.prove_id_token(upstream, provider, &tokens.id_token, &attempt).await?;
        let auth_time = claims.get("auth_time").and_then(Value::as_u64);
        let now_s = self.now_ms() / 1000;
        let is_fresh = auth_time.is_some_and(|at| at.saturating_add(FRESH_S).saturating_add(SKEW_S) >= now_s);
        if attempt.fresh && !is_fresh {
            return Err(Error::forbidden(format!("{} did not ask you again who you are", upstream.name)));
        }
        if upstream.userinfo {
            let provider = self.provider(upstream).await?;
            let more = self.fetch_userinfo(&provider, tokens.access_token.as_deref(), &claims).await?;
            for (name, value) in more {
                claims.entry(name).or_insert(value);
            }
        }
        let facts = claims::map(upstream, &claims, self.settings.policy.organisation.as_deref())?;
        let user_id = self.account_of_identity(upstream, facts).await?;
        self.check_may_sign_in(&user_id)?;
        Ok(UpstreamSignIn { user_id, next: attempt.next, is_fresh })
    }

    fn upstream(&self, id: &str) -> Result<&Upstream, Error> {
        let found = self.settings.oauth.upstreams.iter().find(|upstream| upstream.id == id);
        found.ok_or_else(|| Error::not_found("there is no such identity provider"))
    }

    fn upstream_redirect_uri(&self, id: &str) -> String {
        format!("{}/account/upstream/{id}/callback", self.public_base())
    }

    fn take_attempt(&self, id: &str, visitor: &Visitor, state: &str) -> Result<Attempt, Error> {
        let unknown = || Error::forbidden("this sign-in was not begun here, or took too long; please begin again");
        let browser = hash_token(visitor.cookie());
        let mut attempts = self.oauth.upstream.attempts.lock();
        let key = hash_token(state);
        let fits = attempts.peek(&key).is_some_and(|attempt| {
            attempt.provider == id && attempt.ends_ms > self.now_ms() && bool::from(attempt.browser.ct_eq(&browser))
        });
        if !fits {
            return Err(unknown());
        }
        attempts.pop(&key).ok_or_else(unknown)
    }

    async fn fetch_tokens(
        &self,
        upstream: &Upstream,
        provider: &discovery::Provider,
        code: &str,
        verifier: &str,
    ) -> Result<TokenAnswer, Error> {
        let request = self.token_request(upstream, provider, code, verifier);
        let answer = self.federation.outbound_form(request).await.map_err(|error| failed(upstream, &error))?;
        serde_json::from_slice(&answer.body).map_err(|_| Error::Peer("the provider gave no ID token".into()))
    }

    fn token_request(
        &self,
        upstream: &Upstream,
        provider: &discovery::Provider,
        code: &str,
        verifier: &str,
    ) -> OutboundForm {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &self.upstream_redirect_uri(&upstream.id))
            .append_pair("code_verifier", verifier);
        let mut basic = None;
        match &upstream.client_secret {
            Some(secret) if provider.takes_basic => basic = Some((upstream.client_id.clone(), secret.clone())),
            Some(secret) => {
                form.append_pair("client_id", &upstream.client_id).append_pair("client_secret", secret);
            }
            None => {
                form.append_pair("client_id", &upstream.client_id);
            }
        }
        OutboundForm {
            trusted: provider.trusts(&provider.token_endpoint),
            url: provider.token_endpoint.to_string(),
            form: form.finish(),
            basic,
            timeout: TIMEOUT,
            max_bytes: MAX_ANSWER_BYTES,
        }
    }

    /// The claims of an ID token that is signed, for us, for this attempt, and for now.
    async fn prove_id_token(
        &self,
        upstream: &Upstream,
        provider: Arc<discovery::Provider>,
        token: &str,
        attempt: &Attempt,
    ) -> Result<Map<String, Value>, Error> {
        let keys = self.provider_keys(upstream, &provider, jwt::key_id(token).as_deref()).await?;
        let claims = jwt::verified_claims(token, &keys).map_err(|error| {
            tracing::warn!(provider.id = %upstream.id, %error, "an ID token was refused");
            Error::forbidden("the provider's ID token cannot be trusted")
        })?;
        let expected = jwt::Expected {
            issuer: &provider.issuer,
            audience: &upstream.client_id,
            nonce: &attempt.nonce,
            now_s: self.now_ms() / 1000,
            skew_s: SKEW_S,
        };
        expected.check(&claims).map_err(|error| {
            tracing::warn!(provider.id = %upstream.id, %error, "an ID token was refused");
            Error::forbidden("the provider's ID token cannot be trusted")
        })?;
        claims::check_authentication(upstream, &claims)?;
        Ok(claims)
    }

    async fn fetch_userinfo(
        &self,
        provider: &discovery::Provider,
        access_token: Option<&str>,
        claims: &Map<String, Value>,
    ) -> Result<Map<String, Value>, Error> {
        let malformed = || Error::Peer("the provider's userinfo is not what it should be".into());
        let (Some(url), Some(token)) = (&provider.userinfo_endpoint, access_token) else { return Err(malformed()) };
        let request = OutboundRequest {
            trusted: provider.trusts(url),
            method: Method::Get,
            url: url.to_string(),
            bearer: Some(token.to_owned()),
            body: None,
            timeout: TIMEOUT,
            max_bytes: MAX_ANSWER_BYTES,
        };
        let answer = self.federation.outbound(request).await.map_err(|_| malformed())?;
        let more: Map<String, Value> = serde_json::from_slice(&answer.body).map_err(|_| malformed())?;
        // OpenID Connect Core, section 5.3.2: another subject means substitution.
        if more.get("sub") == claims.get("sub") { Ok(more) } else { Err(malformed()) }
    }
}

fn failed(upstream: &Upstream, error: &PeerError) -> Error {
    tracing::warn!(provider.id = %upstream.id, %error, "an identity provider did not answer");
    match error {
        PeerError::Status { status: 400..=499, .. } => {
            Error::forbidden(format!("{} did not confirm the sign-in; please begin again", upstream.name))
        }
        _ => Error::Peer(format!("{} cannot be reached now", upstream.name).into()),
    }
}
