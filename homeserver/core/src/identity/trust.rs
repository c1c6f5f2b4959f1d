//! Which identity servers users may name.

use ruma::OwnedServerName;
use url::{Position, Url};

use crate::{Core, Error, federation::acl::glob};

/// An identity server that the operator trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trusted {
    /// Its name, with a port unless that is 443.
    pub(super) name: OwnedServerName,
    /// Whether the operator wrote this very name: then it may be at a private address.
    pub(super) by_name: bool,
}

fn not_trusted() -> Error {
    Error::Custom {
        status: 400,
        errcode: "M_SERVER_NOT_TRUSTED",
        message: "this homeserver does not trust that identity server; its operator names those that it does".into(),
    }
}

impl Core {
    /// The identity server of this name, if the operator trusts it.
    ///
    /// # Errors
    /// `M_SERVER_NOT_TRUSTED`.
    pub(super) fn trusted_identity_server(&self, name: &str) -> Result<Trusted, Error> {
        let name = OwnedServerName::try_from(name).map_err(|_| not_trusted())?;
        let trusted = &self.settings.identity_servers;
        let by_name = trusted.iter().any(|one| one.eq_ignore_ascii_case(name.as_str()));
        if by_name || trusted.iter().any(|pattern| glob(pattern, name.as_str())) {
            return Ok(Trusted { name, by_name });
        }
        Err(not_trusted())
    }

    /// The trusted identity server that a URL leads to, and path and query there.
    ///
    /// # Errors
    /// `M_SERVER_NOT_TRUSTED`.
    pub(super) fn trusted_place(&self, url: &Url) -> Result<(Trusted, String), Error> {
        if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() {
            return Err(not_trusted());
        }
        let server = self.trusted_identity_server(&url[Position::BeforeHost..Position::AfterPort])?;
        Ok((server, url[Position::BeforePath..Position::AfterQuery].to_owned()))
    }
}
