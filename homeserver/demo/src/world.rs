//! The world of the story: three servers, an application service, and plain requests to them.

use std::{path::PathBuf, time::Duration};

use matrix_sdk::reqwest;
use matron_appservice::Running;
use serde_json::{Value, json};

use crate::{
    story::{Step, fail},
    trust::Trust,
};

pub(crate) const NORTH: &str = "northgate.example";
pub(crate) const RIVER: &str = "riverside.example";
pub(crate) const ELSEWHERE: &str = "elsewhere.example";
pub(crate) const BOT: &str = "governance";
pub(crate) const FEED: &str = "pathology";

/// How long messages live in the demo's room.
pub(crate) const LIFETIME: Duration = Duration::from_secs(25);

/// A sentence that must be nowhere once it has died.
pub(crate) const SECRET: &str = "Bed 7 potassium is climbing, can renal review tonight? marker-9f1c64d2";
/// What the laboratory says; must be nowhere either.
pub(crate) const LAB_VALUE: &str = "6.9";

/// The world of the story.
pub(crate) struct World {
    pub(crate) folder: PathBuf,
    pub(crate) north: Trust,
    pub(crate) river: Trust,
    pub(crate) elsewhere: Trust,
    pub(crate) service: Running,
    pub(crate) http: reqwest::Client,
    pub(crate) passwords: Vec<String>,
}

impl World {
    pub(crate) async fn log_in(&self, trust: &Trust, localpart: &str, index: usize) -> Step<String> {
        let body = json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": localpart},
            "password": self.passwords.get(index).cloned().unwrap_or_default(),
        });
        let (status, answer) = self.post(trust, "/_matrix/client/v3/login", "", body).await?;
        match answer.get("access_token").and_then(Value::as_str) {
            Some(token) => Ok(token.to_owned()),
            None => fail(format!("{localpart} cannot log in: {status} {}", sentence(&answer))),
        }
    }

    pub(crate) async fn post(&self, trust: &Trust, path: &str, token: &str, body: Value) -> Step<(u16, Value)> {
        let mut request = self
            .http
            .post(format!("{}{path}", trust.plan.url()))
            .header("content-type", "application/json")
            .body(body.to_string());
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_str(&response.text().await?).unwrap_or(Value::Null)))
    }

    pub(crate) async fn get(&self, trust: &Trust, path: &str, token: &str) -> Step<(u16, Value)> {
        let response = self.http.get(format!("{}{path}", trust.plan.url())).bearer_auth(token).send().await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_str(&response.text().await?).unwrap_or(Value::Null)))
    }
}

pub(crate) fn sentence(answer: &Value) -> String {
    let part = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
    format!("{}: {}", part("errcode"), part("error"))
}

/// The decision id in an error's sentence: "… (decision ID)".
pub(crate) fn decision_of(answer: &Value) -> Option<String> {
    let text = answer.get("error")?.as_str()?;
    let from = text.rfind("(decision ")? + "(decision ".len();
    text.get(from..)?.split(')').next().map(ToOwned::to_owned)
}

pub(crate) fn encode(part: &str) -> String {
    part.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
