//! Typing and presence towards peers: in memory only, the newest per subject.

use ruma::{OwnedServerName, ServerName};
use serde_json::{Value, json};

use crate::Core;

/// How many subjects are kept per destination.
const MAX_SUBJECTS: usize = 500;

impl Core {
    /// The unit goes to these servers, unless a newer one about the same `subject` is there before, or they cannot be reached.
    pub fn send_ephemeral(
        &self,
        destinations: impl IntoIterator<Item = OwnedServerName>,
        subject: &str,
        edu_type: &str,
        content: &Value,
    ) {
        if !self.settings.federation {
            return;
        }
        for destination in destinations {
            if self.is_local(&destination) {
                continue;
            }
            {
                let mut all = self.outbox.ephemeral.lock();
                let units = all.entry(destination.clone()).or_default();
                if units.len() >= MAX_SUBJECTS {
                    units.clear();
                }
                units.insert(subject.to_owned(), json!({"edu_type": edu_type, "content": content}));
            }
            self.wake_outbox(&destination);
        }
    }

    /// At most `limit` units for the destination, taken out.
    pub(super) fn take_ephemeral(&self, destination: &ServerName, limit: usize) -> Vec<Value> {
        let mut all = self.outbox.ephemeral.lock();
        let Some(units) = all.get_mut(destination) else { return Vec::new() };
        let mut taken = Vec::new();
        while taken.len() < limit {
            let Some((_, unit)) = units.pop_first() else { break };
            taken.push(unit);
        }
        if units.is_empty() {
            all.remove(destination);
        }
        taken
    }
}
