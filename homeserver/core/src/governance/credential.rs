//! Credentials of our own users, and what is taken back.

use std::sync::Arc;

use matron_policy::{
    AuditKind, CREDENTIAL_FIELD, Credential, CredentialError, CredentialStatus, RevocationError, RevocationNotice,
    Revocations,
};
use matron_storage::{Batch, Key, Table};
use ruma::{OwnedUserId, UserId};
use serde_json::Value;

use super::register::write_revocations;
use crate::{Core, Error, Requester, house::to_json};

fn no_register() -> Error {
    Error::Unknown("this server has no federation register to verify with".into())
}

impl Core {
    /// The user shows this credential from now on, in every room that the user is in.
    ///
    /// # Errors
    /// [`Error::BadJson`] for what is no credential; [`Error::Forbidden`] for one that is not genuine, current and the
    /// user's; [`Error::NotFound`] for a user without an account here; [`Error::Unknown`] without a register.
    pub async fn store_credential(self: &Arc<Self>, operator: &str, shown: &Value) -> Result<OwnedUserId, Error> {
        let credential =
            Credential::from_value(shown).map_err(|error: CredentialError| Error::bad_json(error.to_string()))?;
        let user = OwnedUserId::try_from(credential.user_id.as_str())
            .map_err(|_| Error::bad_json("the credential names no user id"))?;
        let ours = self.is_local_user(&user)
            && (self.account_exists(&user)?
                || self.appservices.services.iter().any(|service| service.owns_user(&user)));
        if !ours {
            return Err(Error::not_found("the credential's user has no account here"));
        }
        let rules = self.rules();
        let register = rules.register.as_ref().ok_or_else(no_register)?;
        let refusal = match credential.verify(register, &rules.revocations, user.as_str(), self.now_ms()) {
            CredentialStatus::Valid { .. } => None,
            CredentialStatus::Expired { .. } => Some("the credential has expired"),
            CredentialStatus::Revoked { .. } => Some("the credential was taken back"),
            CredentialStatus::Forged(_) => Some("the credential is not genuine, or not of this user's organisation"),
            CredentialStatus::Missing | CredentialStatus::Unverifiable => {
                Some("the credential cannot be verified: the register has expired")
            }
        };
        if let Some(sentence) = refusal {
            return Err(Error::forbidden(sentence));
        }
        let mut batch = Batch::new();
        batch.put(Table::UserCredential, Key::new().text(&user), to_json(&credential.to_value())?);
        let act = AuditKind::OperatorAct {
            operator: operator.to_owned(),
            act: "credential stored".to_owned(),
            target: Some(user.to_string()),
        };
        self.commit_audited(&batch, vec![self.audit_act(act)]).await?;
        self.update_membership_profiles(&user).await?;
        self.governance.wake.notify_one();
        Ok(user)
    }

    /// The credentials that the notice names are worth nothing from now on; whoever held one is evicted soon after.
    /// Gives how many were not revoked before.
    ///
    /// # Errors
    /// [`Error::BadJson`] for what is no notice; [`Error::Forbidden`] for one that its organisation did not sign;
    /// [`Error::Unknown`] without a register.
    pub async fn revoke_credentials(&self, notice: &[u8]) -> Result<usize, Error> {
        let _one_at_a_time = self.governance.changing.lock().await;
        let rules = self.rules();
        let register = rules.register.as_ref().ok_or_else(no_register)?;
        let refuse = |error: RevocationError| match error {
            RevocationError::UnknownKey | RevocationError::BadSignature => Error::forbidden(error.to_string()),
            RevocationError::Full => Error::Unknown(error.to_string().into()),
            _ => Error::bad_json(error.to_string()),
        };
        let notice = RevocationNotice::verify(notice, register).map_err(refuse)?;
        let mut revocations = Revocations::clone(&rules.revocations);
        let new = revocations.add_notice(&notice, register).map_err(refuse)?;
        if new.is_empty() {
            return Ok(0);
        }
        let mut batch = Batch::new();
        write_revocations(&mut batch, &new)?;
        let drafts = new.iter().map(|one| self.revocation_draft(one)).collect();
        self.commit_audited(&batch, drafts).await?;
        self.replace_rules(&rules, rules.register.clone(), Arc::new(revocations));
        self.facts_changed();
        Ok(new.len())
    }

    /// The content of a member event with which a user of ours changes the own profile in a room keeps the credential.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn with_own_credential(
        &self,
        sender: &UserId,
        target: &UserId,
        mut content: Value,
    ) -> Result<Value, Error> {
        if sender == target
            && let Value::Object(fields) = &mut content
            && fields.get("membership").and_then(Value::as_str) == Some("join")
            && !fields.contains_key(CREDENTIAL_FIELD)
            && let Some(credential) = self.credential_content(sender)?
        {
            fields.insert(CREDENTIAL_FIELD.to_owned(), credential);
        }
        Ok(content)
    }

    /// Whether the user may see the audit log and change what policy goes by: an operator, an officer by
    /// configuration, or a governance user by the register.
    #[must_use]
    pub fn is_officer(&self, requester: &Requester) -> bool {
        requester.is_admin || self.is_governance_user(&requester.user_id)
    }

    /// Whether configuration or register give this local user a part: one who governs rooms, or a machine.
    pub(crate) fn is_named_by_policy(&self, user: &UserId) -> bool {
        let rules = self.rules();
        let is_service = rules.register.as_ref().is_some_and(|register| register.is_service(user.as_str()));
        is_service || self.is_governance_user(user)
    }

    /// Whether configuration or register make this local user one who governs rooms.
    pub(crate) fn is_governance_user(&self, user: &UserId) -> bool {
        let rules = self.rules();
        self.is_local_user(user)
            && (rules.officers.contains(user)
                || rules.register.as_ref().is_some_and(|register| register.is_governance(user.as_str())))
    }
}
