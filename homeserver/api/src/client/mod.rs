//! The Client-Server API: one folder per area, one file per endpoint, one line here per area.

mod account;
mod account_data;
mod admin;
mod device;
mod directory;
mod login;
mod profile;
mod push;
mod register;
mod room;
mod server;
mod sync;

use axum::Router;

use crate::AppState;

/// The routes of this part.
pub fn routes() -> Router<AppState> {
    Router::new()
        .merge(account::routes())
        .merge(account_data::routes())
        .merge(admin::routes())
        .merge(device::routes())
        .merge(directory::routes())
        .merge(login::routes())
        .merge(profile::routes())
        .merge(push::routes())
        .merge(register::routes())
        .merge(room::routes())
        .merge(server::routes())
        .merge(sync::routes())
}
