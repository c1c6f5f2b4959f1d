//! Pages of a room's past.

use hyper::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Homeserver, RequestError, User, encoded};

/// A page of `/messages`, of whose events `E` is read.
#[derive(Deserialize)]
#[serde(bound(deserialize = "E: DeserializeOwned"))]
pub(crate) struct Page<E> {
    /// Where the next page begins; none at the room's beginning.
    pub(crate) end: Option<String>,
    #[serde(default)]
    pub(crate) chunk: Vec<E>,
}

impl Homeserver {
    /// The page of at most `limit` events before `from`, or before the room's end, with lazy members; its size in bytes.
    pub(crate) async fn page_back<E: DeserializeOwned>(
        &self,
        user: &User,
        room: &str,
        from: Option<&str>,
        limit: usize,
    ) -> Result<(Page<E>, usize), RequestError> {
        let filter = encoded(r#"{"lazy_load_members":true}"#);
        let mut path =
            format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit={limit}&filter={filter}", encoded(room));
        if let Some(from) = from {
            path.push_str("&from=");
            path.push_str(&encoded(from));
        }
        self.parsed(Method::GET, &path, Some(&user.access_token), None).await
    }
}
