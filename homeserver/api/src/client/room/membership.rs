//! `POST /_matrix/client/v3/rooms/{roomId}/` `leave`, `forget`, `invite`, `kick`, `ban`, `unban`

use std::sync::Arc;

use axum::extract::State;
use matron_core::{
    Core, Error,
    identity::{AddressInvite, IdentityToken},
};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, JsonOrEmpty, PathArgs},
};

/// Why.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reason {
    reason: Option<String>,
}

/// Who, and why.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    user_id: OwnedUserId,
    #[serde(default)]
    reason: Option<String>,
}

/// Whom to invite: a user, or whoever has an address.
#[derive(Debug, Deserialize)]
pub(crate) struct Invite {
    user_id: Option<OwnedUserId>,
    reason: Option<String>,
    id_server: Option<String>,
    id_access_token: Option<IdentityToken>,
    medium: Option<String>,
    address: Option<String>,
}

impl Invite {
    fn into_address(self) -> Result<AddressInvite, Error> {
        if self.medium.is_none() && self.address.is_none() {
            return Err(Error::MissingParam("the field `user_id` is missing".into()));
        }
        let missing =
            || Error::MissingParam("`id_server`, `id_access_token`, `medium` and `address` are needed".into());
        Ok(AddressInvite {
            id_server: self.id_server.ok_or_else(missing)?,
            id_access_token: self.id_access_token.ok_or_else(missing)?,
            medium: self.medium.ok_or_else(missing)?,
            address: self.address.ok_or_else(missing)?,
        })
    }
}

/// The user has left.
///
/// # Errors
/// As [`Core::leave_room`].
pub(crate) async fn leave(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonOrEmpty(body): JsonOrEmpty<Reason>,
) -> Answer<Empty> {
    core.leave_room(&requester.user_id, &room, body.reason.as_deref()).await?;
    empty()
}

/// The room is out of sight.
///
/// # Errors
/// As [`Core::forget_room`].
pub(crate) async fn forget(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
) -> Answer<Empty> {
    core.forget_room(&requester.user_id, &room).await?;
    empty()
}

/// The user is invited, or whoever has the address.
///
/// # Errors
/// As [`Core::invite`] and [`Core::invite_by_address`].
pub(crate) async fn invite(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonBody(body): JsonBody<Invite>,
) -> Answer<Empty> {
    core.check_not_suspended(&requester)?;
    let reason = body.reason.clone();
    if let Some(user) = &body.user_id {
        core.invite(&requester.user_id, &room, user, reason.as_deref(), false).await?;
    } else {
        let address = body.into_address()?;
        core.invite_by_address(&requester.user_id, &room, &address, reason.as_deref(), false).await?;
    }
    empty()
}

/// The user is out.
///
/// # Errors
/// As [`Core::kick`].
pub(crate) async fn kick(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonBody(body): JsonBody<Target>,
) -> Answer<Empty> {
    core.kick(&requester.user_id, &room, &body.user_id, body.reason.as_deref()).await?;
    empty()
}

/// The user is out, and stays out.
///
/// # Errors
/// As [`Core::ban`].
pub(crate) async fn ban(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonBody(body): JsonBody<Target>,
) -> Answer<Empty> {
    core.ban(&requester.user_id, &room, &body.user_id, body.reason.as_deref()).await?;
    empty()
}

/// The user may come again.
///
/// # Errors
/// As [`Core::unban`].
pub(crate) async fn unban(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(room): PathArgs<OwnedRoomId>,
    JsonBody(body): JsonBody<Target>,
) -> Answer<Empty> {
    core.unban(&requester.user_id, &room, &body.user_id, body.reason.as_deref()).await?;
    empty()
}
