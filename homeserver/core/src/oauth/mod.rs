//! The OAuth 2.0 API: Matron as the authorization server of its own users.
//!
//! SPEC: v1.19 Client-Server API, "OAuth 2.0 API". A session that is opened this way is an ordinary device; the device
//! remembers which client holds it. What a browser is doing at the moment (codes, device codes) lives in memory and is
//! bounded; clients, browser sessions and tokens are durable.

mod authorize;
mod browser;
mod client;
mod device_grant;
mod error;
mod metadata;
mod redirect_uri;
mod rendezvous;
mod revoke;
mod scope;
mod sso;
mod token;
mod upstream;

pub use authorize::{AuthorizationRequest, Authorized, ResponseMode, Wanted};
pub use browser::{Browser, Visitor};
pub use client::{Client, ClientMetadata, Registered};
pub use device_grant::{DeviceAuthorization, DeviceWanted};
pub use error::{OAuthError, Refusal};
pub use rendezvous::{Channel, MAX_CHANNEL_BYTES};
pub use scope::Scope;
pub use sso::SsoTarget;
pub use token::{TokenRequest, Tokens};
pub use upstream::{CasAnswer, CasAnswerError, CasErrand, CasPrincipal, Identity, UpstreamAnswer, UpstreamSignIn};

use std::num::NonZeroUsize;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::accounts::TokenHash;

/// How many codes wait to be exchanged, at most.
const MAX_CODES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

/// What this concern keeps in memory.
#[derive(Debug)]
pub struct State {
    /// Authorization codes that were given out lately.
    codes: Mutex<authorize::Codes>,
    /// Devices that wait to be let in.
    devices: Mutex<device_grant::Pending>,
    /// How many clients are registered, once counted.
    clients: Mutex<client::Count>,
    /// Channels for signing in by QR code.
    channels: Mutex<rendezvous::Channels>,
    /// See [`upstream`].
    upstream: upstream::State,
}

impl Default for State {
    fn default() -> Self {
        Self {
            codes: Mutex::new(authorize::Codes::new(MAX_CODES)),
            devices: Mutex::default(),
            clients: Mutex::default(),
            channels: Mutex::default(),
            upstream: upstream::State::default(),
        }
    }
}

/// What a device remembers of the OAuth session that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OAuthSession {
    /// Which client holds it.
    pub client_id: String,
    /// What was granted.
    pub scope: String,
    /// The hash of what all its refresh tokens have in common: a token that is known by this alone was used before.
    #[serde(with = "crate::accounts::one_hash")]
    pub family: TokenHash,
}
