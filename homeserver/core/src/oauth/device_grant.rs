//! The device authorization grant: a device shows a code, a person enters it elsewhere.
//!
//! SPEC: v1.19 Client-Server API, "Device authorisation flow"; RFC 8628. What waits is in memory: a restart ends it, and
//! the device begins again.

use std::{collections::HashMap, net::IpAddr};

use ruma::{OwnedUserId, UserId};
use serde::Serialize;

use super::{Client, OAuthError, Scope};
use crate::{
    Core, Error,
    accounts::{TokenHash, fresh_token, hash_token},
};

/// The grant's name at the token endpoint.
pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// How long the codes are good, ms.
const LIFETIME_MS: u64 = 20 * 60 * 1000;

/// How long a device waits between two questions, ms.
const INTERVAL_MS: u64 = 5_000;

/// How many devices may wait at once, and how many of one address.
const MAX_WAITING: usize = 5_000;
const MAX_WAITING_OF_ADDRESS: usize = 50;

/// Letters that are not taken for others and make no words.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// Devices by the hash of their device code.
pub(super) type Pending = HashMap<TokenHash, Waiting>;

/// A device that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    client_id: String,
    scope: Scope,
    user_code: String,
    address: Option<IpAddr>,
    ends_ms: u64,
    interval_ms: u64,
    asked_ms: Option<u64>,
    verdict: Verdict,
}

#[derive(Clone, Debug)]
enum Verdict {
    Open,
    Granted(OwnedUserId),
    Denied,
}

/// The answer of the device authorization endpoint.
#[derive(Clone, Serialize)]
pub struct DeviceAuthorization {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: String,
    /// Seconds.
    expires_in: u64,
    /// Seconds.
    interval: u64,
}

impl std::fmt::Debug for DeviceAuthorization {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DeviceAuthorization").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// What a user code stands for, as its user reads it.
#[derive(Clone, Debug)]
pub struct DeviceWanted {
    /// Who asks.
    pub client: Client,
    /// What it asks for.
    pub scope: Scope,
    /// The code, as it is shown.
    pub user_code: String,
}

impl Core {
    /// A device waits to be let in.
    ///
    /// # Errors
    /// `invalid_client`, `invalid_scope`, `unauthorized_client`, and `temporarily_unavailable` when too many wait.
    pub fn authorize_device(
        &self,
        client_id: &str,
        scope: &str,
        address: Option<IpAddr>,
    ) -> Result<DeviceAuthorization, OAuthError> {
        self.check_oauth_enabled()?;
        let client = self.find_client(client_id)?.ok_or_else(OAuthError::invalid_client)?;
        if !client.may_use(GRANT) {
            return Err(OAuthError::refused("unauthorized_client", "the client did not register for this grant"));
        }
        let scope = Scope::parse(scope)?;
        let device_code = fresh_token("mdc");
        let now_ms = self.now_ms();
        let user_code = {
            let mut pending = self.oauth.devices.lock();
            pending.retain(|_, waiting| waiting.ends_ms > now_ms);
            let of_address = pending.values().filter(|waiting| waiting.address == address).count();
            if pending.len() >= MAX_WAITING || of_address >= MAX_WAITING_OF_ADDRESS {
                return Err(OAuthError::refused("temporarily_unavailable", "too many devices wait; try again later"));
            }
            let user_code = fresh_user_code();
            if pending.values().any(|waiting| waiting.user_code == user_code) {
                return Err(OAuthError::refused("temporarily_unavailable", "no code is free; try again"));
            }
            let waiting = Waiting {
                client_id: client_id.to_owned(),
                scope,
                user_code: user_code.clone(),
                address,
                ends_ms: now_ms.saturating_add(LIFETIME_MS),
                interval_ms: INTERVAL_MS,
                asked_ms: None,
                verdict: Verdict::Open,
            };
            pending.insert(hash_token(&device_code), waiting);
            user_code
        };
        let base = self.public_base();
        Ok(DeviceAuthorization {
            device_code,
            verification_uri: format!("{base}/account/link"),
            verification_uri_complete: format!("{base}/account/link?user_code={user_code}"),
            user_code,
            expires_in: LIFETIME_MS / 1000,
            interval: INTERVAL_MS / 1000,
        })
    }

    /// The device that shows this code, while nobody has decided about it.
    ///
    /// # Errors
    /// `M_NOT_FOUND`.
    pub fn find_waiting_device(&self, user_code: &str) -> Result<DeviceWanted, Error> {
        let unknown = || Error::not_found("this code is not known, was used, or has expired");
        let user_code = normal_form(user_code);
        let now_ms = self.now_ms();
        let (client_id, scope) = {
            let pending = self.oauth.devices.lock();
            let waiting = pending.values().find(|waiting| waiting.is_open(&user_code, now_ms)).ok_or_else(unknown)?;
            (waiting.client_id.clone(), waiting.scope.clone())
        };
        let client = self.find_client(&client_id)?.ok_or_else(unknown)?;
        Ok(DeviceWanted { client, scope, user_code })
    }

    /// The user has let the device in, or not.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for a code that is not known any more; `M_USER_LOCKED`, `M_USER_DEACTIVATED`.
    pub fn decide_device(&self, user_code: &str, user: &UserId, granted: bool) -> Result<(), Error> {
        self.check_may_sign_in(user)?;
        let user_code = normal_form(user_code);
        let now_ms = self.now_ms();
        let mut pending = self.oauth.devices.lock();
        let waiting = pending
            .values_mut()
            .find(|waiting| waiting.is_open(&user_code, now_ms))
            .ok_or_else(|| Error::not_found("this code is not known, was used, or has expired"))?;
        waiting.verdict = if granted { Verdict::Granted(user.to_owned()) } else { Verdict::Denied };
        Ok(())
    }

    /// What was decided about a device; a verdict is given once.
    pub(super) fn poll_device_code(&self, code: &str, client_id: &str) -> Result<(OwnedUserId, Scope), OAuthError> {
        let now_ms = self.now_ms();
        let hash = hash_token(code);
        let mut pending = self.oauth.devices.lock();
        let waiting = pending
            .get_mut(&hash)
            .filter(|waiting| waiting.client_id == client_id)
            .ok_or_else(|| OAuthError::invalid_grant("the device code is not known"))?;
        if waiting.ends_ms <= now_ms {
            pending.remove(&hash);
            return Err(OAuthError::refused("expired_token", "the device code has expired"));
        }
        let early = waiting.asked_ms.is_some_and(|asked| now_ms < asked.saturating_add(waiting.interval_ms));
        waiting.asked_ms = Some(now_ms);
        if early {
            waiting.interval_ms = waiting.interval_ms.saturating_add(INTERVAL_MS);
            return Err(OAuthError::refused("slow_down", "the device asks too often"));
        }
        match waiting.verdict.clone() {
            Verdict::Open => Err(OAuthError::refused("authorization_pending", "the user has not decided yet")),
            Verdict::Denied => {
                pending.remove(&hash);
                Err(OAuthError::refused("access_denied", "the user has refused"))
            }
            Verdict::Granted(user) => {
                let scope = waiting.scope.clone();
                pending.remove(&hash);
                Ok((user, scope))
            }
        }
    }
}

impl Waiting {
    fn is_open(&self, user_code: &str, now_ms: u64) -> bool {
        self.ends_ms > now_ms && matches!(self.verdict, Verdict::Open) && self.user_code == user_code
    }
}

/// Eight letters in two groups: 34 bits, and few tries.
fn fresh_user_code() -> String {
    let mut code = String::new();
    while code.len() < 9 {
        if code.len() == 4 {
            code.push('-');
        }
        // The rest of 256 would make some letters likelier.
        let byte = rand::random::<u8>();
        if byte < 240
            && let Some(letter) = LETTERS.get(usize::from(byte % 20))
        {
            code.push(char::from(*letter));
        }
    }
    code
}

/// The code as it was given out, however it was typed.
fn normal_form(typed: &str) -> String {
    let letters: String =
        typed.chars().filter(char::is_ascii_alphabetic).take(8).map(|letter| letter.to_ascii_uppercase()).collect();
    match letters.split_at_checked(4) {
        Some((first, second)) => format!("{first}-{second}"),
        None => letters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_code_is_understood_however_it_is_typed() {
        let code = fresh_user_code();
        assert_eq!(code.len(), 9);
        assert_eq!(normal_form(&code), code);
        assert_eq!(normal_form(&code.to_lowercase().replace('-', "")), code);
        assert_eq!(normal_form(&format!(" {} ", code.replace('-', " "))), code);
        assert_eq!(normal_form(""), "");
    }
}
