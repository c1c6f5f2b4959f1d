//! Inviting a user of another server: that server signs the invite before anyone else sees it.

use std::sync::Arc;

use matron_room::{CanonicalJsonValue, FormatError, Pdu, UncheckedPdu};
use ruma::ServerName;

use crate::{Core, Error, federation::client::passed_on, policy_server::KEY_ID};

impl Core {
    /// The invite, signed by the invitee's server too.
    ///
    /// # Errors
    /// [`Error::Peer`], or what the server answered.
    pub(crate) async fn send_invite_to_server(
        self: &Arc<Self>,
        pdu: &Pdu,
        stripped: &[Pdu],
        server: &ServerName,
    ) -> Result<Pdu, Error> {
        let answer = self.send_invite(server, pdu, stripped).await.map_err(passed_on)?;
        let refuse = || Error::Peer("the invitee's server did not sign the invite".into());
        let theirs = UncheckedPdu::parse(&answer, pdu.room_version()).map_err(|error| match error {
            FormatError::Canonical(error) => Error::bad_json(error.to_string()),
            _ => refuse(),
        })?;
        if theirs.event_id() != pdu.event_id() {
            return Err(refuse());
        }
        // Only its signatures are taken: the event stays as we made it.
        let object = theirs.unverified().to_object().map_err(|_| refuse())?;
        let signatures = object.get("signatures").and_then(CanonicalJsonValue::as_object);
        let signatures = signatures.and_then(|all| all.get(server.as_str())).and_then(CanonicalJsonValue::as_object);
        let mut signed = pdu.clone();
        for (key_id, signature) in signatures.into_iter().flatten().take(4) {
            let Some(signature) = signature.as_str() else { continue };
            signed = signed.with_foreign_signature(server.as_str(), key_id, signature).map_err(|_| refuse())?;
        }
        let again = UncheckedPdu::parse(signed.json(), pdu.room_version()).map_err(|_| refuse())?;
        let keys = self.keys_of_signer(server, &again).await?;
        again.verify_server(server, &keys).map_err(|error| Error::Peer(error.to_string().into()))?;
        Ok(signed)
    }

    /// The keys with which the server signed the event, whether or not it had to; that of a policy server, which no server
    /// publishes, is none of them.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn keys_of_signer(
        &self,
        server: &ServerName,
        pdu: &UncheckedPdu,
    ) -> Result<crate::federation::keys::events::EventKeys, Error> {
        let object = pdu.unverified().to_object().unwrap_or_default();
        let key_ids = object
            .get("signatures")
            .and_then(CanonicalJsonValue::as_object)
            .and_then(|all| all.get(server.as_str()))
            .and_then(CanonicalJsonValue::as_object)
            .map(|keys| keys.keys().filter(|key_id| *key_id != KEY_ID).take(4).cloned().collect())
            .unwrap_or_default();
        let found = self.server_keys(server, &key_ids, pdu.keys_valid_at_ms()).await?;
        Ok([(server.to_owned(), found)].into())
    }
}
