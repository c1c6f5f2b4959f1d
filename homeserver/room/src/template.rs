//! Event templates of the join, leave and knock handshakes.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>.

use std::collections::BTreeMap;

use ruma::{CanonicalJsonValue, Int, ServerName};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    canonical::{CanonicalError, parse_event, print_event},
    draft::{DraftPdu, SealError, local_event_id, seal_object},
    key::SigningKey,
    pdu::Pdu,
    version::RoomVersion,
};

/// Why a template from another server cannot be signed.
#[derive(Debug, Error)]
pub enum TemplateError {
    /// The template is not a canonical JSON object.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// The template's field does not say what was asked for; signing it would lend our name to something else.
    #[error("the template's `{field}` is not what was asked for")]
    Mismatch {
        /// The field.
        field: &'static str,
    },
    /// The completed event cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl DraftPdu {
    /// The draft as `make_join`, `make_leave` and `make_knock` answer it: an event without hashes, signatures and id.
    ///
    /// # Errors
    /// [`SealError`], by what is wrong with the draft.
    pub fn to_template(&self, version: &'static RoomVersion) -> Result<Box<RawValue>, SealError> {
        let object = self.to_object(version, &BTreeMap::new())?;
        let text = print_event(&object, version, &[], false)?;
        Ok(RawValue::from_string(text).map_err(CanonicalError::NotJson)?)
    }

    /// The event that another server's template becomes when we complete and seal it.
    ///
    /// The draft says what we asked for: room, sender, type, state key, time, and the content to send. From the template
    /// come only graph and depth, and `join_authorised_via_users_server` for a member event that has none.
    ///
    /// # Errors
    /// [`TemplateError::Mismatch`] when the template is for another room, user, type or membership.
    pub fn seal_with_template(
        self,
        template: &RawValue,
        version: &'static RoomVersion,
        key: &SigningKey,
        server: &ServerName,
    ) -> Result<Pdu, TemplateError> {
        let template = parse_event(template.get(), version)?;
        let text = |field: &str| template.get(field).and_then(CanonicalJsonValue::as_str);
        let expect = |field: &'static str, expected: Option<&str>| match text(field) == expected {
            true => Ok(()),
            false => Err(TemplateError::Mismatch { field }),
        };
        expect("room_id", self.room_id.as_ref().map(|id| id.as_str()))?;
        expect("sender", Some(self.sender.as_str()))?;
        expect("type", Some(&self.kind))?;
        expect("state_key", self.state_key.as_deref())?;

        let mut object = self.to_object(version, &BTreeMap::new())?;
        for field in ["auth_events", "prev_events"] {
            match template.get(field) {
                Some(list @ CanonicalJsonValue::Array(_)) => object.insert(field.to_owned(), list.clone()),
                _ => return Err(TemplateError::Mismatch { field }),
            };
        }
        match template.get("depth") {
            Some(CanonicalJsonValue::Integer(depth)) if *depth >= Int::from(0) => {
                object.insert("depth".to_owned(), CanonicalJsonValue::Integer(*depth));
            }
            _ => return Err(TemplateError::Mismatch { field: "depth" }),
        }

        let offered = template.get("content").and_then(CanonicalJsonValue::as_object);
        if let Some(CanonicalJsonValue::Object(content)) = object.get_mut("content") {
            let membership = offered.and_then(|offered| offered.get("membership"));
            if membership != content.get("membership") {
                return Err(TemplateError::Mismatch { field: "content.membership" });
            }
            if let Some(via) = offered.and_then(|offered| offered.get("join_authorised_via_users_server")) {
                content.entry("join_authorised_via_users_server".to_owned()).or_insert_with(|| via.clone());
            }
        }
        if version.has_event_id_field() {
            let id = local_event_id(&object, server, version)?;
            object.insert("event_id".to_owned(), CanonicalJsonValue::String(id));
        }
        Ok(seal_object(object, version, key, server)?)
    }
}
