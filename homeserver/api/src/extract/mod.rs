//! Who asks, and what; every refusal is a Matrix error.

mod auth;
mod body;
mod form;
mod guest;
mod params;
mod x_matrix;

pub use auth::{Auth, AuthEvenLocked, OptionalAuth, Shown, access_token};
pub use body::{DEFAULT_JSON_BYTES, JsonBody, JsonOrEmpty, LARGE_JSON_BYTES, UiaBody, parse_json, read_body};
pub(crate) use form::{FormBody, Limited, read_form};
pub use params::{PathArgs, Query};
pub use x_matrix::{Peer, PeerJson, PeerQuery};
