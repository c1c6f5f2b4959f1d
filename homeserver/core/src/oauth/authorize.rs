//! The authorization code grant up to the code.
//!
//! SPEC: v1.19 Client-Server API, "Authorisation code flow"; RFC 6749, section 4.1; RFC 7636; RFC 9207.

use lru::LruCache;
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use url::Url;

use super::{Client, OAuthError, Refusal, Scope, redirect_uri};
use crate::{
    Core, Error,
    accounts::{TokenHash, fresh_token, hash_token},
};

/// How long a code is good, ms.
const CODE_LIFETIME_MS: u64 = 60_000;

/// How long a used code is remembered, so that a second use ends the session, ms.
const REPLAY_MS: u64 = 10 * 60 * 1000;

/// The longest `state`, bytes.
const MAX_STATE_BYTES: usize = 2_048;

/// Codes by the hash of what was given out.
pub(super) type Codes = LruCache<TokenHash, Code>;

/// What a code stands for.
#[derive(Clone, Debug)]
pub(super) struct Code {
    pub(super) user_id: OwnedUserId,
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    pub(super) scope: Scope,
    pub(super) challenge: String,
    pub(super) ends_ms: u64,
    pub(super) used: bool,
}

/// The query of the authorization endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AuthorizationRequest {
    /// `code`.
    pub response_type: Option<String>,
    /// From registration.
    pub client_id: Option<String>,
    /// One of the client's.
    pub redirect_uri: Option<String>,
    /// The API and a device.
    pub scope: Option<String>,
    /// Given back.
    pub state: Option<String>,
    /// `query` or `fragment`.
    pub response_mode: Option<String>,
    /// PKCE.
    pub code_challenge: Option<String>,
    /// `S256`.
    pub code_challenge_method: Option<String>,
    /// `create` where the user wants an account.
    pub prompt: Option<String>,
    /// Who the client thinks it is: `mxid:@user:server`.
    pub login_hint: Option<String>,
}

/// How the answer travels in the redirect URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseMode {
    /// After `?`.
    Query,
    /// After `#`: the web server never sees it.
    Fragment,
}

/// A request that may be put before the user.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Who asks.
    pub client: Client,
    /// Its id.
    pub client_id: String,
    /// What it asks for.
    pub scope: Scope,
    /// The user wants an account.
    pub create: bool,
    /// `prompt=none`: the client wants no page at all.
    pub silent: bool,
    /// The name that the client thinks the user has.
    pub name_hint: Option<String>,
    answer_to: AnswerTo,
    challenge: String,
}

#[derive(Clone, Debug)]
struct AnswerTo {
    redirect_uri: String,
    mode: ResponseMode,
    state: Option<String>,
    issuer: String,
}

/// What came of a request.
#[derive(Debug)]
pub enum Authorized {
    /// The user is asked.
    Ask(Box<Wanted>),
    /// The browser goes back to the client with an error.
    Back(String),
}

impl Wanted {
    /// The page that answers may send the browser to this: `form-action` of its policy.
    #[must_use]
    pub fn redirect_source(&self) -> String {
        source_of(&self.answer_to.redirect_uri)
    }

    /// Where the browser goes when the user, or the server, says no.
    #[must_use]
    pub fn refused(&self, refusal: &Refusal) -> String {
        self.answer_to.error(refusal)
    }
}

/// The source expression of a content security policy that covers a URL.
#[must_use]
pub(super) fn source_of(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) => url.origin().ascii_serialization(),
        Ok(url) => format!("{}:", url.scheme()),
        Err(_) => "'none'".to_owned(),
    }
}

impl AnswerTo {
    fn url(&self, pairs: &[(&str, &str)]) -> String {
        let mut encoded = form_urlencoded::Serializer::new(String::new());
        encoded.extend_pairs(pairs);
        if let Some(state) = &self.state {
            encoded.append_pair("state", state);
        }
        encoded.append_pair("iss", &self.issuer);
        let answer = encoded.finish();
        let (uri, mode) = (&self.redirect_uri, self.mode);
        match mode {
            ResponseMode::Fragment => format!("{uri}#{answer}"),
            ResponseMode::Query if uri.contains('?') => format!("{uri}&{answer}"),
            ResponseMode::Query => format!("{uri}?{answer}"),
        }
    }

    fn error(&self, refusal: &Refusal) -> String {
        self.url(&[("error", refusal.code), ("error_description", &refusal.description)])
    }
}

impl Core {
    /// The request is sound and may be put before the user, or its client is told why not.
    ///
    /// # Errors
    /// When the client or its redirect URI is not known: then the browser may be sent nowhere, and the user is told.
    pub fn read_authorization_request(&self, request: &AuthorizationRequest) -> Result<Authorized, OAuthError> {
        self.check_oauth_enabled()?;
        let client_id = request.client_id.clone().unwrap_or_default();
        let client = self.find_client(&client_id)?.ok_or_else(OAuthError::invalid_client)?;
        let given = request.redirect_uri.as_deref().unwrap_or_default();
        if !redirect_uri::matches(&client.redirect_uris, given) {
            return Err(OAuthError::invalid_request("the redirect URI is none of those that the client registered"));
        }
        let state = request.state.clone().filter(|state| !state.is_empty());
        if state.as_ref().is_some_and(|state| state.len() > MAX_STATE_BYTES) {
            return Err(OAuthError::invalid_request("`state` has at most 2048 bytes"));
        }
        let mode = match request.response_mode.as_deref() {
            Some("fragment") => Some(ResponseMode::Fragment),
            None | Some("query") => Some(ResponseMode::Query),
            Some(_) => None,
        };
        let answer_to = AnswerTo {
            redirect_uri: given.to_owned(),
            mode: mode.unwrap_or(ResponseMode::Query),
            state,
            issuer: format!("{}/", self.public_base()),
        };
        match check(request, &client, mode.is_some()) {
            Ok((scope, challenge)) => {
                let prompts: Vec<&str> = request.prompt.as_deref().unwrap_or_default().split(' ').collect();
                let hint = request.login_hint.as_deref().and_then(|hint| hint.strip_prefix("mxid:"));
                Ok(Authorized::Ask(Box::new(Wanted {
                    client,
                    client_id,
                    scope,
                    create: prompts.contains(&"create"),
                    silent: prompts.contains(&"none"),
                    name_hint: hint.and_then(|hint| UserId::parse(hint).ok()).map(|user| user.localpart().to_owned()),
                    answer_to,
                    challenge,
                })))
            }
            Err(OAuthError::Refused(refusal)) => Ok(Authorized::Back(answer_to.error(&refusal))),
            Err(error) => Err(error),
        }
    }

    /// The user has agreed: the URL with the code, to which the browser goes. The code is good once, for a minute.
    ///
    /// # Errors
    /// `M_USER_LOCKED`, `M_USER_DEACTIVATED`.
    pub fn grant_authorization(&self, wanted: &Wanted, user: &UserId) -> Result<String, Error> {
        self.check_may_sign_in(user)?;
        let code = fresh_token("mac");
        let row = Code {
            user_id: user.to_owned(),
            client_id: wanted.client_id.clone(),
            redirect_uri: wanted.answer_to.redirect_uri.clone(),
            scope: wanted.scope.clone(),
            challenge: wanted.challenge.clone(),
            ends_ms: self.now_ms().saturating_add(CODE_LIFETIME_MS),
            used: false,
        };
        self.oauth.codes.lock().put(hash_token(&code), row);
        Ok(wanted.answer_to.url(&[("code", &code)]))
    }

    /// The code is used up, whoever used it: what it stood for, and whether it was used before.
    pub(super) fn use_code(&self, code: &str) -> Option<Code> {
        let now_ms = self.now_ms();
        let mut codes = self.oauth.codes.lock();
        let row = codes.get_mut(&hash_token(code))?;
        let before = row.clone();
        let known_until = if before.used { before.ends_ms.saturating_add(REPLAY_MS) } else { before.ends_ms };
        row.used = true;
        (known_until > now_ms).then_some(before)
    }
}

fn check(request: &AuthorizationRequest, client: &Client, mode_known: bool) -> Result<(Scope, String), OAuthError> {
    if !mode_known {
        return Err(OAuthError::invalid_request("`response_mode` is `query` or `fragment`"));
    }
    if request.response_type.as_deref() != Some("code") {
        return Err(OAuthError::refused("unsupported_response_type", "`response_type` is `code`"));
    }
    if !client.may_use("authorization_code") {
        return Err(OAuthError::refused("unauthorized_client", "the client did not register for this grant"));
    }
    if request.code_challenge_method.as_deref() != Some("S256") {
        return Err(OAuthError::invalid_request("PKCE with `code_challenge_method=S256` is needed"));
    }
    let challenge = request.code_challenge.clone().unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if challenge.len() != 43 || !challenge.chars().all(allowed) {
        return Err(OAuthError::invalid_request("`code_challenge` is no SHA-256 hash in base64url"));
    }
    Ok((Scope::parse(request.scope.as_deref().unwrap_or_default())?, challenge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_s_policy_names_where_the_answer_goes_and_nothing_beyond() {
        assert_eq!(source_of("https://app.example.com:8443/callback?x=1"), "https://app.example.com:8443");
        assert_eq!(source_of("http://127.0.0.1:49152/callback"), "http://127.0.0.1:49152");
        assert_eq!(source_of("com.example.app:/callback"), "com.example.app:");
        assert_eq!(source_of("element://connect"), "element:");
        assert_eq!(source_of("nonsense"), "'none'");
    }
}
