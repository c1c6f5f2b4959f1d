//! `/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core,
    keys::dehydrated::{DehydratedDevice, DehydratedEvents, NewDehydratedDevice},
};
use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::json;

use crate::{
    Answer,
    extract::{Auth, JsonBody, JsonOrEmpty, PathArgs},
};

/// The device sleeps here.
///
/// # Errors
/// As [`Core::put_dehydrated_device`].
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(new): JsonBody<NewDehydratedDevice>,
) -> Answer {
    let device_id = new.device.device_id.clone();
    core.put_dehydrated_device(&requester, new).await?;
    Ok(Json(json!({ "device_id": device_id })))
}

/// Answers the sleeping device.
///
/// # Errors
/// As [`Core::dehydrated_device`].
pub(super) async fn get(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer<DehydratedDevice> {
    Ok(Json(core.dehydrated_device(&requester.user_id)?))
}

/// The sleeping device is gone.
///
/// # Errors
/// As [`Core::delete_dehydrated_device`].
pub(super) async fn delete(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer {
    let device_id = core.delete_dehydrated_device(&requester.user_id).await?;
    Ok(Json(json!({ "device_id": device_id })))
}

/// From where.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct From {
    next_batch: Option<String>,
}

/// Answers what came for the sleeping device.
///
/// # Errors
/// As [`Core::dehydrated_events`].
pub(super) async fn events(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(device): PathArgs<OwnedDeviceId>,
    JsonOrEmpty(from): JsonOrEmpty<From>,
) -> Answer<DehydratedEvents> {
    Ok(Json(core.dehydrated_events(&requester.user_id, &device, from.next_batch.as_deref())?))
}
