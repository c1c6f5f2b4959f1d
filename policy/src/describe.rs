//! Policies in plain words, for a room's members and for the officer.

use std::collections::BTreeSet;

use crate::credential::VerificationLevel;
use crate::effective::{EffectivePolicy, RoomPolicyState};
use crate::explain::Explain;
use crate::layer::PolicyLayer;
use crate::room_policy::RoomPolicy;
use crate::rules::span;

impl Explain for RoomPolicy {
    fn explain(&self) -> String {
        self.layer().explain()
    }
}

impl Explain for EffectivePolicy {
    fn explain(&self) -> String {
        let mut text = match self.room() {
            RoomPolicyState::Unreadable(_) => {
                "The policy of this room cannot be read, so nothing but leaving is possible.\n".to_owned()
            }
            RoomPolicyState::Present | RoomPolicyState::Absent => String::new(),
        };
        text.push_str(&self.layer().explain());
        text
    }
}

impl Explain for PolicyLayer {
    fn explain(&self) -> String {
        let lines: Vec<String> = people(self).into_iter().chain(content(self)).collect();
        if lines.is_empty() {
            "No policy: everything that Matrix allows is permitted.".to_owned()
        } else {
            lines.join("\n")
        }
    }
}

fn people(layer: &PolicyLayer) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(codes) = &layer.organisations {
        lines.push(format!("Only people of these organisations may be here: {}.", list(codes)));
    }
    if let Some(places) = &layer.jurisdictions {
        lines.push(format!("Their organisations must be in: {}.", list(places)));
    }
    if layer.credential_required == Some(true) {
        lines.push("Joining and speaking need a current credential.".to_owned());
    }
    if let Some(level) = layer.minimum_level {
        let verified = match level {
            VerificationLevel::Identity => "who the person is",
            VerificationLevel::Employment => "that the organisation employs the person",
            VerificationLevel::RightToPractise => "that the person may practise",
        };
        lines.push(format!("The credential must verify {verified}."));
    }
    if let Some(professions) = &layer.professions {
        lines.push(format!("Professions that may join and speak: {}.", list(professions)));
    }
    if let Some(roles) = &layer.roles {
        lines.push(format!("At least one of these roles is needed: {}.", list(roles)));
    }
    if let Some(age_ms) = layer.credential_max_age_ms {
        lines.push(format!("Credentials must have been checked within {}.", span(age_ms)));
    }
    if layer.unverified_may_read == Some(false) {
        lines.push("Reading needs a current credential too.".to_owned());
    }
    lines
}

fn content(layer: &PolicyLayer) -> Vec<String> {
    let mut lines = Vec::new();
    if layer.encryption_required == Some(true) {
        lines.push("Messages must be end-to-end encrypted.".to_owned());
    }
    match (layer.max_lifetime_ms, layer.lifetime_required) {
        (Some(ms), _) => lines.push(format!("Messages are destroyed after {} at the latest.", span(ms))),
        (None, Some(true)) => lines.push("Messages must have a lifetime.".to_owned()),
        (None, _) => {}
    }
    if let Some(ms) = layer.redacted_content_kept_ms {
        lines.push(format!("What is taken back is destroyed within {}.", span(ms)));
    }
    if layer.governance_creates_rooms == Some(true) {
        lines.push("Rooms are created by the organisation's governance bot.".to_owned());
    }
    if layer.federate == Some(false) {
        lines.push("Rooms may not reach other servers.".to_owned());
    }
    if let Some(bytes) = layer.media_max_bytes {
        lines.push(format!("Files may have {bytes} bytes at most."));
    }
    lines
}

fn list(names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
