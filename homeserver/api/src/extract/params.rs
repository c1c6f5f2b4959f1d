//! What the path and the query say.

use axum::extract::{FromRequestParts, rejection::PathRejection};
use http::request::Parts;
use matron_core::Error;
use serde::de::DeserializeOwned;

use super::body::missing_field;
use crate::{ApiError, AppState};

/// The parts of the path, percent-decoded; identifiers are checked by their types.
///
/// Refusal: `M_INVALID_PARAM`.
#[derive(Clone, Copy, Debug)]
pub struct PathArgs<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for PathArgs<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(_)) => {
                Err(Error::invalid("a part of the path is not a valid identifier").into())
            }
            Err(rejection) => {
                Err(Error::internal(format!("a handler's path arguments do not fit its route: {rejection}")).into())
            }
        }
    }
}

/// The query, with repeated parameters as lists (`#[serde(default)] via: Vec<…>`).
///
/// Refusals: `M_MISSING_PARAM` naming the parameter, `M_INVALID_PARAM`.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, ApiError> {
        Ok(parse_query(parts).map(Self)?)
    }
}

/// What the query says.
///
/// # Errors
/// `M_MISSING_PARAM` naming the parameter, `M_INVALID_PARAM`.
pub(super) fn parse_query<T: DeserializeOwned>(parts: &Parts) -> Result<T, Error> {
    let query = parts.uri.query().unwrap_or_default();
    serde_html_form::from_str(query).map_err(|error| {
        let message = error.to_string();
        match missing_field(&message) {
            Some(field) => Error::MissingParam(format!("the parameter `{field}` is missing").into()),
            None => Error::invalid("a query parameter has a value that is not allowed"),
        }
    })
}
