//! Push rules as clients see and store them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The kinds, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Asked first.
    Override,
    /// A pattern in the body.
    Content,
    /// Between the text and the room: the server's alone.
    // MSC: 4306.
    PostContent,
    /// All of a room.
    Room,
    /// All of a sender.
    Sender,
    /// Asked last.
    Underride,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::Override, Self::Content, Self::PostContent, Self::Room, Self::Sender, Self::Underride];

    /// The kind of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "override" => Self::Override,
            "content" => Self::Content,
            "postcontent" => Self::PostContent,
            "room" => Self::Room,
            "sender" => Self::Sender,
            "underride" => Self::Underride,
            _ => return None,
        })
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Unique within its kind; for rooms and senders, whom it is about.
    pub rule_id: String,
    /// Whether it is the server's.
    #[serde(default)]
    pub default: bool,
    /// Whether it is asked.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What happens on a match.
    #[serde(default)]
    pub actions: Vec<Value>,
    /// All must hold; for overrides and underrides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Value>>,
    /// For content rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

fn yes() -> bool {
    true
}

/// All rules of a user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ruleset {
    /// Asked first.
    #[serde(rename = "override")]
    pub overrides: Vec<Rule>,
    /// Patterns in the body.
    pub content: Vec<Rule>,
    /// Threads, where the operator wants that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub postcontent: Vec<Rule>,
    /// Rooms.
    pub room: Vec<Rule>,
    /// Senders.
    pub sender: Vec<Rule>,
    /// Asked last.
    #[serde(rename = "underride")]
    pub underrides: Vec<Rule>,
}

/// The content of `m.push_rules`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PushRules {
    pub(super) global: Ruleset,
}

impl Ruleset {
    /// The rules of a kind.
    #[must_use]
    pub fn kind(&self, kind: Kind) -> &[Rule] {
        match kind {
            Kind::Override => &self.overrides,
            Kind::Content => &self.content,
            Kind::PostContent => &self.postcontent,
            Kind::Room => &self.room,
            Kind::Sender => &self.sender,
            Kind::Underride => &self.underrides,
        }
    }

    /// The rules of a kind, to be changed.
    pub fn kind_mut(&mut self, kind: Kind) -> &mut Vec<Rule> {
        match kind {
            Kind::Override => &mut self.overrides,
            Kind::Content => &mut self.content,
            Kind::PostContent => &mut self.postcontent,
            Kind::Room => &mut self.room,
            Kind::Sender => &mut self.sender,
            Kind::Underride => &mut self.underrides,
        }
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        Kind::ALL.iter().map(|kind| self.kind(*kind).len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
