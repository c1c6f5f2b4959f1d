//! Megolm sessions of others, as their keys reached us over Olm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vodozemac::megolm::{InboundGroupSession, InboundGroupSessionPickle, SessionOrdering};

/// Most sessions that are kept; the oldest make room.
const MAX_SESSIONS: usize = 5_000;
/// Most message indices that one session remembers against replay.
const MAX_SEEN: usize = 1_000;

/// One session, bound to the user whose verified device sent its key.
pub(crate) struct Inbound {
    session: InboundGroupSession,
    pub(crate) sender: String,
    pub(crate) sender_device: String,
    /// Which event used which index.
    seen: BTreeMap<u32, String>,
    /// Indices below it were forgotten and are taken for replays.
    floor: u32,
    /// When its key came, in milliseconds since the epoch.
    received_ms: u64,
    /// Order of arrival.
    number: u64,
}

/// All inbound sessions of one of our devices, by room and session id.
#[derive(Default)]
pub(crate) struct InboundSessions {
    sessions: BTreeMap<String, BTreeMap<String, Inbound>>,
    next: u64,
}

impl std::fmt::Debug for InboundSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InboundSessions").field("rooms", &self.sessions.len()).finish()
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct InboundPickle {
    room_id: String,
    session: InboundGroupSessionPickle,
    sender: String,
    sender_device: String,
    seen: BTreeMap<u32, String>,
    floor: u32,
    received_ms: u64,
}

/// What became of a message.
pub(crate) enum Opened {
    Plaintext(Vec<u8>),
    /// The index was used by another event: somebody replays.
    Replayed,
    Undecryptable,
}

impl InboundSessions {
    pub(crate) fn pickle(&self) -> Vec<InboundPickle> {
        let mut all: Vec<_> = self
            .sessions
            .iter()
            .flat_map(|(room, sessions)| sessions.values().map(move |inbound| (room, inbound)))
            .collect();
        all.sort_by_key(|(_, inbound)| inbound.number);
        all.into_iter()
            .map(|(room, inbound)| InboundPickle {
                room_id: room.clone(),
                session: inbound.session.pickle(),
                sender: inbound.sender.clone(),
                sender_device: inbound.sender_device.clone(),
                seen: inbound.seen.clone(),
                floor: inbound.floor,
                received_ms: inbound.received_ms,
            })
            .collect()
    }

    pub(crate) fn from_pickle(pickles: Vec<InboundPickle>) -> Self {
        let mut out = Self::default();
        for pickle in pickles {
            let session = InboundGroupSession::from_pickle(pickle.session);
            out.insert(
                pickle.room_id,
                Inbound {
                    session,
                    sender: pickle.sender,
                    sender_device: pickle.sender_device,
                    seen: pickle.seen,
                    floor: pickle.floor,
                    received_ms: pickle.received_ms,
                    number: 0,
                },
            );
        }
        out
    }

    /// The session is known afterwards; a known one is replaced only by the same session from an earlier index.
    pub(crate) fn add(
        &mut self,
        room_id: &str,
        mut session: InboundGroupSession,
        sender: &str,
        sender_device: &str,
        now_ms: u64,
    ) -> bool {
        if let Some(known) = self.sessions.get_mut(room_id).and_then(|room| room.get_mut(&session.session_id())) {
            let better = known.sender == sender && session.compare(&mut known.session) == SessionOrdering::Better;
            if better {
                known.session = session;
            }
            return better;
        }
        self.insert(
            room_id.to_owned(),
            Inbound {
                session,
                sender: sender.to_owned(),
                sender_device: sender_device.to_owned(),
                seen: BTreeMap::new(),
                floor: 0,
                received_ms: now_ms,
                number: 0,
            },
        );
        true
    }

    fn insert(&mut self, room_id: String, mut inbound: Inbound) {
        inbound.number = self.next;
        self.next += 1;
        let id = inbound.session.session_id();
        self.sessions.entry(room_id).or_default().insert(id, inbound);
        let total: usize = self.sessions.values().map(BTreeMap::len).sum();
        if total > MAX_SESSIONS {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self
            .sessions
            .iter()
            .flat_map(|(room, all)| all.iter().map(move |(id, one)| (one.number, room, id)))
            .min()
            .map(|(_, room, id)| (room.clone(), id.clone()));
        if let Some((room, id)) = oldest
            && let Some(sessions) = self.sessions.get_mut(&room)
        {
            sessions.remove(&id);
            if sessions.is_empty() {
                self.sessions.remove(&room);
            }
        }
    }

    /// The keys of this room are gone afterwards.
    pub(crate) fn forget_room(&mut self, room_id: &str) -> bool {
        self.sessions.remove(room_id).is_some()
    }

    /// Keys that came before `then_ms` are gone afterwards.
    pub(crate) fn forget_before(&mut self, then_ms: u64) -> bool {
        let mut any = false;
        self.sessions.retain(|_, sessions| {
            sessions.retain(|_, inbound| {
                any |= inbound.received_ms < then_ms;
                inbound.received_ms >= then_ms
            });
            !sessions.is_empty()
        });
        any
    }

    pub(crate) fn get_mut(&mut self, room_id: &str, session_id: &str) -> Option<&mut Inbound> {
        self.sessions.get_mut(room_id)?.get_mut(session_id)
    }
}

impl Inbound {
    /// Decrypts; one index belongs to one event.
    pub(crate) fn open(&mut self, ciphertext: &str, event_id: &str) -> Opened {
        let Ok(message) = vodozemac::megolm::MegolmMessage::from_base64(ciphertext) else {
            return Opened::Undecryptable;
        };
        let Ok(decrypted) = self.session.decrypt(&message) else {
            return Opened::Undecryptable;
        };
        match self.seen.get(&decrypted.message_index) {
            None if decrypted.message_index < self.floor => return Opened::Replayed,
            Some(other) if other != event_id => return Opened::Replayed,
            Some(_) => {}
            None => {
                self.seen.insert(decrypted.message_index, event_id.to_owned());
                if self.seen.len() > MAX_SEEN
                    && let Some((forgotten, _)) = self.seen.pop_first()
                {
                    self.floor = forgotten.saturating_add(1);
                }
            }
        }
        Opened::Plaintext(decrypted.plaintext)
    }
}
