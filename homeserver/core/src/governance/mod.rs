//! Facts for the policy, the register, credentials, evictions, the audit log.
//!
//! - [`rules`]: what policy goes by. [`facts`]: what is known when a question is asked.
//! - [`permit`]: our own events. [`create`]: new rooms. [`remote`]: events from outside. [`door`]: who comes in.
//! - [`register`], [`credential`]: documents that others signed. [`evict`], [`held`]: what follows when they change.
//! - [`read`]: what policy takes from those who look at a room.
//! - [`log`] and [`audit`]: the log, written and read.

mod audit;
mod create;
mod credential;
mod door;
mod evict;
mod facts;
mod held;
mod log;
mod permit;
mod read;
mod register;
mod remote;
mod rules;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    num::NonZeroUsize,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use ruma::OwnedUserId;
use tokio::sync::{Notify, watch};

pub use audit::{AuditCheck, Explanation};
pub use evict::Swept;
pub(crate) use facts::InForce;
pub use permit::{Permit, Refusal};
pub use register::RegisterChange;
pub use remote::RemoteVerdict;

use crate::{Core, Error, rooms::room::Inner};

/// How many valid credentials are kept in memory.
const KEPT_CREDENTIALS: NonZeroUsize = NonZeroUsize::new(8192).unwrap();

/// How often it is looked whether the register's file has changed.
const POLL: Duration = Duration::from_secs(1);

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug)]
pub struct State {
    rules: RwLock<Arc<rules::Rules>>,
    log: Arc<log::AuditLog>,
    /// Valid credentials, so that a signature is not verified for each message.
    credentials: Mutex<LruCache<OwnedUserId, facts::KnownCredential>>,
    /// How the register's file looked when it was read last.
    register_file: Mutex<register::Stamp>,
    /// One change of the register or of the revocations at a time.
    changing: tokio::sync::Mutex<()>,
    /// Whether somebody may have lost the right to remain.
    sweep_due: AtomicBool,
    /// Facts have changed: who waits is judged again, who may not remain is evicted.
    wake: Notify,
}

impl Default for State {
    fn default() -> Self {
        Self {
            rules: RwLock::default(),
            log: Arc::default(),
            credentials: Mutex::new(LruCache::new(KEPT_CREDENTIALS)),
            register_file: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            sweep_due: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }
}

impl State {
    /// Facts have changed: the worker looks what follows.
    pub(crate) fn follow(&self) {
        self.wake.notify_one();
    }
}

impl Core {
    pub(crate) fn start_governance(&self) -> Result<(), Error> {
        let rules = rules::Rules::from_settings(&self.settings.policy)?;
        *self.governance.rules.write() = Arc::new(rules);
        let head = self.governance.log.resume(&*self.store)?;
        if head.next_seq > 0 {
            // Written down outside the store: a log that is cut short later does not fit it.
            tracing::info!(audit.entries = head.next_seq, audit.head = %head.hash, "the audit log goes on");
        }
        self.start_register()
    }

    /// How long the policy in force lets content of this room live, ms; `None`: policy sets no end.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn policy_lifetime_ms(&self, inner: &mut Inner) -> Result<Option<u64>, Error> {
        let rules = self.rules();
        if facts::is_ordinary(&rules, inner) {
            return Ok(None);
        }
        Ok(self.in_force(&rules, inner)?.policy.layer().max_lifetime_ms)
    }

    /// Works until `stop` turns true.
    pub async fn run_governance(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(POLL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let woken = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.governance.wake.notified() => true,
                _ = tick.tick() => false,
            };
            if let Some(Err(error)) = self.poll_register().await {
                tracing::error!(%error, "the register's file changed, and is not used");
            }
            if let Err(error) = self.follow_facts(woken).await {
                tracing::error!(%error, "rooms could not follow what policy goes by");
            }
        }
    }

    /// What follows from facts that changed: evictions, and events that waited.
    ///
    /// # Errors
    /// [`Error::Store`].
    async fn follow_facts(self: &Arc<Self>, woken: bool) -> Result<(), Error> {
        let sweep = self.sweep_is_due()?;
        if sweep && let Err(error) = self.sweep_rooms().await {
            // Not done: the next round goes on.
            self.governance.sweep_due.store(true, std::sync::atomic::Ordering::Release);
            return Err(error);
        }
        // One look-up, while no room's policy has changed.
        self.sweep_moved_rooms().await?;
        if sweep || woken {
            self.judge_held().await?;
        }
        Ok(())
    }
}
