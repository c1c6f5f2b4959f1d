//! What a measure works with: the servers, their processes, and users and rooms made before anything is measured.

use std::cell::RefCell;

use serde_json::json;

use crate::cache::{Cache, Known};
use crate::client::{Homeserver, Registration, RequestError, SyncRequest, User};
use crate::drive::{Outcome, drive};
use crate::error::LoadError;
use crate::meter::Meter;
use crate::options::Common;
use crate::process::Processes;

/// How many requests prepare a measure at once.
pub(crate) const AT_ONCE: usize = 4;

/// The servers and everything that is known of them.
pub(crate) struct Stage<'a> {
    pub(crate) options: &'a Common,
    /// The server that is measured, or the first of two.
    pub(crate) a: Homeserver,
    b: Option<Homeserver>,
    pub(crate) processes: Processes,
    pub(crate) processes_b: Processes,
    cache: RefCell<Cache>,
    /// Different in every call: names of users and transactions are made of it.
    run: String,
}

impl<'a> Stage<'a> {
    /// The stage as the options name it; nothing is asked of the servers yet.
    pub(crate) fn new(options: &'a Common) -> Result<Self, LoadError> {
        let registration_b = options.registration_b.as_ref().unwrap_or(&options.registration);
        let server = |url: &str, registration: &Registration| {
            Homeserver::new(url, registration.clone(), options.room_version.clone())
        };
        Ok(Self {
            options,
            a: server(&options.url, &options.registration),
            b: options.url_b.as_deref().map(|url| server(url, registration_b)),
            processes: Processes::new(&options.pid)?,
            processes_b: Processes::new(&options.pid_b)?,
            cache: RefCell::new(Cache::load(options.cache.as_deref())?),
            run: format!("{:08x}", rand::random::<u32>()),
        })
    }

    /// The second server.
    pub(crate) fn b(&self) -> Result<&Homeserver, LoadError> {
        self.b.as_ref().ok_or(LoadError::SecondServer)
    }

    /// A name for the `number`th of something, which no other call uses.
    pub(crate) fn unique(&self, what: &str, number: usize) -> String {
        format!("load{}{what}{number}", self.run)
    }

    /// A phase of the one server begins.
    pub(crate) fn meter(&self) -> Meter {
        Meter::start(&[("server", &self.processes)])
    }

    /// A phase of the one server begins whose parts are measured themselves.
    pub(crate) fn meter_around(&self) -> Meter {
        Meter::start_around(&[("server", &self.processes)])
    }

    /// A phase of both servers begins.
    pub(crate) fn meter_both(&self) -> Meter {
        Meter::start(&[("server_a", &self.processes), ("server_b", &self.processes_b)])
    }

    /// How many answers were 429.
    pub(crate) fn rate_limited_answers(&self) -> u64 {
        std::iter::once(&self.a).chain(&self.b).map(|server| server.rate_limited.get()).sum()
    }

    /// How those who wait for messages sync.
    pub(crate) fn sync_of_messages(&self) -> SyncRequest {
        SyncRequest::of_messages(self.options.presence, self.options.timeline_limit)
    }

    /// The start of every text of this call in a phase.
    pub(crate) fn prefix(&self, phase: &str) -> String {
        format!("load:{}:{phase}:", self.run)
    }

    /// The text of the `number`th message of a phase: about 100 bytes, the length of a short line of a chat.
    pub(crate) fn text(&self, phase: &str, number: usize) -> String {
        format!("{}{number}: ward round at nine tomorrow, bring the charts of beds ten to fourteen", self.prefix(phase))
    }

    /// What is kept of the first server.
    pub(crate) fn known<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(self.cache.borrow_mut().server(self.a.base()))
    }

    /// Keeps more of the first server, for the next call too.
    pub(crate) fn keep<T>(&self, change: impl FnOnce(&mut Known) -> T) -> Result<T, LoadError> {
        let mut cache = self.cache.borrow_mut();
        let changed = change(cache.server(self.a.base()));
        cache.save()?;
        Ok(changed)
    }

    /// `count` users of the first server, from the cache as far as it has them.
    pub(crate) async fn users(&self, count: usize) -> Result<Vec<User>, LoadError> {
        let mut users = self.known(|known| known.users.clone());
        if let Some(user) = users.first()
            && !self.a.knows(user).await
        {
            users.clear();
        }
        let missing = count.saturating_sub(users.len());
        if missing > 0 {
            users.extend(self.new_users(&self.a, "p", missing).await?);
            self.keep(|known| known.users.clone_from(&users))?;
        }
        users.truncate(count);
        Ok(users)
    }

    /// `count` users that never did anything.
    pub(crate) async fn new_users(
        &self,
        server: &Homeserver,
        what: &str,
        count: usize,
    ) -> Result<Vec<User>, LoadError> {
        let register = async |_, number| server.register(&self.unique(what, number)).await;
        Ok(drive(AT_ONCE, count, register).await.all("registrations")?.values)
    }

    /// A new room of the first server in which all `users` are; the first created it.
    pub(crate) async fn room_of(&self, users: &[User], name: &str) -> Result<String, LoadError> {
        let [owner, others @ ..] = users else {
            return Err(RequestError::missing("user").into());
        };
        let room = self.a.create_room(owner, name).await?;
        self.join_all(others, &room, AT_ONCE).await.all("joins")?;
        Ok(room)
    }

    /// All `users` join a room of the first server.
    pub(crate) async fn join_all(&self, users: &[User], room: &str, at_once: usize) -> Outcome<()> {
        // The number is below the length.
        let join = async |_, number: usize| match users.get(number) {
            Some(user) => self.a.join(user, room, None).await,
            None => Ok(()),
        };
        drive(at_once, users.len(), join).await
    }

    /// `count` pieces of state that nobody reads are in the room.
    pub(crate) async fn fill_with_state(&self, user: &User, room: &str, count: usize) -> Result<(), LoadError> {
        let put = async |_, number: usize| {
            self.a.put_state(user, room, &format!("k{number}"), &json!({"value": number})).await
        };
        drive(AT_ONCE, count, put).await.all("pieces of state").map(drop)
    }
}
