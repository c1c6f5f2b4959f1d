//! `/_synapse/admin/v2/users` and what belongs to one user.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use matron_core::{Core, Error, accounts::Account};
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{MAX_LIMIT, auth::Admin, page};
use crate::{
    Answer, ApiError, Empty, empty,
    extract::{JsonBody, JsonOrEmpty, PathArgs, Query},
};

#[derive(Deserialize)]
pub(super) struct List {
    from: Option<usize>,
    limit: Option<usize>,
    user_id: Option<String>,
    name: Option<String>,
    guests: Option<bool>,
    deactivated: Option<bool>,
    admins: Option<bool>,
    locked: Option<bool>,
    dir: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Change {
    password: Option<String>,
    logout_devices: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    displayname: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    avatar_url: Option<Option<String>>,
    admin: Option<bool>,
    deactivated: Option<bool>,
    locked: Option<bool>,
}

/// Tells null from what is not said.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
pub(super) struct Deactivate {
    #[serde(default)]
    erase: bool,
}

#[derive(Deserialize)]
pub(super) struct Reset {
    new_password: String,
    logout_devices: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct SetAdmin {
    admin: bool,
}

#[derive(Deserialize)]
pub(super) struct Suspend {
    suspend: bool,
}

/// `GET /_synapse/admin/v2/users`.
pub(super) async fn list(State(core): State<Arc<Core>>, _admin: Admin, Query(query): Query<List>) -> Answer {
    let (from, limit) = page(query.from, query.limit);
    let mut found = Vec::new();
    let mut after: Option<OwnedUserId> = None;
    loop {
        let page = core.list_accounts(after.as_deref(), MAX_LIMIT)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (user, account) in page {
            if fits(&core, &query, &user, &account)? {
                found.push((user, account));
            }
        }
    }
    if query.dir.as_deref() == Some("b") {
        found.reverse();
    }
    let total = found.len();
    let mut users = Vec::new();
    for (user, account) in found.iter().skip(from).take(limit) {
        users.push(summary(&core, user, account)?);
    }
    let mut answer = json!({ "users": users, "total": total });
    let next = from.saturating_add(limit);
    if let (true, Some(answer)) = (next < total, answer.as_object_mut()) {
        answer.insert("next_token".to_owned(), next.to_string().into());
    }
    Ok(Json(answer))
}

fn fits(core: &Arc<Core>, query: &List, user: &UserId, account: &Account) -> Result<bool, Error> {
    let shown = (query.guests.unwrap_or(true) || !account.guest)
        && (query.deactivated.unwrap_or(false) || !account.deactivated)
        && query.admins.is_none_or(|admins| admins == account.admin)
        && (query.locked.unwrap_or(false) || !account.locked);
    if !shown {
        return Ok(false);
    }
    if let Some(name) = query.name.as_deref().map(str::to_lowercase) {
        let display = core.display_name(user)?.unwrap_or_default().to_lowercase();
        return Ok(user.localpart().contains(&name) || display.contains(&name));
    }
    Ok(query.user_id.as_deref().is_none_or(|part| user.as_str().contains(&part.to_lowercase())))
}

fn summary(core: &Arc<Core>, user: &UserId, account: &Account) -> Result<Value, Error> {
    let last_seen = core.devices(user)?.iter().filter_map(|device| device.last_seen_ts).max();
    Ok(json!({
        "name": user,
        "is_guest": account.guest,
        "admin": account.admin,
        "user_type": null,
        "deactivated": account.deactivated,
        "erased": account.erased,
        "shadow_banned": false,
        "displayname": core.display_name(user)?,
        "avatar_url": core.avatar_url(user)?,
        "creation_ts": account.created_ms,
        "last_seen_ts": last_seen,
        "locked": account.locked,
    }))
}

fn known(core: &Arc<Core>, user: &UserId) -> Result<Arc<Account>, Error> {
    if !core.is_local_user(user) {
        return Err(Error::invalid("this user has no account here"));
    }
    core.account(user)?.ok_or_else(|| Error::not_found("there is no such user"))
}

fn details(core: &Arc<Core>, user: &UserId) -> Result<Value, Error> {
    let account = known(core, user)?;
    let mut details = summary(core, user, &account)?;
    let identities: Vec<Value> = account
        .identities
        .iter()
        .map(|identity| json!({ "auth_provider": identity.provider, "external_id": identity.subject }))
        .collect();
    if let Some(details) = details.as_object_mut() {
        // One user's answer has seconds here, a list's has milliseconds; tools know.
        details.insert("creation_ts".to_owned(), (account.created_ms / 1000).into());
        details.insert("threepids".to_owned(), json!(core.threepids(user)?));
        details.insert("external_ids".to_owned(), identities.into());
        details.insert("appservice_id".to_owned(), json!(account.appservice));
        details.insert("suspended".to_owned(), account.suspended.into());
        for absent in ["consent_server_notice_sent", "consent_version", "consent_ts"] {
            details.insert(absent.to_owned(), Value::Null);
        }
    }
    Ok(details)
}

/// `GET /_synapse/admin/v2/users/{user_id}`.
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
) -> Answer {
    Ok(Json(details(&core, &user)?))
}

/// `PUT /_synapse/admin/v2/users/{user_id}`: made (201), or changed.
pub(super) async fn put(
    State(core): State<Arc<Core>>,
    Admin(requester): Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
    JsonBody(change): JsonBody<Change>,
) -> Result<Response, ApiError> {
    if !core.is_local_user(&user) {
        return Err(Error::invalid("this user has no account here").into());
    }
    let before = core.account(&user)?;
    let status = match &before {
        None => {
            core.create_user(user.localpart(), change.password.as_deref(), change.admin.unwrap_or(false)).await?;
            StatusCode::CREATED
        }
        Some(account) => {
            if account.deactivated && change.deactivated == Some(false) {
                return Err(Error::invalid("an account that is closed stays closed").into());
            }
            if let Some(admin) = change.admin.filter(|admin| *admin != account.admin) {
                check_not_self(&requester.user_id, &user)?;
                core.set_admin(&user, admin).await?;
            }
            if let Some(password) = &change.password {
                core.set_password(&user, password, change.logout_devices.unwrap_or(true)).await?;
            }
            StatusCode::OK
        }
    };
    if let Some(name) = change.displayname {
        core.set_profile_field(&user, "displayname", name.map(Value::from)).await?;
    }
    if let Some(url) = change.avatar_url {
        core.set_profile_field(&user, "avatar_url", url.map(Value::from)).await?;
    }
    if let Some(locked) = change.locked {
        core.set_locked(&requester, &user, locked).await?;
    }
    if change.deactivated == Some(true) {
        check_not_self(&requester.user_id, &user)?;
        core.deactivate(&user, false).await?;
    }
    Ok((status, Json(details(&core, &user)?)).into_response())
}

fn check_not_self(own: &UserId, user: &UserId) -> Result<(), Error> {
    if own == user { Err(Error::invalid("you may not do this to your own account")) } else { Ok(()) }
}

/// `POST /_synapse/admin/v1/deactivate/{user_id}`.
pub(super) async fn deactivate(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
    JsonOrEmpty(body): JsonOrEmpty<Deactivate>,
) -> Answer {
    known(&core, &user)?;
    let unbound = core.deactivate(&user, body.erase).await?;
    Ok(Json(json!({ "id_server_unbind_result": unbound.as_str() })))
}

/// `POST /_synapse/admin/v1/reset_password/{user_id}`.
pub(super) async fn reset_password(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
    JsonBody(body): JsonBody<Reset>,
) -> Answer<Empty> {
    known(&core, &user)?;
    core.set_password(&user, &body.new_password, body.logout_devices.unwrap_or(true)).await?;
    empty()
}

/// `GET /_synapse/admin/v1/users/{user_id}/admin`.
pub(super) async fn is_admin(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
) -> Answer {
    Ok(Json(json!({ "admin": known(&core, &user)?.admin })))
}

/// `PUT /_synapse/admin/v1/users/{user_id}/admin`.
pub(super) async fn set_admin(
    State(core): State<Arc<Core>>,
    Admin(requester): Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
    JsonBody(body): JsonBody<SetAdmin>,
) -> Answer<Empty> {
    known(&core, &user)?;
    check_not_self(&requester.user_id, &user)?;
    core.set_admin(&user, body.admin).await?;
    empty()
}

/// `PUT /_synapse/admin/v1/suspend/{user_id}`.
pub(super) async fn suspend(
    State(core): State<Arc<Core>>,
    Admin(requester): Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
    JsonBody(body): JsonBody<Suspend>,
) -> Answer {
    core.set_suspended(&requester, &user, body.suspend).await?;
    let mut answer = serde_json::Map::new();
    answer.insert(format!("user_{user}_suspended"), body.suspend.into());
    Ok(Json(answer.into()))
}

/// `GET /_synapse/admin/v1/users/{user_id}/joined_rooms`.
pub(super) async fn joined_rooms(
    State(core): State<Arc<Core>>,
    _admin: Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
) -> Answer {
    let rooms = core.joined_rooms(&user)?;
    Ok(Json(json!({ "joined_rooms": rooms, "total": rooms.len() })))
}

/// `GET /_synapse/admin/v1/whois/{user_id}`.
pub(super) async fn whois(
    State(core): State<Arc<Core>>,
    Admin(requester): Admin,
    PathArgs(user): PathArgs<OwnedUserId>,
) -> Answer {
    Ok(Json(core.whois(&requester, &user)?))
}
