//! Whose account a provider's person has.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use matron_storage::{Batch, Key, Table};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use super::claims::Facts;
use crate::{Core, Error, accounts::Account, house::to_json, settings::Upstream};

/// Somebody at a provider whose account this is, with what the provider said of them at the last sign-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The provider's id in the settings.
    pub provider: String,
    /// Who they are there; never changes.
    pub subject: String,
    /// Their number as staff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staff_number: Option<String>,
    /// The organisation that they belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// Their roles.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
}

impl Core {
    /// The account of this person; made, or taken over, where the settings allow that.
    ///
    /// # Errors
    /// `M_FORBIDDEN` where they do not; `M_EXCLUSIVE`, `M_INVALID_USERNAME` for a name that nobody may have.
    pub(super) async fn account_of_identity(
        self: &Arc<Self>,
        upstream: &Upstream,
        facts: Facts,
    ) -> Result<OwnedUserId, Error> {
        let link = Key::new().text(&upstream.id).text(&facts.subject);
        let identity = Identity {
            provider: upstream.id.clone(),
            subject: facts.subject,
            staff_number: facts.staff_number,
            organisation: facts.organisation,
            roles: facts.roles,
        };
        if let Some(user) = self.load::<OwnedUserId>(Table::OauthLink, &link)? {
            self.note_identity(&user, identity).await?;
            return Ok(user);
        }
        let user = self.local_user(&facts.localpart)?;
        let busy = || Error::LimitExceeded { retry_after_ms: 1_000 };
        let link_row = to_json(&user)?;
        let put_link = |batch: &mut Batch| {
            batch.expect_absent(Table::OauthLink, link.clone());
            batch.put(Table::OauthLink, link.clone(), link_row.clone());
        };
        if self.account(&user)?.is_some() {
            // INVARIANT: the account says whose it is before the link does: of two who come at once, one is refused.
            self.take_over(&user, upstream, &identity).await?;
            let mut batch = Batch::new();
            put_link(&mut batch);
            self.commit_or(batch, busy()).await?;
            return Ok(user);
        }
        if !upstream.create_accounts {
            return Err(Error::forbidden("you have no account here; ask the operator of this server for one"));
        }
        let user = self.name_for_anyone(&facts.localpart)?;
        let account = Account { created_ms: self.now_ms(), identities: vec![identity], ..Account::default() };
        self.insert_account(&user, &account, |batch| {
            if self.store.get(Table::OauthLink, link.as_bytes())?.is_some() {
                return Err(busy());
            }
            put_link(batch);
            Ok(())
        })
        .await?;
        if let Some(name) = facts.display_name {
            let name: String = name.chars().take(256).collect();
            self.set_profile_field(&user, "displayname", Some(name.into())).await?;
        }
        Ok(user)
    }

    /// The account that was there before is this person's too.
    ///
    /// # Errors
    /// `M_FORBIDDEN` where the settings do not allow it, for an account that is kept, and for one of another person.
    async fn take_over(&self, user: &UserId, upstream: &Upstream, identity: &Identity) -> Result<(), Error> {
        self.update_account(user, |account| {
            // An operator's account is never given away by somebody else's word, nor one person's to another of the provider's,
            // whose name is spelled nearly alike.
            let is_anothers = account
                .identities
                .iter()
                .any(|known| known.provider == identity.provider && known.subject != identity.subject);
            let is_kept = account.deactivated || account.admin || account.appservice.is_some();
            if !upstream.link_existing || is_kept || is_anothers {
                return Err(Error::forbidden(format!(
                    "the name {user} is taken here; ask the operator of this server to connect it with {}",
                    upstream.name
                )));
            }
            account.note(identity);
            Ok(())
        })
        .await
    }

    /// What the provider said is known, if it is new.
    async fn note_identity(&self, user: &UserId, identity: Identity) -> Result<(), Error> {
        if self.account(user)?.is_some_and(|account| account.identities.contains(&identity)) {
            return Ok(());
        }
        self.update_account(user, |account| {
            account.note(&identity);
            Ok(())
        })
        .await
    }
}

impl Account {
    /// The account is this person's, of whom the provider said this last.
    fn note(&mut self, identity: &Identity) {
        self.identities.retain(|known| known.provider != identity.provider || known.subject != identity.subject);
        self.identities.push(identity.clone());
    }
}
