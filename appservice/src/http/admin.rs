//! `POST /_matron/appservice/v1/rooms`

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use serde_json::{Value, json};
use thiserror::Error;

use super::ApiError;
use crate::client::ClientError;
use crate::governance::{ClinicalRoomSpec, SpecError};

/// Why a room was not created.
#[derive(Debug, Error)]
pub enum RoomCreatorError {
    /// The specification is not that of a bounded room.
    #[error(transparent)]
    Spec(#[from] SpecError),
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
    Route(#[source] std::io::Error),
}

impl From<RoomCreatorError> for ApiError {
    fn from(error: RoomCreatorError) -> Self {
        match error {
            RoomCreatorError::Spec(error) => Self::Invalid(error.sentence()),
            RoomCreatorError::UnknownFeed => Self::Invalid("There is no lab feed of this name."),
            RoomCreatorError::NotReady | RoomCreatorError::Route(_) => Self::Busy,
            RoomCreatorError::Homeserver(ClientError::Refused { errcode, .. }) => Self::Homeserver { errcode },
            RoomCreatorError::Homeserver(_) => Self::Homeserver { errcode: "M_UNKNOWN".to_owned() },
        }
    }
}

/// Creates bounded clinical rooms.
pub trait RoomCreator: Send + Sync {
    /// The room exists afterwards, with everyone named invited; gives its id.
    fn create(
        &self,
        spec: ClinicalRoomSpec,
    ) -> Pin<Box<dyn Future<Output = Result<String, RoomCreatorError>> + Send + '_>>;
}

/// 200 `{"room_id": …}`.
pub(super) async fn create_room(
    State(creator): State<Arc<dyn RoomCreator>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let spec: ClinicalRoomSpec =
        serde_json::from_slice(&body?).map_err(|_invalid| ApiError::BadJson)?;
    let room_id = creator.create(spec).await.inspect_err(|error| {
        tracing::warn!(%error, "a clinical room was not created");
    })?;
    Ok(Json(json!({"room_id": room_id})))
}
