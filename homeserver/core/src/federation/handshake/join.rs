//! Joining a room through a server that is in it.

use std::sync::Arc;

use matron_room::{ContentState, Membership, Pdu, RoomVersion, UncheckedPdu};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::Instrument as _;

use super::{may_ask_others, worse};
use crate::{
    Core, Error,
    federation::{
        client::{JoinedRoom, passed_on},
        fetch::MAX_EVENTS,
        receive::Received,
    },
    rooms::{Room, Status, membership::JoinOptions},
};

#[derive(Deserialize)]
struct CreateContent {
    room_version: Option<String>,
}

/// A join that other servers must help with.
struct Handshake {
    user: OwnedUserId,
    room_id: OwnedRoomId,
    /// Whom to ask.
    servers: Vec<OwnedServerName>,
    options: JoinOptions,
}

/// How a handshake ended well.
enum Joined {
    /// The user is joined.
    ThroughOthers,
    /// Another user's handshake brought the room meanwhile: the join is like any other.
    NeedsNoOthers,
}

impl Core {
    /// The user is joined to a room through another server: one that this server was not in, or one whose members
    /// here cannot vouch for the user.
    ///
    /// # Errors
    /// [`Error::NotFound`] without a server to ask; what the servers answered otherwise.
    pub(crate) async fn join_remote_room(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        options: JoinOptions,
    ) -> Result<OwnedRoomId, Error> {
        let servers = self.handshake_servers(user, room_id, &options.via)?;
        self.permit_remote_join(user, room_id, Membership::Join).await?;
        let handshake = Handshake { user: user.to_owned(), room_id: room_id.to_owned(), servers, options };
        let options = handshake.options.clone();
        // INVARIANT: this ends even if whoever waits for it goes away, as a client does that hangs up: the other server takes
        // the user for joined, and this one must have the room then.
        let core = Arc::clone(self);
        let joining = tokio::spawn(async move { core.shake_hands(handshake).await }.in_current_span());
        match joining.await.map_err(|_| Error::internal("a join ended badly"))?? {
            Joined::ThroughOthers => Ok(room_id.to_owned()),
            Joined::NeedsNoOthers => {
                // What the room says of guests is known only now.
                self.check_user_admitted(user, room_id)?;
                Box::pin(self.join_room(user, room_id, options)).await
            }
        }
    }

    async fn shake_hands(self: &Arc<Self>, handshake: Handshake) -> Result<Joined, Error> {
        let Handshake { user, room_id, servers, options } = handshake;
        let was_in_room = self.room_of_ours(&room_id)?.is_some();
        let turn = self.handshake_turn(&room_id);
        let _held = turn.lock().await;
        if !was_in_room && self.room_of_ours(&room_id)?.is_some() {
            return Ok(Joined::NeedsNoOthers);
        }
        // What was permitted may not be any more when others were before it.
        self.permit_remote_join(&user, &room_id, Membership::Join).await?;
        let mut refusal = None;
        for server in servers {
            match self.join_through(&server, &user, &room_id, &options).await.map_err(passed_on) {
                Ok(()) => {
                    self.forget_stripped(&user, &room_id).await?;
                    return Ok(Joined::ThroughOthers);
                }
                Err(error) if may_ask_others(&error) => {
                    tracing::debug!(room.id = %room_id, peer.name = %server, %error, "a server did not let a user in");
                    refusal = Some(worse(refusal, error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(refusal.unwrap_or_else(|| Error::not_found("no server is known that has this room")))
    }

    /// The room, if this server is in it.
    pub(crate) fn room_of_ours(&self, room_id: &RoomId) -> Result<Option<Arc<Room>>, Error> {
        Ok(self.find_room(room_id)?.filter(|room| room.has_server(&self.server_name)))
    }

    async fn join_through(
        self: &Arc<Self>,
        server: &ServerName,
        user: &UserId,
        room_id: &RoomId,
        options: &JoinOptions,
    ) -> Result<(), Error> {
        let template = self.fetch_template(server, Membership::Join, room_id, user).await?;
        let content = self.member_content(user, Membership::Join, options.reason.as_deref())?;
        let join = self.seal_membership(&template, user, room_id, content)?;
        let mut answer = self.send_join(server, &join).await?;
        let join = self.countersigned(join, answer.event.take()).await?;
        match self.room_of_ours(room_id)? {
            Some(room) => self.take_join(server, &room, join).await,
            None => {
                let taken = self.take_room(room_id, join, answer).await;
                if let Err(Error::GuestForbidden) = &taken
                    && let Err(error) = self.leave_at_once(server, user, room_id).await
                {
                    tracing::warn!(room.id = %room_id, peer.name = %server, %error, "a guest who may not stay could not leave");
                }
                taken
            }
        }
    }

    /// The join with every signature that it needs.
    async fn countersigned(&self, ours: Pdu, theirs: Option<Box<RawValue>>) -> Result<Pdu, Error> {
        let version = ours.room_version();
        if let Some(theirs) = theirs.and_then(|raw| UncheckedPdu::parse(&raw, version).ok())
            && theirs.event_id() == ours.event_id()
            && theirs.room_id() == ours.room_id()
        {
            let keys = self.keys_for_event(&theirs).await?;
            match theirs.verify(&keys) {
                Ok(signed) if signed.content() == ContentState::Intact => return Ok(signed.into_pdu()),
                Ok(_) => {}
                Err(error) => tracing::debug!(event.id = %ours.event_id(), %error, "a countersigned join is ignored"),
            }
        }
        let again = UncheckedPdu::parse(ours.json(), version).map_err(|error| Error::internal(error.to_string()))?;
        if again.required_servers().iter().all(|server| self.is_local(server)) {
            return Ok(ours);
        }
        Err(Error::Peer("the other server did not sign the join that it authorised".into()))
    }

    /// The join is part of a room that this server is in already.
    async fn take_join(self: &Arc<Self>, server: &ServerName, room: &Arc<Room>, join: Pdu) -> Result<(), Error> {
        let turn = self.inbound.room_turn(room.id());
        let _turn = turn.lock().await;
        match self.receive_verified(server, room, join, true).await? {
            Received::Known | Received::Kept(Status::Accepted) => Ok(()),
            Received::Kept(_) => Err(Error::forbidden("the room as this server knows it does not let you in")),
        }
    }

    /// The room is this server's too, with the state that the other server gave, as far as it is signed.
    async fn take_room(self: &Arc<Self>, room_id: &RoomId, join: Pdu, answer: JoinedRoom) -> Result<(), Error> {
        if answer.members_omitted {
            return Err(Error::Peer("the other server gave only a part of the room".into()));
        }
        if answer.state.len().saturating_add(answer.auth_chain.len()) > MAX_EVENTS {
            // A part of a state is another one: it could lack the very rules that this server must hold.
            return Err(Error::Peer("the room is larger than this server takes".into()));
        }
        let version = join.room_version();
        let state_len = answer.state.len();
        let mut events = answer.state;
        events.extend(answer.auth_chain);
        let mut verified = self.verify_state(version, room_id, events).await?;
        let auth_chain: Vec<Pdu> = verified.split_off(state_len.min(verified.len())).into_iter().flatten().collect();
        let state: Vec<Pdu> = verified.into_iter().flatten().collect();
        check_state(&state, version)?;
        self.check_guest_stays(&join, &state)?;
        self.permit_joined_room(&join, &state).await?;
        let turn = self.inbound.room_turn(room_id);
        let _turn = turn.lock().await;
        self.import_joined_room(room_id, version, join, state, auth_chain).await?;
        Ok(())
    }
}

/// Nothing, if the state is one: of the version that was told, each piece once.
fn check_state(state: &[Pdu], version: &'static RoomVersion) -> Result<(), Error> {
    let create = state.iter().find(|pdu| pdu.is_state_of("m.room.create", ""));
    let create = create.ok_or_else(|| Error::Peer("the other server gave a room without its create event".into()))?;
    let content =
        create.content_as::<CreateContent>().map_err(|_| Error::Peer("the create event is malformed".into()))?;
    if content.room_version.as_deref().unwrap_or("1") != version.as_str() {
        return Err(Error::Peer("the other server lied about the room's version".into()));
    }
    let mut seen = std::collections::BTreeSet::new();
    for pdu in state {
        let Some(key) = pdu.state_key() else {
            return Err(Error::Peer("the other server gave as state what is none".into()));
        };
        if !seen.insert((pdu.kind(), key)) {
            return Err(Error::Peer("the other server gave one piece of state twice".into()));
        }
    }
    Ok(())
}
