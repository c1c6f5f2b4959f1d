//! Identity providers that sign people in: OpenID Connect and CAS.
//!
//! The provider proves who somebody is; what they may do here is decided here.

mod cas;
mod cas_answer;
mod claims;
mod discovery;
mod identity;
mod jwt;
mod openid;

pub use cas::CasErrand;
pub use cas_answer::{CasAnswer, CasAnswerError, CasPrincipal};
pub use identity::Identity;

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use super::Visitor;
use crate::{
    Core, Error,
    accounts::{TokenHash, fresh_token, hash_token},
    ports::PeerError,
    settings::{Protocol, Upstream},
};

/// How long a person may take at the provider, ms.
const ATTEMPT_LIFETIME_MS: u64 = 10 * 60 * 1000;

/// How many people may be at providers at one time.
const MAX_ATTEMPTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

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
    /// Of OpenID Connect.
    nonce: String,
    /// Of OpenID Connect.
    verifier: String,
    next: String,
    fresh: bool,
    ends_ms: u64,
}

/// What the browser brings back from the provider.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct UpstreamAnswer {
    state: Option<String>,
    /// OpenID Connect: what is exchanged for tokens.
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    /// CAS: what is validated.
    ticket: Option<String>,
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

/// What was proved at a provider.
struct Proved {
    claims: Map<String, Value>,
    is_fresh: bool,
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
        let state = fresh_token("mus");
        let attempt = Attempt { next, fresh, ..self.attempt(id, visitor) };
        let url = match upstream.protocol {
            Protocol::Openid => self.authorization_url(upstream, &state, &attempt).await?,
            Protocol::Cas => self.cas_login_url(upstream, &self.cas_service(id, &state), fresh)?,
        };
        self.oauth.upstream.attempts.lock().put(hash_token(&state), attempt);
        Ok(url)
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
        let state = answer.state.as_deref().unwrap_or_default();
        let attempt = self.take_attempt(id, visitor, state)?;
        let proved = match upstream.protocol {
            Protocol::Openid => self.prove_openid(upstream, answer, &attempt).await?,
            Protocol::Cas => {
                let (service, ticket) = (self.cas_service(id, state), answer.ticket.as_deref().unwrap_or_default());
                self.validate_ticket(upstream, ticket, &service, attempt.fresh).await?
            }
        };
        let user_id = self.user_of_claims(upstream, &proved.claims).await?;
        Ok(UpstreamSignIn { user_id, next: attempt.next, is_fresh: proved.is_fresh })
    }

    /// The provider to which whoever signs in goes without being asked: there is no other, and no password page.
    #[must_use]
    pub fn only_provider(&self) -> Option<&Upstream> {
        match self.settings.oauth.upstreams.as_slice() {
            [only] if !self.settings.oauth.enabled => Some(only),
            _ => None,
        }
    }

    fn upstream(&self, id: &str) -> Result<&Upstream, Error> {
        let found = self.settings.oauth.upstreams.iter().find(|upstream| upstream.id == id);
        found.ok_or_else(|| Error::not_found("there is no such identity provider"))
    }

    fn upstream_redirect_uri(&self, id: &str) -> String {
        format!("{}/account/upstream/{id}/callback", self.public_base())
    }

    fn attempt(&self, id: &str, visitor: &Visitor) -> Attempt {
        Attempt {
            provider: id.to_owned(),
            browser: hash_token(visitor.cookie()),
            nonce: fresh_token("mun"),
            verifier: fresh_token("muv"),
            next: String::new(),
            fresh: false,
            ends_ms: self.now_ms().saturating_add(ATTEMPT_LIFETIME_MS),
        }
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

    /// The account of whom the provider spoke.
    ///
    /// # Errors
    /// `M_FORBIDDEN` for whom the settings refuse; `M_USER_LOCKED`, `M_USER_DEACTIVATED`.
    async fn user_of_claims(
        self: &Arc<Self>,
        upstream: &Upstream,
        claims: &Map<String, Value>,
    ) -> Result<OwnedUserId, Error> {
        let facts = claims::map(upstream, claims, self.settings.policy.organisation.as_deref())?;
        let user_id = self.account_of_identity(upstream, facts).await?;
        self.check_may_sign_in(&user_id)?;
        Ok(user_id)
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
