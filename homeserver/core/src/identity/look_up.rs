//! Whose an address is. The identity server sees a hash: what it does not know it cannot learn.
//!
//! SPEC: v1.19 Identity Service API, "Association lookup".

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{
    ask::{IdentityToken, Question, malformed},
    trust::Trusted,
};
use crate::{Core, Error, ports::http_method::Method};

const SHA256: &str = "sha256";

#[derive(Deserialize)]
struct HashDetails {
    lookup_pepper: String,
    algorithms: Vec<String>,
}

#[derive(Deserialize)]
struct Found {
    mappings: BTreeMap<String, Option<String>>,
}

impl Core {
    /// The user to whom the address is bound at the identity server, if any.
    ///
    /// # Errors
    /// As the identity server answers; [`Error::Peer`] for one that takes no hashes.
    pub(super) async fn look_up_address(
        &self,
        server: &Trusted,
        token: &IdentityToken,
        medium: &str,
        address: &str,
    ) -> Result<Option<OwnedUserId>, Error> {
        let question = Question {
            method: Method::Get,
            path_and_query: "/_matrix/identity/v2/hash_details".to_owned(),
            proof: token.proof()?,
            body: None,
        };
        let details: HashDetails = self.ask_identity_server(server, question).await?;
        if !details.algorithms.iter().any(|algorithm| algorithm == SHA256) {
            return Err(Error::Peer("the identity server wants addresses in the clear".into()));
        }
        let hash = hash_of(medium, address, &details.lookup_pepper);
        let question = Question {
            method: Method::Post,
            path_and_query: "/_matrix/identity/v2/lookup".to_owned(),
            proof: token.proof()?,
            body: Some(json!({"algorithm": SHA256, "pepper": details.lookup_pepper, "addresses": [hash]})),
        };
        let found: Found = self.ask_identity_server(server, question).await?;
        let user = found.mappings.get(&hash).cloned().flatten();
        user.map(|user| OwnedUserId::try_from(user).map_err(|_| malformed())).transpose()
    }
}

fn hash_of(medium: &str, address: &str, pepper: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{address} {medium} {pepper}")))
}

#[cfg(test)]
mod tests {
    use super::hash_of;

    #[test]
    fn addresses_are_hashed_as_in_the_specification() {
        for (address, medium, hash) in [
            ("alice@example.com", "email", "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc"),
            ("bob@example.com", "email", "LJwSazmv46n0hlMlsb_iYxI0_HXEqy_yj6Jm636cdT8"),
            ("18005552067", "msisdn", "nlo35_T5fzSGZzJApqu8lgIudJvmOQtDaHtr-I4rU7I"),
        ] {
            assert_eq!(hash_of(medium, address, "matrixrocks"), hash);
        }
    }
}
