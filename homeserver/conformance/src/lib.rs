//! Answers held against the specification's schemas: for tests, never in a server.
//!
//! `data/endpoints.json` is the specification's OpenAPI data, reduced by `make.py` to what answers must look like.
//! [`Specification::check`] finds the endpoint of a request and validates the answer to it; [`hold`] panics with what is
//! wrong, for tests that see answers go by.

mod schema;

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;
use serde_json::Value;

pub use schema::{Fault, Schemas};

static DATA: &str = include_str!("../data/endpoints.json");

/// What may be otherwise than the schema says: the endpoint's name, the field (empty: the whole answer), and why.
const DEVIATIONS: &[(&str, &str, &str)] = &[
    ("getTurnServer", "", "`{}` where the operator named no TURN server, as clients and SyTest expect"),
    ("getJoinedMembersByRoom", "display_name", "SyTest wants the field, null where the member has no name"),
    ("getJoinedMembersByRoom", "avatar_url", "SyTest wants the field, null where the member has no picture"),
    (
        "getAuthMetadata",
        "account_management_actions_supported",
        "clients still ask for the names of MSC4191's drafts too",
    ),
];

/// The specification that is part of this crate.
///
/// # Panics
/// When the data file is broken: found by any test.
#[expect(clippy::expect_used, reason = "the data is part of the crate, and only tests use the crate")]
pub static SPECIFICATION: LazyLock<Specification> =
    LazyLock::new(|| serde_json::from_str(DATA).expect("data/endpoints.json is as make.py wrote it"));

/// What the specification says of every endpoint.
#[derive(Debug, Deserialize)]
pub struct Specification {
    /// In the order of its files.
    pub endpoints: Vec<Endpoint>,
    schemas: Schemas,
}

/// Who may ask.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Everybody.
    None,
    /// A user, or an application service.
    Token,
    /// Everybody; users are told more.
    Optional,
    /// A server that signs its requests.
    Signed,
}

/// One endpoint.
#[derive(Debug, Deserialize)]
pub struct Endpoint {
    /// `client` or `federation`.
    pub api: String,
    /// The method.
    pub method: String,
    /// The path, with `{names}` where something is filled in.
    pub path: String,
    /// The specification's name of the operation.
    pub name: String,
    /// Who may ask.
    pub auth: Auth,
    /// The schema of the answer by status; `None` where it is not JSON.
    answers: BTreeMap<String, Option<Value>>,
}

/// What is to be said of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The specification does not have the path and method.
    NotDescribed,
    /// As the specification says, or an error of the standard form.
    Conforms(&'a str),
    /// What is wrong with the answer of the endpoint with this name.
    Faulty(&'a str, Vec<Fault>),
}

impl Endpoint {
    /// How many parts of the path are literally the template's; `None` if it is another path.
    fn matches(&self, path: &str) -> Option<usize> {
        let mut literal = 0;
        let mut given = path.split('/');
        for wanted in self.path.split('/') {
            let part = given.next()?;
            if wanted == part {
                literal += 1;
            } else if !wanted.starts_with('{') || (part.is_empty() && wanted != "{stateKey}") {
                return None;
            }
        }
        given.next().is_none().then_some(literal)
    }
}

impl Specification {
    /// The endpoint of a request; the query does not matter, and `r0` means `v3`.
    #[must_use]
    pub fn find(&self, method: &str, path: &str) -> Option<&Endpoint> {
        let path = path.split('?').next().unwrap_or_default().replace("/_matrix/client/r0/", "/_matrix/client/v3/");
        let described = self.endpoints.iter().filter(|endpoint| endpoint.method == method);
        described
            .filter_map(|endpoint| endpoint.matches(&path).map(|literal| (literal, endpoint)))
            .max_by_key(|(literal, _)| *literal)
            .map(|(_, endpoint)| endpoint)
    }

    /// What is to be said of an answer; `body` is `None` where it is not JSON.
    #[must_use]
    pub fn check(&self, method: &str, path: &str, status: u16, body: Option<&Value>) -> Verdict<'_> {
        // MSC: 4140; an event that is scheduled is answered with the name of its delay.
        let Some(endpoint) = self.find(method, path).filter(|_| !path.contains("org.matrix.msc4140.delay")) else {
            return Verdict::NotDescribed;
        };
        let described = endpoint.answers.get(&status.to_string()).or_else(|| endpoint.answers.get("default"));
        let mut faults = match (described, body) {
            // Where authentication is asked for in stages, a token that is missing is refused in the standard form.
            (Some(Some(_)), Some(body)) if status == 401 && check_error(body).is_empty() => Vec::new(),
            (Some(Some(schema)), Some(body)) => self.schemas.check(schema, body),
            (Some(Some(_)), None) => vec![Fault::at_root("the answer is not JSON")],
            (Some(None), _) if status < 400 => Vec::new(),
            (Some(None) | None, Some(body)) if status >= 400 => check_error(body),
            (Some(None) | None, None) if status >= 400 => vec![Fault::at_root("an error is not JSON")],
            // HTTP's own: a part of a file, and what the client has already.
            (None, _) if [206, 304].contains(&status) && matches!(endpoint.answers.get("200"), Some(None)) => {
                Vec::new()
            }
            (Some(None) | None, _) => vec![Fault::at_root(&format!("status {status} is not described"))],
        };
        faults.retain(|fault| {
            let inside = |field: &str| match field {
                "" => fault.place.is_empty(),
                field => fault.place.split('/').any(|part| part == field),
            };
            !DEVIATIONS.iter().any(|(name, field, _)| *name == endpoint.name && inside(field))
        });
        if faults.is_empty() { Verdict::Conforms(&endpoint.name) } else { Verdict::Faulty(&endpoint.name, faults) }
    }
}

/// SPEC: v1.19 Client-Server API, "Standard error response"; interactive authentication says what it wants instead.
fn check_error(body: &Value) -> Vec<Fault> {
    let text = |name: &str| body.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    if (text("errcode") && text("error")) || body.get("flows").is_some_and(Value::is_array) {
        return Vec::new();
    }
    vec![Fault::at_root("an error has no `errcode` or no `error`")]
}

/// The answer is as the specification says, or of an endpoint that it does not have.
///
/// # Panics
/// With what is wrong otherwise.
#[track_caller]
#[expect(clippy::panic, reason = "for tests, which fail by it")]
pub fn hold(method: &str, path: &str, status: u16, body: Option<&Value>) {
    if let Verdict::Faulty(name, faults) = SPECIFICATION.check(method, path, status, body) {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        panic!("{method} {path} ({name}) answers {status} against the specification:\n{}", faults.join("\n"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_most_literal_path_is_meant() {
        let name = |method, path| SPECIFICATION.find(method, path).map(|endpoint| endpoint.name.as_str());
        assert_eq!(name("GET", "/_matrix/client/v3/room_keys/version"), Some("getRoomKeysVersionCurrent"));
        assert_eq!(name("GET", "/_matrix/client/r0/sync?since=1"), Some("sync"));
        assert_eq!(name("GET", "/_matrix/client/v3/rooms/!a:b/state/m.room.create/"), Some("getRoomStateWithKey"));
        assert_eq!(name("GET", "/_matrix/client/v9/sync"), None);
    }

    #[test]
    fn answers_are_held_against_their_schema() {
        let check =
            |status, body: Value| SPECIFICATION.check("GET", "/_matrix/client/v3/account/whoami", status, Some(&body));
        assert_eq!(check(200, json!({ "user_id": "@amira:us.example" })), Verdict::Conforms("getTokenOwner"));
        let Verdict::Faulty(_, faults) = check(200, json!({ "user_id": "amira", "is_guest": "no" })) else {
            panic!("it was accepted")
        };
        let places: std::collections::BTreeSet<_> = faults.iter().map(|fault| fault.place.as_str()).collect();
        assert_eq!(Vec::from_iter(places), ["/is_guest", "/user_id"]);
        assert!(matches!(check(200, json!({})), Verdict::Faulty(..)));
        assert!(matches!(check(201, json!({})), Verdict::Faulty(..)));
        assert!(matches!(check(500, json!({ "errcode": "M_UNKNOWN", "error": "no" })), Verdict::Conforms(_)));
        assert!(matches!(check(500, json!({ "errcode": "M_UNKNOWN" })), Verdict::Faulty(..)));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(values) => values.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let data: Value = serde_json::from_str(DATA).unwrap();
        let mut found = Vec::new();
        references(&data, &mut found);
        assert!(found.len() > 100);
        for name in found {
            assert!(SPECIFICATION.schemas.find(&name).is_some(), "{name}");
        }
    }
}
