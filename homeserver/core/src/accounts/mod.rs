//! Users, devices, tokens, profiles, account data, filters.
//!
//! One file per use case. [`Account`] and [`Device`] are changed by compare-and-set only ([`Core::update_account`],
//! [`Core::update_device`]), so that two requests, or two processes, never lose each other's change.

mod account;
mod authenticate;
mod device;
mod hooks;
mod password;
mod token;

pub use account::Account;
pub use authenticate::Masquerade;
pub use device::{Device, DeviceView};
pub use token::{Issued, TokenHash};

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use matron_storage::StreamPos;
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedUserId};

/// How many warm tokens and accounts are remembered.
const WARM: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16_383);

/// How many passwords are hashed at one time: each takes a core and 19 MiB.
const CONCURRENT_HASHES: usize = 2;

/// What this concern keeps in memory; truth lives in the store.
#[derive(Debug)]
pub struct State {
    /// Tokens that were proved lately.
    tokens: Mutex<authenticate::TokenCache>,
    /// Accounts read lately; a change removes its entry.
    accounts: Mutex<account::AccountCache>,
    /// When devices were last seen, until it is written.
    seen: Mutex<HashMap<(OwnedUserId, OwnedDeviceId), device::Seen>>,
    /// The position of each user's latest change of account data.
    account_data: Mutex<LruCache<OwnedUserId, StreamPos>>,
    /// Bounds the memory and cores that hashing may take.
    hashing: Arc<tokio::sync::Semaphore>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            tokens: Mutex::new(authenticate::TokenCache::new(WARM)),
            accounts: Mutex::new(account::AccountCache::new(WARM)),
            seen: Mutex::default(),
            account_data: Mutex::new(LruCache::new(WARM)),
            hashing: Arc::new(tokio::sync::Semaphore::new(CONCURRENT_HASHES)),
        }
    }
}
