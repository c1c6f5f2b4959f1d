//! Refusing an invite, or withdrawing a knock, of a room that this server is not in.

use std::sync::Arc;

use matron_room::Membership;
use ruma::{RoomId, ServerName, UserId};

use crate::{Core, Error};

/// How many servers are asked before the user has left without telling anyone.
const MAX_SERVERS: usize = 3;

impl Core {
    /// The user has refused the invite, or withdrawn the knock, of a room that this server is not in.
    ///
    /// # Errors
    /// [`Error::Store`]; an unreachable server does not keep the user.
    pub(crate) async fn leave_remote_room(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        let servers = match self.handshake_servers(user, room_id, &[]) {
            Ok(servers) => servers,
            Err(error @ Error::Store(_)) => return Err(error),
            Err(_nobody_to_tell) => Vec::new(),
        };
        for server in servers.into_iter().take(MAX_SERVERS) {
            match self.leave_through(&server, user, room_id, reason).await {
                Ok(()) => break,
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) => {
                    tracing::info!(room.id = %room_id, peer.name = %server, %error, "a server could not be told of a leave");
                }
            }
        }
        self.set_outside_standing(user, room_id, Membership::Leave, user.to_owned(), None).await
    }

    async fn leave_through(
        &self,
        server: &ServerName,
        user: &UserId,
        room_id: &RoomId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        let template = self.fetch_template(server, Membership::Leave, room_id, user).await?;
        let content = self.member_content(user, Membership::Leave, reason)?;
        let leave = self.seal_membership(&template, user, room_id, content)?;
        self.send_leave(server, &leave).await
    }
}
