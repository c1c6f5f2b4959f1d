//! Identity servers: services that know whose an e-mail address or a telephone number is. Users name them; this server
//! speaks with those alone that the operator trusts.
//!
//! - [`trust`]: which those are. [`ask`]: one question to one of them.
//! - [`look_up`]: whose an address is. [`bind`]: users who want to be found by their addresses.
//! - [`invite`]: inviting by address. [`signed`]: whether the proof of an address holds.
//!
//! Spec: <https://spec.matrix.org/v1.19/identity-service-api/>,
//! <https://spec.matrix.org/v1.19/client-server-api/#third-party-invites>.

mod ask;
mod bind;
mod invite;
mod look_up;
#[cfg(test)]
mod policy_tests;
mod signed;
#[cfg(test)]
mod tests;
mod trust;

pub use ask::IdentityToken;
pub use bind::{IdentityCredentials, Unbound};
pub use invite::AddressInvite;

use crate::Error;

/// The longest address, bytes.
const MAX_ADDRESS_BYTES: usize = 255;

/// The address as it is compared and stored: e-mail addresses without regard to case.
///
/// SPEC: v1.19 Appendices, "3PID Types".
pub(crate) fn canonical_address(medium: &str, address: &str) -> String {
    if medium == "email" { address.to_lowercase() } else { address.to_owned() }
}

/// The address in its canonical form, if it may be one.
///
/// # Errors
/// [`Error::InvalidParam`] for a medium that is none, and for what is too long or holds spaces.
fn check_address(medium: &str, address: &str) -> Result<String, Error> {
    if !matches!(medium, "email" | "msisdn") {
        return Err(Error::invalid("`medium` is email or msisdn"));
    }
    let is_odd = |c: char| c.is_whitespace() || c.is_control();
    if address.is_empty() || address.len() > MAX_ADDRESS_BYTES || address.contains(is_odd) {
        return Err(Error::invalid("`address` is no e-mail address or telephone number"));
    }
    Ok(canonical_address(medium, address))
}
