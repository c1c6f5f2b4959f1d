//! `POST /_matron/appservice/v1/rooms`

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use serde::Serialize;
use thiserror::Error;

use super::ApiError;
use crate::client::ClientError;
use crate::governance::{BoundsError, ClinicalRoomSpec, SpecError};
use crate::store::StoreError;

/// Why a room was not created.
#[derive(Debug, Error)]
pub enum RoomCreatorError {
    /// The specification is not that of a bounded room.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The organisations' servers are not known.
    #[error(transparent)]
    Bounds(#[from] BoundsError),
    /// The homeserver refused or could not be reached.
    #[error(transparent)]
    Homeserver(#[from] ClientError),
    /// The bot is not ready yet, or stopping.
    #[error("the governance bot is not ready")]
    NotReady,
    /// The feed that the specification names is not configured.
    #[error("no such lab feed")]
    UnknownFeed,
    /// The route to the feed could not be kept.
    #[error("the lab feed's route cannot be stored")]
    Route(#[from] StoreError),
}

impl From<RoomCreatorError> for ApiError {
    fn from(error: RoomCreatorError) -> Self {
        match error {
            RoomCreatorError::Spec(error) => Self::Invalid(error.sentence()),
            RoomCreatorError::UnknownFeed => Self::Invalid("There is no lab feed of this name."),
            RoomCreatorError::Bounds(BoundsError::UnknownOrganisation) => {
                Self::Invalid(SpecError::Organisations.sentence())
            }
            RoomCreatorError::Bounds(_) => Self::Register,
            RoomCreatorError::NotReady | RoomCreatorError::Route(_) => Self::Busy,
            RoomCreatorError::Homeserver(ClientError::Refused { errcode, .. }) => Self::Homeserver { errcode },
            RoomCreatorError::Homeserver(_) => Self::Homeserver { errcode: "M_UNKNOWN".to_owned() },
        }
    }
}

/// Somebody whom the homeserver did not let us invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedInvite {
    /// Who.
    pub user_id: String,
    /// What the homeserver answered.
    pub errcode: String,
}

impl FailedInvite {
    /// The refusal of one invitation.
    #[must_use]
    pub fn new(user_id: &str, error: &ClientError) -> Self {
        let errcode = match error {
            ClientError::Refused { errcode, .. } => errcode.as_str(),
            _ => "M_UNKNOWN",
        };
        Self { user_id: user_id.to_owned(), errcode: errcode.to_owned() }
    }
}

/// A room that was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CreatedRoom {
    /// Its id.
    pub room_id: String,
    /// Who of the named was not invited.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_invites: Vec<FailedInvite>,
}

/// Creates bounded clinical rooms.
pub trait RoomCreator: Send + Sync {
    /// The room exists afterwards, with everyone invited whom the homeserver lets us invite.
    fn create(
        &self,
        spec: ClinicalRoomSpec,
    ) -> Pin<Box<dyn Future<Output = Result<CreatedRoom, RoomCreatorError>> + Send + '_>>;
}

/// 200 `{"room_id": …, "failed_invites": […]}`.
pub(super) async fn create_room(
    State(creator): State<Arc<dyn RoomCreator>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<CreatedRoom>, ApiError> {
    let spec: ClinicalRoomSpec = serde_json::from_slice(&body?).map_err(|_invalid| ApiError::BadJson)?;
    let created = creator.create(spec).await.inspect_err(|error| {
        tracing::warn!(%error, "a clinical room was not created");
    })?;
    Ok(Json(created))
}
