//! Device keys, one-time keys, cross-signing, key backup, to-device messages, device lists.
//!
//! - [`upload`], [`one_time`], [`claim`]: what a device publishes and what others take from it; a one-time key is given once.
//! - [`local`], [`query`], [`remote`]: whose keys are what, ours from the store, others' from a cache that EDUs keep fresh.
//! - [`cross_signing`], [`signatures`]: identities of users, and who vouches for them; every signature is verified.
//! - [`device_lists`], [`inbound`]: telling local clients and other servers that a list changed, and hearing it from them.
//! - [`send_to_device`], [`inbox`]: messages for single devices. [`at_rest`]: they lie sealed until they are taken.
//! - [`dehydrated`]: a device that sleeps here.
//! - [`backup`]: room keys that clients encrypted for themselves.
//! - [`federation`]: what other servers may ask.

pub(crate) mod at_rest;
pub mod backup;
pub mod claim;
pub mod cross_signing;
pub mod dehydrated;
pub mod device_lists;
pub mod federation;
pub mod inbound;
pub mod inbox;
pub mod local;
pub mod one_time;
pub mod query;
pub mod remote;
pub mod send_to_device;
pub mod signatures;
pub mod upload;

mod signed_json;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedUserId};
use tokio::sync::{Notify, watch};

use self::one_time::KeyCounts;
use crate::{
    Core,
    ports::{FederationRequest, PeerError, PeerResponse},
    remembered::Remembered,
};

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug)]
pub struct State {
    /// Remote users whose device list must be fetched again. The store marks them too, so losing this costs a delay.
    resync: Mutex<BTreeSet<OwnedUserId>>,
    resync_wanted: Notify,
    /// Devices for which nothing waits.
    empty_inboxes: Remembered<(OwnedUserId, OwnedDeviceId), ()>,
    /// How many one-time keys devices have left.
    counts: Remembered<(OwnedUserId, OwnedDeviceId), KeyCounts>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            resync: Mutex::default(),
            resync_wanted: Notify::default(),
            empty_inboxes: Remembered::new(WARM_DEVICES),
            counts: Remembered::new(WARM_DEVICES),
        }
    }
}

/// Of how many devices it is remembered what each of their syncs asks.
const WARM_DEVICES: usize = 16_384;

/// How many users may wait for a resync in memory; beyond it the mark in the store must do.
const MAX_RESYNC_WAITING: usize = 50_000;

/// How often rows past their age are looked for, ms.
const PRUNE_INTERVAL_MS: u64 = 10 * 60 * 1000;

impl State {
    pub(crate) fn want_resync(&self, user: OwnedUserId) {
        let mut waiting = self.resync.lock();
        if waiting.len() < MAX_RESYNC_WAITING {
            waiting.insert(user);
            self.resync_wanted.notify_one();
        }
    }

    fn take_resync(&self, count: usize) -> Vec<OwnedUserId> {
        let mut waiting = self.resync.lock();
        let mut taken = Vec::new();
        while taken.len() < count {
            let Some(user) = waiting.pop_first() else { break };
            taken.push(user);
        }
        taken
    }
}

impl Core {
    /// One request to a server with which this one may speak.
    ///
    /// # Errors
    /// [`PeerError`]; a server outside of the federation is not asked.
    pub(crate) async fn ask_peer(&self, request: FederationRequest) -> Result<PeerResponse, PeerError> {
        if !self.peer_allowed(&request.destination) {
            return Err(PeerError::Resolve("this server may not speak with that one".to_owned()));
        }
        self.federation.request(request).await
    }

    /// Fetches remote device lists that fell behind and removes rows past their age, until `stop` turns true.
    pub async fn run_keys(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut prune = tokio::time::interval(std::time::Duration::from_millis(PRUNE_INTERVAL_MS));
        prune.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut first = true;
        loop {
            tokio::select! {
                () = crate::house::stopped(&mut stop) => return,
                () = self.keys.resync_wanted.notified() => self.resync_waiting().await,
                _ = prune.tick() => {
                    if let Err(error) = self.prune_keys().await {
                        tracing::warn!(%error, "old rows of the keys tables were not removed");
                    }
                    match self.renew_message_keys(first).await {
                        Ok(is_done) => first &= !is_done,
                        Err(error) => tracing::error!(%error, "to-device messages were not sealed anew"),
                    }
                }
            }
        }
    }
}
