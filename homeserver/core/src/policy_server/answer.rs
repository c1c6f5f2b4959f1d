//! `POST /_matrix/policy/v1/sign`: this server's word on events of rooms that name it as their policy server.

use std::sync::Arc;

use matron_room::{ContentState, Pdu, RoomVersion, UncheckedPdu};
use matron_storage::Batch;
use ruma::{OwnedEventId, OwnedRoomId, ServerName};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{KEY_ID, is_exempt};
use crate::{
    Core, Error,
    governance::RemoteVerdict,
    rooms::{Room, StateKey, Status},
};

/// How long a recommendation is repeated without judging anew, ms.
const PERMIT_MS: u64 = 10 * 60_000;
/// How long a refusal is, ms: the fact that was missing may arrive.
const REFUSAL_MS: u64 = 30_000;
/// How many questions a server may ask at once, and how many more each second.
const BURST: u64 = 500;
const PER_SECOND: u64 = 100;
/// How many servers are counted.
const MAX_COUNTED: usize = 2_048;

/// What was answered about an event.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    /// The signature, or why there is none.
    answer: Result<String, &'static str>,
    /// Until when that holds, ms.
    until_ms: u64,
    /// The state of the rules that it was judged by.
    rules: Rules,
}

/// The state of the deployment's rules, and the event that holds the room's own.
type Rules = (u64, Option<Arc<OwnedEventId>>);

/// What is said of an event that was asked about.
enum Judged {
    Permitted(Pdu),
    /// Why not.
    Refused(&'static str),
    /// It is not the event that its id stands for, and says nothing about that: somebody altered it, or took its signatures.
    Forged(&'static str),
}

/// How much a server may still ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    left: u64,
    at_ms: u64,
}

#[derive(Deserialize)]
struct Place {
    room_id: Option<OwnedRoomId>,
    content: Option<Create>,
}

/// What a create event says of the version; in others it says nothing.
#[derive(Default, Deserialize)]
struct Create {
    room_version: Option<Value>,
}

/// The room that the event belongs to: that of a create event may follow from its hash.
fn room_of(raw: &RawValue) -> Result<Option<OwnedRoomId>, Error> {
    let place: Place = serde_json::from_str(raw.get()).map_err(|_| Error::bad_json("this is no event"))?;
    if place.room_id.is_some() {
        return Ok(place.room_id);
    }
    let version = place.content.unwrap_or_default().room_version;
    let version = version.as_ref().and_then(Value::as_str).and_then(RoomVersion::find);
    let founding = version.filter(|version| version.has_hashed_room_id());
    let founding = founding.and_then(|version| UncheckedPdu::parse(raw, version).ok());
    Ok(founding.map(|create| create.room_id().to_owned()))
}

impl Core {
    /// This server's signature of the event, which says that the room's policy permits it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a room that is not known here or names another policy server, and for a server that is neither
    /// in it nor within its bounds; 400 `M_FORBIDDEN` for an event that is refused; [`Error::BadJson`] for one that is none;
    /// [`Error::Forbidden`] for a server that the room's access control list keeps out; [`Error::LimitExceeded`];
    /// [`Error::Store`].
    pub async fn sign_for_room(self: &Arc<Self>, origin: &ServerName, raw: &RawValue) -> Result<Value, Error> {
        self.take_policy_turn(origin)?;
        let unknown = || Error::not_found("this room is not known here, or has another policy server");
        let room = self.find_room(&room_of(raw)?.ok_or_else(unknown)?)?.ok_or_else(unknown)?;
        let (server, rules) = {
            let mut inner = room.lock();
            let server = self.policy_server_in(&mut inner)?.filter(|server| self.is_local(&server.via));
            let server = server.ok_or_else(unknown)?;
            let is_outside = inner.servers.get(origin).is_none_or(|joined| *joined == 0)
                && self.servers_within(&mut inner, std::iter::once(origin))?.is_empty();
            if is_outside {
                return Err(unknown());
            }
            let of_room = inner.current.get(&StateKey::new(matron_policy::ROOM_POLICY_TYPE, "")).cloned();
            (server, (self.rules().generation, of_room))
        };
        self.check_server_acl(&room, origin)?;
        let unchecked = UncheckedPdu::parse(raw, room.version()).map_err(|error| Error::bad_json(error.to_string()))?;
        let now_ms = self.now_ms();
        let id = unchecked.event_id().to_owned();
        let known = self.policy_server.answered.lock().get(&id).cloned();
        let known = known.filter(|known| known.until_ms > now_ms && known.rules == rules);
        let answer = match known {
            Some(known) => known.answer,
            None => {
                let (answer, lifetime_ms) = match self.judge_for_signature(&room, unchecked).await? {
                    Judged::Permitted(pdu) => {
                        let signature = pdu.signature_by(&self.policy_server.key);
                        (Ok(signature.map_err(|error| Error::internal(error.to_string()))?), PERMIT_MS)
                    }
                    Judged::Refused(sentence) => (Err(sentence), REFUSAL_MS),
                    Judged::Forged(sentence) => return Err(refused(sentence)),
                };
                let answered = Answered { answer: answer.clone(), until_ms: now_ms.saturating_add(lifetime_ms), rules };
                self.policy_server.answered.lock().put(id, answered);
                answer
            }
        };
        match answer {
            Ok(signature) => Ok(json!({ server.via: { KEY_ID: signature } })),
            Err(sentence) => Err(refused(sentence)),
        }
    }

    /// The event, if policy permits it; else why not.
    async fn judge_for_signature(self: &Arc<Self>, room: &Arc<Room>, unchecked: UncheckedPdu) -> Result<Judged, Error> {
        if unchecked.room_id() != room.id() {
            return Ok(Judged::Forged("the event is of another room"));
        }
        if is_exempt(unchecked.unverified()) {
            return Ok(Judged::Forged("the event that names the policy server is not for it to sign"));
        }
        let keys = self.keys_for_event(&unchecked).await?;
        let pdu = match unchecked.verify(&keys) {
            Ok(signed) if signed.content() == ContentState::Intact => signed.into_pdu(),
            Ok(_) => return Ok(Judged::Forged("the event is not what was hashed")),
            Err(_) => return Ok(Judged::Forged("the event is not signed by its sender's server")),
        };
        // What users of this server said here was permitted when they did: history from before the room named a policy server.
        let is_ours = self.is_local_user(pdu.sender()) && !pdu.room_version().has_event_id_field();
        if is_ours && self.load_event(pdu.event_id())?.is_some_and(|known| known.record.status == Status::Accepted) {
            return Ok(Judged::Permitted(pdu));
        }
        let mut batch = Batch::new();
        let (verdict, recorded) = {
            let mut inner = room.lock();
            let judged = self.judge_remote(room, &mut inner, &pdu)?;
            let verdict = judged.verdict();
            let recorded = if verdict == RemoteVerdict::Permit {
                None
            } else {
                // A refusal is in the audit log before anyone hears of it.
                let permit = judged.into_permit();
                permit.write(&mut batch)?;
                let pending = self.store.submit(batch);
                permit.submitted();
                Some(pending)
            };
            (verdict, recorded)
        };
        if let Some(recorded) = recorded {
            recorded.await?;
        }
        Ok(match verdict {
            RemoteVerdict::Permit => Judged::Permitted(pdu),
            RemoteVerdict::Withhold => Judged::Refused("the room's policy refuses this event"),
            RemoteVerdict::Hold => Judged::Refused("a fact that the room's policy needs is missing"),
        })
    }

    fn take_policy_turn(&self, origin: &ServerName) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let mut turns = self.policy_server.turns.lock();
        if turns.len() >= MAX_COUNTED && !turns.contains_key(origin) {
            // Who has asked nothing for so long that all its turns are back need not be counted.
            turns.retain(|_, turn| now_ms.saturating_sub(turn.at_ms) < BURST / PER_SECOND * 1_000);
            if turns.len() >= MAX_COUNTED {
                return Err(Error::LimitExceeded { retry_after_ms: 1_000 });
            }
        }
        let turn = turns.entry(origin.to_owned()).or_insert(Turns { left: BURST, at_ms: now_ms });
        let back = now_ms.saturating_sub(turn.at_ms).saturating_mul(PER_SECOND) / 1_000;
        if back > 0 {
            turn.left = turn.left.saturating_add(back).min(BURST);
            turn.at_ms = now_ms;
        }
        if turn.left == 0 {
            return Err(Error::LimitExceeded { retry_after_ms: 1_000 });
        }
        turn.left -= 1;
        Ok(())
    }
}

fn refused(sentence: &'static str) -> Error {
    Error::Custom { status: 400, errcode: "M_FORBIDDEN", message: sentence.into() }
}
