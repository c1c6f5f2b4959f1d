//! Asking a room's policy server, and holding events to what it says.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use matron_room::Pdu;
use ruma::ServerName;
use serde_json::Value;

use super::{KEY_ID, PolicyServer, is_exempt};
use crate::{
    Core, Error,
    ports::{FederationRequest, PeerError, http_method::Method},
    rooms::Room,
};

/// How long a policy server has.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one that did not answer is not asked about events from outside, ms.
const SILENCE_MS: u64 = 5_000;
/// How many events of the past are asked about at once.
const HISTORY_AT_ONCE: usize = 8;
/// How many silent ones are remembered.
const MAX_SILENT: usize = 1_024;

impl Core {
    /// The event of ours, signed by this server as the room's policy server if it is one, and the server that must be asked
    /// if another is.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the room names this server with a key that is not its own; [`Error::Store`].
    pub(crate) fn recommend_own(
        &self,
        inner: &mut crate::rooms::room::Inner,
        pdu: Pdu,
    ) -> Result<(Pdu, Option<PolicyServer>), Error> {
        if is_exempt(&pdu) {
            return Ok((pdu, None));
        }
        let Some(server) = self.policy_server_in(inner)? else { return Ok((pdu, None)) };
        if !self.is_local(&server.via) {
            return Ok((pdu, Some(server)));
        }
        let pdu = pdu
            .with_signature(&self.policy_server.key, &self.server_name)
            .map_err(|error| Error::internal(error.to_string()))?;
        if !server.signed(&pdu) {
            return Err(Error::forbidden(
                "the room names this server as its policy server with a key that is not the server's",
            ));
        }
        Ok((pdu, None))
    }

    /// The event from outside that this server's own policy permits, signed by this server if the room names it as its policy
    /// server: whoever hears of the event from us need not ask.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn recommend_permitted(&self, inner: &mut crate::rooms::room::Inner, pdu: &Pdu) -> Result<Pdu, Error> {
        let named = if is_exempt(pdu) { None } else { self.policy_server_in(inner)? };
        let Some(server) = named.filter(|server| self.is_local(&server.via) && !server.signed(pdu)) else {
            return Ok(pdu.clone());
        };
        let signed = pdu
            .with_signature(&self.policy_server.key, &self.server_name)
            .map_err(|error| Error::internal(error.to_string()))?;
        // A room that names another key is not helped by ours.
        Ok(if server.signed(&signed) { signed } else { pdu.clone() })
    }

    /// The event of ours, sealed and not yet sent, with the recommendation that the room demands, if any.
    ///
    /// # Errors
    /// As [`Core::ask_to_send`].
    pub(crate) async fn recommended_to_send(&self, room: &Arc<Room>, pdu: Pdu) -> Result<Pdu, Error> {
        let (pdu, server) = {
            let mut inner = room.lock();
            self.recommend_own(&mut inner, pdu)?
        };
        match server {
            Some(server) => self.ask_to_send(&server, pdu).await,
            None => Ok(pdu),
        }
    }

    /// The event of ours with the recommendation of the room's policy server.
    ///
    /// # Errors
    /// [`Error::PeerAnswer`] with what the policy server said; [`Error::Forbidden`] when it does not answer, or signs wrongly.
    pub(crate) async fn ask_to_send(&self, server: &PolicyServer, pdu: Pdu) -> Result<Pdu, Error> {
        let signature = match self.ask_policy_server(&server.via, &pdu).await {
            Ok(signature) => signature,
            Err(PeerError::Status { status: status @ (400 | 403 | 404 | 429), body }) if body.is_object() => {
                return Err(Error::PeerAnswer { status, body: Box::new(body) });
            }
            Err(error) => {
                tracing::info!(peer.name = %server.via, room.id = %pdu.room_id(), %error, "a room's policy server does not answer");
                return Err(Error::forbidden(
                    "the room's policy server does not answer: nothing can be sent here until it does",
                ));
            }
        };
        let pdu = with_recommendation(&pdu, &server.via, &signature)?;
        if server.signed(&pdu) {
            return Ok(pdu);
        }
        Err(Error::forbidden("the room's policy server signs with another key than the room names"))
    }

    /// The event from outside, with its recommendation, and whether it has one or needs none.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn recommended(self: &Arc<Self>, room: &Arc<Room>, pdu: &Pdu) -> Result<(Pdu, bool), Error> {
        if is_exempt(pdu) {
            return Ok((pdu.clone(), true));
        }
        let server = {
            let mut inner = room.lock();
            self.policy_server_in(&mut inner)?
        };
        // This server recommends what its own policy permits: that is asked next, with the facts at hand.
        let Some(server) = server.filter(|server| !self.is_local(&server.via)) else { return Ok((pdu.clone(), true)) };
        if server.signed(pdu) {
            return Ok((pdu.clone(), true));
        }
        let decided = |signature: Option<String>| -> Result<(Pdu, bool), Error> {
            let Some(signature) = signature else { return Ok((pdu.clone(), false)) };
            let signed = with_recommendation(pdu, &server.via, &signature)?;
            let stands = server.signed(&signed);
            Ok((signed, stands))
        };
        let key = (pdu.event_id().to_owned(), server.via.clone());
        if let Some(signature) = self.policy_server.asked.lock().get(&key).cloned() {
            let is_refusal = signature.is_none();
            let (signed, stands) = decided(signature)?;
            // SPEC: a signature that is not valid is asked for anew: the key may have changed since.
            if stands || is_refusal {
                return Ok((signed, stands));
            }
        }
        // What it said before stands no more; if it is silent now, it has said nothing.
        self.policy_server.asked.lock().pop(&key);
        decided(self.ask_about(&server.via, pdu).await)
    }

    /// Whether the room's policy server said that it refuses the event, rather than nothing.
    fn is_refused(&self, room: &Room, pdu: &Pdu) -> Result<bool, Error> {
        let server = self.policy_server_in(&mut room.lock())?;
        Ok(server.is_some_and(|server| {
            let key = (pdu.event_id().to_owned(), server.via);
            self.policy_server.asked.lock().peek(&key).is_some()
        }))
    }

    /// Why the event from outside has no recommendation that the room demands, in words; `None` if it lacks none.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn why_not_recommended(&self, room: &Room, pdu: &Pdu) -> Result<Option<&'static str>, Error> {
        let server = self.policy_server_in(&mut room.lock())?;
        let lacks = server.is_some_and(|server| !is_exempt(pdu) && !self.is_local(&server.via) && !server.signed(pdu));
        Ok(match lacks {
            false => None,
            true if self.is_refused(room, pdu)? => Some("the room's policy server refuses this"),
            true => Some("the room's policy server does not answer: nothing can be done here until it does"),
        })
    }

    /// The events of the past with their recommendations, in the same order; `None` for one that is refused.
    ///
    /// # Errors
    /// [`Error::Peer`] when the policy server does not answer: whether they may be shown is not known then; [`Error::Store`].
    pub(crate) async fn recommended_history(
        self: &Arc<Self>,
        room: &Arc<Room>,
        pdus: &[Pdu],
    ) -> Result<Vec<Option<Pdu>>, Error> {
        let asked = stream::iter(pdus.to_vec()).map(|pdu| async move {
            // Without its create event there is no room to speak of.
            if pdu.is_state_of("m.room.create", "") {
                return Ok(Some(pdu));
            }
            match self.recommended(room, &pdu).await? {
                (pdu, true) => Ok(Some(pdu)),
                (pdu, false) if self.is_refused(room, &pdu)? => Ok(None),
                (_, false) => Err(Error::Peer("the room's policy server does not answer".into())),
            }
        });
        asked.buffered(HISTORY_AT_ONCE).try_collect().await
    }

    /// The policy server's signature of an event from outside; `None` when it refuses, or does not answer.
    async fn ask_about(&self, via: &ServerName, pdu: &Pdu) -> Option<String> {
        let now_ms = self.now_ms();
        if self.policy_server.silent.lock().get(via).is_some_and(|until_ms| *until_ms > now_ms) {
            return None;
        }
        let answer = self.ask_policy_server(via, pdu).await;
        let decided = match answer {
            Ok(signature) => Some(signature),
            Err(PeerError::Status { status: 400 | 403, .. }) => None,
            Err(PeerError::Status { status: 404 | 429, .. }) => return None,
            Err(error) => {
                tracing::info!(peer.name = %via, room.id = %pdu.room_id(), %error, "a room's policy server does not answer");
                let mut silent = self.policy_server.silent.lock();
                silent.retain(|_, until_ms| *until_ms > now_ms);
                if silent.len() < MAX_SILENT {
                    silent.insert(via.to_owned(), self.now_ms().saturating_add(SILENCE_MS));
                }
                return None;
            }
        };
        self.policy_server.asked.lock().put((pdu.event_id().to_owned(), via.to_owned()), decided.clone());
        decided
    }

    async fn ask_policy_server(&self, via: &ServerName, pdu: &Pdu) -> Result<String, PeerError> {
        if !self.peer_allowed(via) {
            return Err(PeerError::Resolve("this server may not speak with that one".to_owned()));
        }
        let body: Value = serde_json::from_str(pdu.json().get())
            .map_err(|_not_json| PeerError::Malformed("the event is no JSON".to_owned()))?;
        let request = FederationRequest {
            destination: via.to_owned(),
            method: Method::Post,
            path_and_query: "/_matrix/policy/v1/sign".to_owned(),
            body: Some(body),
            signed: true,
            timeout: PATIENCE,
            max_bytes: 64 * 1024,
        };
        let response = self.federation.request(request).await?;
        let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let signature = answer.get(via.as_str()).and_then(|keys| keys.get(KEY_ID)).and_then(Value::as_str);
        signature
            .filter(|signature| signature.len() <= 128)
            .map(ToOwned::to_owned)
            .ok_or_else(|| PeerError::Malformed("there is no signature of the policy server in it".to_owned()))
    }
}

fn with_recommendation(pdu: &Pdu, via: &ServerName, signature: &str) -> Result<Pdu, Error> {
    pdu.with_foreign_signature(via.as_str(), KEY_ID, signature).map_err(|error| Error::internal(error.to_string()))
}
