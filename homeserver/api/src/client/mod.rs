//! The Client-Server API: one folder per area, one file per endpoint, one line here per area.

mod account;
mod account_data;
mod admin;
mod backup;
mod delayed;
mod device;
mod directory;
mod events;
mod keys;
mod login;
mod media;
mod presence;
mod profile;
mod push;
mod register;
mod room;
mod rtc;
mod server;
mod sliding_sync;
mod sync;
mod third_party;
mod to_device;
mod typing;
mod voip;

use axum::Router;

pub(crate) use self::media::serve;

use crate::AppState;

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new()
        .merge(account::routes())
        .merge(account_data::routes())
        .merge(admin::routes())
        .merge(backup::routes())
        .merge(delayed::routes())
        .merge(device::routes())
        .merge(directory::routes())
        .merge(events::routes())
        .merge(keys::routes())
        .merge(login::routes())
        .merge(media::routes())
        .merge(presence::routes())
        .merge(profile::routes())
        .merge(push::routes())
        .merge(register::routes())
        .merge(room::routes())
        .merge(rtc::routes())
        .merge(server::routes())
        .merge(sliding_sync::routes())
        .merge(sync::routes())
        .merge(third_party::routes())
        .merge(to_device::routes())
        .merge(typing::routes())
        .merge(voip::routes())
}
