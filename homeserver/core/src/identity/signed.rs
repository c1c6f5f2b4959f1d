//! Whether the proof of an address holds: signed with a key of the invite, and the key not taken back since.

use matron_room::{CanonicalJsonObject, CanonicalJsonValue, canonical_object, verify_json_signature};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::ask::Question;
use crate::{
    Core, Error,
    ports::{IdentityProof, http_method::Method},
};

/// How many keys and signatures are looked at.
const MAX_TRIED: usize = 16;

/// A key with which an invite's proof may be signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct ProofKey {
    public_key: String,
    #[serde(default)]
    key_validity_url: Option<String>,
}

#[derive(Deserialize)]
struct Validity {
    valid: bool,
}

impl ProofKey {
    /// The keys that the content of `m.room.third_party_invite` names; none, if it was taken back.
    pub(super) fn of_invite(content: &Value) -> Vec<Self> {
        let more = content.get("public_keys").and_then(Value::as_array);
        let all = std::iter::once(content).chain(more.into_iter().flatten());
        all.filter_map(|one| Self::deserialize(one).ok()).take(MAX_TRIED).collect()
    }

    /// Whether one of the signatures of the object was made with this key.
    fn signed(&self, object: &CanonicalJsonObject) -> bool {
        let signatures = object.get("signatures").and_then(CanonicalJsonValue::as_object).into_iter().flatten();
        let signatures = signatures.filter_map(|(entity, keys)| Some((entity, keys.as_object()?)));
        signatures.flat_map(|(entity, keys)| keys.keys().map(move |id| (entity, id))).take(MAX_TRIED).any(
            |(entity, key_id)| {
                let only = [(key_id.clone(), self.public_key.clone())].into();
                verify_json_signature(object, entity, &only).is_ok()
            },
        )
    }
}

impl Core {
    /// Nothing, if the proof is signed with a key of the invite and the identity server still stands by that key.
    ///
    /// SPEC: v1.19 Client-Server API, "Third-party invites": the inviting server alone asks `key_validity_url`, so that
    /// all servers agree on the room. A key without one is valid for ever.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if not; `M_SERVER_NOT_TRUSTED` for a key that another server speaks for; [`Error::Peer`] if the
    /// identity server does not answer.
    pub(crate) async fn check_proof_of_address(&self, invite: &Value, signed: &Value) -> Result<(), Error> {
        let object = canonical_object(signed).map_err(|_| Error::bad_json("`signed` has no canonical form"))?;
        let mut keys = ProofKey::of_invite(invite);
        keys.retain(|key| key.signed(&object));
        if keys.is_empty() {
            return Err(Error::forbidden("the proof of the address is not signed with a key of the invite"));
        }
        let mut asked = Vec::new();
        for key in keys {
            let Some(url) = key.key_validity_url.clone().filter(|_| !asked.contains(&key)) else { continue };
            if !self.is_proof_key_valid(&url, &key.public_key).await? {
                return Err(Error::forbidden("the identity server has taken the key back that proves the address"));
            }
            asked.push(key);
        }
        Ok(())
    }

    async fn is_proof_key_valid(&self, url: &str, public_key: &str) -> Result<bool, Error> {
        let mut url =
            Url::parse(url).map_err(|_| Error::forbidden("nobody can say whether the invite's key is valid"))?;
        url.query_pairs_mut().append_pair("public_key", public_key);
        let (server, path_and_query) = self.trusted_place(&url)?;
        let question = Question { method: Method::Get, path_and_query, proof: IdentityProof::None, body: None };
        let validity: Validity = self.ask_identity_server(&server, question).await?;
        Ok(validity.valid)
    }

    /// Nothing, if trusted identity servers speak for all of these keys.
    ///
    /// # Errors
    /// `M_SERVER_NOT_TRUSTED`.
    pub(super) fn check_proof_keys(&self, keys: &[ProofKey]) -> Result<(), Error> {
        for url in keys.iter().filter_map(|key| key.key_validity_url.as_deref()) {
            let url = Url::parse(url).map_err(|_| super::ask::malformed())?;
            self.trusted_place(&url)?;
        }
        Ok(())
    }
}
