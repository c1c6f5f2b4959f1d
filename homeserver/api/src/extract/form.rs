//! Forms, as browsers and OAuth clients send them.

use axum::extract::{FromRequest, FromRequestParts, Request};
use http::{header::CONTENT_TYPE, request::Parts};
use matron_core::{Error, oauth::OAuthError};
use serde::de::DeserializeOwned;
use std::net::IpAddr;

use super::read_body;
use crate::{ApiError, AppState, middleware::rate_limit, oauth::OAuthRefusal};

/// The largest form, bytes.
const MAX_FORM_BYTES: usize = 64 * 1024;

/// A form (`application/x-www-form-urlencoded`) without repeated fields.
///
/// Refusal: `invalid_request`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FormBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<AppState> for FormBody<T> {
    type Rejection = OAuthRefusal;

    async fn from_request(request: Request, _state: &AppState) -> Result<Self, OAuthRefusal> {
        read_form(request).await.map(Self).map_err(|error| match error {
            error @ (Error::TooLarge(_) | Error::Internal(_)) => error.into(),
            error => OAuthError::refused("invalid_request", error.to_string()).into(),
        })
    }
}

/// The form that a request carries.
pub(crate) async fn read_form<T: DeserializeOwned>(request: Request) -> Result<T, Error> {
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Error::invalid("the body must be application/x-www-form-urlencoded"));
    }
    let bytes = read_body(&parts.headers, body, MAX_FORM_BYTES).await?;
    serde_html_form::from_bytes(&bytes).map_err(|_| Error::invalid("the form has a repeated or malformed field"))
}

/// A request without token, counted `COST` times against its address.
///
/// Refusal: `M_LIMIT_EXCEEDED`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limited<const COST: u32 = 1> {
    /// Where it came from.
    pub(crate) address: Option<IpAddr>,
}

impl<const COST: u32> FromRequestParts<AppState> for Limited<COST> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        rate_limit::check_address_for(parts, state, f64::from(COST))?;
        Ok(Self { address: rate_limit::address_of(parts) })
    }
}
