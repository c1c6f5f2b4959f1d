//! `mxc://` URIs, checked: neither part can lead outside of where media lies.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#matrix-content-mxc-uris>.

use rand::Rng as _;
use ruma::{OwnedServerName, ServerName};

use crate::Error;

/// The longest media id.
const MAX_ID_BYTES: usize = 255;

/// The name of a file: which server has it, and under which id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mxc {
    pub(crate) server: OwnedServerName,
    pub(crate) id: String,
}

impl Mxc {
    /// A name of these parts.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for an id with other characters than letters, digits, `_` and `-`: such media does not exist.
    pub fn new(server: OwnedServerName, id: &str) -> Result<Self, Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(allowed) {
            return Err(Error::not_found("there is no such media"));
        }
        Ok(Self { server, id: id.to_owned() })
    }

    /// The name that a URI spells, if it is one.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let (server, id) = uri.strip_prefix("mxc://")?.split_once('/')?;
        Self::new(OwnedServerName::try_from(server).ok()?, id).ok()
    }

    /// A name that nobody guesses.
    pub(crate) fn fresh(server: &ServerName) -> Self {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
        let mut bytes = [0_u8; 24];
        rand::rng().fill_bytes(&mut bytes);
        let letter = |byte: &u8| LETTERS.get(usize::from(byte & 63)).copied().map_or('A', char::from);
        Self { server: server.to_owned(), id: bytes.iter().map(letter).collect() }
    }

    /// Which server has it.
    #[must_use]
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// Its id there.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl std::fmt::Display for Mxc {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "mxc://{}/{}", self.server, self.id)
    }
}
