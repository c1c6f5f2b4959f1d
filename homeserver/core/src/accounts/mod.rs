//! Users, devices, tokens, profiles, account data, filters.
//!
//! One file per use case. [`Account`] and [`Device`] are changed by compare-and-set only ([`Core::update_account`](crate::Core::update_account),
//! [`Core::update_device`](crate::Core::update_device)), so that two requests, or two processes, never lose each other's change.

mod account;
mod account_data;
mod authenticate;
mod captcha;
mod close;
mod device;
mod directory;
pub mod email;
mod filter;
mod guess;
mod guests;
mod hashers;
mod hooks;
mod login;
mod openid;
mod operator;
mod password;
mod profile;
mod refresh;
mod register;
mod registration_token;
mod shared_secret;
mod threepid;
mod token;
mod uia;
mod uia_page;
mod warm;
mod worker;

pub use account::Account;
pub use account_data::{AccountData, PUSH_RULES};
pub use authenticate::Masquerade;
pub use device::{Device, DeviceView};
pub(crate) use device::{SessionKind, one_hash};
pub use directory::{DirectoryEntry, DirectoryPage};
pub use filter::{EventFilter, EventFormat, Filter, RoomFilter};
pub use login::{Identifier, LoggedIn, Login};
pub use openid::OpenIdToken;
pub use register::{Register, Registered};
pub use registration_token::RegistrationToken;
pub use shared_secret::SharedSecretRegister;
pub use threepid::Threepid;
pub use token::{Issued, TokenHash};
pub(crate) use token::{fresh_family, fresh_name, fresh_token, hash_token};
pub use uia_page::StageProof;
pub(crate) use warm::{Changing, Warm};

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroUsize,
    sync::Arc,
};

use matron_storage::StreamPos;
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedUserId};

/// How many warm tokens and accounts are remembered.
const WARM: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16_383);

/// How many passwords are hashed at one time: each takes a core and 19 MiB.
const CONCURRENT_HASHES: usize = 2;

/// How many letters are on their way at one time.
const CONCURRENT_LETTERS: usize = 8;

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
    account_data: Warm<StreamPos>,
    /// Whom users ignore, read lately.
    ignored: Warm<Arc<BTreeSet<OwnedUserId>>>,
    /// What clients give with each sync.
    filters: Mutex<filter::Filters>,
    /// Nonces of shared-secret registration.
    nonces: Mutex<shared_secret::Nonces>,
    /// Registrations that wait for their authentication.
    begun: Mutex<register::Begun>,
    /// For the user directory.
    open_rooms: directory::OpenRooms,
    /// Wrong passwords of late.
    guesses: Mutex<guess::Guesses>,
    /// Letters of late.
    letters: Mutex<email::Letters>,
    /// Bounds how many letters are on their way.
    posting: tokio::sync::Semaphore,
    /// Bounds the memory and cores that hashing may take.
    hashing: Arc<tokio::sync::Semaphore>,
    /// Where hashing happens.
    hashers: hashers::Hashers,
}

impl Default for State {
    fn default() -> Self {
        Self {
            tokens: Mutex::new(authenticate::TokenCache::new(WARM)),
            accounts: Mutex::new(account::AccountCache::new(WARM)),
            seen: Mutex::default(),
            account_data: Warm::new(WARM),
            ignored: Warm::new(WARM),
            filters: Mutex::new(filter::Filters::new(filter::REMEMBERED)),
            nonces: Mutex::default(),
            begun: Mutex::new(register::Begun::new(register::MAX_BEGUN)),
            open_rooms: directory::OpenRooms::default(),
            guesses: Mutex::default(),
            letters: Mutex::default(),
            posting: tokio::sync::Semaphore::new(CONCURRENT_LETTERS),
            hashing: Arc::new(tokio::sync::Semaphore::new(CONCURRENT_HASHES)),
            hashers: hashers::Hashers::new(CONCURRENT_HASHES),
        }
    }
}
