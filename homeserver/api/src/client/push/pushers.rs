//! `GET /_matrix/client/v3/pushers` and `POST /_matrix/client/v3/pushers/set`.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{
    Core,
    push::{Pusher, PusherRequest},
};
use serde_json::{Map, Value, json};

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonBody},
};

/// The user's pushers.
pub(super) async fn list(State(core): State<Arc<Core>>, Auth(requester): Auth) -> Answer {
    let pushers: Vec<Value> = core.pushers_of(&requester.user_id)?.iter().map(view).collect();
    Ok(Json(json!({ "pushers": pushers })))
}

/// What a client may see of a pusher.
fn view(pusher: &Pusher) -> Value {
    let mut view = Map::new();
    for (name, value) in [
        ("kind", &pusher.kind),
        ("app_id", &pusher.app_id),
        ("pushkey", &pusher.pushkey),
        ("app_display_name", &pusher.app_display_name),
        ("device_display_name", &pusher.device_display_name),
        ("lang", &pusher.lang),
    ] {
        view.insert(name.to_owned(), value.as_str().into());
    }
    if let Some(tag) = &pusher.profile_tag {
        view.insert("profile_tag".to_owned(), tag.as_str().into());
    }
    view.insert("data".to_owned(), pusher.data.clone());
    Value::Object(view)
}

/// The pusher is set, changed or gone.
pub(super) async fn set(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    JsonBody(body): JsonBody<PusherRequest>,
) -> Answer<Empty> {
    core.set_pusher(&requester, body).await?;
    empty()
}
