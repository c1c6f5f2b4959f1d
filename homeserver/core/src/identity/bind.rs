//! Users who want to be found by their addresses: bound at an identity server, and unbound again.
//!
//! What is bound there is written down, so that it can be unbound later. It is not the list of addresses of the account.
//!
//! SPEC: v1.19 Client-Server API, `POST /account/3pid/bind` and `/unbind`.

use futures_util::future::join_all;
use matron_storage::{Batch, Key, KeyReader, Order, Table};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::json;

use super::{
    ask::{IdentityToken, Question, Unanswered, malformed},
    canonical_address, check_address,
    trust::Trusted,
};
use crate::{
    Core, Error,
    house::to_json,
    ports::{IdentityProof, http_method::Method},
};

/// How many bindings one user may have.
const MAX_BINDINGS: usize = 50;

/// The longest session id or client secret, bytes.
const MAX_SESSION_BYTES: usize = 255;

/// A session with an identity server in which an address was validated.
#[derive(Clone, Deserialize)]
pub struct IdentityCredentials {
    /// The session.
    pub sid: String,
    /// The client's secret of it.
    pub client_secret: String,
    /// The identity server.
    pub id_server: String,
    /// The user's token there.
    pub id_access_token: IdentityToken,
}

impl std::fmt::Debug for IdentityCredentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("IdentityCredentials").field("id_server", &self.id_server).finish_non_exhaustive()
    }
}

/// What became of bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbound {
    /// There are none any more.
    Success,
    /// An identity server does not support it, or it is not known which one.
    NoSupport,
}

impl Unbound {
    /// As the specification writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::NoSupport => "no-support",
        }
    }
}

/// What an identity server says that it has bound.
#[derive(Deserialize)]
struct Association {
    medium: String,
    address: String,
    mxid: OwnedUserId,
}

/// One binding that is written down.
#[derive(Debug)]
struct Binding {
    medium: String,
    address: String,
    id_server: String,
}

impl Core {
    /// The address of that session is bound to the user at its identity server.
    ///
    /// # Errors
    /// `M_SERVER_NOT_TRUSTED`; [`Error::Forbidden`] for one binding too many; what the identity server answers.
    pub async fn bind_at_identity_server(&self, user: &UserId, credentials: &IdentityCredentials) -> Result<(), Error> {
        let server = self.trusted_identity_server(&credentials.id_server)?;
        for part in [&credentials.sid, &credentials.client_secret] {
            check_session_text(part)?;
        }
        if self.bindings(user)?.len() >= MAX_BINDINGS {
            return Err(Error::forbidden("you have bound as many addresses as you may"));
        }
        let question = Question {
            method: Method::Post,
            path_and_query: "/_matrix/identity/v2/3pid/bind".to_owned(),
            proof: credentials.id_access_token.proof()?,
            body: Some(json!({"sid": credentials.sid, "client_secret": credentials.client_secret, "mxid": user})),
        };
        let bound: Association = self.ask_identity_server(&server, question).await?;
        if bound.mxid != user {
            return Err(malformed());
        }
        let address = check_address(&bound.medium, &bound.address).map_err(|_| malformed())?;
        let mut batch = Batch::new();
        let row = to_json(&json!({"bound_at": self.now_ms()}))?;
        batch.put(Table::UserThreepidBinding, binding_key(user, &bound.medium, &address, server.name.as_str()), row);
        self.commit(batch).await.map(drop)
    }

    /// The address is bound to the user no longer: at the identity server that is named, or wherever it was bound from here.
    ///
    /// # Errors
    /// `M_SERVER_NOT_TRUSTED`; what the identity server answers.
    pub async fn unbind_at_identity_server(
        &self,
        user: &UserId,
        medium: &str,
        address: &str,
        id_server: Option<&str>,
    ) -> Result<Unbound, Error> {
        let address = check_address(medium, address)?;
        let servers: Vec<Trusted> = match id_server {
            Some(name) => vec![self.trusted_identity_server(name)?],
            None => {
                let bound = self.bindings(user)?.into_iter();
                let bound = bound.filter(|binding| binding.medium == medium && binding.address == address);
                bound.filter_map(|binding| self.trusted_identity_server(&binding.id_server).ok()).collect()
            }
        };
        if servers.is_empty() {
            return Ok(Unbound::NoSupport);
        }
        let mut all = Unbound::Success;
        for server in &servers {
            if self.unbind_at(server, user, medium, &address).await? == Unbound::NoSupport {
                all = Unbound::NoSupport;
            }
        }
        Ok(all)
    }

    /// As [`Core::unbind_at_identity_server`], where what the user wants is done whether or not that succeeds.
    pub async fn try_to_unbind(&self, user: &UserId, medium: &str, address: &str, id_server: Option<&str>) -> Unbound {
        self.unbind_at_identity_server(user, medium, address, id_server).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "an address stays bound at an identity server");
            Unbound::NoSupport
        })
    }

    /// Nothing of the user is bound any more, as far as identity servers do as they are asked; nor written down.
    ///
    /// `id_server` is asked for these addresses too.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn unbind_all(
        &self,
        user: &UserId,
        id_server: Option<&str>,
        addresses: &[(String, String)],
    ) -> Result<Unbound, Error> {
        let bindings = self.bindings(user)?;
        let written = bindings.iter().map(|one| (&*one.medium, &*one.address, &*one.id_server));
        let named = addresses
            .iter()
            .take(MAX_BINDINGS)
            .filter_map(|(medium, address)| Some((&**medium, &**address, id_server?)))
            .filter(|named| !written.clone().any(|one| one == *named));
        let asked = written.clone().chain(named).map(|(medium, address, server)| async move {
            self.try_to_unbind(user, medium, address, Some(server)).await
        });
        let results = join_all(asked).await;
        let mut batch = Batch::new();
        batch.delete_range(Table::UserThreepidBinding, Key::new().text(user).prefix());
        self.commit(batch).await?;
        let all = results.iter().all(|result| *result == Unbound::Success);
        Ok(if all { Unbound::Success } else { Unbound::NoSupport })
    }

    async fn unbind_at(&self, server: &Trusted, user: &UserId, medium: &str, address: &str) -> Result<Unbound, Error> {
        let question = Question {
            method: Method::Post,
            path_and_query: "/_matrix/identity/v2/3pid/unbind".to_owned(),
            proof: IdentityProof::Signed,
            body: Some(json!({"mxid": user, "threepid": {"medium": medium, "address": address}})),
        };
        let result = match self.ask_identity_server::<IgnoredAny>(server, question).await {
            Ok(_) => Unbound::Success,
            Err(Unanswered::Unsupported) => Unbound::NoSupport,
            Err(Unanswered::Failed(error)) => return Err(error),
        };
        let mut batch = Batch::new();
        batch.delete(Table::UserThreepidBinding, binding_key(user, medium, address, server.name.as_str()));
        self.commit(batch).await?;
        Ok(result)
    }

    fn bindings(&self, user: &UserId) -> Result<Vec<Binding>, Error> {
        let range = Key::new().text(user).prefix();
        let rows = self.store.scan(Table::UserThreepidBinding, &range, Order::Ascending, MAX_BINDINGS)?;
        let read = |key: &[u8]| {
            let mut reader = KeyReader::new(key);
            reader.text()?;
            Some(Binding { medium: reader.text()?, address: reader.text()?, id_server: reader.text()? })
        };
        Ok(rows.iter().filter_map(|(key, _)| read(key)).collect())
    }
}

fn binding_key(user: &UserId, medium: &str, address: &str, id_server: &str) -> Key {
    Key::new().text(user).text(medium).text(canonical_address(medium, address)).text(id_server)
}

/// SPEC: v1.19 Identity Service API: session ids and client secrets are 1 to 255 of `[0-9a-zA-Z.=_-]`.
fn check_session_text(text: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".=_-".contains(&byte);
    if text.is_empty() || text.len() > MAX_SESSION_BYTES || !text.bytes().all(allowed) {
        return Err(Error::invalid("`sid` and `client_secret` are 1 to 255 characters of 0-9 a-z A-Z . = _ -"));
    }
    Ok(())
}
