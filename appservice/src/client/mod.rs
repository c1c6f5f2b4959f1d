//! The Client-Server API as this application service uses it: with the `as_token`, as one of its users.

mod accounts;
mod connector;
mod error;
mod keys;
mod media;
mod rooms;
mod sync;
mod transport;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use accounts::Login;
pub use error::ClientError;
pub use keys::{KeysClaimResponse, KeysQueryResponse, KeysUploadResponse};
pub use rooms::{DueEvent, RetentionDue};
pub use sync::{DeviceLists, SyncResponse};
use transport::{Call, Repeat, Transport};

use crate::secret::Secret;

/// Time limit of an ordinary request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Everything but RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path segment or query value, percent-encoded.
pub(crate) fn segment(raw: &str) -> String {
    utf8_percent_encode(raw, SEGMENT).to_string()
}

/// The way to one homeserver; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Arc<Transport>,
    as_token: Secret,
    server_name: String,
}

/// The same way, as one user: masquerading with the `as_token`, or with a device's own access token.
#[derive(Debug, Clone)]
pub struct Session {
    transport: Arc<Transport>,
    token: Secret,
    /// `?user_id=`, where the token is the `as_token`.
    masquerade: bool,
    user_id: String,
}

impl Client {
    /// A client of the homeserver at `homeserver_url`, trusting `ca_file` besides the system's roots.
    ///
    /// # Errors
    /// [`ClientError::Address`], [`ClientError::Roots`] or [`ClientError::Tls`].
    pub fn new(
        homeserver_url: &str,
        ca_file: Option<&Path>,
        server_name: &str,
        as_token: Secret,
    ) -> Result<Self, ClientError> {
        let transport = Arc::new(Transport::new(homeserver_url, ca_file)?);
        Ok(Self { transport, as_token, server_name: server_name.to_owned() })
    }

    /// The homeserver's name, the part of ids after the colon.
    #[must_use]
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// The full user id of a localpart on this homeserver.
    #[must_use]
    pub fn user_id(&self, localpart: &str) -> String {
        format!("@{localpart}:{}", self.server_name)
    }

    /// Acts as `user_id` by masquerading.
    #[must_use]
    pub fn as_user(&self, user_id: &str) -> Session {
        Session {
            transport: Arc::clone(&self.transport),
            token: self.as_token.clone(),
            masquerade: true,
            user_id: user_id.to_owned(),
        }
    }

    /// Acts as the device that `token` belongs to.
    #[must_use]
    pub fn with_token(&self, user_id: &str, token: Secret) -> Session {
        Session { transport: Arc::clone(&self.transport), token, masquerade: false, user_id: user_id.to_owned() }
    }
}

impl Session {
    /// The user that this session acts as.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
        repeat: Repeat,
    ) -> Result<T, ClientError> {
        self.call_within(method, path, query, body, repeat, TIMEOUT).await
    }

    async fn call_within<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
        repeat: Repeat,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let body = match body {
            Some(body) => Bytes::from(serde_json::to_vec(body)?),
            None => Bytes::new(),
        };
        let call = Call {
            method,
            path: self.path(path, query),
            token: &self.token,
            body,
            content_type: "application/json",
            timeout,
            repeat,
        };
        Ok(serde_json::from_slice(&self.transport.send(call).await?)?)
    }

    fn path(&self, path: &str, query: &[(&str, String)]) -> String {
        let mut out = path.to_owned();
        let mut mark = '?';
        let user = self.masquerade.then(|| ("user_id", self.user_id.clone()));
        for (name, value) in query.iter().cloned().chain(user) {
            out.push(mark);
            out.push_str(name);
            out.push('=');
            out.push_str(&segment(&value));
            mark = '&';
        }
        out
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, ClientError> {
        self.call(Method::GET, path, query, None::<&Value>, Repeat::Idempotent).await
    }

    async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.call(Method::PUT, path, &[], Some(body), Repeat::Idempotent).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        repeat: Repeat,
    ) -> Result<T, ClientError> {
        self.call(Method::POST, path, &[], Some(body), repeat).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_percent_encoded_and_masquerade_is_added() {
        let client = Client::new("http://127.0.0.1:1", None, "a.example", Secret::new("t".to_owned())).unwrap();
        let session = client.as_user("@lab-x:a.example");
        assert_eq!(
            session.path(&format!("/rooms/{}", segment("!r/o:a")), &[("limit", "3".to_owned())]),
            "/rooms/%21r%2Fo%3Aa?limit=3&user_id=%40lab-x%3Aa.example"
        );
        let own = client.with_token("@lab-x:a.example", Secret::new("d".to_owned()));
        assert_eq!(own.path("/sync", &[]), "/sync");
    }

    #[test]
    fn an_address_that_is_no_url_is_refused() {
        for address in ["", "ftp://x", "localhost", "/path"] {
            let made = Client::new(address, None, "a", Secret::new(String::new()));
            assert!(matches!(made, Err(ClientError::Address)), "{address}");
        }
    }
}
