//! Evictions: whoever may not remain in a room is removed from it, soon after the facts change.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use matron_policy::{
    Action, AuditKind, Context, CredentialStatus, Fact, Outcome, Reason, ReasonCode, Request, Resource, decide_with,
};
use matron_room::{Membership, Pdu};
use matron_storage::{Batch, CommitError, Key, KeyRange, KeyReader, Order, Table};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::Value;

use super::facts::is_ordinary;
use crate::{Core, Error, house::from_json, rooms::Room};

/// How many rooms, or credentials, are looked at between two reads.
const PAGE: usize = 256;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rooms that have a policy.
    pub rooms: u64,
    /// Memberships that ended.
    pub evicted: u64,
    /// Local users who were logged out.
    pub logged_out: u64,
}

fn swept_key() -> Key {
    Key::new().text("governance").text("swept")
}

/// The rooms whose policy changed since their members were looked at.
fn moved_key() -> Key {
    Key::new().text("governance").text("moved")
}

impl Core {
    /// What the rooms were last swept by.
    fn sweep_mark(&self) -> String {
        let rules = self.rules();
        let register = rules.register.as_ref().map(|register| register.digest().to_string()).unwrap_or_default();
        let mark = format!("{register} {}", rules.revocations.len());
        if rules.ordinary {
            return mark;
        }
        // The deployment's own layers, as they are configured at this start.
        format!("{mark} {}", rules.policies.effective(&Fact::Absent).revision())
    }

    /// Whether facts changed since the rooms were swept last, also before this process began.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn sweep_is_due(&self) -> Result<bool, Error> {
        if self.governance.sweep_due.swap(false, Ordering::AcqRel) {
            return Ok(true);
        }
        let mark: Option<String> = self.load(Table::Misc, &swept_key())?;
        Ok(mark.unwrap_or_else(|| " 0".to_owned()) != self.sweep_mark())
    }

    /// Adds to the batch of an event that changes a room's policy that its members are to be looked at: a crash in
    /// between forgets nothing.
    pub(crate) fn write_moved_policy(&self, batch: &mut Batch, pdu: &Pdu) {
        batch.put(Table::Misc, moved_key().text(pdu.room_id()), pdu.event_id().as_bytes());
    }

    /// Whom a changed policy leaves no place is in none of the rooms whose policy changed.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn sweep_moved_rooms(self: &Arc<Self>) -> Result<(), Error> {
        let prefix = moved_key();
        let rows = self.store.scan(Table::Misc, &prefix.prefix(), Order::Ascending, PAGE)?;
        for (key, moved_by) in &rows {
            let rest = key.get(prefix.as_bytes().len()..).unwrap_or_default();
            let room_id = KeyReader::new(rest).text().and_then(|id| OwnedRoomId::try_from(id).ok());
            if let Some(room_id) = room_id {
                self.sweep_room(&room_id).await?;
            }
            // A policy that changed meanwhile has written its own event here, and stays.
            let mut batch = Batch::new();
            batch.expect_equals(Table::Misc, key.clone(), moved_by.clone());
            batch.delete(Table::Misc, key.clone());
            match self.store.submit(batch).await {
                Ok(_) | Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if rows.len() == PAGE {
            self.governance.follow();
        }
        Ok(())
    }

    /// Nobody who may not remain is in a room any more, as far as this server has the power to remove them.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn sweep_rooms(self: &Arc<Self>) -> Result<Swept, Error> {
        let since_ms = self.now_ms();
        let mark = self.sweep_mark();
        let mut swept = Swept { logged_out: self.log_out_revoked().await?, ..Swept::default() };
        let mut range = KeyRange::all();
        loop {
            let rows = self.store.scan(Table::RoomMeta, &range, Order::Ascending, PAGE)?;
            let Some((last, _)) = rows.last() else { break };
            range = range.after(last);
            for (key, _) in &rows {
                let room_id = KeyReader::new(key).text().and_then(|id| OwnedRoomId::try_from(id).ok());
                let Some(room_id) = room_id else { continue };
                if let Some(evicted) = self.sweep_room(&room_id).await? {
                    swept.rooms = swept.rooms.saturating_add(1);
                    swept.evicted = swept.evicted.saturating_add(evicted);
                }
            }
            tokio::task::yield_now().await;
        }
        let mut batch = Batch::new();
        batch.put(Table::Misc, swept_key(), crate::house::to_json(&mark)?);
        let took_ms = self.now_ms().saturating_sub(since_ms);
        if swept.evicted > 0 || swept.logged_out > 0 {
            tracing::info!(
                evicted = swept.evicted,
                logged_out = swept.logged_out,
                duration_ms = took_ms,
                "evictions are done"
            );
            let act = AuditKind::OperatorAct {
                operator: "matron".to_owned(),
                act: format!("evictions done in {took_ms} ms"),
                target: Some(format!("{} memberships, {} users logged out", swept.evicted, swept.logged_out)),
            };
            self.commit_audited(&batch, vec![self.audit_act(act)]).await?;
        } else {
            self.commit(batch).await?;
        }
        Ok(swept)
    }

    /// Nobody who may not remain is in the room any more; gives how many were removed, `None` for a room without a policy.
    async fn sweep_room(self: &Arc<Self>, room_id: &RoomId) -> Result<Option<u64>, Error> {
        let Some(room) = self.room_of_ours(room_id)? else { return Ok(None) };
        let members = {
            let rules = self.rules();
            let inner = room.lock();
            if is_ordinary(&rules, &inner) {
                return Ok(None);
            }
            inner.joined.clone()
        };
        let mut evicted = 0_u64;
        for user in &members {
            let Some(reason) = self.reason_to_evict(&room, user)? else { continue };
            match self.evict(&room, user, &reason).await {
                Ok(true) => evicted = evicted.saturating_add(1),
                Ok(false) => {}
                Err(error) => tracing::warn!(room.id = %room_id, %error, "somebody could not be evicted"),
            }
        }
        Ok(Some(evicted))
    }

    /// Why the member may not remain; `None` if nothing is known against it.
    fn reason_to_evict(&self, room: &Room, user: &UserId) -> Result<Option<Reason>, Error> {
        let rules = self.rules();
        let mut inner = room.lock();
        let in_force = self.in_force(&rules, &mut inner)?;
        let now_ms = self.now_ms();
        let person = self.member_facts(&rules, &mut inner, user, now_ms)?;
        let request = Request {
            principal: self.principal(&rules, user),
            action: Action::Remain,
            resource: Resource::Room(room.id().as_str().to_owned()),
            context: Context::default(),
        };
        let facts = self.facts(&rules, &in_force, person, &request.action, now_ms);
        let verdict = decide_with(&request, &facts, &in_force.policy);
        Ok((*verdict.outcome() == Outcome::Deny).then(|| verdict.reasons().first().cloned()).flatten())
    }

    /// The member is not in the room any more; `false` if this server has not the power for it.
    async fn evict(self: &Arc<Self>, room: &Arc<Room>, user: &UserId, reason: &Reason) -> Result<bool, Error> {
        match self.find_remover(room, user)? {
            Some(remover) => self.kick(&remover, room.id(), user, Some(&reason.sentence)).await?,
            None if self.is_local_user(user) => self.leave_room(user, room.id(), None).await?,
            None => {
                tracing::info!(room.id = %room.id(), "nobody of this server may remove a member; what they send is withheld");
                return Ok(false);
            }
        }
        let act = AuditKind::Eviction {
            room_id: room.id().as_str().to_owned(),
            user_id: user.as_str().to_owned(),
            code: reason.code,
        };
        self.commit_audited(&Batch::new(), vec![self.audit_act(act)]).await?;
        Ok(true)
    }

    /// A governance user of this server who is in the room and may remove the member.
    fn find_remover(&self, room: &Room, target: &UserId) -> Result<Option<OwnedUserId>, Error> {
        let mut inner = room.lock();
        if inner.membership(self, target)? != Membership::Join {
            return Err(Error::not_found("the member has left meanwhile"));
        }
        let levels = inner.power_levels(self)?;
        let senders = self.appservices.services.iter().map(|service| service.sender());
        let candidates: Vec<OwnedUserId> = inner
            .joined
            .iter()
            .filter(|user| self.is_local_user(user) && **user != *target)
            .filter(|user| self.is_governance_user(user) || senders.clone().any(|sender| sender == *user))
            .cloned()
            .collect();
        Ok(candidates.into_iter().find(|user| levels.can_kick(user, target)))
    }

    /// No local user whose credential was taken back has a session any more. How many there were.
    async fn log_out_revoked(&self) -> Result<u64, Error> {
        let rules = self.rules();
        let now_ms = self.now_ms();
        let mut logged_out = 0_u64;
        let mut range = KeyRange::all();
        loop {
            let rows = self.store.scan(Table::UserCredential, &range, Order::Ascending, PAGE)?;
            let Some((last, _)) = rows.last() else { return Ok(logged_out) };
            range = range.after(last);
            let mut revoked = BTreeMap::new();
            for (key, value) in &rows {
                let Some(user) = KeyReader::new(key).text().and_then(|id| OwnedUserId::try_from(id).ok()) else {
                    continue;
                };
                let shown: Value = from_json(Table::UserCredential, value)?;
                let shown = serde_json::json!({ matron_policy::CREDENTIAL_FIELD: shown });
                let person = self.person(&rules, &user, Some(&shown), now_ms);
                if let CredentialStatus::Revoked { .. } = person.credential {
                    revoked.insert(user, ReasonCode::CredentialRevoked);
                }
            }
            for user in revoked.into_keys() {
                if !self.devices(&user)?.is_empty() {
                    self.log_out_all(&user).await?;
                    logged_out = logged_out.saturating_add(1);
                }
            }
        }
    }
}
