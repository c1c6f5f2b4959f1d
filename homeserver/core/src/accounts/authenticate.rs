//! From an access token to the one who asks.

use std::{net::IpAddr, num::NonZeroUsize};

use lru::LruCache;
use matron_storage::{Key, Table};
use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use super::token::{AccessToken, TokenHash, hash_token};
use crate::{Core, Error, Requester};

/// Whom an application service says it is: `?user_id=` and `?device_id=`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masquerade {
    /// One of its users; absent: its own user.
    pub user_id: Option<OwnedUserId>,
    /// One of that user's devices.
    pub device_id: Option<OwnedDeviceId>,
}

#[derive(Clone, Debug)]
struct Proved {
    requester: Requester,
    expires_at_ms: Option<u64>,
}

/// Tokens proved lately. INVARIANT: an entry is only added if nothing was forgotten since it was read.
#[derive(Debug)]
pub(super) struct TokenCache {
    generation: u64,
    proved: LruCache<TokenHash, Proved>,
}

impl TokenCache {
    pub(super) fn new(capacity: NonZeroUsize) -> Self {
        Self { generation: 0, proved: LruCache::new(capacity) }
    }
}

impl Core {
    /// Who an access token proves; a warm token costs no disk access. `address` is remembered as the device's last.
    ///
    /// # Errors
    /// `M_UNKNOWN_TOKEN`, soft if it merely expired; `M_USER_LOCKED`; for application services `M_FORBIDDEN` (a user
    /// outside its namespaces) and `M_UNKNOWN_DEVICE` (a device that the user does not have).
    pub async fn authenticate(
        &self,
        token: &str,
        masquerade: &Masquerade,
        address: Option<IpAddr>,
    ) -> Result<Requester, Error> {
        if let Some(appservice) = self.appservice_for_token(token) {
            return self.authenticate_appservice(&appservice, masquerade);
        }
        let hash = hash_token(token);
        let now_ms = self.now_ms();
        let (generation, warm) = {
            let mut cache = self.accounts.tokens.lock();
            (cache.generation, cache.proved.get(&hash).cloned())
        };
        let proved = match warm {
            Some(proved) => proved,
            None => self.prove(hash, generation).await?,
        };
        if proved.expires_at_ms.is_some_and(|end| end <= now_ms) {
            return Err(Error::UnknownToken { soft_logout: true });
        }
        if let Some(device) = &proved.requester.device_id {
            self.note_seen(&proved.requester.user_id, device, address, now_ms);
        }
        Ok(proved.requester)
    }

    /// Who an access token proves, though the account is locked: for logging out alone.
    ///
    /// # Errors
    /// `M_UNKNOWN_TOKEN`.
    ///
    /// SPEC: v1.19 Client-Server API, "Account locking".
    pub fn authenticate_locked(&self, token: &str) -> Result<Requester, Error> {
        let unknown = Error::UnknownToken { soft_logout: false };
        let hash = hash_token(token);
        let row = self.load::<AccessToken>(Table::TokenAccess, &Key::new().raw(&hash))?;
        let Some(row) = row.filter(|row| row.expires_at_ms.is_none_or(|end| end > self.now_ms())) else {
            return Err(unknown);
        };
        Ok(Requester {
            user_id: row.user_id,
            device_id: Some(row.device_id),
            appservice: None,
            is_admin: false,
            is_guest: false,
            token_hash: Some(hash),
        })
    }

    /// Reads a token from the store and remembers it.
    async fn prove(&self, hash: TokenHash, generation: u64) -> Result<Proved, Error> {
        let unknown = Error::UnknownToken { soft_logout: false };
        let Some(row) = self.load::<AccessToken>(Table::TokenAccess, &Key::new().raw(&hash))? else {
            return Err(unknown);
        };
        let Some(account) = self.account(&row.user_id)? else { return Err(unknown) };
        if account.deactivated {
            return Err(unknown);
        }
        if account.locked {
            return Err(Error::UserLocked);
        }
        let is_live = row.expires_at_ms.is_none_or(|end| end > self.now_ms());
        if row.retires && is_live {
            self.retire_previous(&row, hash).await?;
        }
        let requester = Requester {
            user_id: row.user_id,
            device_id: Some(row.device_id),
            appservice: None,
            is_admin: account.admin,
            is_guest: account.guest,
            token_hash: Some(hash),
        };
        let proved = Proved { requester, expires_at_ms: row.expires_at_ms };
        let mut cache = self.accounts.tokens.lock();
        if cache.generation == generation {
            cache.proved.put(hash, proved.clone());
        }
        Ok(proved)
    }

    /// SPEC: v1.19 Application Service API, "Identity assertion".
    fn authenticate_appservice(
        &self,
        appservice: &crate::appservices::Appservice,
        masquerade: &Masquerade,
    ) -> Result<Requester, Error> {
        let own = appservice.sender();
        let user_id = match &masquerade.user_id {
            Some(user) if user == own => own.clone(),
            Some(user) => {
                if !self.is_local_user(user) || !appservice.is_interested_in_user(user) {
                    return Err(Error::forbidden("the application service may not act as this user"));
                }
                match self.account(user)? {
                    Some(account) if account.locked => return Err(Error::UserLocked),
                    Some(account) if !account.deactivated => {}
                    _ => return Err(Error::forbidden("the application service has not registered this user")),
                }
                user.clone()
            }
            None => own.clone(),
        };
        if let Some(device) = &masquerade.device_id
            && self.find_device(&user_id, device)?.is_none()
        {
            return Err(Error::Custom {
                status: 400,
                errcode: "M_UNKNOWN_DEVICE",
                message: "this user has no such device".into(),
            });
        }
        Ok(Requester {
            user_id,
            device_id: masquerade.device_id.clone(),
            appservice: Some(appservice.registration.id.clone()),
            is_admin: false,
            is_guest: false,
            token_hash: None,
        })
    }

    /// These tokens are read from the store the next time.
    pub(super) fn forget_tokens(&self, hashes: &[TokenHash]) {
        let mut cache = self.accounts.tokens.lock();
        cache.generation = cache.generation.wrapping_add(1);
        for hash in hashes {
            cache.proved.pop(hash);
        }
    }

    /// Every token of a user is read from the store the next time.
    pub(super) fn forget_tokens_of(&self, user: &UserId) {
        let mut cache = self.accounts.tokens.lock();
        cache.generation = cache.generation.wrapping_add(1);
        let theirs: Vec<TokenHash> =
            cache.proved.iter().filter(|(_, proved)| proved.requester.user_id == user).map(|(hash, _)| *hash).collect();
        for hash in theirs {
            cache.proved.pop(&hash);
        }
    }

    /// Passes for whoever may speak: not for suspended users.
    ///
    /// # Errors
    /// `M_USER_SUSPENDED`; [`Error::Store`].
    pub fn check_not_suspended(&self, requester: &Requester) -> Result<(), Error> {
        self.check_may_speak(&requester.user_id)
    }

    /// As [`Core::check_not_suspended`], for somebody in whose name something is done; locked accounts may not either.
    pub(crate) fn check_may_speak(&self, user: &UserId) -> Result<(), Error> {
        match self.account(user)? {
            Some(account) if account.locked => Err(Error::UserLocked),
            Some(account) if account.suspended => Err(Error::UserSuspended),
            _ => Ok(()),
        }
    }

    /// Passes for everyone but guests.
    ///
    /// # Errors
    /// `M_GUEST_ACCESS_FORBIDDEN`.
    pub fn check_not_guest(&self, requester: &Requester) -> Result<(), Error> {
        if requester.is_guest { Err(Error::GuestForbidden) } else { Ok(()) }
    }

    /// Passes for operators.
    ///
    /// # Errors
    /// `M_FORBIDDEN`.
    pub fn check_admin(&self, requester: &Requester) -> Result<(), Error> {
        if requester.is_admin { Ok(()) } else { Err(Error::forbidden("only an operator of this server may do this")) }
    }
}
