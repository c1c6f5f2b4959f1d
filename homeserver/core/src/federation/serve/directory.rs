//! Aliases, public rooms and profiles: asked of others, and answered.

use std::{sync::Arc, time::Duration};

use ruma::{OwnedRoomId, RoomAliasId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    Core, Error,
    federation::{
        client::{passed_on, server_names},
        fetch::encode,
    },
    ports::http_method::Method,
    rooms::{
        aliases::AliasTarget,
        public::{PublicRooms, PublicRoomsRequest},
    },
};

const TIMEOUT: Duration = Duration::from_secs(20);
const MAX_BYTES: usize = 4 * 1024 * 1024;

#[derive(Deserialize)]
struct DirectoryAnswer {
    room_id: OwnedRoomId,
    #[serde(default)]
    servers: Vec<Value>,
}

impl Core {
    /// Where another server's alias leads.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Peer`] if the server does not answer.
    pub async fn query_directory(&self, server: &ServerName, alias: &RoomAliasId) -> Result<AliasTarget, Error> {
        let path = format!("/_matrix/federation/v1/query/directory?room_alias={}", encode(alias.as_str()));
        let answer: DirectoryAnswer = self.peer_get(server, path, TIMEOUT, MAX_BYTES).await.map_err(passed_on)?;
        let mut servers = server_names(&answer.servers);
        if !servers.iter().any(|known| known == server) {
            servers.push(server.to_owned());
        }
        Ok(AliasTarget { room_id: answer.room_id, servers })
    }

    /// The public rooms of another server, as it tells them. `request` is the body of `POST /publicRooms`.
    ///
    /// # Errors
    /// [`Error::Peer`], [`Error::Forbidden`].
    pub async fn federation_public_rooms(&self, server: &ServerName, request: Value) -> Result<Value, Error> {
        let path = "/_matrix/federation/v1/publicRooms".to_owned();
        self.peer_json(server, Method::Post, path, Some(request), TIMEOUT, MAX_BYTES).await.map_err(passed_on)
    }

    /// The profile of another server's user.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Peer`].
    pub async fn remote_profile(&self, user: &UserId) -> Result<Map<String, Value>, Error> {
        let path = format!("/_matrix/federation/v1/query/profile?user_id={}", encode(user.as_str()));
        self.peer_get(user.server_name(), path, TIMEOUT, MAX_BYTES).await.map_err(passed_on)
    }

    /// Another server's view of a space, as it tells it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Peer`].
    pub async fn remote_hierarchy(
        &self,
        server: &ServerName,
        room: &ruma::RoomId,
        suggested_only: bool,
    ) -> Result<Value, Error> {
        let path =
            format!("/_matrix/federation/v1/hierarchy/{}?suggested_only={suggested_only}", encode(room.as_str()));
        self.peer_get(server, path, TIMEOUT, MAX_BYTES).await.map_err(passed_on)
    }

    /// A page of this server's directory, for another server.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where the operator does not share the directory; [`Error::InvalidParam`] for a malformed token.
    pub fn serve_public_rooms(&self, request: &PublicRoomsRequest) -> Result<PublicRooms, Error> {
        if !self.settings.public_rooms_over_federation {
            return Err(Error::forbidden("this server does not share its directory"));
        }
        self.local_public_rooms(request)
    }

    /// Where an alias of this server leads, for another server.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for aliases of other servers.
    pub async fn serve_directory(self: &Arc<Self>, alias: &RoomAliasId) -> Result<AliasTarget, Error> {
        if !self.is_local(alias.server_name()) {
            return Err(Error::not_found("this is not an alias of this server"));
        }
        self.resolve_alias(alias).await
    }

    /// The profile of a user of this server, or one field of it, for another server.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for users of other servers.
    pub async fn serve_profile(&self, user: &UserId, field: Option<&str>) -> Result<Map<String, Value>, Error> {
        if !self.is_local_user(user) {
            return Err(Error::not_found("this is not a user of this server"));
        }
        self.profile(user, field).await
    }
}
