//! `GET /_matrix/client/v3/capabilities`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use matron_core::Core;
use serde_json::{Value, json};

use crate::{Answer, extract::Auth};

/// What the user may do here.
pub(super) async fn capabilities(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer {
    let versions: BTreeMap<&str, &str> =
        core.settings.room_versions.iter().map(|version| (version.as_str(), "stable")).collect();
    let member = json!({ "enabled": !requester.is_guest });
    let mut capabilities = json!({
        "m.change_password": member,
        "m.room_versions": { "default": core.settings.default_room_version, "available": versions },
        "m.set_displayname": { "enabled": true },
        "m.set_avatar_url": { "enabled": true },
        "m.profile_fields": { "enabled": true },
        "m.3pid_changes": { "enabled": core.sends_letters() && !requester.is_guest },
        "m.get_login_token": member,
    });
    if let (true, Some(capabilities)) = (requester.is_admin, capabilities.as_object_mut()) {
        capabilities.insert("m.account_moderation".to_owned(), json!({ "suspend": true, "lock": true }));
    }
    Ok(Json(json!({ "capabilities": Value::clone(&capabilities) })))
}
