//! Joining.

use std::sync::Arc;

use matron_room::{JoinRule, Membership};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};

use crate::{
    Core, Error,
    rooms::{Room, join_rules::JoinRules, room::Inner, send::NewEvent},
};

#[derive(Clone, Debug, Default)]
pub struct JoinOptions {
    /// Servers to try, if this one is not in the room.
    pub via: Vec<OwnedServerName>,
    /// Why, for the others to read.
    pub reason: Option<String>,
    /// The client's proof that the user has an address that was invited.
    pub third_party_signed: Option<Value>,
    /// What the member event says beside, instead of the profile.
    pub content: serde_json::Map<String, Value>,
}

impl Core {
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
        self.check_room_not_blocked(room_id)?;
        if let Some(signed) = &options.third_party_signed {
            self.accept_proof_of_address(user, room_id, signed).await?;
        }
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
        let rules: JoinRules = inner.state_content(self, "m.room.join_rules", "")?.unwrap_or_default();
        let restricted = matches!(rules.rule, Some(JoinRule::Restricted | JoinRule::KnockRestricted));
        if !restricted || !room.version().rules.authorization.restricted_join_rule {
            return Ok(JoinGate::Open);
        }
        let membership = inner.membership(self, user)?;
        if matches!(membership, Membership::Join | Membership::Invite) {
            return Ok(JoinGate::Open);
        }
        let mut unknown = false;
        let mut allowed = false;
        for allowed_room in rules.allowed_rooms() {
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
