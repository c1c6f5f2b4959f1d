//! The room versions that Matron speaks, with their rules as data.

use std::fmt;

use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};

/// A room version together with its rules; there is one static value of each.
///
/// Spec: <https://spec.matrix.org/v1.19/rooms/>.
pub struct RoomVersion {
    /// The identifier, as in `m.room.create`'s `room_version`.
    pub id: RoomVersionId,
    /// What differs between versions.
    pub rules: RoomVersionRules,
}

static SUPPORTED: [RoomVersion; 12] = [
    RoomVersion { id: RoomVersionId::V1, rules: RoomVersionRules::V1 },
    RoomVersion { id: RoomVersionId::V2, rules: RoomVersionRules::V2 },
    RoomVersion { id: RoomVersionId::V3, rules: RoomVersionRules::V3 },
    RoomVersion { id: RoomVersionId::V4, rules: RoomVersionRules::V4 },
    RoomVersion { id: RoomVersionId::V5, rules: RoomVersionRules::V5 },
    RoomVersion { id: RoomVersionId::V6, rules: RoomVersionRules::V6 },
    RoomVersion { id: RoomVersionId::V7, rules: RoomVersionRules::V7 },
    RoomVersion { id: RoomVersionId::V8, rules: RoomVersionRules::V8 },
    RoomVersion { id: RoomVersionId::V9, rules: RoomVersionRules::V9 },
    RoomVersion { id: RoomVersionId::V10, rules: RoomVersionRules::V10 },
    RoomVersion { id: RoomVersionId::V11, rules: RoomVersionRules::V11 },
    RoomVersion { id: RoomVersionId::V12, rules: RoomVersionRules::V12 },
];

/// The last entry of `SUPPORTED`, without an index that could be out of bounds.
static DEFAULT: &RoomVersion = &SUPPORTED[11];

impl RoomVersion {
    /// The version with this identifier, if Matron speaks it.
    pub fn get(id: &RoomVersionId) -> Option<&'static Self> {
        SUPPORTED.iter().find(|version| version.id == *id)
    }

    /// The version written as in `room_version`, if Matron speaks it.
    pub fn find(id: &str) -> Option<&'static Self> {
        SUPPORTED.iter().find(|version| version.id.as_str() == id)
    }

    /// The version for new rooms unless the configuration or the client names another.
    pub fn default_version() -> &'static Self {
        DEFAULT
    }

    /// All versions that Matron speaks, oldest first.
    pub fn supported() -> &'static [Self] {
        &SUPPORTED
    }

    /// Whether the room id is the reference hash of the create event (version 12).
    pub fn has_hashed_room_id(&self) -> bool {
        self.rules.authorization.room_create_event_id_as_room_id
    }

    /// Whether event ids are inside the event and chosen by its server (versions 1 and 2).
    pub fn has_event_id_field(&self) -> bool {
        self.rules.event_format.require_event_id
    }

    /// Whether a redaction names its target inside `content` (since version 11).
    pub fn has_redacts_in_content(&self) -> bool {
        self.rules.redaction.content_field_redacts
    }

    /// Whether numbers that canonical JSON cannot hold are let through (versions 1 to 5).
    pub(crate) fn is_lenient(&self) -> bool {
        !self.rules.authorization.strict_canonical_json
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        self.id.as_str()
    }
}

impl fmt::Debug for RoomVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomVersion({})", self.id)
    }
}

impl PartialEq for RoomVersion {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for RoomVersion {}
