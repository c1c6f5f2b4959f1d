//! `GET`, `PUT`, `DELETE …/rooms/{roomId}/thread/{eventId}/subscription` and `GET …/thread_subscriptions`
// MSC: 4306 and 4308.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error, threads::SubscriptionChanges};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Answer, Empty, empty,
    extract::{Auth, JsonOrEmpty, PathArgs, Query},
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Subscription {
    /// Why a client subscribes by itself.
    automatic: Option<OwnedEventId>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Params {
    dir: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
}

/// A page of changes.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    #[serde(flatten)]
    changes: SubscriptionChanges,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
}

/// Whether the user follows the thread, and who decided that.
///
/// # Errors
/// As [`Core::thread_subscription`].
pub(crate) async fn get(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, root)): PathArgs<(OwnedRoomId, OwnedEventId)>,
) -> Answer {
    Ok(Json(json!({ "automatic": core.thread_subscription(&requester.user_id, &room, &root)? })))
}

/// The user follows the thread.
///
/// # Errors
/// As [`Core::subscribe_thread`].
pub(crate) async fn put(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, root)): PathArgs<(OwnedRoomId, OwnedEventId)>,
    JsonOrEmpty(body): JsonOrEmpty<Subscription>,
) -> Answer<Empty> {
    core.subscribe_thread(&requester.user_id, &room, &root, body.automatic.as_deref()).await?;
    empty()
}

/// The user follows the thread no longer.
///
/// # Errors
/// As [`Core::unsubscribe_thread`].
pub(crate) async fn delete(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    PathArgs((room, root)): PathArgs<(OwnedRoomId, OwnedEventId)>,
) -> Answer<Empty> {
    core.unsubscribe_thread(&requester.user_id, &room, &root).await?;
    empty()
}

/// What changed of the threads that the user follows, the latest first.
///
/// # Errors
/// As [`Core::subscription_page`]; `M_INVALID_PARAM` for another direction than backwards.
pub(crate) async fn list(
    State(core): State<Arc<Core>>,
    Auth(requester): Auth,
    Query(params): Query<Params>,
) -> Answer<Page> {
    if params.dir.as_deref().is_some_and(|dir| dir != "b") || params.limit == Some(0) {
        return Err(Error::invalid("`dir` is `b`, and `limit` more than 0").into());
    }
    let (changes, end) =
        core.subscription_page(&requester, params.from.as_deref(), params.to.as_deref(), params.limit)?;
    Ok(Json(Page { changes, end }))
}
