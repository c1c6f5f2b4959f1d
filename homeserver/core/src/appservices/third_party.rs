//! Third-party networks: what application services know of them.
//!
//! SPEC: v1.19 Application Service API, "Third-party networks".

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::ask::encode;
use crate::{Core, Error};

/// How long the description of a protocol is believed, ms.
const PROTOCOL_LIFETIME_MS: u64 = 60 * 60 * 1000;

/// By service and protocol: until when, and what it said.
pub(super) type ProtocolCache = HashMap<(usize, String), (u64, Value)>;

/// What is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Rooms.
    Location,
    /// People.
    User,
}

impl Core {
    /// Every protocol, as the application services that speak it describe it together.
    pub async fn third_party_protocols(&self) -> BTreeMap<String, Value> {
        let names: BTreeSet<String> = self
            .appservices
            .services
            .iter()
            .flat_map(|service| service.registration.protocols.iter().flatten().cloned())
            .collect();
        let mut protocols = BTreeMap::new();
        for name in names {
            if let Some(protocol) = self.find_protocol(&name).await {
                protocols.insert(name, protocol);
            }
        }
        protocols
    }

    /// One protocol.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub async fn third_party_protocol(&self, name: &str) -> Result<Value, Error> {
        self.find_protocol(name).await.ok_or_else(|| Error::not_found("no application service speaks this protocol"))
    }

    async fn find_protocol(&self, name: &str) -> Option<Value> {
        let speakers =
            self.appservices.services.iter().enumerate().filter(|(_, service)| {
                service.registration.protocols.iter().flatten().any(|protocol| protocol == name)
            });
        let described = speakers.map(|(index, service)| async move {
            let key = (index, name.to_owned());
            let now_ms = self.now_ms();
            let known = self.appservices.protocols.lock().get(&key).cloned();
            if let Some((_, value)) = known.filter(|(until, _)| *until > now_ms) {
                return Some(value);
            }
            let value = self.ask_appservice(service, &format!("thirdparty/protocol/{}", encode(name))).await.ok()?;
            let value = value.is_object().then_some(value)?;
            let until = now_ms.saturating_add(PROTOCOL_LIFETIME_MS);
            self.appservices.protocols.lock().insert(key, (until, value.clone()));
            Some(value)
        });
        let described = futures_util::future::join_all(described).await;
        merge(described.into_iter().flatten())
    }

    /// What the application services know of a place or person; `fields` are the query as the client gave it.
    /// Without a protocol all are asked (by alias or user id).
    pub async fn third_party_lookup(
        &self,
        lookup: Lookup,
        protocol: Option<&str>,
        fields: &[(String, String)],
    ) -> Vec<Value> {
        let kind = match lookup {
            Lookup::Location => "location",
            Lookup::User => "user",
        };
        let query: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let query = query.join("&");
        let path = match protocol {
            Some(protocol) => format!("thirdparty/{kind}/{}?{query}", encode(protocol)),
            None => format!("thirdparty/{kind}?{query}"),
        };
        let path = path.trim_end_matches('?');
        let speakers = self.appservices.services.iter().filter(|service| {
            let mut spoken = service.registration.protocols.iter().flatten();
            protocol.is_none_or(|name| spoken.any(|protocol| protocol == name))
        });
        let answers = futures_util::future::join_all(speakers.map(|service| self.ask_appservice(service, path))).await;
        answers
            .into_iter()
            .filter_map(|answer| match answer {
                Ok(Value::Array(found)) => Some(found),
                _ => None,
            })
            .flatten()
            .filter(Value::is_object)
            .collect()
    }
}

/// One description: the first one's, with everyone's instances.
fn merge(mut described: impl Iterator<Item = Value>) -> Option<Value> {
    let instances_of = |value: &Value| value.get("instances").and_then(Value::as_array).cloned().unwrap_or_default();
    let first = described.next()?;
    let mut instances = instances_of(&first);
    instances.extend(described.flat_map(|other| instances_of(&other)));
    let mut merged: Map<String, Value> = first.as_object().cloned().unwrap_or_default();
    merged.insert("instances".to_owned(), Value::Array(instances));
    Some(Value::Object(merged))
}
