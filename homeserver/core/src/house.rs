//! [`Core`]: everything that the use cases share.

use std::{path::PathBuf, sync::Arc};

use matron_storage::{Batch, CommitError, Committed, Key, Store, StreamPos, Table};
use ruma::{OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, Settings, accounts, admin, appservices, federation, governance, keys, media,
    notifier::Notifier,
    oauth, outbox, peeks, policy_server,
    ports::{Clock, Federation},
    presence, push, retention, rooms, sync,
};

/// How often a change is tried again when another writer was faster.
pub(crate) const MAX_ATTEMPTS: usize = 32;

/// Who asks, as the access token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The user, masquerading of an application service included.
    pub user_id: OwnedUserId,
    /// The device, absent for an application service that named none.
    pub device_id: Option<OwnedDeviceId>,
    /// The application service whose token was used.
    pub appservice: Option<String>,
    /// Operators' accounts may use the admin API.
    pub is_admin: bool,
    /// Guests may do little.
    pub is_guest: bool,
    /// Hash of the access token used: what logout removes.
    pub token_hash: Option<[u8; 32]>,
}

impl Requester {
    /// What makes a transaction id unique: the device, or the application service, or the user alone.
    #[must_use]
    pub fn transaction_owner(&self) -> String {
        match (&self.device_id, &self.appservice) {
            (Some(device), _) => device.to_string(),
            (None, Some(appservice)) => format!("appservice {appservice}"),
            (None, None) => String::new(),
        }
    }
}

/// What [`Core::new`] is built from; the binary makes them real, tests make them small.
#[derive(Debug)]
pub struct Parts {
    /// The operator's choices.
    pub settings: Settings,
    /// This server's name.
    pub server_name: OwnedServerName,
    /// The engine.
    pub store: Arc<dyn Store>,
    /// The data keys of sealed content.
    pub keyring: Arc<matron_storage::keyring::KeyRing>,
    /// Signs events and requests.
    pub signing_key: Arc<matron_room::SigningKey>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Other servers.
    pub federation: Arc<dyn Federation>,
    /// Where media files are kept, sealed.
    pub media_dir: PathBuf,
    /// Registered application services.
    pub appservices: Vec<appservices::Registration>,
}

/// Everything that the use cases share. Cheap to share as `Arc<Core>`; each use case is a method.
#[derive(Debug)]
pub struct Core {
    /// The operator's choices.
    pub settings: Settings,
    /// This server's name.
    pub server_name: OwnedServerName,
    /// The engine.
    pub store: Arc<dyn Store>,
    /// The data keys of sealed content.
    pub keyring: Arc<matron_storage::keyring::KeyRing>,
    /// Signs events and requests.
    pub signing_key: Arc<matron_room::SigningKey>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Other servers.
    pub federation: Arc<dyn Federation>,
    /// Where media files are kept, sealed.
    pub media_dir: PathBuf,
    /// Wakes those who wait for a change.
    pub notifier: Arc<Notifier>,
    /// In-memory state of each concern; truth lives in the store.
    pub accounts: accounts::State,
    /// See [`admin`].
    pub admin: admin::State,
    /// See [`appservices`].
    pub appservices: appservices::State,
    /// See [`federation`].
    pub inbound: federation::State,
    /// See [`governance`].
    pub governance: governance::State,
    /// See [`keys`].
    pub keys: keys::State,
    /// See [`media`].
    pub media: media::State,
    /// See [`oauth`].
    pub oauth: oauth::State,
    /// See [`outbox`].
    pub outbox: outbox::State,
    /// See [`peeks`].
    pub peeks: peeks::State,
    /// See [`policy_server`].
    pub policy_server: policy_server::State,
    /// See [`presence`].
    pub presence: presence::State,
    /// See [`push`].
    pub push: push::State,
    /// See [`retention`].
    pub retention: retention::State,
    /// See [`rooms`].
    pub rooms: rooms::State,
    /// See [`sync`].
    pub sync: sync::State,
    /// See [`rooms::delayed`].
    pub delayed: rooms::delayed::State,
}

impl Core {
    /// A server ready to serve; its workers start with [`Core::run_workers`].
    ///
    /// # Errors
    /// [`Error::Store`] when what is on disk cannot be read, and [`Error::Internal`] naming the setting that makes no sense.
    pub fn new(parts: Parts) -> Result<Arc<Self>, Error> {
        let policy_server = policy_server::State::new(&parts.signing_key)?;
        let core = Arc::new(Self {
            appservices: appservices::State::new(parts.appservices, &parts.server_name, parts.store.position())?,
            settings: parts.settings,
            server_name: parts.server_name,
            store: parts.store,
            keyring: parts.keyring,
            signing_key: parts.signing_key,
            clock: parts.clock,
            federation: parts.federation,
            media_dir: parts.media_dir,
            notifier: Arc::default(),
            accounts: accounts::State::default(),
            admin: admin::State::default(),
            inbound: federation::State::default(),
            governance: governance::State::default(),
            keys: keys::State::default(),
            media: media::State::default(),
            oauth: oauth::State::default(),
            outbox: outbox::State::default(),
            peeks: peeks::State::default(),
            policy_server,
            presence: presence::State::default(),
            push: push::State::default(),
            retention: retention::State::default(),
            rooms: rooms::State::default(),
            sync: sync::State::default(),
            delayed: rooms::delayed::State::default(),
        });
        core.start_governance()?;
        core.start_rooms()?;
        core.start_gaps()?;
        core.start_push()?;
        core.start_peeks()?;
        Ok(core)
    }

    /// Runs everything that happens without a request, until `stop` turns true.
    pub async fn run_workers(self: &Arc<Self>, stop: tokio::sync::watch::Receiver<bool>) {
        tokio::join!(
            self.run_outbox(stop.clone()),
            self.run_appservices(stop.clone()),
            self.run_retention(stop.clone()),
            self.run_presence(stop.clone()),
            self.run_governance(stop.clone()),
            self.run_keys(stop.clone()),
            self.run_media(stop.clone()),
            self.run_push(stop.clone()),
            self.run_accounts(stop.clone()),
            self.run_delayed(stop.clone()),
        );
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Whether this user or server name is ours.
    #[must_use]
    pub fn is_local(&self, server: &ServerName) -> bool {
        server == &*self.server_name
    }

    /// Whether this user has an account here.
    #[must_use]
    pub fn is_local_user(&self, user: &UserId) -> bool {
        self.is_local(user.server_name())
    }

    /// The position up to which everything is visible.
    #[must_use]
    pub fn position(&self) -> StreamPos {
        self.store.position()
    }

    /// Writes a batch; it is durable and visible when this returns.
    ///
    /// # Errors
    /// [`Error::Store`]; a failed expectation is [`Error::Internal`]: writers with expectations use the store itself.
    pub async fn commit(&self, batch: Batch) -> Result<Committed, Error> {
        Ok(self.store.submit(batch).await?)
    }

    /// As [`Core::commit`]; what to answer where an expectation fails is `refusal`.
    ///
    /// # Errors
    /// [`Error::Store`]; `refusal`.
    pub(crate) async fn commit_or(&self, batch: Batch, refusal: Error) -> Result<(), Error> {
        match self.store.submit(batch).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict(_)) => Err(refusal),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    /// What `write` adds to a batch is committed; where somebody else was quicker, it is asked again, of how things are then.
    ///
    /// # Errors
    /// What `write` refuses; [`Error::LimitExceeded`] where somebody else was quicker every time; [`Error::Store`].
    pub(crate) async fn commit_anew(
        &self,
        write: impl Fn(&mut Batch) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        for _ in 0..MAX_ATTEMPTS {
            let mut batch = Batch::new();
            write(&mut batch)?;
            match self.store.submit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::LimitExceeded { retry_after_ms: 100 })
    }

    /// The JSON value at a key.
    ///
    /// # Errors
    /// [`Error::Store`], also when the value is not what this version writes.
    pub fn load<T: DeserializeOwned>(&self, table: Table, key: &Key) -> Result<Option<T>, Error> {
        self.store.get(table, key.as_bytes())?.map(|bytes| from_json(table, &bytes)).transpose()
    }
}

/// Reads a stored JSON value.
///
/// # Errors
/// [`Error::Store`] with the table's name when the value is not what this version writes.
pub(crate) fn from_json<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Store(matron_storage::StoreError::Corrupt(format!("{}: {error}", table.name()))))
}

/// Writes a value as JSON.
///
/// # Errors
/// [`Error::Internal`] for a value that has no JSON form.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::internal(format!("a value has no JSON form: {error}")))
}

/// Resolves when the server stops.
pub(crate) async fn stopped(stop: &mut tokio::sync::watch::Receiver<bool>) {
    // The guard that `wait_for` gives must not live on: it cannot cross threads.
    drop(stop.wait_for(|stop| *stop).await);
}
