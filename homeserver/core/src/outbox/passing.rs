//! What is worth telling only now: who types, who is there. The last word for each, in memory, never over an outage.

use std::collections::{BTreeMap, HashMap};

use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, ServerName};
use serde_json::{Value, json};

use crate::Core;

/// How much may wait for one destination.
const MAX_PER_SERVER: usize = 1_000;
/// How much may wait for all destinations together.
const MAX_WAITING: usize = 50_000;
/// How many users one `m.presence` names.
const USERS_PER_EDU: usize = 100;

/// What a word is about: a later one replaces it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// Whether the user is there; the word is an entry of `push`.
    Presence(OwnedUserId),
    /// Whether the user types in the room; the word is the content of an `m.typing`.
    Typing(OwnedRoomId, OwnedUserId),
}

/// The last words for each destination.
#[derive(Debug, Default)]
pub(super) struct Passing {
    servers: HashMap<OwnedServerName, BTreeMap<Subject, Value>>,
    count: usize,
}

impl Passing {
    /// The word waits for the destination, in the place of an older one; what is too much is dropped.
    fn put(&mut self, server: &ServerName, subject: Subject, word: Value) {
        let words = self.servers.entry(server.to_owned()).or_default();
        if let Some(known) = words.get_mut(&subject) {
            *known = word;
        } else if words.len() < MAX_PER_SERVER && self.count < MAX_WAITING {
            words.insert(subject, word);
            self.count = self.count.saturating_add(1);
        }
    }

    /// At most so many units for the destination, taken out.
    pub(super) fn take(&mut self, server: &ServerName, max_units: usize) -> Vec<Value> {
        let Some(words) = self.servers.get_mut(server) else { return Vec::new() };
        let mut units = Vec::new();
        let mut push = Vec::new();
        while units.len() + usize::from(!push.is_empty()) < max_units
            && let Some((subject, word)) = words.pop_first()
        {
            self.count = self.count.saturating_sub(1);
            match subject {
                Subject::Presence(_) => {
                    push.push(word);
                    if push.len() >= USERS_PER_EDU {
                        units.push(presence(std::mem::take(&mut push)));
                    }
                }
                Subject::Typing(..) => {
                    if !push.is_empty() {
                        units.push(presence(std::mem::take(&mut push)));
                    }
                    units.push(json!({"edu_type": "m.typing", "content": word}));
                }
            }
        }
        if !push.is_empty() {
            units.push(presence(push));
        }
        if words.is_empty() {
            self.servers.remove(server);
        }
        units
    }

    /// Nothing waits for the destination any more.
    pub(super) fn drop_all(&mut self, server: &ServerName) {
        if let Some(words) = self.servers.remove(server) {
            self.count = self.count.saturating_sub(words.len());
        }
    }
}

fn presence(push: Vec<Value>) -> Value {
    json!({"edu_type": "m.presence", "content": {"push": push}})
}

impl Core {
    /// The destination is told, unless it is down: then it never hears of this.
    pub(crate) fn tell_in_passing(&self, server: &ServerName, subject: Subject, word: Value) {
        if self.is_local(server) || !self.settings.federation || !self.peer_allowed(server) {
            return;
        }
        if self.outbox.schedule.lock().is_doubtful(server) {
            return;
        }
        self.outbox.passing.lock().put(server, subject, word);
        self.wake_outbox(server);
    }
}
