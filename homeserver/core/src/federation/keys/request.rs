//! Who sent a request: X-Matrix, verified.

use std::collections::BTreeSet;

use ruma::OwnedServerName;
use serde_json::Value;

use super::x_matrix::{HeaderError, SignedRequest, XMatrix, canonical_content, signing_text_around};
use crate::{Core, Error};

impl Core {
    /// The server that signed this request, which is one that we speak with.
    ///
    /// `header` is the whole `Authorization` header, `method` the verb in capitals, `uri` path and query exactly as
    /// received, `content` the parsed body, if there is one.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a header with an impossible server name; [`Error::Unauthorized`] (401
    /// `M_UNAUTHORIZED`) for a malformed header, another destination, an unknown or
    /// outdated key and a wrong signature; [`Error::Forbidden`] (`M_FORBIDDEN`) for a server that policy keeps out,
    /// and when federation is off; [`Error::Store`].
    pub async fn verify_x_matrix(
        &self,
        header: &str,
        method: &str,
        uri: &str,
        content: Option<&Value>,
    ) -> Result<OwnedServerName, Error> {
        let content = content.map(canonical_content);
        self.verify_x_matrix_text(header, method, uri, content.as_deref()).await
    }

    /// As [`Core::verify_x_matrix`], with the body in its canonical form.
    ///
    /// # Errors
    /// As [`Core::verify_x_matrix`].
    pub async fn verify_x_matrix_text(
        &self,
        header: &str,
        method: &str,
        uri: &str,
        content: Option<&str>,
    ) -> Result<OwnedServerName, Error> {
        if !self.settings.federation {
            return Err(Error::forbidden("this server does not federate"));
        }
        let unauthorized = |sentence: &'static str| Error::Unauthorized(sentence.into());
        let x_matrix = XMatrix::parse(header).map_err(|error| match error {
            HeaderError::Malformed => Error::Unauthorized(error.to_string().into()),
            HeaderError::ServerName => Error::invalid(error.to_string()),
        })?;
        if x_matrix.destination.as_deref().is_some_and(|destination| !self.is_local(destination)) {
            return Err(unauthorized("the request is meant for another server"));
        }
        if self.is_local(&x_matrix.origin) {
            return Err(unauthorized("the request claims to come from this server itself"));
        }
        if !self.peer_allowed(&x_matrix.origin) {
            return Err(Error::forbidden("your server may not speak with this server"));
        }
        let key_ids = BTreeSet::from([x_matrix.key_id.clone()]);
        let keys = self.server_keys(&x_matrix.origin, &key_ids, Some(self.now_ms())).await?;
        let key =
            keys.get(&x_matrix.key_id).ok_or_else(|| unauthorized("the signing key is not known, or outdated"))?;
        let request = SignedRequest {
            method,
            uri,
            origin: &x_matrix.origin,
            destination: x_matrix.destination.as_deref(),
            content: None,
        };
        if !key.verifies(signing_text_around(&request, content).as_bytes(), &x_matrix.signature) {
            return Err(unauthorized("the signature of the request is wrong"));
        }
        self.heard_from_peer(&x_matrix.origin);
        Ok(x_matrix.origin)
    }

    /// Whether the key that this header names is known already: verifying it asks nobody.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn knows_signing_key(&self, header: &str) -> Result<bool, Error> {
        let Ok(x_matrix) = XMatrix::parse(header) else { return Ok(false) };
        let known = self.find_known_keys(&x_matrix.origin)?;
        Ok(known.is_some_and(|known| known.find(&x_matrix.key_id, Some(self.now_ms())).is_some()))
    }
}
