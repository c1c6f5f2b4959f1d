//! Asking policy before an event of ours exists, and keeping what it said.

use std::cell::RefCell;

use matron_policy::{
    Action, AuditDraft, AuditKind, Context, EffectivePolicy, Fact, Facts, Principal, PrincipalKind, ROOM_POLICY_TYPE,
    ReasonCode, Request, Resource, StateEffect, decide_with,
};
use matron_storage::Batch;
use ruma::UserId;

use super::{
    facts::is_ordinary,
    log::{Unrecorded, Written},
};
use crate::{
    Core, Error,
    rooms::{Room, room::Inner, send::NewEvent},
};

/// Policy permits one event. Only [`Core::permit_local`] and its kin make one; it is consumed by the commit.
#[derive(Debug)]
#[must_use = "a permit is consumed by the commit of what it permits"]
pub struct Permit<'a> {
    core: &'a Core,
    /// What the log says of it; nothing, where there is no policy.
    drafts: Vec<AuditDraft>,
    written: RefCell<Option<Written<'a>>>,
}

impl<'a> Permit<'a> {
    /// Where there is no policy: nothing was asked, and nothing is recorded.
    pub(super) fn silent(core: &'a Core) -> Self {
        Self { core, drafts: Vec::new(), written: RefCell::new(None) }
    }

    pub(super) fn recorded_as(core: &'a Core, drafts: Vec<AuditDraft>) -> Self {
        Self { core, drafts, written: RefCell::new(None) }
    }

    /// What the log says of it, for a permit without a batch of its own.
    pub(super) fn into_draft(mut self) -> Option<AuditDraft> {
        self.drafts.pop()
    }

    pub(super) fn also(&mut self, draft: AuditDraft) {
        self.drafts.push(draft);
    }

    /// Adds the audit entry to the batch of what is permitted, and holds the end of the log until
    /// [`Permit::submitted`].
    ///
    /// # Errors
    /// [`Error::Internal`], never in practice.
    pub fn write(&self, batch: &mut Batch) -> Result<(), Error> {
        // Dropped before the log is asked for anew: a permit that is written twice waits for nobody.
        drop(self.written.take());
        if !self.drafts.is_empty() {
            let written = self.core.governance.log.write(batch, self.drafts.clone())?;
            self.written.replace(Some(written));
        }
        Ok(())
    }

    /// The batch is on its way: the next decision follows this one in the log.
    pub fn submitted(self) {
        if let Some(written) = self.written.take() {
            written.submitted();
        }
    }
}

/// Policy, or something before it, refused.
#[derive(Debug)]
pub struct Refusal {
    error: Error,
    unrecorded: Option<Box<Unrecorded>>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, unrecorded: None }
    }
}

impl Refusal {
    /// The refusal is in the audit log; gives what the requester is told.
    pub async fn recorded(self) -> Error {
        if let Some(unrecorded) = self.unrecorded
            && let Err(error) = unrecorded.record().await
        {
            return error;
        }
        self.error
    }
}

impl Refusal {
    /// What the requester is told; the audit log learns of it at once, without anyone waiting.
    pub(super) fn recorded_soon(self) -> Error {
        if let (Some(unrecorded), Ok(runtime)) = (self.unrecorded, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                if let Err(error) = unrecorded.record().await {
                    tracing::error!(%error, "a refusal could not be recorded");
                }
            });
        }
        self.error
    }
}

impl Core {
    /// Policy's word on one request.
    ///
    /// # Errors
    /// [`Refusal`] with [`Error::PolicyDenied`] or [`Error::PolicyUndetermined`].
    pub(super) fn judge<'a>(
        &'a self,
        request: &Request,
        facts: &Facts,
        policy: &EffectivePolicy,
    ) -> Result<Permit<'a>, Refusal> {
        let verdict = decide_with(request, facts, policy);
        let decision_id = self.new_decision_id();
        let draft = AuditDraft::decision(request, &verdict, facts.now_ms, decision_id);
        match verdict.into_permit() {
            Ok(permit) if permit.is_for(request) => Ok(Permit::recorded_as(self, vec![draft])),
            Ok(_) => Err(Error::internal("a permit for another request").into()),
            Err(refusal) => {
                let sentence = refusal.verdict().sentence();
                let decision_id = decision_id.to_string();
                tracing::info!(decision.id = %decision_id, action = request.action.essence().name(), "policy refuses");
                let error = if refusal.is_retryable() {
                    Error::PolicyUndetermined { sentence, decision_id }
                } else {
                    Error::PolicyDenied { sentence, decision_id }
                };
                Err(Refusal { error, unrecorded: Some(Box::new(self.unrecorded(draft))) })
            }
        }
    }

    /// Policy permits this event of a local user, in this room as it stands.
    ///
    /// # Errors
    /// [`Refusal`] with [`Error::PolicyDenied`] or [`Error::PolicyUndetermined`].
    pub(crate) fn permit_local<'a>(
        &'a self,
        room: &Room,
        inner: &mut Inner,
        new: &NewEvent,
    ) -> Result<Permit<'a>, Refusal> {
        let rules = self.rules();
        if is_ordinary(&rules, inner) && new.kind != ROOM_POLICY_TYPE {
            return Ok(Permit::silent(self));
        }
        let in_force = self.in_force(&rules, inner)?;
        let request = self.request_of(&rules, room, new, Context::default())?;
        let facts = self.facts_in_room(&rules, inner, &in_force, &new.sender, &request.action, Some(&new.content))?;
        let mut permit = self.judge(&request, &facts, &in_force.policy)?;
        if rules.officers.contains(&new.sender) && inner.joined.iter().any(|user| !self.is_local_user(user)) {
            self.as_others_judge(&rules, request.clone(), &facts, &in_force.policy)?;
        }
        if let Some(draft) = self.policy_change(&request, &in_force.policy, &rules.policies) {
            permit.also(draft);
        }
        Ok(permit)
    }

    /// Other trusts know this server's officers by the register and by credentials alone. What they would keep back for
    /// want of governance is not done here either: it would hold on one side of the room only.
    fn as_others_judge(
        &self,
        rules: &super::rules::Rules,
        mut request: Request,
        facts: &Facts,
        policy: &EffectivePolicy,
    ) -> Result<(), Refusal> {
        let user = request.principal.user_id.clone();
        let kind = rules.register.as_ref().map_or(PrincipalKind::Remote, |register| register.kind_of(&user, None));
        request.principal = Principal::new(&user, kind);
        let verdict = decide_with(&request, facts, policy);
        if !verdict.reasons().iter().any(|reason| reason.code == ReasonCode::NotGovernance) {
            return Ok(());
        }
        let decision_id = self.new_decision_id();
        tracing::info!(decision.id = %decision_id, "an officer whom other servers do not know changes nothing");
        let draft = AuditDraft::decision(&request, &verdict, facts.now_ms, decision_id);
        let error = Error::PolicyDenied {
            sentence: "Only this server's configuration makes you an officer. The other servers in this room would not take \
                       this change, so it is not made here either: it needs a governance user of the federation register, \
                       or an officer's credential."
                .to_owned(),
            decision_id: decision_id.to_string(),
        };
        Err(Refusal { error, unrecorded: Some(Box::new(self.unrecorded(draft))) })
    }

    /// The question about an event that a local user wants to send.
    pub(super) fn request_of(
        &self,
        rules: &super::rules::Rules,
        room: &Room,
        new: &NewEvent,
        context: Context,
    ) -> Result<Request, Error> {
        let target = self.redact_target(new.redacts.as_deref())?;
        let action = Action::of_event(new.sender.as_str(), &new.kind, new.state_key.as_deref(), &new.content, target);
        Ok(Request {
            principal: self.principal(rules, &new.sender),
            action,
            resource: Resource::Room(room.id().as_str().to_owned()),
            context,
        })
    }

    /// What the log says of a policy that comes into use.
    pub(super) fn policy_change(
        &self,
        request: &Request,
        before: &EffectivePolicy,
        policies: &matron_policy::PolicySet,
    ) -> Option<AuditDraft> {
        let Action::SendState(change) = request.action.essence() else { return None };
        let StateEffect::RoomPolicy(Fact::Known(policy)) = &change.effect else { return None };
        let Resource::Room(room_id) = &request.resource else { return None };
        let to = policies.effective(&Fact::Known((**policy).clone())).revision();
        // What waits for a fact may find it in the new policy.
        self.governance.wake.notify_one();
        Some(self.audit_act(AuditKind::PolicyChanged {
            room_id: Some(room_id.clone()),
            from: Some(before.revision()),
            to,
            changed_by: request.principal.user_id.clone(),
        }))
    }

    /// Policy permits this user to upload a file of this size.
    ///
    /// # Errors
    /// [`Error::PolicyDenied`].
    pub async fn permit_media_upload(&self, user: &UserId, size_bytes: u64) -> Result<(), Error> {
        let rules = self.rules();
        if rules.policies.floor.as_ref().is_none_or(|floor| floor.media_max_bytes.is_none()) {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let in_force = self.in_force_of(&rules, |_| Fact::Absent);
        let person = self.stored_facts(&rules, user, now_ms)?;
        let request = Request {
            principal: self.principal(&rules, user),
            action: Action::UploadMedia { size_bytes },
            resource: Resource::Server,
            context: Context::default(),
        };
        let facts = self.facts(&rules, &in_force, person, &request.action, now_ms);
        let refused = self.judge(&request, &facts, &in_force.policy).err();
        match refused {
            None => Ok(()),
            Some(refusal) => Err(refusal.recorded().await),
        }
    }
}
