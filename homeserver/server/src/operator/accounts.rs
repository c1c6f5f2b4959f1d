//! Accounts: made, listed, changed.

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    routing::{get, post, put},
};
use matron_core::Core;
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Answer, House, Refused};

/// How many accounts one answer holds at most.
const MAX_LISTED: usize = 100_000;

pub(super) fn routes() -> Router<House> {
    Router::new()
        .route("/users", get(list).post(create))
        .route("/users/{user}/password", put(set_password))
        .route("/users/{user}/admin", put(set_admin))
        .route("/users/{user}/deactivate", post(deactivate))
        .route("/registration_tokens", post(create_token))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    localpart: String,
    password: Zeroizing<String>,
    #[serde(default)]
    admin: bool,
}

async fn create(State(house): State<House>, Json(order): Json<NewUser>) -> Answer {
    let user = house.core.create_user(&order.localpart, Some(&order.password), order.admin).await?;
    Ok(Json(json!({ "user_id": user })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<usize>,
}

async fn list(State(house): State<House>, Query(page): Query<Page>) -> Answer {
    let limit = page.limit.unwrap_or(1000).min(MAX_LISTED);
    let mut users: Vec<Value> = Vec::new();
    let mut after: Option<OwnedUserId> = None;
    while users.len() < limit {
        let accounts = house.core.list_accounts(after.as_deref(), (limit - users.len()).min(1000))?;
        let Some((last, _)) = accounts.last() else { break };
        after = Some(last.clone());
        users.extend(accounts.into_iter().map(|(user, account)| {
            json!({
                "user_id": user,
                "created_ms": account.created_ms,
                "admin": account.admin,
                "guest": account.guest,
                "deactivated": account.deactivated,
                "locked": account.locked,
                "suspended": account.suspended,
            })
        }));
    }
    Ok(Json(json!({ "users": users })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    password: Zeroizing<String>,
}

async fn set_password(State(house): State<House>, Path(user): Path<String>, Json(order): Json<NewPassword>) -> Answer {
    let user = local_user(&house.core, &user)?;
    house.core.set_password(&user, &order.password, true).await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rank {
    admin: bool,
}

async fn set_admin(State(house): State<House>, Path(user): Path<String>, Json(order): Json<Rank>) -> Answer {
    let user = local_user(&house.core, &user)?;
    house.core.set_admin(&user, order.admin).await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Farewell {
    #[serde(default)]
    erase: bool,
}

async fn deactivate(State(house): State<House>, Path(user): Path<String>, Json(order): Json<Farewell>) -> Answer {
    let user = local_user(&house.core, &user)?;
    house.core.deactivate(&user, order.erase).await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    token: Option<String>,
    uses_allowed: Option<u64>,
    expiry_time: Option<u64>,
}

async fn create_token(State(house): State<House>, Json(order): Json<NewToken>) -> Answer {
    let token = house.core.create_registration_token(order.token, order.uses_allowed, order.expiry_time).await?;
    Ok(Json(json!({ "token": token })))
}

/// A user of this server, by user id or by localpart alone.
///
/// # Errors
/// A sentence when it is neither, or another server's user.
pub(super) fn local_user(core: &Core, text: &str) -> Result<OwnedUserId, Refused> {
    let user = UserId::parse_with_server_name(text, &core.server_name)
        .map_err(|_| Refused::bad(format!("`{text}` is neither a user id nor a localpart")))?;
    if core.is_local(user.server_name()) {
        Ok(user)
    } else {
        Err(Refused::bad(format!("{user} is not a user of this server")))
    }
}
