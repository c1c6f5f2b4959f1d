//! Credentials for TURN servers (Client-Server API, "Voice over IP").
//!
//! The name is when they end, and for whom; the password is the HMAC-SHA1 of that name under the secret that the TURN
//! servers know, as the "TURN REST API" draft and coturn have it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use ruma::UserId;
use serde::Serialize;
use sha1::Sha1;

use crate::{Core, Error, Requester};

/// What a client needs to reach a TURN server; nothing, if there is none.
#[derive(Clone, Default, Serialize, PartialEq, Eq)]
pub struct TurnServer {
    /// The name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Where the servers are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<String>,
    /// How long this lasts, s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
}

impl std::fmt::Debug for TurnServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TurnServer").field("uris", &self.uris).finish_non_exhaustive()
    }
}

impl Core {
    /// Credentials for the TURN servers; empty where none are configured, or none are for this user.
    ///
    /// # Errors
    /// [`Error::Internal`], never in practice.
    pub fn turn_server(&self, requester: &Requester) -> Result<TurnServer, Error> {
        let turn = &self.settings.turn;
        if turn.uris.is_empty() || (requester.is_guest && !turn.guests) {
            return Ok(TurnServer::default());
        }
        let lifetime_s = turn.lifetime_ms / 1000;
        let (username, password) = match (&turn.shared_secret, &turn.username, &turn.password) {
            (Some(secret), _, _) => credentials(secret, self.now_ms() / 1000 + lifetime_s, &requester.user_id)?,
            (None, Some(username), Some(password)) => (username.clone(), password.clone()),
            _ => return Ok(TurnServer::default()),
        };
        Ok(TurnServer {
            username: Some(username),
            password: Some(password),
            uris: turn.uris.clone(),
            ttl: Some(lifetime_s),
        })
    }
}

fn credentials(secret: &str, ends_s: u64, user: &UserId) -> Result<(String, String), Error> {
    let username = format!("{ends_s}:{user}");
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes())
        .map_err(|_| Error::internal("a secret of this length cannot be a key"))?;
    mac.update(username.as_bytes());
    let password = STANDARD.encode(mac.finalize().into_bytes());
    Ok((username, password))
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::{Settings, settings::Turn, test_world::World};

    #[test]
    fn the_password_is_what_a_turn_server_with_the_secret_computes() {
        let (username, password) = credentials("north", 1_433_895_918, user_id!("@alice:example.org")).unwrap();
        assert_eq!(username, "1433895918:@alice:example.org");
        // printf 1433895918:@alice:example.org | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(password, "U1hnS4Fn7mbCvacwlDvVjDlUr5M=");
    }

    #[tokio::test]
    async fn without_configuration_there_is_nothing_and_guests_get_nothing() {
        let world = World::new();
        let alice = world.device(&world.user("alice").await, "A").await;
        assert_eq!(world.core.turn_server(&alice).unwrap(), TurnServer::default());

        let turn = Turn { uris: vec!["turn:t".to_owned()], shared_secret: Some("s".to_owned()), ..Turn::default() };
        let world = World::with(Settings { turn, insecure_fast_password_hash: true, ..Settings::default() });
        let mut alice = world.device(&world.user("alice").await, "A").await;
        let told = world.core.turn_server(&alice).unwrap();
        assert_eq!((told.ttl, told.uris.len()), (Some(3_600), 1));
        assert_eq!(told.username.unwrap(), "1800003600:@alice:us.example");
        alice.is_guest = true;
        assert_eq!(world.core.turn_server(&alice).unwrap(), TurnServer::default());
    }
}
