//! E-mail addresses of accounts: proved by a letter with a link, good for signing in and for a lost password.
//!
//! - [`session`]: a proof on its way. [`letter`]: what people are written.
//! - [`owned`]: an address becomes an account's. [`reset`]: a lost password.
//!
//! Whether an address has an account here is told to nobody but who reads its letters; except to who would add it to
//! another, as the specification wants.
//!
//! SPEC: v1.19 Client-Server API, "Adding Account Administrative Contact Information".

mod letter;
mod owned;
mod reset;
mod session;
#[cfg(test)]
mod tests;

pub use session::{EmailCredentials, EmailRequest, Purpose};
pub(super) use session::{Letters, ProvenEmail};

use crate::{Core, Error};

/// The medium, as the specification writes it.
pub(super) const EMAIL: &str = "email";

/// The longest address. SPEC: RFC 5321, section 4.5.3.1.3, without the brackets.
const MAX_EMAIL_BYTES: usize = 254;

impl Core {
    /// Whether letters are sent, so that addresses can be proved.
    #[must_use]
    pub fn sends_letters(&self) -> bool {
        self.settings.email.server.is_some()
    }

    /// Passes where letters are sent.
    ///
    /// # Errors
    /// `M_THREEPID_MEDIUM_NOT_SUPPORTED`.
    pub fn check_sends_letters(&self) -> Result<(), Error> {
        if self.sends_letters() { Ok(()) } else { Err(not_supported()) }
    }
}

/// The refusal of what needs letters, or messages to a telephone.
#[must_use]
pub fn not_supported() -> Error {
    Error::Custom {
        status: 400,
        errcode: "M_THREEPID_MEDIUM_NOT_SUPPORTED",
        message: "this server sends no letters or messages to such addresses, so nobody can prove to have one".into(),
    }
}

/// Whether this is an e-mail address of the common kind: nothing quoted, no comments, ASCII.
#[must_use]
pub fn is_email_address(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let of_local = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte);
    let of_domain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let dotted = |part: &str| !part.is_empty() && part.split('.').all(|label| !label.is_empty());
    text.len() <= MAX_EMAIL_BYTES
        && dotted(local)
        && dotted(domain)
        && local.bytes().all(of_local)
        && domain.bytes().all(of_domain)
}
