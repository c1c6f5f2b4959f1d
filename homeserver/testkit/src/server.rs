//! One server of the network.

use std::{collections::BTreeSet, sync::Arc};

use axum::Router;
use matron_core::{
    Core, Parts, Settings,
    ports::Clock,
    rooms::{Room, Status},
    settings::{Registration, RegistrationMode},
};
use matron_room::SigningKey;
use matron_storage::{EngineKind, KeyRing, MasterKey, Store};
use ruma::{OwnedEventId, OwnedServerName, RoomId};
use tokio::sync::watch;

use crate::{Person, TestNet, cable::Cable, link::Link, net::LOOK_AGAIN};

/// A whole server in memory, its workers included; they stop when it is dropped.
pub struct TestServer {
    /// Its name.
    pub name: OwnedServerName,
    /// Its use cases.
    pub core: Arc<Core>,
    router: Router,
    stop: watch::Sender<bool>,
    cable: Arc<Cable>,
    keyring: Arc<KeyRing>,
    settings: Settings,
    directory: tempfile::TempDir,
}

impl std::fmt::Debug for TestServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "TestServer({})", self.name)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // Nobody may be listening any more.
        let _ = self.stop.send(true);
    }
}

/// A key that follows from the server's name.
pub(crate) fn key_of(name: &str) -> SigningKey {
    let mut seed = [7; 32];
    for (byte, letter) in seed.iter_mut().zip(name.as_bytes()) {
        *byte = *letter;
    }
    SigningKey::from_seed("k", &seed).unwrap()
}

impl TestServer {
    pub(crate) fn start(net: &Arc<TestNet>, name: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let name: OwnedServerName = name.try_into().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let keyring = KeyRing::open(&directory.path().join("keyring"), MasterKey::from_bytes([1; 32])).unwrap();
        let mut settings = Settings {
            insecure_fast_password_hash: true,
            registration: Registration { mode: RegistrationMode::Open, ..Registration::default() },
            rate_limit: None,
            ..Settings::default()
        };
        change(&mut settings);
        let store = matron_storage::open(EngineKind::Memory, directory.path()).unwrap();
        Self::on(net, name, store, Arc::new(keyring), settings, directory)
    }

    /// The server as it is when it has just started on what is stored.
    fn on(
        net: &Arc<TestNet>,
        name: OwnedServerName,
        store: Arc<dyn Store>,
        keyring: Arc<KeyRing>,
        settings: Settings,
        directory: tempfile::TempDir,
    ) -> Self {
        let key = Arc::new(key_of(name.as_str()));
        let cable = Cable::to(store);
        let core = Core::new(Parts {
            settings: settings.clone(),
            server_name: name.clone(),
            store: Arc::clone(&cable) as Arc<dyn Store>,
            keyring: Arc::clone(&keyring),
            signing_key: Arc::clone(&key),
            clock: Arc::clone(net.clock()) as Arc<dyn Clock>,
            federation: Arc::new(Link { net: Arc::clone(net), name: name.clone(), key, cable: Arc::clone(&cable) }),
            media_dir: directory.path().join("media"),
            appservices: Vec::new(),
        })
        .unwrap();
        let router = matron_api::router(Arc::clone(&core));
        let (stop, stopped) = watch::channel(false);
        let working = Arc::clone(&core);
        tokio::spawn(async move { working.run_workers(stopped).await });
        Self { name, core, router, stop, cable, keyring, settings, directory }
    }

    /// The server was killed, whatever it was doing, and has started again on what was on its disk.
    ///
    /// Its people go on with [`Person::is_at`].
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&mut self, net: &Arc<TestNet>) {
        let _ = self.stop.send(true);
        let store = self.cable.cut();
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        *self = Self::on(net, self.name.clone(), store, Arc::clone(&self.keyring), self.settings.clone(), directory);
        net.stands_at(self);
    }

    /// The server is killed when it has made so many commits more: the next one is lost with everything that is in memory.
    pub fn dies_after(&self, commits: usize) {
        self.cable.cut_after(commits);
    }

    /// Whether it was killed and not started again.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.cable.is_cut()
    }

    /// Waits until it is killed.
    pub async fn died(&self) {
        while !self.is_dead() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    pub(crate) fn cable(&self) -> &Arc<Cable> {
        &self.cable
    }

    /// Somebody to whom the operator has just given an account, also under a name that the register knows.
    ///
    /// # Panics
    /// If the name is taken.
    pub async fn person(&self, name: &str) -> Person {
        let password = "a long password";
        self.core.create_user(name, Some(password), false).await.unwrap();
        Person::log_in(self.router.clone(), name, password).await
    }

    /// Somebody who looks in without an account.
    ///
    /// # Panics
    /// If the server takes no guests.
    pub async fn guest(&self) -> Person {
        Person::visit(self.router.clone()).await
    }

    /// The room as this server knows it.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn room(&self, room: &RoomId) -> Arc<Room> {
        self.core.open_room(room).unwrap()
    }

    /// What was judged of the event here; `None` if it is unknown.
    #[must_use]
    pub fn status(&self, event: &ruma::EventId) -> Option<Status> {
        self.core.load_event(event).unwrap().map(|event| event.record.status)
    }

    /// The current state, by type and state key.
    #[must_use]
    pub fn state(&self, room: &RoomId) -> std::collections::BTreeMap<(String, String), OwnedEventId> {
        let current = self.room(room).current();
        current.iter().map(|(key, id)| ((key.kind.to_string(), key.key.to_string()), (**id).clone())).collect()
    }

    /// Where the graph ends.
    #[must_use]
    pub fn ends(&self, room: &RoomId) -> BTreeSet<OwnedEventId> {
        self.room(room).extremities().into_iter().collect()
    }

    /// Everything that leads to where the graph ends.
    ///
    /// # Panics
    /// If a part of it is unknown here.
    #[must_use]
    pub fn reach(&self, room: &RoomId) -> BTreeSet<OwnedEventId> {
        let mut reached = BTreeSet::new();
        let mut ahead: Vec<OwnedEventId> = self.ends(room).into_iter().collect();
        while let Some(id) = ahead.pop() {
            if reached.contains(&id) {
                continue;
            }
            let event = self.core.load_event(&id).unwrap();
            let event = event.unwrap_or_else(|| panic!("{} does not know {id}", self.name));
            ahead.extend(event.pdu.prev_events().iter().cloned());
            reached.insert(id);
        }
        reached
    }
}
