//! From what a provider claims to what Matron knows of a person.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{Error, settings::Upstream};

/// What a provider said of somebody, as the settings map it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) subject: String,
    pub(super) localpart: String,
    pub(super) display_name: Option<String>,
    pub(super) staff_number: Option<String>,
    pub(super) organisation: Option<String>,
    pub(super) roles: BTreeSet<String>,
}

/// Passes for somebody who was authenticated as the settings demand.
///
/// # Errors
/// `M_FORBIDDEN`.
pub(super) fn check_authentication(upstream: &Upstream, claims: &Map<String, Value>) -> Result<(), Error> {
    let acr = claims.get("acr").and_then(text);
    let acr_fits = upstream.acr_values.is_empty() || acr.is_some_and(|acr| upstream.acr_values.contains(&acr));
    let used = strings(claims.get("amr"));
    let amr_fits = upstream.amr_values.iter().all(|method| used.contains(method));
    if acr_fits && amr_fits {
        return Ok(());
    }
    Err(Error::forbidden(format!("{} signed you in with weaker proof than this server demands", upstream.name)))
}

/// What the claims say of a person who may sign in.
///
/// # Errors
/// `M_FORBIDDEN` for another organisation, or none of the roles that are needed; or when a claim is missing.
pub(super) fn map(
    upstream: &Upstream,
    claims: &Map<String, Value>,
    own_organisation: Option<&str>,
) -> Result<Facts, Error> {
    let refused = |what: &str| Error::forbidden(format!("{} {what}", upstream.name));
    let named = |claim: &Option<String>| claim.as_deref().and_then(|claim| find(claims, claim));
    let organisation = named(&upstream.organisation_claim).and_then(text);
    if let (Some(_), Some(own)) = (&upstream.organisation_claim, own_organisation)
        && organisation.as_deref() != Some(own)
    {
        return Err(refused("says that you belong to another organisation"));
    }
    let roles = strings(named(&upstream.roles_claim));
    if !upstream.required_roles.is_empty() && !upstream.required_roles.iter().any(|role| roles.contains(role)) {
        return Err(refused("gives you none of the roles that may use this server"));
    }
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
    let localpart = filled(&upstream.localpart, claims).map(|name| mapped(&name)).filter(|name| !name.is_empty());
    let localpart = localpart.ok_or_else(|| refused("did not say enough to give you a user name"))?;
    Ok(Facts {
        subject,
        localpart,
        display_name: filled(&upstream.display_name, claims).filter(|name| !name.trim().is_empty()),
        staff_number: named(&upstream.staff_number_claim).and_then(text),
        organisation,
        roles,
    })
}

/// A claim by its name, or by names that lead into it: `realm_access.roles`.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        // What may have several values, and has one.
        Value::Array(values) => match values.as_slice() {
            [Value::String(text)] => text.clone(),
            _ => return None,
        },
        _ => return None,
    };
    (!text.is_empty() && text.len() <= 255 && !text.chars().any(char::is_control)).then_some(text)
}

fn strings(value: Option<&Value>) -> BTreeSet<String> {
    match value {
        Some(Value::String(one)) => one.split_whitespace().take(100).map(str::to_owned).collect(),
        Some(Value::Array(many)) => many.iter().filter_map(text).take(100).collect(),
        _ => BTreeSet::new(),
    }
}

/// The template with its claims; `None` when one is missing.
fn filled(template: &str, claims: &Map<String, Value>) -> Option<String> {
    let mut result = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        result.push_str(before);
        result.push_str(&text(find(claims, name)?)?);
        rest = after;
    }
    result.push_str(rest);
    Some(result)
}

/// A localpart that stands for any name.
///
/// SPEC: v1.19 Appendices, "Mapping from other character sets".
fn mapped(name: &str) -> String {
    let mut localpart = String::new();
    for byte in name.trim().bytes() {
        match byte.to_ascii_lowercase() {
            letter @ (b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/' | b'+') => {
                localpart.push(char::from(letter))
            }
            _ => localpart.push_str(&format!("={byte:02x}")),
        }
    }
    localpart
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn upstream() -> Upstream {
        Upstream {
            name: "The trust".to_owned(),
            staff_number_claim: Some("staff_id".to_owned()),
            organisation_claim: Some("org".to_owned()),
            roles_claim: Some("realm_access.roles".to_owned()),
            ..Upstream::default()
        }
    }

    fn claims() -> Map<String, Value> {
        let claims = json!({
            "sub": "1", "preferred_username": "Amira.Khan@Trust", "name": "Amira Khan", "staff_id": 4711, "org": "RJ1",
            "realm_access": { "roles": ["nurse", "user"] },
        });
        claims.as_object().unwrap().clone()
    }

    #[test]
    fn claims_become_what_the_settings_say() {
        let facts = map(&upstream(), &claims(), Some("RJ1")).unwrap();
        assert_eq!(facts.localpart, "amira.khan=40trust");
        assert_eq!(facts.display_name.as_deref(), Some("Amira Khan"));
        assert_eq!(facts.staff_number.as_deref(), Some("4711"));
        assert_eq!(facts.roles, ["nurse", "user"].map(str::to_owned).into());
        let by_number = Upstream { localpart: "s-{staff_id}".to_owned(), ..upstream() };
        assert_eq!(map(&by_number, &claims(), None).unwrap().localpart, "s-4711");
    }

    #[test]
    fn the_wrong_organisation_or_role_or_a_missing_claim_is_refused() {
        assert!(map(&upstream(), &claims(), Some("RJ2")).is_err());
        let role = |role: &str| Upstream { required_roles: vec![role.to_owned()], ..upstream() };
        assert!(map(&role("nurse"), &claims(), None).is_ok());
        assert!(map(&role("doctor"), &claims(), None).is_err());
        let listed = Upstream { localpart: "{list}".to_owned(), ..upstream() };
        for (list, fits) in [(json!(["one"]), true), (json!(["one", "two"]), false), (json!([["one"]]), false)] {
            let mut claims = claims();
            claims.insert("list".to_owned(), list);
            assert_eq!(map(&listed, &claims, None).is_ok(), fits, "{claims:?}");
        }
        for template in ["{nothing}", "{realm_access}", "{open", ""] {
            let upstream = Upstream { localpart: template.to_owned(), ..upstream() };
            assert!(map(&upstream, &claims(), None).is_err(), "{template}");
        }
        let mut without = claims();
        without.remove("org");
        assert!(map(&upstream(), &without, Some("RJ1")).is_err());
    }

    #[test]
    fn weaker_proof_than_demanded_is_refused() {
        let demanding =
            Upstream { acr_values: vec!["gold".to_owned()], amr_values: vec!["mfa".to_owned()], ..upstream() };
        let check = |claims: Value| check_authentication(&demanding, claims.as_object().unwrap()).is_ok();
        assert!(check(json!({ "acr": "gold", "amr": ["pwd", "mfa"] })));
        for weak in [
            json!({}),
            json!({ "acr": "gold" }),
            json!({ "acr": "silver", "amr": ["mfa"] }),
            json!({ "acr": "gold", "amr": "pwd" }),
        ] {
            assert!(!check(weak));
        }
        assert!(check_authentication(&upstream(), &claims()).is_ok());
    }
}
