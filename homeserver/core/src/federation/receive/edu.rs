//! Ephemeral units from a peer, to whom they concern.

use std::sync::Arc;

use ruma::ServerName;
use serde_json::Value;

use crate::{Core, Error};

impl Core {
    /// The unit is told to those whom it concerns; unknown kinds are ignored.
    ///
    /// # Errors
    /// [`Error::BadJson`] and [`Error::Forbidden`] for a unit that the peer may not send; [`Error::Store`].
    pub(super) async fn receive_edu(
        self: &Arc<Self>,
        origin: &ServerName,
        kind: &str,
        content: Value,
    ) -> Result<(), Error> {
        match kind {
            "m.typing" => self.receive_typing(origin, content),
            "m.presence" => self.receive_presence(origin, content).await,
            "m.device_list_update" => self.receive_device_list_update(origin, content).await,
            "m.signing_key_update" | "org.matrix.signing_key_update" => {
                self.receive_signing_key_update(origin, content).await
            }
            "m.direct_to_device" => self.receive_direct_to_device(origin, content).await,
            "m.receipt" => self.receive_receipts(origin, content).await,
            _ => Ok(()),
        }
    }
}
