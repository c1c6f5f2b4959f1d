//! All layers together: what is demanded here and now.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::facts::{Fact, Unavailable};
use crate::layer::PolicyLayer;
use crate::revision::{Digest, PolicyRevision};
use crate::room_policy::RoomPolicy;

/// The layers of a deployment. The room's own layer is a fact and comes with each question.
///
/// The default has no layer: a plain Matrix server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySet {
    /// What the federation demands of all its members.
    pub floor: Option<PolicyLayer>,
    /// What the organisation demands of its own server.
    pub organisation: Option<PolicyLayer>,
    /// What kinds of rooms demand, by the name that a [`RoomPolicy`] gives as its template. A name that is
    /// not known here adds nothing: the room policy carries its own values.
    pub templates: BTreeMap<String, PolicyLayer>,
    /// How long, in milliseconds, members may go on speaking with a register that has expired. Nobody is
    /// admitted meanwhile. No layer: a property of the deployment. Default 0.
    pub register_grace_ms: u64,
}

impl PolicySet {
    /// Whether the deployment has no layer that demands anything.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        [&self.floor, &self.organisation].into_iter().flatten().all(PolicyLayer::is_empty)
    }

    /// What all layers demand together in a room with this policy. Worth keeping as long as neither changes.
    #[must_use]
    pub fn effective(&self, room: &Fact<RoomPolicy>) -> EffectivePolicy {
        let mut layer = PolicyLayer::default();
        for one in [&self.floor, &self.organisation].into_iter().flatten() {
            layer = layer.meet(one);
        }
        let room = match room {
            Fact::Absent => RoomPolicyState::Absent,
            Fact::Unavailable(why) => RoomPolicyState::Unreadable(*why),
            Fact::Known(policy) => {
                if let Some(template) = policy.template.as_ref().and_then(|name| self.templates.get(name)) {
                    layer = layer.meet(template);
                }
                layer = layer.meet(&policy.layer());
                RoomPolicyState::Present
            }
        };
        EffectivePolicy::new(layer, room, self.is_ordinary(), self.register_grace_ms)
    }
}

/// What the room itself says about its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoomPolicyState {
    /// The room has no `org.matron.room.policy`.
    Absent,
    /// The room has one, and it was read.
    Present,
    /// The room has one that cannot be read, or it is not known whether it has one.
    Unreadable(Unavailable),
}

/// The meet of all layers, with its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectivePolicy {
    layer: PolicyLayer,
    room: RoomPolicyState,
    deployment_is_ordinary: bool,
    register_grace_ms: u64,
    revision: PolicyRevision,
}

impl EffectivePolicy {
    fn new(layer: PolicyLayer, room: RoomPolicyState, deployment_is_ordinary: bool, register_grace_ms: u64) -> Self {
        let named = serde_json::json!({
            "layer": layer,
            "register_grace_ms": register_grace_ms,
            "room": room,
        });
        let revision = Digest::of(&canonical::naming(&named));
        Self { layer, room, deployment_is_ordinary, register_grace_ms, revision }
    }

    /// The stricter value of every field.
    #[must_use]
    pub fn layer(&self) -> &PolicyLayer {
        &self.layer
    }

    /// What the room says about its policy.
    #[must_use]
    pub fn room(&self) -> RoomPolicyState {
        self.room
    }

    /// Whether nothing at all is demanded: no room policy, no layer.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        self.deployment_is_ordinary && self.room == RoomPolicyState::Absent
    }

    /// How long members may go on speaking with an expired register, in milliseconds.
    #[must_use]
    pub fn register_grace_ms(&self) -> u64 {
        self.register_grace_ms
    }

    /// The digest of this policy's canonical form.
    #[must_use]
    pub fn revision(&self) -> PolicyRevision {
        self.revision
    }

    pub(crate) fn requires_credential(&self) -> bool {
        self.layer.credential_required == Some(true)
    }

    pub(crate) fn requires_encryption(&self) -> bool {
        self.layer.encryption_required == Some(true)
    }

    pub(crate) fn requires_lifetime(&self) -> bool {
        self.layer.lifetime_required == Some(true)
    }
}
