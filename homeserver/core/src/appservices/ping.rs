//! `POST /_matrix/client/v1/appservice/{appserviceId}/ping`: an application service asks us to reach it.
//!
//! SPEC: v1.19 Application Service API, "Pinging".

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    Core, Error, Requester,
    ports::{OutboundRequest, PeerError, http_method::Method},
};

/// How long it may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why an application service could not be pinged.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// The use case refused.
    #[error(transparent)]
    Refused(#[from] Error),
    /// `M_BAD_STATUS`, 502: it answered with this status and body.
    #[error("the application service answered {status}")]
    BadStatus { status: u16, body: String },
}

impl Core {
    /// The application service has answered a ping; how long it took, ms.
    ///
    /// # Errors
    /// `M_FORBIDDEN` for another's id; `M_URL_NOT_SET`; `M_BAD_STATUS`; `M_CONNECTION_TIMEOUT`; `M_CONNECTION_FAILED`.
    pub async fn ping_appservice(
        &self,
        requester: &Requester,
        id: &str,
        transaction_id: Option<&str>,
    ) -> Result<u64, PingError> {
        if requester.appservice.as_deref() != Some(id) {
            return Err(Error::forbidden("an application service may only ping itself").into());
        }
        let service = self.appservice(id).ok_or_else(|| Error::not_found("there is no such application service"))?;
        let custom =
            |status, errcode, message: &'static str| Error::Custom { status, errcode, message: message.into() };
        let Some(url) = &service.registration.url else {
            return Err(custom(400, "M_URL_NOT_SET", "the application service has no URL").into());
        };
        let mut body = json!({});
        if let (Some(id), Some(body)) = (transaction_id, body.as_object_mut()) {
            body.insert("transaction_id".to_owned(), Value::from(id));
        }
        let request = OutboundRequest {
            trusted: true,
            method: Method::Post,
            url: format!("{}/_matrix/app/v1/ping", url.trim_end_matches('/')),
            bearer: Some(service.registration.hs_token.clone()),
            body: Some(body),
            timeout: TIMEOUT,
            max_bytes: MAX_ANSWER_BYTES,
        };
        let begun = Instant::now();
        match self.federation.outbound(request).await {
            Ok(_) => Ok(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)),
            Err(PeerError::Status { status, body }) => Err(PingError::BadStatus { status, body: body.to_string() }),
            Err(PeerError::Timeout) => {
                Err(custom(504, "M_CONNECTION_TIMEOUT", "the application service did not answer in time").into())
            }
            Err(_) => Err(custom(502, "M_CONNECTION_FAILED", "the application service cannot be reached").into()),
        }
    }
}
