//! Registering and signing in.

use std::str::FromStr;

use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::Fault;
use super::{Homeserver, RequestError};

/// More stages than any flow of registration has.
const MAX_STAGES: usize = 6;
const REGISTER: &str = "/_matrix/client/v3/register";
const TOKEN_STAGE: &str = "m.login.registration_token";

/// How accounts may be registered at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Registration {
    /// By anybody (`m.login.dummy`).
    Dummy,
    /// With this token (`m.login.registration_token`).
    Token(String),
}

/// What is neither `dummy` nor `token:VALUE`.
#[derive(Debug, thiserror::Error)]
#[error("use dummy or token:VALUE")]
pub(crate) struct UnknownRegistration;

impl FromStr for Registration {
    type Err = UnknownRegistration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "dummy" => Ok(Self::Dummy),
            Some(("token", token)) => Ok(Self::Token(token.to_owned())),
            _ => Err(UnknownRegistration),
        }
    }
}

/// An account of this load with one of its devices. It can be kept in the cache, and is never shown.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) user_id: String,
    pub(crate) access_token: String,
    localpart: String,
    password: String,
}

impl User {
    /// The name of the user's server.
    pub(crate) fn server_name(&self) -> &str {
        self.user_id.split_once(':').map_or("", |(_, name)| name)
    }
}

/// What a server that registers asks for (client-server API, user-interactive authentication).
#[derive(Deserialize)]
struct Challenge {
    flows: Vec<Flow>,
    #[serde(default)]
    completed: Vec<String>,
    session: Option<String>,
}

#[derive(Deserialize)]
struct Flow {
    stages: Vec<String>,
}

#[derive(Deserialize)]
struct SignedIn {
    user_id: String,
    access_token: String,
}

impl Challenge {
    /// The next stage of the first flow that can be met.
    fn next_stage(&self, registration: &Registration) -> Option<&str> {
        let can = |stage: &String| match stage.as_str() {
            "m.login.dummy" | "m.login.terms" => true,
            TOKEN_STAGE => matches!(registration, Registration::Token(_)),
            _ => false,
        };
        let flow = self.flows.iter().find(|flow| flow.stages.iter().all(can))?;
        flow.stages.iter().find(|stage| !self.completed.contains(stage)).map(String::as_str)
    }
}

impl Homeserver {
    /// A new account, by whatever stages the server asks for.
    ///
    /// # Errors
    ///
    /// Where the server refuses, or asks for a stage that `--registration` cannot meet.
    pub(crate) async fn register(&self, localpart: &str) -> Result<User, RequestError> {
        let error = |fault| RequestError::new(&Method::POST, REGISTER, fault);
        let password = "correct horse battery staple".to_owned();
        let mut body = json!({"username": localpart, "password": password, "initial_device_display_name": "load"});
        for _ in 0..MAX_STAGES {
            let (status, answer) = self.ask(Method::POST, REGISTER, None, Some(&body)).await?;
            if status == StatusCode::OK {
                let SignedIn { user_id, access_token } =
                    serde_json::from_slice(&answer).map_err(|json| error(Fault::Json(json)))?;
                return Ok(User { user_id, access_token, localpart: localpart.to_owned(), password });
            }
            let challenge = match serde_json::from_slice::<Challenge>(&answer) {
                Ok(challenge) if status == StatusCode::UNAUTHORIZED => challenge,
                _ => return Err(error(Fault::refused(status, &answer))),
            };
            let stage = challenge.next_stage(&self.registration).ok_or_else(|| error(Fault::NoFlow))?;
            body["auth"] = json!({"type": stage, "session": challenge.session});
            if let (Registration::Token(token), TOKEN_STAGE) = (&self.registration, stage) {
                body["auth"]["token"] = json!(token);
            }
        }
        Err(error(Fault::NoFlow))
    }

    /// The user on a new device.
    pub(crate) async fn log_in(&self, user: &User) -> Result<User, RequestError> {
        let body = json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user.localpart},
            "password": user.password,
        });
        let (signed_in, _) =
            self.parsed::<SignedIn>(Method::POST, "/_matrix/client/v3/login", None, Some(&body)).await?;
        Ok(User { access_token: signed_in.access_token, ..user.clone() })
    }

    /// Does the server know this user's token? A server that was set up anew does not.
    pub(crate) async fn knows(&self, user: &User) -> bool {
        let path = "/_matrix/client/v3/account/whoami";
        self.parsed::<Value>(Method::GET, path, Some(&user.access_token), None).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(json: Value) -> Challenge {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_first_flow_that_can_be_met_is_taken_stage_by_stage() {
        let flows = json!([
            {"stages": ["m.login.email.identity", "m.login.dummy"]},
            {"stages": [TOKEN_STAGE, "m.login.terms"]},
            {"stages": ["m.login.terms", "m.login.dummy"]},
        ]);
        let token = Registration::Token("t".to_owned());
        let first = challenge(json!({"flows": flows, "session": "s"}));
        assert_eq!(first.next_stage(&Registration::Dummy), Some("m.login.terms"));
        assert_eq!(first.next_stage(&token), Some(TOKEN_STAGE));
        let second = challenge(json!({"flows": flows, "completed": ["m.login.terms"]}));
        assert_eq!(second.next_stage(&Registration::Dummy), Some("m.login.dummy"));
    }

    #[test]
    fn a_captcha_cannot_be_met() {
        let asked = challenge(json!({"flows": [{"stages": ["m.login.recaptcha"]}]}));
        assert_eq!(asked.next_stage(&Registration::Dummy), None);
    }

    #[test]
    fn a_way_to_register_is_dummy_or_a_token() {
        assert_eq!("dummy".parse::<Registration>().unwrap(), Registration::Dummy);
        assert_eq!("token:a:b".parse::<Registration>().unwrap(), Registration::Token("a:b".to_owned()));
        for wrong in ["", "open", "secret:a", "dummy:"] {
            assert!(wrong.parse::<Registration>().is_err(), "{wrong}");
        }
    }
}
