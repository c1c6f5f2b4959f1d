//! Who asks, as the access token proves.

use std::{borrow::Cow, sync::Arc};

use axum::extract::FromRequestParts;
use http::{header::AUTHORIZATION, request::Parts};
use matron_core::{Error, Requester, accounts::Masquerade, appservices::Appservice};
use ruma::{OwnedDeviceId, OwnedUserId};

use super::guest;
use crate::{ApiError, AppState, middleware::rate_limit};

/// Whoever the access token belongs to; an application service's `?user_id=` and `?device_id=` are honoured.
///
/// Refusals: `M_MISSING_TOKEN`, `M_UNKNOWN_TOKEN`, `M_USER_LOCKED`, `M_FORBIDDEN` for a user outside the
/// application service's namespaces, `M_GUEST_ACCESS_FORBIDDEN` for what guests may not call, `M_LIMIT_EXCEEDED`.
#[derive(Clone, Debug)]
pub struct Auth(pub Requester);

/// As [`Auth`], locked accounts included: for logging out.
#[derive(Clone, Debug)]
pub struct AuthEvenLocked(pub Requester);

impl FromRequestParts<AppState> for AuthEvenLocked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match Auth::from_request_parts(parts, state).await {
            Ok(Auth(requester)) => Ok(Self(requester)),
            Err(ApiError(Error::UserLocked)) => {
                let token = access_token(parts, state.core.settings.access_token_in_query);
                let token = token.ok_or(Error::MissingToken)?;
                Ok(Self(state.core.authenticate_locked(&token)?))
            }
            Err(error) => Err(error),
        }
    }
}

/// As [`Auth`], or nobody if no token was given. A token that is given must be good.
#[derive(Clone, Debug)]
pub struct OptionalAuth(pub Option<Requester>);

impl FromRequestParts<AppState> for Auth {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let OptionalAuth(requester) = OptionalAuth::from_request_parts(parts, state).await?;
        let requester = requester.ok_or(Error::MissingToken)?;
        if requester.is_guest && !guest::is_open(parts) {
            return Err(Error::GuestForbidden.into());
        }
        Ok(Self(requester))
    }
}

impl FromRequestParts<AppState> for OptionalAuth {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Some(token) = access_token(parts, state.core.settings.access_token_in_query) else {
            rate_limit::check_address(parts, state)?;
            return Ok(Self(None));
        };
        let masquerade = masquerade(parts)?;
        let address = rate_limit::address_of(parts);
        match state.core.authenticate(&token, &masquerade, address).await {
            Ok(requester) => {
                rate_limit::check_user(&requester, state)?;
                Ok(Self(Some(requester)))
            }
            Err(error) => {
                rate_limit::check_address(parts, state)?;
                Err(error.into())
            }
        }
    }
}

/// What a request without user shows: an application service's token, if any. Counted against its address.
///
/// Refusal: `M_LIMIT_EXCEEDED`.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Whose token it is.
    pub appservice: Option<Arc<Appservice>>,
    /// Whether there was a token at all.
    pub token_given: bool,
}

impl FromRequestParts<AppState> for Shown {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let token = access_token(parts, state.core.settings.access_token_in_query);
        let appservice = token.as_deref().and_then(|token| state.core.appservice_for_token(token));
        if appservice.is_none() {
            rate_limit::check_address(parts, state)?;
        }
        Ok(Self { appservice, token_given: token.is_some() })
    }
}

/// The access token of a request: the header, or the query where the operator allows that.
#[must_use]
pub fn access_token(parts: &Parts, query_allowed: bool) -> Option<Cow<'_, str>> {
    if let Some(header) = parts.headers.get(AUTHORIZATION) {
        let header = header.to_str().ok()?;
        let (scheme, token) = header.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| Cow::Borrowed(token.trim()));
    }
    query_allowed.then(|| query_value(parts, "access_token")).flatten()
}

/// The first value of a query parameter.
fn query_value<'a>(parts: &'a Parts, name: &str) -> Option<Cow<'a, str>> {
    let query = parts.uri.query()?;
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// SPEC: v1.19 Application Service API, "Identity assertion" and "Device management".
// MSC: 3202 names the parameter `org.matrix.msc3202.device_id`; 4326 made it `device_id`.
fn masquerade(parts: &Parts) -> Result<Masquerade, Error> {
    if !parts.uri.query().is_some_and(|query| query.contains("user_id") || query.contains("device_id")) {
        return Ok(Masquerade::default());
    }
    let user_id = query_value(parts, "user_id")
        .map(|text| OwnedUserId::try_from(text.as_ref()).map_err(|_| Error::invalid("`user_id` is not a user id")));
    // A client's own `user_id` parameter may mean something else on its endpoint; only an application
    // service's is an assertion, so a bad one is refused there.
    let device_id = query_value(parts, "device_id")
        .or_else(|| query_value(parts, "org.matrix.msc3202.device_id"))
        .map(|text| OwnedDeviceId::from(text.as_ref()));
    Ok(Masquerade { user_id: user_id.transpose().unwrap_or_default(), device_id })
}
