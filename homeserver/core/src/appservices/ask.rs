//! Asking application services whether a user or an alias of theirs exists; they make it before they say yes.
//!
//! SPEC: v1.19 Application Service API, "Querying".

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ruma::{RoomAliasId, UserId};
use serde_json::Value;

use super::Appservice;
use crate::{
    Core, Error,
    ports::{OutboundRequest, PeerError, http_method::Method},
};

/// How long one may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer, bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

impl Core {
    /// Whether the user exists now: an application service may make it when asked.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn ask_for_user(&self, user: &UserId) -> Result<bool, Error> {
        if self.account_exists(user)? {
            return Ok(true);
        }
        for service in self.appservices.services.iter().filter(|service| service.is_interested_in_user(user)) {
            if *service.sender() == *user {
                return Ok(true);
            }
            let path = format!("users/{}", encode(user.as_str()));
            if self.ask_appservice(service, &path).await.is_ok() && self.account_exists(user)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an application service says that the alias exists now; then it has made it.
    pub async fn ask_for_alias(&self, alias: &RoomAliasId) -> bool {
        for service in self.appservices.services.iter().filter(|service| service.is_interested_in_alias(alias)) {
            let path = format!("rooms/{}", encode(alias.as_str()));
            if self.ask_appservice(service, &path).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// `GET /_matrix/app/v1/{path}`.
    pub(super) async fn ask_appservice(&self, service: &Appservice, path: &str) -> Result<Value, PeerError> {
        let Some(url) = &service.registration.url else {
            return Err(PeerError::Resolve("the application service has no URL".to_owned()));
        };
        let request = OutboundRequest {
            trusted: true,
            method: Method::Get,
            url: format!("{}/_matrix/app/v1/{path}", url.trim_end_matches('/')),
            bearer: Some(service.registration.hs_token.clone()),
            body: None,
            timeout: TIMEOUT,
            max_bytes: MAX_ANSWER_BYTES,
        };
        let response = self.federation.outbound(request).await?;
        serde_json::from_slice(&response.body).map_err(|_| PeerError::Malformed("not JSON".to_owned()))
    }
}

pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
