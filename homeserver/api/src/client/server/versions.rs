//! `GET /_matrix/client/versions`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, settings::QrLogin};
use serde_json::json;

use crate::Answer;

/// The specification's versions that clients can count on, and what is implemented from proposals.
pub(super) async fn versions(State(core): State<Arc<Core>>) -> Answer {
    let settings = &core.settings;
    let qr_login = if settings.oauth.enabled { settings.oauth.qr_login } else { QrLogin::Off };
    Ok(Json(json!({
        "versions": [
            "r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1",
            "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
            "v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
        ],
        "unstable_features": {
            "org.matrix.e2e_cross_signing": true,
            "org.matrix.msc2285.stable": true,
            "org.matrix.msc2753": settings.peeking,
            "org.matrix.msc3440.stable": true,
            "org.matrix.msc3771": true,
            "org.matrix.msc3773": true,
            "org.matrix.msc3814": true,
            "org.matrix.msc3916.stable": true,
            "io.element.msc4388": qr_login != QrLogin::Off,
            "org.matrix.msc4108": qr_login == QrLogin::Open,
            "org.matrix.msc4140": true,
            "org.matrix.msc4143": true,
            "org.matrix.msc4306": settings.thread_subscriptions,
            "org.matrix.msc4308": settings.thread_subscriptions,
            "org.matrix.simplified_msc3575": true,
            "uk.half-shot.msc2666.query_mutual_rooms": true,
            "uk.half-shot.msc2666.query_mutual_rooms.stable": true,
            "uk.tcpip.msc4133": true,
            "uk.tcpip.msc4133.stable": true,
        },
    })))
}
