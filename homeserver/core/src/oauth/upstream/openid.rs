//! Signing in at an OpenID Connect provider.
//!
//! OpenID Connect Core 1.0, "Authentication using the Authorization Code Flow", with PKCE and a nonce.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Attempt, Proved, UpstreamAnswer, claims, discovery, failed, jwt};
use crate::{
    Core, Error,
    ports::{OutboundForm, OutboundRequest, http_method::Method},
    settings::Upstream,
};

/// How old a sign-in at the provider may be where a fresh one is asked for, seconds.
const FRESH_S: u64 = 5 * 60;

/// How far clocks may be apart, seconds.
const SKEW_S: u64 = 60;

pub(super) const TIMEOUT: Duration = Duration::from_secs(15);
pub(super) const MAX_ANSWER_BYTES: usize = 256 * 1024;

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: String,
    access_token: Option<String>,
}

impl Core {
    /// The URL to which the browser goes for this attempt.
    ///
    /// # Errors
    /// 502 when the provider does not answer as it should.
    pub(super) async fn authorization_url(
        &self,
        upstream: &Upstream,
        state: &str,
        attempt: &Attempt,
    ) -> Result<String, Error> {
        let provider = self.provider(upstream).await?;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(attempt.verifier.as_bytes()));
        let redirect_uri = self.upstream_redirect_uri(&upstream.id);
        let mut url = provider.authorization_endpoint.clone();
        {
            let mut query = url.query_pairs_mut();
            query
                .append_pair("response_type", "code")
                .append_pair("client_id", &upstream.client_id)
                .append_pair("redirect_uri", &redirect_uri)
                .append_pair("scope", &upstream.scopes.join(" "))
                .append_pair("state", state)
                .append_pair("nonce", &attempt.nonce)
                .append_pair("code_challenge", &challenge)
                .append_pair("code_challenge_method", "S256");
            if !upstream.acr_values.is_empty() {
                query.append_pair("acr_values", &upstream.acr_values.join(" "));
            }
            if attempt.fresh {
                query.append_pair("prompt", "login").append_pair("max_age", &FRESH_S.to_string());
            }
        }
        Ok(url.into())
    }

    /// What the provider proves of who came back with this answer.
    ///
    /// # Errors
    /// As [`Core::finish_upstream`].
    pub(super) async fn prove_openid(
        &self,
        upstream: &Upstream,
        answer: &UpstreamAnswer,
        attempt: &Attempt,
    ) -> Result<Proved, Error> {
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
        let mut claims = self.prove_id_token(upstream, provider, &tokens.id_token, attempt).await?;
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
        Ok(Proved { claims, is_fresh })
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
