//! Joining, leaving, inviting, kicking, banning, knocking, forgetting.

use std::{collections::BTreeSet, sync::Arc};

use matron_room::{JoinRule, Membership, Pdu};
use matron_storage::{Batch, CommitError, Key, Table};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Room, UserRoom,
    append::Append,
    room::Inner,
    send::NewEvent,
    state_map::{GroupId, StateKey},
};
use crate::{Core, Error};

/// What a client says beside the room when it joins or knocks.
#[derive(Clone, Debug, Default)]
pub struct JoinOptions {
    /// Servers to try, if this one is not in the room.
    pub via: Vec<OwnedServerName>,
    /// Why, for the others to read.
    pub reason: Option<String>,
    /// The client's proof of a third-party invite.
    pub third_party_signed: Option<Value>,
    /// What the member event says beside, instead of the profile.
    pub content: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
struct JoinRulesContent {
    join_rule: String,
    #[serde(default)]
    allow: Vec<AllowRule>,
}

#[derive(Deserialize)]
struct AllowRule {
    #[serde(rename = "type")]
    kind: String,
    room_id: Option<OwnedRoomId>,
}

impl Core {
    /// The content of a member event for a local user: membership, profile, credential.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn member_content(&self, user: &UserId, membership: Membership, reason: Option<&str>) -> Result<Value, Error> {
        let mut content = serde_json::Map::new();
        content.insert("membership".to_owned(), json!(membership.as_str()));
        if self.is_local_user(user) && matches!(membership, Membership::Join | Membership::Invite | Membership::Knock) {
            for field in ["displayname", "avatar_url"] {
                let value: Option<Value> = self.load(Table::UserProfile, &Key::new().text(user).text(field))?;
                if let Some(value) = value.filter(|value| !value.is_null()) {
                    content.insert(field.to_owned(), value);
                }
            }
            if membership != Membership::Invite
                && let Some(credential) = self.credential_content(user)?
            {
                content.insert(matron_policy::CREDENTIAL_FIELD.to_owned(), credential);
            }
        }
        if let Some(reason) = reason {
            content.insert("reason".to_owned(), json!(reason));
        }
        Ok(Value::Object(content))
    }

    /// The user is joined; nothing changes if already so. Gives the room's id.
    ///
    /// # Errors
    /// [`Error::Forbidden`] by the room's rules, [`Error::PolicyDenied`] by policy, [`Error::NotFound`] if no server
    /// that was named knows the room, [`Error::Peer`] if none could be reached.
    pub async fn join_room(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        options: JoinOptions,
    ) -> Result<OwnedRoomId, Error> {
        let Some(room) = self.find_room(room_id)?.filter(|room| room.has_server(&self.server_name)) else {
            return self.join_remote_room(user, room_id, options).await;
        };
        if room.joined().contains(user) {
            return Ok(room_id.to_owned());
        }
        let mut content = self.member_content(user, Membership::Join, options.reason.as_deref())?;
        if let Value::Object(content) = &mut content {
            const OURS: [&str; 3] = ["membership", "join_authorised_via_users_server", matron_policy::CREDENTIAL_FIELD];
            content.extend(options.content.clone().into_iter().filter(|(field, _)| !OURS.contains(&field.as_str())));
        }
        if let (Some(signed), Value::Object(content)) = (&options.third_party_signed, &mut content) {
            content.insert("third_party_invite".to_owned(), json!({"signed": signed}));
        }
        let gate = {
            let mut inner = room.lock();
            self.join_gate(&room, &mut inner, user)?
        };
        match gate {
            JoinGate::Open => {}
            JoinGate::Authorised(by) => {
                if let Value::Object(content) = &mut content {
                    content.insert("join_authorised_via_users_server".to_owned(), json!(by));
                }
            }
            JoinGate::AskOthers => return self.join_remote_room(user, room_id, options).await,
        }
        let new = NewEvent::state(room_id.to_owned(), user.to_owned(), "m.room.member", user.as_str(), content);
        self.send_event(new).await?;
        Ok(room_id.to_owned())
    }

    /// How the user may pass the join rules of a room that this server is in.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a user in none of the rooms that a restricted room allows.
    pub(crate) fn join_gate(&self, room: &Room, inner: &mut Inner, user: &UserId) -> Result<JoinGate, Error> {
        let rules: Option<JoinRulesContent> = inner.state_content(self, "m.room.join_rules", "")?;
        let Some(rules) = rules else { return Ok(JoinGate::Open) };
        let restricted =
            matches!(JoinRule::parse(&rules.join_rule), Some(JoinRule::Restricted | JoinRule::KnockRestricted));
        if !restricted || !room.version().rules.authorization.restricted_join_rule {
            return Ok(JoinGate::Open);
        }
        let membership = inner.membership(self, user)?;
        if matches!(membership, Membership::Join | Membership::Invite) {
            return Ok(JoinGate::Open);
        }
        let mut unknown = false;
        let mut allowed = false;
        for rule in rules.allow.iter().filter(|rule| rule.kind == "m.room_membership") {
            let Some(allowed_room) = &rule.room_id else { continue };
            match self.find_room(allowed_room)? {
                Some(other) if other.has_server(&self.server_name) => allowed |= other.joined().contains(user),
                _ => unknown = true,
            }
        }
        if !allowed {
            return if unknown && !self.is_local_user(user) {
                Err(Error::UnableToAuthoriseJoin("this server cannot tell whether you may join".into()))
            } else if unknown {
                Ok(JoinGate::AskOthers)
            } else {
                Err(Error::forbidden("you are in none of the rooms whose members may join"))
            };
        }
        // A local member with the power to invite vouches.
        let levels = inner.power_levels(self)?;
        let voucher = inner
            .joined
            .iter()
            .filter(|member| self.is_local_user(member))
            .find(|member| levels.can_invite(member))
            .cloned();
        match voucher {
            Some(voucher) => Ok(JoinGate::Authorised(voucher)),
            None if self.is_local_user(user) => Ok(JoinGate::AskOthers),
            None => Err(Error::UnableToGrantJoin("no member of this server may invite".into())),
        }
    }

    /// The user has left, or has refused the invite or withdrawn the knock.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if banned or never there; [`Error::NotFound`].
    pub async fn leave_room(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        let in_room = self.find_room(room_id)?.is_some_and(|room| room.has_server(&self.server_name));
        let standing = self.standing(user, room_id)?;
        match standing.as_ref().map(|standing| standing.membership) {
            None => return Err(Error::not_found("you are not in this room")),
            Some(Membership::Leave) => return Ok(()),
            Some(Membership::Ban) => return Err(Error::forbidden("you are banned from this room")),
            Some(Membership::Join | Membership::Invite | Membership::Knock) => {}
        }
        if !in_room {
            return self.leave_remote_room(user, room_id, reason).await;
        }
        let content = self.member_content(user, Membership::Leave, reason)?;
        self.send_event(NewEvent::state(room_id.to_owned(), user.to_owned(), "m.room.member", user.as_str(), content))
            .await?;
        Ok(())
    }

    /// The invitee is invited, on whatever server.
    ///
    /// # Errors
    /// [`Error::Forbidden`] by the room's rules, [`Error::PolicyDenied`] by policy, [`Error::Peer`] if the
    /// invitee's server cannot be reached or refuses.
    pub async fn invite(
        self: &Arc<Self>,
        sender: &UserId,
        room_id: &RoomId,
        invitee: &UserId,
        reason: Option<&str>,
        is_direct: bool,
    ) -> Result<(), Error> {
        let mut content = self.member_content(invitee, Membership::Invite, reason)?;
        if let (true, Value::Object(content)) = (is_direct, &mut content) {
            content.insert("is_direct".to_owned(), json!(true));
        }
        self.set_membership(sender, room_id, invitee, content).await.map(drop)
    }

    /// The user's membership is what the content says, set by the sender: invite, kick, ban, unban, or a change
    /// of one's own. What `PUT /state/m.room.member` does.
    ///
    /// # Errors
    /// As for each of them.
    pub async fn set_membership(
        self: &Arc<Self>,
        sender: &UserId,
        room_id: &RoomId,
        target: &UserId,
        content: Value,
    ) -> Result<OwnedEventId, Error> {
        let room = self.open_room(room_id)?;
        self.require_joined(&room, sender)?;
        let content = self.with_own_credential(sender, target, content)?;
        let new = NewEvent::state(room_id.to_owned(), sender.to_owned(), "m.room.member", target.as_str(), content);
        let invites = new.content.get("membership").and_then(Value::as_str) == Some("invite");
        if !invites {
            return self.send_event(new).await;
        }
        if self.is_local_user(target) {
            if !self.ask_for_user(target).await? {
                tracing::debug!("an invite names a local user without an account");
            }
            return self.send_event(new).await;
        }
        self.invite_remote(&room, new, target).await
    }

    /// A joined user was removed, an invite or knock refused.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the target is not there, or by the power levels.
    pub async fn kick(
        self: &Arc<Self>,
        sender: &UserId,
        room_id: &RoomId,
        target: &UserId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        let room = self.open_room(room_id)?;
        self.require_joined(&room, sender)?;
        let membership = room.lock().membership(self, target)?;
        if !matches!(membership, Membership::Join | Membership::Invite | Membership::Knock) {
            return Err(Error::forbidden("this user is not in the room"));
        }
        self.send_event(self.removal(sender, room_id, target, Membership::Leave, reason)).await.map(drop)
    }

    /// The user is banned.
    ///
    /// # Errors
    /// [`Error::Forbidden`] by the power levels.
    pub async fn ban(
        self: &Arc<Self>,
        sender: &UserId,
        room_id: &RoomId,
        target: &UserId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        let room = self.open_room(room_id)?;
        self.require_joined(&room, sender)?;
        self.send_event(self.removal(sender, room_id, target, Membership::Ban, reason)).await.map(drop)
    }

    /// The user is banned no more.
    ///
    /// # Errors
    /// [`Error::Forbidden`] by the power levels; [`Error::BadState`] if the user is not banned.
    pub async fn unban(
        self: &Arc<Self>,
        sender: &UserId,
        room_id: &RoomId,
        target: &UserId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        let room = self.open_room(room_id)?;
        self.require_joined(&room, sender)?;
        let membership = room.lock().membership(self, target)?;
        if membership != Membership::Ban {
            return Err(Error::BadState("this user is not banned".into()));
        }
        self.send_event(self.removal(sender, room_id, target, Membership::Leave, reason)).await.map(drop)
    }

    fn removal(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        target: &UserId,
        membership: Membership,
        reason: Option<&str>,
    ) -> NewEvent {
        let mut content = json!({"membership": membership.as_str()});
        if let (Some(reason), Value::Object(content)) = (reason, &mut content) {
            content.insert("reason".to_owned(), json!(reason));
        }
        let mut new = NewEvent::state(room_id.to_owned(), sender.to_owned(), "m.room.member", target.as_str(), content);
        if !self.is_local_user(target) {
            new.also_to.insert(target.server_name().to_owned());
        }
        new
    }

    /// The user knocks.
    ///
    /// # Errors
    /// [`Error::Forbidden`] by the room's rules or policy.
    pub async fn knock(
        self: &Arc<Self>,
        user: &UserId,
        room_id: &RoomId,
        options: JoinOptions,
    ) -> Result<OwnedRoomId, Error> {
        let Some(room) = self.find_room(room_id)?.filter(|room| room.has_server(&self.server_name)) else {
            return self.knock_remote_room(user, room_id, options).await;
        };
        match room.lock().membership(self, user)? {
            Membership::Join => return Err(Error::forbidden("you are in the room already")),
            Membership::Invite => return Err(Error::forbidden("you are invited already")),
            Membership::Ban => return Err(Error::forbidden("you are banned from this room")),
            Membership::Leave | Membership::Knock => {}
        }
        let content = self.member_content(user, Membership::Knock, options.reason.as_deref())?;
        self.send_event(NewEvent::state(room_id.to_owned(), user.to_owned(), "m.room.member", user.as_str(), content))
            .await?;
        Ok(room_id.to_owned())
    }

    /// The room is out of the user's sight; possible once the user has left.
    ///
    /// # Errors
    /// [`Error::Unknown`] if the user has not left.
    pub async fn forget_room(&self, user: &UserId, room_id: &RoomId) -> Result<(), Error> {
        let Some(standing) = self.standing(user, room_id)? else { return Ok(()) };
        if !matches!(standing.membership, Membership::Leave | Membership::Ban) {
            return Err(Error::Unknown("leave the room before you forget it".into()));
        }
        let mut batch = Batch::new();
        let index = batch.reserve_position();
        self.write_standing(&mut batch, room_id, user, &UserRoom { forgotten: true, ..standing }, index)?;
        batch.delete_range(Table::RoomNotification, Key::new().text(user).text(room_id).prefix());
        self.commit(batch).await?;
        self.rooms.forget_user(user);
        Ok(())
    }

    /// Nothing, if the user is joined.
    ///
    /// # Errors
    /// [`Error::Forbidden`] otherwise.
    pub fn require_joined(&self, room: &Room, user: &UserId) -> Result<(), Error> {
        if room.lock().joined.contains(user) {
            return Ok(());
        }
        Err(Error::forbidden("you are not in this room"))
    }

    /// The state that an invited or knocking user may see, as full events.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn stripped_state_events(&self, inner: &mut Inner) -> Result<Vec<Pdu>, Error> {
        const SHOWN: [&str; 8] = [
            "m.room.create",
            "m.room.join_rules",
            "m.room.canonical_alias",
            "m.room.name",
            "m.room.topic",
            "m.room.avatar",
            "m.room.encryption",
            "org.matron.room.policy",
        ];
        let mut events = Vec::new();
        for kind in SHOWN {
            events.extend(inner.state_pdu(self, kind, "")?);
        }
        Ok(events)
    }

    async fn invite_remote(
        self: &Arc<Self>,
        room: &Arc<Room>,
        new: NewEvent,
        target: &UserId,
    ) -> Result<OwnedEventId, Error> {
        let (pdu, state_before, stripped) = {
            let sealed = {
                let mut inner = room.lock();
                match self.permit_local(room, &mut inner, &new) {
                    Err(refusal) => Err(refusal),
                    Ok(_asked_again_at_the_commit) => self
                        .seal_local(room, &mut inner, &new)
                        .and_then(|pdu| self.authorise(&mut inner, &pdu).map(|()| pdu))
                        .and_then(|pdu| {
                            let mut stripped = self.stripped_state_events(&mut inner)?;
                            stripped.extend(inner.state_pdu(self, "m.room.member", new.sender.as_str())?);
                            Ok((pdu, GroupId(inner.head.group.0), stripped))
                        })
                        .map_err(Into::into),
                }
            };
            match sealed {
                Ok(sealed) => sealed,
                Err(refusal) => return Err(refusal.recorded().await),
            }
        };
        // The invitee's server signs before anyone else sees the invite.
        let signed = self.send_invite_to_server(&pdu, &stripped, target.server_name()).await?;
        let appended = {
            let mut inner = room.lock();
            self.append_sealed(room, &mut inner, &new, signed, state_before)
        };
        let appending = match appended {
            Ok(appending) => appending,
            Err(refusal) => return Err(refusal.recorded().await),
        };
        match self.finish_append(appending).await {
            Ok(event) => Ok(event.id().to_owned()),
            Err(CommitError::Conflict(_)) => Err(Error::LimitExceeded { retry_after_ms: 500 }),
            Err(error) => Err(error.into()),
        }
    }

    /// An event that was sealed before is on its way, if it still may be.
    pub(super) fn append_sealed(
        &self,
        room: &Arc<Room>,
        inner: &mut Inner,
        new: &NewEvent,
        pdu: Pdu,
        state_before: GroupId,
    ) -> Result<super::append::Appending, crate::governance::Refusal> {
        self.authorise(inner, &pdu)?;
        let permit = self.permit_local(room, inner, new)?;
        let mut after = inner.current.clone();
        if let Some(key) = pdu.state_key() {
            after.insert(StateKey::new(pdu.kind(), key), Arc::new(pdu.event_id().to_owned()));
        }
        let mut item = Append::local(pdu, state_before, Some(after));
        permit.write(&mut item.with)?;
        let appending = self.append(room, inner, item)?;
        permit.submitted();
        Ok(appending)
    }

    /// The member events of a user follow the profile, in every joined room.
    ///
    /// # Errors
    /// [`Error::Store`]; a room that refuses is left as it is.
    pub async fn update_membership_profiles(self: &Arc<Self>, user: &UserId) -> Result<(), Error> {
        for room_id in self.joined_rooms(user)? {
            let content = self.member_content(user, Membership::Join, None)?;
            let new = NewEvent::state(room_id.clone(), user.to_owned(), "m.room.member", user.as_str(), content);
            if let Err(error) = self.send_event(new).await {
                tracing::debug!(room.id = %room_id, %error, "a room keeps the old profile");
            }
        }
        Ok(())
    }

    /// What follows from changed memberships, after the commit: device lists, waiting invites, evictions.
    pub(crate) async fn membership_changed(self: &Arc<Self>, room: &Arc<Room>, affected: &[OwnedUserId]) {
        for user in affected {
            let joined = room.lock().joined.contains(user);
            if let Err(error) = self.device_lists_after_membership(room.id(), user, joined).await {
                tracing::warn!(room.id = %room.id(), %error, "device lists could not follow a membership");
            }
            if joined
                && self.is_local_user(user)
                && let Err(error) = self.follow_upgrade(user, room).await
            {
                tracing::warn!(room.id = %room.id(), %error, "a user's settings could not follow a room's upgrade");
            }
        }
    }

    /// The servers that may know of a room of which this server only has the id.
    #[must_use]
    pub fn candidate_servers(
        &self,
        room_id: &RoomId,
        via: &[OwnedServerName],
        standing: Option<&UserRoom>,
    ) -> Vec<OwnedServerName> {
        let mut seen = BTreeSet::new();
        via.iter()
            .cloned()
            .chain(standing.and_then(|standing| standing.sender.as_ref()).map(|sender| sender.server_name().to_owned()))
            .chain(room_id.server_name().map(ToOwned::to_owned))
            .filter(|server| *server != self.server_name && seen.insert(server.clone()))
            .collect()
    }
}

/// How a user may pass the join rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinGate {
    /// As the rules stand; the authorisation rules have the last word.
    Open,
    /// As a member of an allowed room, vouched for by this local member.
    Authorised(OwnedUserId),
    /// Another server must vouch.
    AskOthers,
}
