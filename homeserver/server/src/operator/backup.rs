//! A consistent copy of the data: store, media, signing key; the key ring only when asked for.

use std::{
    io,
    path::{Path, PathBuf},
};

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, House, Refused, manifest::Manifest};
use crate::data::{self, Layout};

pub(super) fn routes() -> Router<House> {
    Router::new().route("/backup", post(backup)).route("/store", get(check))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    directory: PathBuf,
    #[serde(default)]
    with_key_ring: bool,
}

async fn backup(State(house): State<House>, Json(order): Json<Order>) -> Answer {
    if !order.directory.is_absolute() {
        return Err(Refused::bad("the directory must be an absolute path"));
    }
    let written = tokio::task::spawn_blocking(move || write(&house, &order)).await;
    written.map_err(|_| Refused::bad("the backup did not end well"))??;
    Ok(Json(json!({})))
}

fn write(house: &House, order: &Order) -> Result<(), Refused> {
    let target = order.directory.as_path();
    if target.exists() {
        return Err(Refused::bad(format!("{} exists already", target.display())));
    }
    let io_error = |what: &str, error: io::Error| Refused::bad(format!("{what}: {error}"));
    data::make_private_dir(target).map_err(|error| Refused::bad(error.to_string()))?;
    let (from, to) = (Layout(&house.config.server.data_dir), Layout(target));
    let position = house.core.position().0;
    house.core.store.backup(&to.store())?;
    copy_tree(&house.core.media_dir, &to.media()).map_err(|error| io_error("cannot copy the media", error))?;
    std::fs::copy(house.config.server.signing_key_path(), target.join("signing.key"))
        .map_err(|error| io_error("cannot copy the signing key", error))?;
    if order.with_key_ring {
        copy_any(&from.key_ring(), &to.key_ring()).map_err(|error| io_error("cannot copy the key ring", error))?;
    }
    let manifest = Manifest::of(
        target,
        house.core.server_name.to_string(),
        house.core.store.engine().to_owned(),
        position,
        house.core.now_ms(),
        order.with_key_ring,
    )
    .map_err(|error| io_error("cannot read the backup again", error))?;
    // Written last: a directory without it is no backup.
    manifest.write(target).map_err(|error| Refused::bad(error.to_string()))
}

/// The database is read as a whole, while the server works.
async fn check(State(house): State<House>) -> Answer {
    let checked = tokio::task::spawn_blocking(move || house.core.store.check()).await;
    checked.map_err(|_| Refused::bad("the check did not end well"))??;
    Ok(Json(json!({})))
}

fn copy_any(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() { copy_tree(from, to) } else { std::fs::copy(from, to).map(|_| ()) }
}

/// Every file below `from` is below `to`, flushed; a folder that does not exist is an empty one.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    let entries = match std::fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
            continue;
        }
        match std::fs::copy(entry.path(), &target) {
            Ok(_) => std::fs::File::open(&target)?.sync_all()?,
            // It expired while the copy was made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
