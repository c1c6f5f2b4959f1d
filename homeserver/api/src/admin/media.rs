//! `/_synapse/admin/v1/media` and the files of rooms and users.

use std::sync::Arc;

use axum::{Json, extract::State};
use matron_core::{Core, Error, media::Mxc};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Admin;
use crate::{
    Answer, Empty, empty,
    extract::{PathArgs, Query},
};

#[derive(Deserialize)]
pub(super) struct Old {
    before_ts: u64,
    #[serde(default)]
    size_gt: u64,
}

#[derive(Deserialize)]
pub(super) struct Page {
    from: Option<usize>,
    limit: Option<usize>,
}

async fn set_quarantined(core: &Arc<Core>, files: &[Mxc], quarantined: bool) -> Result<u64, Error> {
    let mut count = 0_u64;
    for mxc in files {
        match core.quarantine_media(mxc, quarantined).await {
            Ok(()) => count = count.saturating_add(1),
            // A name of another server's file that is not kept here.
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// `POST /_synapse/admin/v1/media/quarantine/{server_name}/{media_id}`.
pub(super) async fn quarantine(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs((server, id)): PathArgs<(OwnedServerName, String)>,
) -> Answer<Empty> {
    core.quarantine_media(&Mxc::new(server, &id)?, true).await?;
    empty()
}

/// `POST /_synapse/admin/v1/media/unquarantine/{server_name}/{media_id}`.
pub(super) async fn unquarantine(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs((server, id)): PathArgs<(OwnedServerName, String)>,
) -> Answer<Empty> {
    core.quarantine_media(&Mxc::new(server, &id)?, false).await?;
    empty()
}

/// `POST /_synapse/admin/v1/room/{room_id}/media/quarantine`.
pub(super) async fn quarantine_room(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(room): PathArgs<OwnedRoomId>,
) -> Answer {
    let files = core.media_of_room(&room)?;
    Ok(Json(json!({ "num_quarantined": set_quarantined(&core, &files, true).await? })))
}

/// `POST /_synapse/admin/v1/user/{user_id}/media/quarantine`.
pub(super) async fn quarantine_user(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
) -> Answer {
    let files: Vec<Mxc> = core.media_of_user(&user)?.into_iter().map(|(mxc, _)| mxc).collect();
    Ok(Json(json!({ "num_quarantined": set_quarantined(&core, &files, true).await? })))
}

/// `GET /_synapse/admin/v1/room/{room_id}/media`.
pub(super) async fn of_room(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(room): PathArgs<OwnedRoomId>,
) -> Answer {
    let (local, remote): (Vec<Mxc>, Vec<Mxc>) =
        core.media_of_room(&room)?.into_iter().partition(|mxc| core.is_local(mxc.server()));
    let text = |files: Vec<Mxc>| files.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(Json(json!({ "local": text(local), "remote": text(remote) })))
}

/// `GET /_synapse/admin/v1/users/{user_id}/media`.
pub(super) async fn of_user(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
    Query(page): Query<Page>,
) -> Answer {
    let mut files = core.media_of_user(&user)?;
    files.sort_by_key(|(_, meta)| std::cmp::Reverse(meta.created_ms));
    let (from, limit) = super::page(page.from, page.limit);
    let media: Vec<Value> = files
        .iter()
        .skip(from)
        .take(limit)
        .map(|(mxc, meta)| {
            json!({
                "media_id": mxc.id(),
                "media_type": meta.content_type,
                "media_length": meta.size_bytes,
                "upload_name": meta.file_name,
                "created_ts": meta.created_ms,
                "last_access_ts": null,
                "quarantined_by": null,
                "safe_from_quarantine": false,
            })
        })
        .collect();
    let mut answer = json!({ "media": media, "total": files.len() });
    let next = from.saturating_add(limit);
    if let (true, Some(answer)) = (next < files.len(), answer.as_object_mut()) {
        answer.insert("next_token".to_owned(), next.into());
    }
    Ok(Json(answer))
}

async fn delete_all(core: &Arc<Core>, files: Vec<Mxc>) -> Answer {
    let mut deleted = Vec::new();
    for mxc in files {
        if core.purge_media(&mxc).await? {
            deleted.push(mxc.id().to_owned());
        }
    }
    Ok(Json(json!({ "total": deleted.len(), "deleted_media": deleted })))
}

/// `DELETE /_synapse/admin/v1/media/{server_name}/{media_id}`.
pub(super) async fn delete(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs((server, id)): PathArgs<(OwnedServerName, String)>,
) -> Answer {
    if !core.is_local(&server) {
        return Err(Error::Unknown("only files of this server can be deleted by name".into()).into());
    }
    let mxc = Mxc::new(server, &id)?;
    if !core.purge_media(&mxc).await? {
        return Err(Error::not_found("there is no such media").into());
    }
    Ok(Json(json!({ "deleted_media": [id], "total": 1 })))
}

/// `DELETE /_synapse/admin/v1/users/{user_id}/media`.
pub(super) async fn delete_of_user(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
    Query(page): Query<Page>,
) -> Answer {
    let files = core.media_of_user(&user)?.into_iter().map(|(mxc, _)| mxc);
    let (from, limit) = super::page(page.from, page.limit);
    let files = files.skip(from).take(limit).collect();
    delete_all(&core, files).await
}

/// `POST /_synapse/admin/v1/media/delete`: old or large files of this server.
pub(super) async fn delete_old(State(core): State<Arc<Core>>, _admin: Admin, Query(old): Query<Old>) -> Answer {
    let files = core.local_media_where(|meta| meta.created_ms < old.before_ts && meta.size_bytes > old.size_gt)?;
    delete_all(&core, files.into_iter().map(|(mxc, _)| mxc).collect()).await
}
