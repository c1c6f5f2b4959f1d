//! Handshakes: how users come into, stay out of and leave rooms of other servers.
//!
//! As the side that asks: [`join`], [`leave`], [`knock`], [`invite_out`]. As the resident side: [`template`],
//! [`accept`], [`third_party`]. As the invitee's side: [`invite_in`], and [`outside`] for what happens to an invite or a knock
//! afterwards. [`stripped`] keeps what is known of rooms that this server is not in.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms> and the sections that follow it.

mod accept;
mod invite_in;
mod invite_out;
mod join;
mod knock;
mod leave;
mod outside;
mod stripped;
mod template;
mod third_party;

pub use accept::{JoinAnswer, KnockAnswer};
pub use invite_in::{IncomingInvite, SignedInvite};
pub(crate) use stripped::OutsideStanding;
pub use template::RoomTemplate;
pub use third_party::{BoundThirdParty, PendingInvite, ThirdPartyExchange};

use std::sync::Arc;

use matron_room::{DraftPdu, FormatError, Membership, Pdu, RoomVersion, SignatureError, TemplateError};
use ruma::{OwnedServerName, RoomId, ServerName, UserId};
use serde_json::Value;

use crate::{Core, Error, federation::client::Template};

/// How many servers are asked before a handshake is given up.
const MAX_SERVERS: usize = 8;

impl Core {
    /// What a handshake with this room must hold: there is one at a time.
    fn handshake_turn(&self, room: &RoomId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.rooms.joining.lock();
        if turns.len() > 1024 {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(turns.entry(room.to_owned()).or_default())
    }

    /// The servers to ask, the likeliest first.
    ///
    /// # Errors
    /// [`Error::NotFound`] if none is known; [`Error::Forbidden`] if none may be spoken with; [`Error::Store`].
    fn handshake_servers(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
    ) -> Result<Vec<OwnedServerName>, Error> {
        let standing = self.standing(user, room_id)?;
        let mut servers = self.candidate_servers(room_id, via, standing.as_ref());
        if let Some(stripped) = self.load_stripped(user, room_id)? {
            servers.extend(stripped.servers);
        }
        if let Some(room) = self.find_room(room_id)? {
            servers.extend(room.servers());
        }
        let mut seen = std::collections::BTreeSet::new();
        servers.retain(|server| !self.is_local(server) && seen.insert(server.clone()));
        if servers.is_empty() {
            return Err(Error::not_found("no server is known that has this room"));
        }
        servers.retain(|server| self.peer_allowed(server));
        servers.truncate(MAX_SERVERS);
        if servers.is_empty() {
            return Err(Error::forbidden("this server may not speak with the servers of this room"));
        }
        Ok(servers)
    }

    /// The version of a room elsewhere, if users of ours may go there.
    ///
    /// # Errors
    /// [`Error::IncompatibleRoomVersion`].
    fn joinable_version(&self, version: &str) -> Result<&'static RoomVersion, Error> {
        self.settings
            .room_versions
            .iter()
            .find(|known| *known == version)
            .and_then(|known| RoomVersion::find(known))
            .ok_or_else(|| Error::IncompatibleRoomVersion { room_version: version.chars().take(32).collect() })
    }

    /// The user's own member event, completed from a peer's template, hashed and signed.
    ///
    /// # Errors
    /// [`Error::IncompatibleRoomVersion`]; [`Error::Peer`] for a template of something else.
    fn seal_membership(
        &self,
        template: &Template,
        user: &UserId,
        room_id: &RoomId,
        content: Value,
    ) -> Result<Pdu, Error> {
        // SPEC: v1.19 Server-Server API, make_join: a version that is not told is 1.
        let version = self.joinable_version(template.room_version.as_deref().unwrap_or("1"))?;
        let mut draft = DraftPdu::new(Some(room_id.to_owned()), user.to_owned(), "m.room.member", content)
            .with_state_key(user.as_str());
        draft.origin_server_ts_ms = self.now_ms();
        draft.seal_with_template(&template.event, version, &self.signing_key, &self.server_name).map_err(|error| {
            match error {
                TemplateError::Seal(error) => crate::rooms::send::seal_error(error),
                error => Error::Peer(error.to_string().into()),
            }
        })
    }
}

/// Why an event that another server hands to us is refused, as its format says.
///
/// The specification proposes `M_INVALID_PARAM` for an event that is not signed and demands nothing; servers in the field,
/// and their tests, expect `M_FORBIDDEN`.
fn format_error(error: &FormatError) -> Error {
    match error {
        FormatError::Missing { field: "signatures" | "hashes" } => Error::forbidden(error.to_string()),
        FormatError::TooLarge { .. } | FormatError::TooLong { .. } => Error::TooLarge(error.to_string().into()),
        FormatError::Canonical(_)
        | FormatError::Missing { .. }
        | FormatError::Malformed { .. }
        | FormatError::Superfluous { .. }
        | FormatError::CreateInAuthEvents => Error::bad_json(error.to_string()),
    }
}

/// As [`format_error`], for signatures.
fn signature_error(error: &SignatureError) -> Error {
    Error::forbidden(error.to_string())
}

/// Which refusal the user sees when every server refused: the one that says most.
fn worse(first: Option<Error>, second: Error) -> Error {
    let weight = |error: &Error| match error {
        Error::UnableToGrantJoin(_) => 5,
        Error::UnableToAuthoriseJoin(_) => 4,
        Error::Forbidden(_) | Error::PeerAnswer { .. } => 3,
        Error::NotFound(_) => 2,
        Error::Peer(_) => 1,
        _ => 9,
    };
    match first {
        Some(first) if weight(&first) >= weight(&second) => first,
        _ => second,
    }
}

/// Whether another server may have a better answer.
fn may_ask_others(error: &Error) -> bool {
    matches!(
        error,
        Error::Peer(_)
            | Error::NotFound(_)
            | Error::Forbidden(_)
            | Error::UnableToAuthoriseJoin(_)
            | Error::UnableToGrantJoin(_)
            | Error::PeerAnswer { .. }
    )
}

/// Nothing, if the event is the user's own membership as its handshake demands.
///
/// # Errors
/// [`Error::InvalidParam`], as the specification asks; [`Error::Forbidden`] for a user of another server.
fn check_own_membership(
    pdu: &Pdu,
    origin: &ServerName,
    room_id: &RoomId,
    event_id: &str,
    membership: Membership,
) -> Result<(), Error> {
    let refuse = |sentence: &'static str| Err(Error::invalid(sentence));
    if pdu.room_id() != room_id {
        return refuse("the event is of another room");
    }
    if pdu.event_id() != event_id {
        return refuse("the event has another id");
    }
    if pdu.kind() != "m.room.member" || pdu.membership_state() != Some(membership) {
        return refuse("the event is not of the membership that is asked for");
    }
    if pdu.sender().server_name() != origin {
        return Err(Error::forbidden("the event's sender is not a user of your server"));
    }
    if pdu.state_key() != Some(pdu.sender().as_str()) {
        return refuse("the event concerns another user than its sender");
    }
    Ok(())
}
