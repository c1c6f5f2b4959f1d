//! Puts the house together: listeners, devices, the bot and the feeds, and their end.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::bridge::{LabFeed, Routes, Spool, SpoolError};
use crate::client::{Client, ClientError};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError, LabFeedConfig, is_name};
use crate::device::{Device, DeviceError, DeviceSetup, DeviceTask};
use crate::governance::{Bot, BotCreates, ClinicalRoomSpec, Credentials, HomeserverExplains, Organisations, Retention};
use crate::http::{
    AppState, CreatedRoom, OwnIds, RoomCreator as _, RoomCreatorError, Transactions, admin_router, app_router,
};
use crate::registration::{Registration, RegistrationError};
use crate::store::{Store, StoreError};

/// Transactions that may wait for the bot.
const TRANSACTIONS: usize = 64;
/// How long listeners may finish what they have begun.
const GRACE: Duration = Duration::from_secs(5);

/// Why the application service cannot start or go on.
#[derive(Debug, Error)]
pub enum Error {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The registration file cannot be read.
    #[error("the registration file {path} cannot be read: {source}")]
    RegistrationFile {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The registration.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// The data directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The way to the homeserver.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A credential file cannot be read or is no JSON object.
    #[error("the credential file {path} cannot be read or is no JSON object")]
    CredentialFile {
        /// Where it should be.
        path: PathBuf,
    },
    /// A worker or a listener ended by itself; everything was stopped.
    #[error("a part of the application service broke")]
    Worker,
    /// A listener cannot open.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The application service.
#[derive(Debug)]
pub struct AppService;

/// A running application service; dropping it stops everything at once.
#[derive(Debug)]
pub struct Running {
    listen_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    lab_addrs: BTreeMap<String, SocketAddr>,
    bot: Device,
    devices: Vec<Device>,
    creator: Arc<BotCreates>,
    stop: watch::Sender<bool>,
    servers: JoinSet<()>,
    workers: JoinSet<()>,
}

impl AppService {
    /// Every listener is open and every worker started afterwards; logging in goes on in the background, so the
    /// homeserver may come up later.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub async fn start(config: Config) -> Result<Running, Error> {
        Self::start_with(config, Arc::new(SystemClock)).await
    }

    /// [`AppService::start`] with another clock.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub async fn start_with(config: Config, clock: Arc<dyn Clock>) -> Result<Running, Error> {
        config.check()?;
        let text = std::fs::read_to_string(&config.registration)
            .map_err(|source| Error::RegistrationFile { path: config.registration.clone(), source })?;
        let registration = Registration::parse(&text)?;
        let bot = config.bot_localpart.as_ref().unwrap_or(&registration.sender_localpart).clone();
        if !is_name(&bot) {
            return Err(ConfigError::Name("bot_localpart").into());
        }
        let store = Store::open(&config.data_dir, &mut rand::rng())?;
        let client = Client::new(
            &config.homeserver_url,
            config.ca_file.as_deref(),
            &config.server_name,
            registration.as_token.clone(),
        )?;
        Starting { config, bot, registration, store, client, clock, workers: JoinSet::new() }.start().await
    }
}

struct Starting {
    config: Config,
    /// Localpart of the bot.
    bot: String,
    registration: Registration,
    store: Store,
    client: Client,
    clock: Arc<dyn Clock>,
    workers: JoinSet<()>,
}

impl Starting {
    async fn start(mut self) -> Result<Running, Error> {
        let bot = self.device(&self.bot.clone(), "Matron");
        let routes = Arc::new(Routes::load(self.store.clone())?);
        let mut feeds = BTreeMap::new();
        let mut lab_addrs = BTreeMap::new();
        for feed in self.config.lab_feeds.clone() {
            let name = feed.name.clone();
            let (device, address) = self.feed(feed, &routes).await?;
            feeds.insert(name.clone(), device);
            lab_addrs.insert(name, address);
        }
        let devices: Vec<Device> = std::iter::once(&bot).chain(feeds.values()).cloned().collect();
        let ids = Arc::new(OwnIds::new(devices.iter().map(|device| device.user_id().to_owned())));
        let (queue, transactions) = mpsc::channel(TRANSACTIONS);
        let credentials = self.credentials()?;
        self.govern(&bot, &devices, &ids, credentials.clone(), transactions);
        let creator = Arc::new(BotCreates {
            client: self.client.clone(),
            bot: bot.clone(),
            feeds,
            routes,
            organisations: Organisations {
                register_file: self.config.register_file.clone(),
                register_keys: self.config.register_keys.clone(),
                configured: self.config.organisations.clone(),
                policy_server: self.config.policy_server,
            },
            credentials,
            clock: Arc::clone(&self.clock),
        });
        let (stop, _) = watch::channel(false);
        let mut servers = JoinSet::new();
        let app = app_router(AppState {
            hs_token: self.registration.hs_token.clone(),
            transactions: Arc::new(Transactions::new(queue)),
            ids,
        });
        let listen_addr = serve(&mut servers, self.config.listen, app, &stop).await?;
        let admin_addr = match self.config.admin_listen {
            Some(address) => {
                let tokens = vec![self.registration.as_token.clone(), self.registration.hs_token.clone()];
                let admin = admin_router(Arc::clone(&creator) as _, tokens);
                Some(serve(&mut servers, address, admin, &stop).await?)
            }
            None => None,
        };
        Ok(Running { listen_addr, admin_addr, lab_addrs, bot, devices, creator, stop, servers, workers: self.workers })
    }

    /// What the configuration's credential files hold, by user.
    fn credentials(&self) -> Result<Credentials, Error> {
        let bot = (self.bot.clone(), &self.config.credential_file);
        let feeds = self.config.lab_feeds.iter();
        let feeds = feeds.map(|feed| (format!("lab-{}", feed.name), &feed.credential_file));
        let mut by_user = BTreeMap::new();
        for (localpart, path) in std::iter::once(bot).chain(feeds) {
            let Some(path) = path else { continue };
            let credential = std::fs::read(path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
                .filter(serde_json::Value::is_object)
                .ok_or_else(|| Error::CredentialFile { path: path.clone() })?;
            by_user.insert(self.client.user_id(&localpart), credential);
        }
        Ok(Credentials::new(by_user))
    }

    /// A device and its task, already at work.
    fn device(&mut self, localpart: &str, display_name: &str) -> Device {
        let (device, task): (Device, DeviceTask) = Device::new(DeviceSetup {
            client: self.client.clone(),
            store: self.store.clone(),
            clock: Arc::clone(&self.clock),
            localpart: localpart.to_owned(),
            display_name: display_name.to_owned(),
        });
        self.workers.spawn(task.run());
        device
    }

    async fn feed(&mut self, feed: LabFeedConfig, routes: &Arc<Routes>) -> Result<(Device, SocketAddr), Error> {
        let display_name = feed.display_name.clone().unwrap_or_else(|| format!("Laboratory: {}", feed.name));
        let device = self.device(&format!("lab-{}", feed.name), &display_name);
        let spool = Spool::open(self.store.clone(), &feed.name, feed.max_spooled)?;
        let (listener, address) = listen(feed.listen).await?;
        let feed = Arc::new(LabFeed::new(feed, spool, Arc::clone(routes), device.clone(), Arc::clone(&self.clock)));
        self.workers.spawn(Arc::clone(&feed).serve(listener));
        self.workers.spawn(feed.deliver());
        Ok((device, address))
    }

    fn govern(
        &mut self,
        bot: &Device,
        devices: &[Device],
        ids: &Arc<OwnIds>,
        credentials: Credentials,
        transactions: mpsc::Receiver<crate::http::Transaction>,
    ) {
        let session = self.client.as_user(bot.user_id());
        let governor = Bot::new(
            self.client.clone(),
            bot.clone(),
            devices.to_vec(),
            Arc::clone(ids),
            credentials,
            Arc::new(HomeserverExplains::new(session.clone())),
            Arc::clone(&self.clock),
        );
        self.workers.spawn(governor.run(transactions));
        let retention = Retention::new(
            session,
            Arc::clone(&self.clock),
            Duration::from_millis(self.config.retention_poll_ms),
            self.config.retention_batch,
        );
        let (bot, session) = (bot.clone(), self.client.as_user(bot.user_id()));
        let id = self.registration.id.clone();
        let now_ms = self.clock.now_ms();
        self.workers.spawn(async move {
            if bot.wait_ready().await.is_ok() {
                if let Err(error) = session.ping_appservice(&id, &now_ms.to_string()).await {
                    tracing::warn!(%error, "the homeserver does not reach this application service");
                }
                retention.run().await;
            }
        });
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn serve(
    servers: &mut JoinSet<()>,
    address: SocketAddr,
    router: Router,
    stop: &watch::Sender<bool>,
) -> Result<SocketAddr, Error> {
    let (listener, bound) = listen(address).await?;
    let mut stopped = stop.subscribe();
    servers.spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(async move {
            let _gone = stopped.wait_for(|stop| *stop).await;
        });
        if let Err(error) = served.await {
            tracing::error!(%error, "a listener failed");
        }
    });
    Ok(bound)
}

impl Running {
    /// Where the homeserver's transactions arrive.
    #[must_use]
    pub fn listen_addr(&self) -> SocketAddr {
        self.listen_addr
    }

    /// Where admin calls arrive.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// Where a lab feed listens for MLLP.
    #[must_use]
    pub fn lab_addr(&self, feed: &str) -> Option<SocketAddr> {
        self.lab_addrs.get(feed).copied()
    }

    /// The bot's user id.
    #[must_use]
    pub fn bot_user_id(&self) -> &str {
        self.bot.user_id()
    }

    /// Ends when the bot and every feed are logged in and their keys published.
    ///
    /// # Errors
    /// [`DeviceError::Stopped`].
    pub async fn wait_ready(&self) -> Result<(), DeviceError> {
        for device in &self.devices {
            device.wait_ready().await?;
        }
        Ok(())
    }

    /// The bounded room exists afterwards, created by the bot.
    ///
    /// # Errors
    /// [`RoomCreatorError`].
    pub async fn create_clinical_room(&self, spec: &ClinicalRoomSpec) -> Result<CreatedRoom, RoomCreatorError> {
        self.creator.create(spec.clone()).await
    }

    /// Ends when a worker or a listener ends, which none does while all is well.
    pub async fn wait_broken(&mut self) {
        tokio::select! {
            Some(ended) = self.workers.join_next() => report_end(ended),
            Some(ended) = self.servers.join_next() => report_end(ended),
            else => {}
        }
    }

    /// Listeners finish what they have begun, then everything has stopped. What was acknowledged is on disk.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let finished = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, finished).await.is_err() {
            self.servers.shutdown().await;
        }
        self.workers.shutdown().await;
    }
}

fn report_end(ended: Result<(), tokio::task::JoinError>) {
    match ended {
        Ok(()) => tracing::error!("a worker ended"),
        Err(error) => tracing::error!(panicked = error.is_panic(), "a worker broke"),
    }
}

/// Runs the application service until `shutdown` ends.
///
/// # Errors
/// [`enum@Error`] where it cannot start, and [`Error::Worker`] where a part of it breaks.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let mut running = AppService::start(config).await?;
    tracing::info!(address = %running.listen_addr(), "the application service listens");
    let broken = tokio::select! {
        () = shutdown => false,
        () = running.wait_broken() => true,
    };
    running.stop().await;
    if broken { Err(Error::Worker) } else { Ok(()) }
}
