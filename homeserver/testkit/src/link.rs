//! One server's way into the network: the port that `matron-net` implements in earnest.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use matron_core::ports::{Federation, FederationRequest, OutboundRequest, PeerError, PeerResponse};
use matron_room::SigningKey;
use ruma::{OwnedServerName, ServerName};

use crate::{TestNet, cable::Cable};

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) net: Arc<TestNet>,
    pub(crate) name: OwnedServerName,
    pub(crate) key: Arc<SigningKey>,
    /// Who is dead asks nothing.
    pub(crate) cable: Arc<Cable>,
}

impl Federation for Link {
    fn request(&self, request: FederationRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async move {
            if self.cable.is_cut() {
                return Err(PeerError::Connect("the process is dead".to_owned()));
            }
            self.net.carry(&self.name, &self.key, request).await
        })
    }

    fn outbound(&self, _request: OutboundRequest) -> BoxFuture<'_, Result<PeerResponse, PeerError>> {
        Box::pin(async { Err(PeerError::Timeout) })
    }

    fn heard_from(&self, _server: &ServerName) {}
}
