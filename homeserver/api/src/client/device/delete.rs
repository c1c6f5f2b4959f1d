//! `DELETE /_matrix/client/v3/devices/{deviceId}` and `POST /_matrix/client/v3/delete_devices`.

use std::sync::Arc;

use axum::extract::State;
use matron_core::Core;
use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody, JsonOrEmpty, PathArgs, UiaBody},
};

#[derive(Deserialize)]
pub(super) struct Body {
    devices: Vec<OwnedDeviceId>,
    auth: Option<Value>,
}

/// The device is gone.
pub(super) async fn one(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(device): PathArgs<OwnedDeviceId>,
    JsonOrEmpty(body): JsonOrEmpty<UiaBody>,
) -> Answer<Empty> {
    let operation = format!("DELETE /devices/{device}");
    core.authenticate_interactively(&requester, &operation, body.auth.as_ref()).await?;
    core.delete_devices(&requester.user_id, &[device]).await?;
    empty()
}

/// The devices are gone.
pub(super) async fn many(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(mut body): JsonBody<Body>,
) -> Answer<Empty> {
    body.devices.sort();
    let names: Vec<&str> = body.devices.iter().map(|device| device.as_str()).collect();
    let operation = format!("POST /delete_devices {}", names.join(" "));
    core.authenticate_interactively(&requester, &operation, body.auth.as_ref()).await?;
    core.delete_devices(&requester.user_id, &body.devices).await?;
    empty()
}
