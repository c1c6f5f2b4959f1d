//! `/_synapse/admin/v2/users/{user_id}/devices`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error, accounts::DeviceView};
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Admin;
use crate::{
    Answer, Empty, empty,
    extract::{JsonBody, PathArgs},
};

#[derive(Deserialize)]
pub(super) struct Rename {
    display_name: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Delete {
    devices: Vec<OwnedDeviceId>,
}

fn shown(user: &UserId, device: &DeviceView) -> Value {
    json!({
        "device_id": device.device_id,
        "display_name": device.display_name,
        "last_seen_ip": device.last_seen_ip,
        "last_seen_ts": device.last_seen_ts,
        "last_seen_user_agent": null,
        "user_id": user,
    })
}

fn check_known(core: &Arc<Core>, user: &UserId) -> Result<(), Error> {
    if !core.is_local_user(user) {
        return Err(Error::invalid("this user has no account here"));
    }
    if core.account(user)?.is_none() {
        return Err(Error::not_found("there is no such user"));
    }
    Ok(())
}

/// All devices.
pub(super) async fn list(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
) -> Answer {
    check_known(&core, &user)?;
    let devices: Vec<Value> = core.devices(&user)?.iter().map(|device| shown(&user, device)).collect();
    Ok(Json(json!({ "total": devices.len(), "devices": devices })))
}

/// One device.
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs((user, device)): PathArgs<(OwnedUserId, OwnedDeviceId)>,
) -> Answer {
    check_known(&core, &user)?;
    Ok(Json(shown(&user, &core.device(&user, &device)?)))
}

/// The device has this name.
pub(super) async fn rename(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs((user, device)): PathArgs<(OwnedUserId, OwnedDeviceId)>,
    JsonBody(body): JsonBody<Rename>,
) -> Answer<Empty> {
    check_known(&core, &user)?;
    core.rename_device(&user, &device, body.display_name).await?;
    empty()
}

/// The device is gone.
pub(super) async fn delete(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs((user, device)): PathArgs<(OwnedUserId, OwnedDeviceId)>,
) -> Answer<Empty> {
    check_known(&core, &user)?;
    core.delete_devices(&user, &[device]).await?;
    empty()
}

/// The devices are gone.
pub(super) async fn delete_many(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
    JsonBody(body): JsonBody<Delete>,
) -> Answer<Empty> {
    check_known(&core, &user)?;
    core.delete_devices(&user, &body.devices).await?;
    empty()
}
