//! The requests of handshakes, typed: each one a signed request with a time-out and a bound on its answer.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>.

use std::time::Duration;

use matron_room::{Membership, Pdu};
use ruma::{OwnedServerName, RoomId, ServerName, UserId};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json, value::RawValue};

use super::fetch::{MAX_STATE_BYTES, encode};
use crate::{Core, Error, ports::http_method::Method};

/// How long a template may take.
const TEMPLATE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a resident server may take to accept a join and give the room.
const JOIN_TIMEOUT: Duration = Duration::from_secs(120);
/// How long any other step may take.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that holds one event and a few pieces of state, bytes.
const MAX_SMALL_BYTES: usize = 4 * 1024 * 1024;

/// What `make_join`, `make_leave` and `make_knock` answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Template {
    /// The event without hashes and signatures.
    pub event: Box<RawValue>,
    /// The room's version.
    pub room_version: Option<String>,
}

/// What `send_join` answers.
#[derive(Debug, Deserialize)]
pub(crate) struct JoinedRoom {
    /// The state before the join.
    #[serde(default)]
    pub state: Vec<Box<RawValue>>,
    /// What authorises the join and the state.
    #[serde(default)]
    pub auth_chain: Vec<Box<RawValue>>,
    /// The join with the resident server's signature.
    pub event: Option<Box<RawValue>>,
    /// Whether member events were left out: we never ask for that.
    #[serde(default)]
    pub members_omitted: bool,
}

#[derive(Deserialize)]
struct KnockedRoom {
    #[serde(default)]
    knock_room_state: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct SignedInvite {
    event: Box<RawValue>,
}

/// The verb of a membership's handshake.
fn verb(membership: Membership) -> &'static str {
    match membership {
        Membership::Knock => "knock",
        Membership::Leave | Membership::Ban => "leave",
        Membership::Join | Membership::Invite => "join",
    }
}

/// Whether an endpoint of version 2 is unknown to the server, so that version 1 is tried.
fn is_unknown_endpoint(error: &Error) -> bool {
    match error {
        Error::PeerAnswer { status: 404 | 405, body } => {
            !matches!(body.get("errcode").and_then(Value::as_str), Some("M_NOT_FOUND" | "M_FORBIDDEN"))
        }
        Error::PeerAnswer { status: 400, body } => {
            body.get("errcode").and_then(Value::as_str) == Some("M_UNRECOGNIZED")
        }
        _ => false,
    }
}

impl Core {
    /// The template of an event with which the user changes the own membership, from a server in the room.
    ///
    /// # Errors
    /// [`Error::Peer`], [`Error::PeerAnswer`].
    pub(crate) async fn fetch_template(
        &self,
        server: &ServerName,
        membership: Membership,
        room: &RoomId,
        user: &UserId,
    ) -> Result<Template, Error> {
        let mut path = format!(
            "/_matrix/federation/v1/make_{}/{}/{}",
            verb(membership),
            encode(room.as_str()),
            encode(user.as_str())
        );
        if membership != Membership::Leave {
            let versions = self.settings.room_versions.iter().map(|version| format!("ver={}", encode(version)));
            path.push('?');
            path.push_str(&versions.collect::<Vec<_>>().join("&"));
        }
        self.peer_get(server, path, TEMPLATE_TIMEOUT, MAX_SMALL_BYTES).await
    }

    /// The join is handed to a server in the room, which gives the room's state.
    ///
    /// # Errors
    /// [`Error::Peer`], [`Error::PeerAnswer`].
    pub(crate) async fn send_join(&self, server: &ServerName, join: &Pdu) -> Result<JoinedRoom, Error> {
        let ids = path_of(join);
        let body = body_of(join)?;
        let path = format!("/_matrix/federation/v2/send_join/{ids}?omit_members=false");
        let answer = self.peer_json(server, Method::Put, path, Some(body.clone()), JOIN_TIMEOUT, MAX_STATE_BYTES).await;
        match answer {
            Err(error) if is_unknown_endpoint(&error) => {
                let path = format!("/_matrix/federation/v1/send_join/{ids}");
                let answer: (IgnoredAny, JoinedRoom) =
                    self.peer_json(server, Method::Put, path, Some(body), JOIN_TIMEOUT, MAX_STATE_BYTES).await?;
                Ok(answer.1)
            }
            answer => answer,
        }
    }

    /// The leave is handed to a server in the room.
    ///
    /// # Errors
    /// [`Error::Peer`], [`Error::PeerAnswer`].
    pub(crate) async fn send_leave(&self, server: &ServerName, leave: &Pdu) -> Result<(), Error> {
        let ids = path_of(leave);
        let body = body_of(leave)?;
        let path = format!("/_matrix/federation/v2/send_leave/{ids}");
        let answer: Result<IgnoredAny, Error> =
            self.peer_json(server, Method::Put, path, Some(body.clone()), STEP_TIMEOUT, MAX_SMALL_BYTES).await;
        match answer {
            Err(error) if is_unknown_endpoint(&error) => {
                let path = format!("/_matrix/federation/v1/send_leave/{ids}");
                let _answer: IgnoredAny =
                    self.peer_json(server, Method::Put, path, Some(body), STEP_TIMEOUT, MAX_SMALL_BYTES).await?;
                Ok(())
            }
            answer => answer.map(|_| ()),
        }
    }

    /// The knock is handed to a server in the room, which shows what someone who knocks may see.
    ///
    /// # Errors
    /// [`Error::Peer`], [`Error::PeerAnswer`].
    pub(crate) async fn send_knock(&self, server: &ServerName, knock: &Pdu) -> Result<Vec<Box<RawValue>>, Error> {
        let path = format!("/_matrix/federation/v1/send_knock/{}", path_of(knock));
        let answer: KnockedRoom =
            self.peer_json(server, Method::Put, path, Some(body_of(knock)?), STEP_TIMEOUT, MAX_SMALL_BYTES).await?;
        Ok(answer.knock_room_state)
    }

    /// The invite is shown to the invitee's server, which gives it back with its signature.
    ///
    /// # Errors
    /// [`Error::Peer`], [`Error::PeerAnswer`].
    pub(crate) async fn send_invite(
        &self,
        server: &ServerName,
        invite: &Pdu,
        room_state: &[Pdu],
    ) -> Result<Box<RawValue>, Error> {
        let ids = path_of(invite);
        let event = body_of(invite)?;
        let state = room_state.iter().map(body_of).collect::<Result<Vec<_>, Error>>()?;
        let body = json!({
            "room_version": invite.room_version().as_str(),
            "event": event,
            "invite_room_state": state,
        });
        let path = format!("/_matrix/federation/v2/invite/{ids}");
        let answer: Result<SignedInvite, Error> =
            self.peer_json(server, Method::Put, path, Some(body), STEP_TIMEOUT, MAX_SMALL_BYTES).await;
        match answer {
            Ok(answer) => Ok(answer.event),
            // SPEC: v1.19 Server-Server API, "Inviting to a room": only rooms of version 1 and 2 may use the first version.
            Err(Error::PeerAnswer { status: 400 | 404, .. }) if invite.room_version().has_event_id_field() => {
                let mut event = event;
                if let Value::Object(event) = &mut event {
                    event.insert("unsigned".to_owned(), json!({"invite_room_state": state}));
                }
                let path = format!("/_matrix/federation/v1/invite/{ids}");
                let answer: (IgnoredAny, SignedInvite) =
                    self.peer_json(server, Method::Put, path, Some(event), STEP_TIMEOUT, MAX_SMALL_BYTES).await?;
                Ok(answer.1.event)
            }
            Err(error) => Err(error),
        }
    }
}

/// A peer's refusal as our user may see it: what the specification says is passed on, and nothing else.
pub(crate) fn passed_on(error: Error) -> Error {
    let Error::PeerAnswer { status, body } = error else { return error };
    let text = |field: &str| body.get(field).and_then(Value::as_str);
    let sentence = || -> String {
        text("error").unwrap_or("the other server refused").chars().filter(|c| !c.is_control()).take(300).collect()
    };
    match (status, text("errcode")) {
        (400, Some("M_INCOMPATIBLE_ROOM_VERSION")) => {
            let room_version = text("room_version").unwrap_or_default().chars().take(32).collect();
            Error::IncompatibleRoomVersion { room_version }
        }
        (400 | 403, Some("M_UNABLE_TO_AUTHORISE_JOIN")) => Error::UnableToAuthoriseJoin(sentence().into()),
        (400 | 403, Some("M_UNABLE_TO_GRANT_JOIN")) => Error::UnableToGrantJoin(sentence().into()),
        (403, _) => Error::forbidden(sentence()),
        (404, _) => Error::not_found(sentence()),
        // What it says of our request concerns us, not the user.
        (400, Some("M_MISSING_PARAM" | "M_INVALID_PARAM" | "M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN") | None) => {
            Error::Peer("the other server did not understand".into())
        }
        (400, Some(errcode)) => {
            let errcode: String = errcode.chars().filter(|c| c.is_ascii_graphic()).take(100).collect();
            Error::PeerAnswer { status, body: Box::new(json!({"errcode": errcode, "error": sentence()})) }
        }
        _ => Error::Peer(format!("the other server answered {status}").into()),
    }
}

/// The servers in a list of names, as far as they are names; bounded.
pub(crate) fn server_names(names: &[Value]) -> Vec<OwnedServerName> {
    names.iter().filter_map(|name| name.as_str()?.try_into().ok()).take(100).collect()
}

fn path_of(pdu: &Pdu) -> String {
    format!("{}/{}", encode(pdu.room_id().as_str()), encode(pdu.event_id().as_str()))
}

fn body_of(pdu: &Pdu) -> Result<Value, Error> {
    serde_json::from_str(pdu.json().get()).map_err(|_| Error::internal("an event of ours is not JSON"))
}
