//! `GET` and `PUT /_matrix/client/v3/devices/{deviceId}`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error, accounts::DeviceView};
use ruma::OwnedDeviceId;
use serde::Deserialize;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonOrEmpty, PathArgs},
};

#[derive(Deserialize)]
pub(super) struct Body {
    display_name: Option<String>,
}

/// One device.
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(device): PathArgs<OwnedDeviceId>,
) -> Answer<DeviceView> {
    Ok(Json(core.device(&requester.user_id, &device)?))
}

/// The device has this name. MSC: 4190: an application service makes a device this way.
pub(super) async fn rename(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs(device): PathArgs<OwnedDeviceId>,
    JsonOrEmpty(body): JsonOrEmpty<Body>,
) -> Answer<Empty> {
    let user = &requester.user_id;
    match core.find_device(user, &device)? {
        Some(_) if body.display_name.is_none() => {}
        Some(_) => core.rename_device(user, &device, body.display_name).await?,
        None if requester.appservice.is_some() => core.create_device(user, &device, body.display_name).await?,
        None => return Err(Error::not_found("there is no such device").into()),
    }
    empty()
}
