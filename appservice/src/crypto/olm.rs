//! Olm sessions with other devices, by their identity keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vodozemac::olm::{OlmMessage, Session, SessionPickle};

/// SPEC: "The maximum number of olm sessions maintained per device should be at least 4."
const MAX_SESSIONS_PER_DEVICE: usize = 8;

struct Entry {
    session: Session,
    /// When it last decrypted, or was made; milliseconds since the epoch.
    used_ms: u64,
}

/// All Olm sessions of one of our devices.
#[derive(Default)]
pub(crate) struct OlmSessions {
    by_key: BTreeMap<String, Vec<Entry>>,
}

impl std::fmt::Debug for OlmSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OlmSessions").field("devices", &self.by_key.len()).finish()
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct EntryPickle {
    session: SessionPickle,
    used_ms: u64,
}

/// The stored form.
pub(crate) type OlmPickle = BTreeMap<String, Vec<EntryPickle>>;

impl OlmSessions {
    pub(crate) fn pickle(&self) -> OlmPickle {
        let entries = |entries: &Vec<Entry>| {
            entries
                .iter()
                .map(|entry| EntryPickle { session: entry.session.pickle(), used_ms: entry.used_ms })
                .collect()
        };
        self.by_key.iter().map(|(key, list)| (key.clone(), entries(list))).collect()
    }

    pub(crate) fn from_pickle(pickle: OlmPickle) -> Self {
        let entries = |entries: Vec<EntryPickle>| {
            entries
                .into_iter()
                .map(|entry| Entry { session: Session::from_pickle(entry.session), used_ms: entry.used_ms })
                .collect()
        };
        Self { by_key: pickle.into_iter().map(|(key, list)| (key, entries(list))).collect() }
    }

    pub(crate) fn has(&self, curve25519: &str) -> bool {
        self.by_key.get(curve25519).is_some_and(|entries| !entries.is_empty())
    }

    /// The session is kept; the one that was idle longest makes room.
    pub(crate) fn add(&mut self, curve25519: String, session: Session, now_ms: u64) {
        let entries = self.by_key.entry(curve25519).or_default();
        entries.push(Entry { session, used_ms: now_ms });
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.used_ms));
        entries.truncate(MAX_SESSIONS_PER_DEVICE);
    }

    /// The session from which something came last; SPEC: that one is to be used for sending.
    pub(crate) fn newest(&mut self, curve25519: &str) -> Option<&mut Session> {
        let entries = self.by_key.get_mut(curve25519)?;
        entries.iter_mut().max_by_key(|entry| entry.used_ms).map(|entry| &mut entry.session)
    }

    /// Tries the sessions with this device in turn; `None` where no one can decrypt.
    pub(crate) fn decrypt(&mut self, curve25519: &str, message: &OlmMessage, now_ms: u64) -> Option<Vec<u8>> {
        let entries = self.by_key.get_mut(curve25519)?;
        for entry in entries {
            if let OlmMessage::PreKey(pre_key) = message
                && pre_key.session_id() != entry.session.session_id()
            {
                continue;
            }
            if let Ok(plaintext) = entry.session.decrypt(message) {
                entry.used_ms = now_ms;
                return Some(plaintext);
            }
        }
        None
    }
}
