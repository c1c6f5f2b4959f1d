//! The token endpoint: codes, device codes and refresh tokens become access tokens.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ruma::UserId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Client, OAuthError, OAuthSession, Scope, authorize::Code};
use crate::{
    Core, Error,
    accounts::{Issued, SessionKind, fresh_family, hash_token},
};

/// The form of a token request.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct TokenRequest {
    /// Which grant.
    pub grant_type: Option<String>,
    /// Who asks.
    pub client_id: Option<String>,
    /// For `authorization_code`.
    pub code: Option<String>,
    /// For `authorization_code`: the one that the code was sent to.
    pub redirect_uri: Option<String>,
    /// For `authorization_code`: PKCE.
    pub code_verifier: Option<String>,
    /// For `refresh_token`.
    pub refresh_token: Option<String>,
    /// For the device grant.
    pub device_code: Option<String>,
}

impl std::fmt::Debug for TokenRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TokenRequest").field("grant_type", &self.grant_type).finish_non_exhaustive()
    }
}

/// What a client gets.
#[derive(Clone, Serialize)]
pub struct Tokens {
    access_token: String,
    token_type: &'static str,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    scope: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tokens").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Tokens {
    fn new(issued: Issued, scope: String) -> Self {
        Self {
            access_token: issued.access_token,
            token_type: "Bearer",
            expires_in: issued.expires_in_ms.map(|ms| ms / 1000),
            refresh_token: issued.refresh_token,
            scope,
        }
    }
}

impl Core {
    /// Tokens of a device, for what the client shows.
    ///
    /// # Errors
    /// As RFC 6749, section 5.2, and RFC 8628, section 3.5, name them.
    pub async fn exchange_token(&self, request: &TokenRequest) -> Result<Tokens, OAuthError> {
        self.check_oauth_enabled()?;
        let client_id = request.client_id.as_deref().unwrap_or_default();
        let client = self.find_client(client_id)?.ok_or_else(OAuthError::invalid_client)?;
        let grant = request.grant_type.as_deref().ok_or_else(|| missing("grant_type"))?;
        if !["authorization_code", "refresh_token", super::device_grant::GRANT].contains(&grant) {
            return Err(OAuthError::refused("unsupported_grant_type", "this grant type is not supported"));
        }
        // Clients that leave `refresh_token` out of their registration are given one all the same, as the specification demands.
        if grant != "refresh_token" && !client.may_use(grant) {
            return Err(OAuthError::refused("unauthorized_client", "the client did not register for this grant"));
        }
        match grant {
            "authorization_code" => self.exchange_code(client_id, &client, request).await,
            "refresh_token" => {
                let token = request.refresh_token.as_deref().ok_or_else(|| missing("refresh_token"))?;
                let (issued, scope) = self.refresh_oauth(token, client_id).await.map_err(as_grant)?;
                Ok(Tokens::new(issued, scope))
            }
            _ => {
                let code = request.device_code.as_deref().ok_or_else(|| missing("device_code"))?;
                let (user, scope) = self.poll_device_code(code, client_id)?;
                self.open_oauth_session(&user, client_id, &client, &scope).await
            }
        }
    }

    async fn exchange_code(
        &self,
        client_id: &str,
        client: &Client,
        request: &TokenRequest,
    ) -> Result<Tokens, OAuthError> {
        let shown = request.code.as_deref().ok_or_else(|| missing("code"))?;
        let invalid = || OAuthError::invalid_grant("the code is not known, was used, or has expired");
        let code = self.use_code(shown).ok_or_else(invalid)?;
        if code.used {
            self.end_session_of_code(&code).await?;
            return Err(invalid());
        }
        if code.client_id != client_id || request.redirect_uri.as_deref() != Some(&*code.redirect_uri) {
            return Err(OAuthError::invalid_grant("the code was given to another client or redirect URI"));
        }
        let verifier = request.code_verifier.as_deref().ok_or_else(|| missing("code_verifier"))?;
        if !verifier_fits(verifier, &code.challenge) {
            return Err(OAuthError::invalid_grant("the code verifier does not fit the challenge"));
        }
        self.open_oauth_session(&code.user_id, client_id, client, &code.scope).await
    }

    /// Somebody else has the code too: whoever came first loses what they got.
    async fn end_session_of_code(&self, code: &Code) -> Result<(), Error> {
        let device = &code.scope.device_id;
        let held = self.find_device(&code.user_id, device)?.and_then(|device| device.oauth);
        if held.is_some_and(|session| session.client_id == code.client_id) {
            tracing::warn!("an authorization code was used twice; the session that it began is ended");
            self.delete_devices(&code.user_id, std::slice::from_ref(device)).await?;
        }
        Ok(())
    }

    async fn open_oauth_session(
        &self,
        user: &UserId,
        client_id: &str,
        client: &Client,
        scope: &Scope,
    ) -> Result<Tokens, OAuthError> {
        self.check_may_sign_in(user).map_err(as_grant)?;
        let family = fresh_family();
        let session =
            OAuthSession { client_id: client_id.to_owned(), scope: scope.text.clone(), family: hash_token(&family) };
        let kind = SessionKind::OAuth { session, family };
        let name = client.shown_name();
        let (_, issued) = self.start_session(user, Some(scope.device_id.clone()), Some(name), kind).await?;
        Ok(Tokens::new(issued, scope.text.clone()))
    }
}

/// SPEC: RFC 7636, section 4.6.
fn verifier_fits(verifier: &str, challenge: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    if !(43..=128).contains(&verifier.len()) || !verifier.chars().all(allowed) {
        return false;
    }
    let hashed = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    hashed.as_bytes().ct_eq(challenge.as_bytes()).into()
}

fn missing(name: &str) -> OAuthError {
    OAuthError::invalid_request(format!("`{name}` is missing"))
}

/// What ends a session, in OAuth's words.
fn as_grant(error: Error) -> OAuthError {
    match error {
        Error::UnknownToken { .. } => OAuthError::invalid_grant("the token is not known, was used, or has expired"),
        Error::UserLocked | Error::UserDeactivated | Error::Forbidden(_) => {
            OAuthError::invalid_grant("the account is closed or locked")
        }
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_fits_its_own_challenge_alone() {
        // RFC 7636, appendix B.
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert!(verifier_fits("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", challenge));
        assert!(!verifier_fits("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXK", challenge));
        assert!(!verifier_fits("", challenge));
        assert!(!verifier_fits(challenge, challenge));
    }
}
