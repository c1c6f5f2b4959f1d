//! Media upload.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;

use super::{Call, ClientError, Repeat, Session};

#[derive(Deserialize)]
struct Uploaded {
    content_uri: String,
}

impl Session {
    /// The bytes are in the media repository afterwards; gives their `mxc://` address.
    ///
    /// # Errors
    /// [`ClientError`]; `M_TOO_LARGE` over the homeserver's limit.
    pub async fn upload_media(&self, content_type: &'static str, body: Bytes) -> Result<String, ClientError> {
        let call = Call {
            method: Method::POST,
            path: self.path("/_matrix/media/v3/upload", &[]),
            token: &self.token,
            body,
            content_type,
            timeout: Duration::from_secs(120),
            repeat: Repeat::OnlyUntouched,
        };
        let uploaded: Uploaded = serde_json::from_slice(&self.transport.send(call).await?)?;
        Ok(uploaded.content_uri)
    }
}
