//! Push rules, pushers, notifications.

mod notifications;
mod pushers;
mod rule;
mod rule_parts;
mod rules;

use axum::{
    Router,
    routing::{any, get, post},
};
use matron_core::{Error, push::Kind};

use crate::{
    Answer, AppState,
    routing::{Routes, V3},
};

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .client(V3, "/pushrules/", get(rules::all).put(incomplete))
        .client(V3, "/pushrules/{scope}/", get(rules::scope).put(incomplete))
        .client(V3, "/pushrules/{scope}", any(incomplete))
        .client(V3, "/pushrules/{scope}/{kind}/", get(rules::kind).put(incomplete))
        .client(V3, "/pushrules/{scope}/{kind}", any(incomplete))
        .client(V3, "/pushrules/{scope}/{kind}/{rule_id}", get(rule::get).put(rule::put).delete(rule::delete))
        .client(V3, "/pushrules/{scope}/{kind}/{rule_id}/enabled", get(rule_parts::enabled).put(rule_parts::enable))
        .client(
            V3,
            "/pushrules/{scope}/{kind}/{rule_id}/actions",
            get(rule_parts::actions).put(rule_parts::set_actions),
        )
        .client(V3, "/pushrules/{scope}/{kind}/{rule_id}/{attribute}", any(incomplete))
        .client(V3, "/pushers", get(pushers::list))
        .client(V3, "/pushers/set", post(pushers::set))
        .client(V3, "/notifications", get(notifications::list))
}

/// A path that names too little, or something that rules do not have.
async fn incomplete() -> Answer {
    let message = "this path names no push rule, nor a list of them (lists end with a slash)".into();
    Err(Error::Custom { status: 400, errcode: "M_UNRECOGNIZED", message }.into())
}

/// The kind that a path names; only global rules exist.
fn kind_of(scope: &str, kind: &str) -> Result<Kind, Error> {
    check_scope(scope)?;
    Kind::parse(kind).ok_or_else(|| Error::invalid("this kind of push rule does not exist"))
}

fn check_scope(scope: &str) -> Result<(), Error> {
    if scope == "global" { Ok(()) } else { Err(Error::invalid("the only scope of push rules is `global`")) }
}
