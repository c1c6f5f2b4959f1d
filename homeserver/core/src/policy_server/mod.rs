//! Policy servers, both roles: [`ask`] for the signature of the one that a room names, and [`answer`] for rooms that name
//! this server.
//!
//! A policy server's signature says that an event is recommended. Matron needs it wherever a room demands it: what lacks
//! it is not sent, and of what comes from outside it is not shown, also while the policy server does not answer. The
//! deployment's own rules are asked beside it and stay in force when a room names no policy server any more.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#policy-servers>.

mod answer;
mod ask;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
};

use lru::LruCache;
use matron_room::{Pdu, SigningKey, VerifyKey};
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedServerName};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{Core, Error, rooms::room::Inner};

/// The id of every policy server's key.
pub const KEY_ID: &str = "ed25519:policy_server";

/// The state that names a room's policy server.
const KIND: &str = "m.room.policy";
/// How many decisions of either role are remembered.
const MAX_DECISIONS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(8191);

/// What this concern keeps in memory; nothing of it is lost that cannot be asked again.
#[derive(Debug)]
pub struct State {
    /// Signs what this server recommends.
    key: SigningKey,
    /// What was answered to others.
    answered: Mutex<LruCache<OwnedEventId, answer::Answered>>,
    /// How much each server asked lately.
    turns: Mutex<HashMap<OwnedServerName, answer::Turns>>,
    /// What policy servers answered about events from outside: their signature, or that they refuse.
    asked: Mutex<LruCache<(OwnedEventId, OwnedServerName), Option<String>>>,
    /// Policy servers that did not answer, and until when they are not asked, ms.
    silent: Mutex<BTreeMap<OwnedServerName, u64>>,
}

impl State {
    /// The policy server's key follows from the server's own: it is another one, as the specification asks, and needs no
    /// file.
    ///
    /// # Errors
    /// [`Error::Internal`], never in practice.
    pub(crate) fn new(signing_key: &SigningKey) -> Result<Self, Error> {
        let secret = Zeroizing::new(signing_key.sign_bytes(b"Matron: the seed of the policy server's key, 1"));
        let seed = Zeroizing::new(<[u8; 32]>::from(Sha256::digest(secret.as_bytes())));
        let key = SigningKey::from_seed("policy_server", &seed).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Self {
            key,
            answered: Mutex::new(LruCache::new(MAX_DECISIONS)),
            turns: Mutex::default(),
            asked: Mutex::new(LruCache::new(MAX_DECISIONS)),
            silent: Mutex::default(),
        })
    }

    /// The public half of the key, unpadded base64: what `m.room.policy` and `/.well-known/matrix/policy_server` say.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.key.verify_key().to_base64()
    }
}

/// A room's policy server.
#[derive(Clone, Debug)]
pub(crate) struct PolicyServer {
    /// Who answers.
    pub(crate) via: OwnedServerName,
    /// Its key; `None` when the room spells none that could verify anything.
    key: Option<VerifyKey>,
}

impl PolicyServer {
    /// Whether the policy server signed the event.
    fn signed(&self, pdu: &Pdu) -> bool {
        self.key.is_some_and(|key| pdu.is_signed_by(self.via.as_str(), KEY_ID, &key))
    }
}

#[derive(Deserialize)]
struct Content {
    via: String,
    public_keys: BTreeMap<String, Value>,
}

impl Core {
    /// The policy server that the room uses now, if it uses one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn policy_server_in(&self, inner: &mut Inner) -> Result<Option<PolicyServer>, Error> {
        let Some(content) = inner.state_content::<Content>(self, KIND, "")? else { return Ok(None) };
        let Some(Value::String(key)) = content.public_keys.get("ed25519") else { return Ok(None) };
        let Ok(via) = OwnedServerName::try_from(content.via) else { return Ok(None) };
        if inner.servers.get(&via).is_none_or(|joined| *joined == 0) {
            return Ok(None);
        }
        Ok(Some(PolicyServer { via, key: VerifyKey::from_base64(key).ok() }))
    }
}

/// Whether the event needs no recommendation: the one that names the policy server.
fn is_exempt(pdu: &Pdu) -> bool {
    pdu.is_state_of(KIND, "")
}
