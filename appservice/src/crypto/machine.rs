//! The machine: one device's encryption state, and the requests that keep it current.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;
use vodozemac::olm::SessionConfig;
use zeroize::Zeroizing;

use super::account::{OwnAccount, UploadKind};
use super::cross_signing::{CrossSigning, CrossSigningUpload};
use super::device_lists::DeviceLists;
use super::inbound::InboundSessions;
use super::json::SignedJsonError;
use super::olm::OlmSessions;
use super::outbound::Outbound;
use super::receive::Payload;
use crate::client::{KeysClaimResponse, KeysQueryResponse};

/// A device that gave no one-time key is asked again after this time, in milliseconds.
const CLAIM_AGAIN_MS: u64 = 60_000;
/// SPEC: no second replacement session with a device within an hour.
pub(super) const UNWEDGE_AGAIN_MS: u64 = 3_600_000;

/// A part of the machine's state: its name, and its content, which holds secrets.
pub type StoredPart = (&'static str, Zeroizing<Vec<u8>>);

/// Why the machine could not do its part.
#[derive(Debug, Error)]
pub enum CryptoError {
    /// A key object could not be signed.
    #[error("a key object could not be signed")]
    Signed(#[from] SignedJsonError),
    /// Stored state is not what this version wrote.
    #[error("stored encryption state is corrupt")]
    Stored(#[from] serde_json::Error),
    /// Stored state belongs to another user or device.
    #[error("stored encryption state belongs to another device")]
    OtherDevice,
    /// `encrypt` without a shared session.
    #[error("no room key has been shared in this room")]
    NoRoomKey,
}

/// Which parts changed since they were stored.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) account: bool,
    pub(super) olm: bool,
    pub(super) devices: bool,
    pub(super) inbound: bool,
}

/// One device's end-to-end encryption.
pub struct Machine {
    pub(super) own: OwnAccount,
    pub(super) devices: DeviceLists,
    pub(super) olm: OlmSessions,
    pub(super) outbound: BTreeMap<String, Outbound>,
    pub(super) inbound: InboundSessions,
    /// Decrypted, but from a device that is not known yet.
    pub(super) waiting: Vec<Payload>,
    /// When a device may be asked for a one-time key again, by user and device.
    claim_after_ms: BTreeMap<(String, String), u64>,
    /// Devices whose Olm session is broken, by user and device.
    pub(super) wedged: BTreeSet<(String, String)>,
    pub(super) unwedged_ms: BTreeMap<(String, String), u64>,
    pub(super) requests: u64,
    pub(super) dirty: Dirty,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("user_id", &self.own.user_id)
            .field("device_id", &self.own.device_id)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine with new keys.
    #[must_use]
    pub fn new(user_id: &str, device_id: &str) -> Self {
        let mut machine = Self::with(OwnAccount::new(user_id, device_id));
        machine.dirty.account = true;
        machine
    }

    fn with(own: OwnAccount) -> Self {
        Self {
            own,
            devices: DeviceLists::default(),
            olm: OlmSessions::default(),
            outbound: BTreeMap::new(),
            inbound: InboundSessions::default(),
            waiting: Vec::new(),
            claim_after_ms: BTreeMap::new(),
            wedged: BTreeSet::new(),
            unwedged_ms: BTreeMap::new(),
            requests: 0,
            dirty: Dirty::default(),
        }
    }

    /// The machine that stored these parts; `load` gives a part by its name. `None` where none was stored.
    ///
    /// # Errors
    /// [`CryptoError::Stored`] or [`CryptoError::OtherDevice`].
    pub fn restore(
        user_id: &str,
        device_id: &str,
        mut load: impl FnMut(&str) -> Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Option<Self>, CryptoError> {
        let Some(account) = part(&mut load, "account")? else {
            return Ok(None);
        };
        let mut machine = Self::with(OwnAccount::from_pickle(account));
        if machine.own.user_id != user_id || machine.own.device_id != device_id {
            return Err(CryptoError::OtherDevice);
        }
        machine.devices = part(&mut load, "devices")?.unwrap_or_default();
        machine.olm = OlmSessions::from_pickle(part(&mut load, "olm")?.unwrap_or_default());
        machine.inbound = InboundSessions::from_pickle(part(&mut load, "inbound")?.unwrap_or_default());
        Ok(Some(machine))
    }

    /// The parts that changed since the last call, by name; they hold secrets and must be sealed.
    ///
    /// # Errors
    /// [`CryptoError::Stored`] never in practice; the state is serialisable.
    pub fn take_changes(&mut self) -> Result<Vec<StoredPart>, CryptoError> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut parts = Vec::new();
        // Sessions before the account: a used one-time key must not be gone without its session.
        if dirty.olm {
            parts.push(("olm", Zeroizing::new(serde_json::to_vec(&self.olm.pickle())?)));
        }
        if dirty.inbound {
            parts.push(("inbound", Zeroizing::new(serde_json::to_vec(&self.inbound.pickle())?)));
        }
        if dirty.devices {
            parts.push(("devices", Zeroizing::new(serde_json::to_vec(&self.devices)?)));
        }
        if dirty.account {
            parts.push(("account", Zeroizing::new(serde_json::to_vec(&self.own.pickle())?)));
        }
        Ok(parts)
    }

    /// Our user.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.own.user_id
    }

    /// Our device.
    #[must_use]
    pub fn device_id(&self) -> &str {
        &self.own.device_id
    }

    /// Makes new one-time and fallback keys where the homeserver runs short.
    pub fn refill_keys(&mut self, one_time_keys_on_server: u64, needs_fallback: bool) {
        self.dirty.account |= self.own.refill(one_time_keys_on_server, needs_fallback);
    }

    /// The body of `POST /keys/upload`, or `None` where everything is published. Store changes before sending.
    ///
    /// # Errors
    /// [`CryptoError::Signed`].
    pub fn keys_to_upload(&self) -> Result<Option<(UploadKind, Value)>, CryptoError> {
        Ok(self.own.upload_body()?)
    }

    /// The homeserver took the last upload.
    pub fn mark_uploaded(&mut self) {
        self.own.account.mark_keys_as_published();
        self.own.published = true;
        self.dirty.account = true;
    }

    /// Our cross-signing keys, made if there were none; `None` once they are published.
    ///
    /// # Errors
    /// [`CryptoError::Signed`].
    pub fn cross_signing_to_upload(&mut self) -> Result<Option<CrossSigningUpload>, CryptoError> {
        let cross_signing = self.own.cross_signing.get_or_insert_with(CrossSigning::new).clone();
        if cross_signing.published {
            return Ok(None);
        }
        self.dirty.account = true;
        let keys = cross_signing.public_keys(&self.own.user_id, |master| self.own.sign(master))?;
        let signatures = json!({self.own.user_id.as_str(): {self.own.device_id.as_str(): self.own.device_keys()?}});
        Ok(Some(CrossSigningUpload { keys, signatures }))
    }

    /// The homeserver took the cross-signing keys and the signature.
    pub fn mark_cross_signed(&mut self) {
        if let Some(cross_signing) = &mut self.own.cross_signing {
            cross_signing.published = true;
            self.dirty.account = true;
        }
    }

    /// Those of `users`, and of the senders of waiting keys, whose devices must be fetched.
    #[must_use]
    pub fn users_to_query(&self, users: &[String]) -> Vec<String> {
        let mut wanted = self.devices.unknown_among(users);
        for payload in &self.waiting {
            if !wanted.contains(&payload.sender) {
                wanted.push(payload.sender.clone());
            }
        }
        wanted
    }

    /// The devices of the users that were asked for are known afterwards, as far as their servers answered.
    /// Waiting room keys whose sender is now known are taken; gives whether any was.
    pub fn receive_keys_query(&mut self, asked: &[String], response: &KeysQueryResponse, now_ms: u64) -> bool {
        self.devices.receive(asked, response);
        self.dirty.devices = true;
        self.retry_waiting(now_ms)
    }

    /// Users with a device whose Olm session is broken.
    #[must_use]
    pub fn wedged_users(&self) -> Vec<String> {
        let mut users: Vec<String> = self.wedged.iter().map(|(user, _)| user.clone()).collect();
        users.dedup();
        users
    }

    /// Devices of these users with which no Olm session stands: the body of `POST /keys/claim`.
    #[must_use]
    pub fn devices_to_claim(&self, users: &[String], now_ms: u64) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut wanted: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for device in self.devices.devices_of(users) {
            let id = (device.user_id.clone(), device.device_id.clone());
            let own = device.user_id == self.own.user_id && device.device_id == self.own.device_id;
            let waits = self.claim_after_ms.get(&id).is_some_and(|after| now_ms < *after);
            let stands = self.olm.has(&device.curve25519.to_base64()) && !self.wedged.contains(&id);
            if !own && !waits && !stands {
                let of_user = wanted.entry(device.user_id.clone()).or_default();
                of_user.insert(device.device_id.clone(), "signed_curve25519".to_owned());
            }
        }
        wanted
    }

    /// Olm sessions stand with the devices whose keys came and hold; the others are asked again later.
    pub fn receive_keys_claim(
        &mut self,
        claimed: &BTreeMap<String, BTreeMap<String, String>>,
        response: &KeysClaimResponse,
        now_ms: u64,
    ) {
        let users: Vec<String> = claimed.keys().cloned().collect();
        let devices: Vec<_> = self
            .devices
            .devices_of(&users)
            .filter(|device| claimed.get(&device.user_id).is_some_and(|of| of.contains_key(&device.device_id)))
            .cloned()
            .collect();
        for device in devices {
            let id = (device.user_id.clone(), device.device_id.clone());
            let key = response
                .one_time_keys
                .get(&device.user_id)
                .and_then(|of_user| of_user.get(&device.device_id))
                .and_then(|keys| keys.iter().find(|(id, _)| id.starts_with("signed_curve25519:")))
                .map(|(_, key)| device.verify_one_time_key(key));
            let session = match key {
                Some(Ok(key)) => {
                    self.own.account.create_outbound_session(SessionConfig::version_1(), device.curve25519, key).ok()
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "a claimed one-time key is not believed");
                    None
                }
                None => None,
            };
            match session {
                Some(session) => {
                    self.olm.add(device.curve25519.to_base64(), session, now_ms);
                    self.dirty.olm = true;
                    self.claim_after_ms.remove(&id);
                }
                None => {
                    self.wedged.remove(&id);
                    self.claim_after_ms.insert(id, now_ms.saturating_add(CLAIM_AGAIN_MS));
                }
            }
        }
        self.claim_after_ms.retain(|_, after| now_ms < *after);
    }

    /// Everything known about other devices is stale: the place in the sync stream was lost.
    pub fn mark_all_stale(&mut self) {
        self.devices.mark_all_stale();
        self.dirty.devices = true;
    }

    /// The keys of a room that our device has left are gone afterwards.
    pub fn forget_room(&mut self, room_id: &str) {
        self.outbound.remove(room_id);
        self.dirty.inbound |= self.inbound.forget_room(room_id);
    }
}

fn part<T: DeserializeOwned>(
    load: &mut impl FnMut(&str) -> Option<Zeroizing<Vec<u8>>>,
    name: &str,
) -> Result<Option<T>, CryptoError> {
    Ok(load(name).map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
}
