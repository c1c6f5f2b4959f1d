//! `matron doctor`: the configuration, the machine, the keys, the store and the peers, examined.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use matron_core::ports::{Clock, FederationRequest, SystemClock, http_method};
use ruma::ServerName;

use super::{say, wait};
use crate::{
    config::{Config, Engine, Resource},
    data::{self, Layout},
    failure::Failure,
};

/// No machine's clock may be before this code was written: 2026-01-01.
const EARLIEST_MS: u64 = 1_767_225_600_000;
/// Free space below which a warning is due, bytes.
const LITTLE_SPACE: u64 = 2 * 1024 * 1024 * 1024;

/// How grave a finding is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Good,
    Note,
    Bad,
}

/// What was found so far.
#[derive(Default)]
struct Findings {
    bad: usize,
}

impl Findings {
    fn add(&mut self, grade: Grade, what: &str, sentence: impl AsRef<str>) {
        let mark = match grade {
            Grade::Good => "good",
            Grade::Note => "note",
            Grade::Bad => "BAD ",
        };
        say(format!("{mark}  {what:<14} {}", sentence.as_ref()));
        if grade == Grade::Bad {
            self.bad = self.bad.saturating_add(1);
        }
    }
}

/// # Errors
/// [`Failure::CheckFailed`] with the number of things that are wrong.
pub(super) fn run(peers: &[String], file: Option<&Path>) -> Result<(), Failure> {
    let mut findings = Findings::default();
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            findings.add(Grade::Bad, "configuration", error.to_string());
            return Err(Failure::CheckFailed("1 thing is wrong".to_owned()));
        }
    };
    findings.add(Grade::Good, "configuration", format!("for the server {}", config.server.server_name));
    match super::policy::check(&config) {
        Ok(()) => findings.add(Grade::Good, "policy", "layer, keys and register can be read"),
        Err(error) => findings.add(Grade::Bad, "policy", error.to_string()),
    }
    clock(&mut findings, &config);
    machine(&mut findings, &config);
    keys(&mut findings, &config);
    store(&mut findings, &config);
    listeners(&mut findings, &config);
    wait(async {
        let runs = running(&mut findings, &config).await;
        database(&mut findings, &config, runs).await;
        reach_peers(&mut findings, &config, peers).await;
        Ok(())
    })?;
    match findings.bad {
        0 => Ok(()),
        1 => Err(Failure::CheckFailed("1 thing is wrong".to_owned())),
        count => Err(Failure::CheckFailed(format!("{count} things are wrong"))),
    }
}

fn clock(findings: &mut Findings, config: &Config) {
    let now = SystemClock.now_ms();
    let newest = fs::metadata(Layout(&config.server.data_dir).store()).and_then(|store| store.modified()).ok();
    let ahead = newest.and_then(|newest| newest.duration_since(SystemTime::now()).ok());
    if now < EARLIEST_MS {
        findings.add(
            Grade::Bad,
            "clock",
            "this machine's clock is years behind; credentials and lifetimes depend on it",
        );
    } else if ahead.is_some_and(|ahead| ahead > Duration::from_secs(60)) {
        findings.add(Grade::Bad, "clock", "the data was written in the future of this machine's clock");
    } else {
        findings.add(Grade::Good, "clock", format!("{now} ms since 1970"));
    }
}

fn machine(findings: &mut Findings, config: &Config) {
    let dir = config.server.data_dir.as_path();
    let existing = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    match rustix::fs::statvfs(existing) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let grade = if free < LITTLE_SPACE { Grade::Note } else { Grade::Good };
            findings.add(grade, "disk", format!("{} MiB free for {}", free / (1024 * 1024), dir.display()));
        }
        Err(error) => findings.add(Grade::Note, "disk", format!("free space is unknown: {error}")),
    }
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let wanted: usize = config.server.all_listeners().map(|listen| listen.max_connections).sum::<usize>()
        + config.net.max_connections
        + 256;
    let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
    match files {
        Some(limit) if limit < wanted => findings.add(
            Grade::Note,
            "open files",
            format!("the limit is {limit}; all connections that the configuration allows would need {wanted}"),
        ),
        _ => findings.add(Grade::Good, "open files", "the limit is high enough"),
    }
}

fn keys(findings: &mut Findings, config: &Config) {
    let mut files = vec![("signing key", config.server.signing_key_path())];
    if config.server.master_key.command.is_none() {
        files.push(("master key", config.server.master_key_path()));
    }
    // Whether a server has run here: then what is missing is lost, and not still to be made.
    let layout = Layout(&config.server.data_dir);
    let has_run = layout.server_name().exists();
    files.push(("key ring", layout.key_ring()));
    for (what, path) in files {
        match fs::metadata(&path) {
            Ok(file) if file.mode() & 0o077 != 0 => findings.add(
                Grade::Bad,
                what,
                format!("{} can be read by others (mode {:04o}): chmod 600", path.display(), file.mode() & 0o7777),
            ),
            Ok(_) => findings.add(Grade::Good, what, format!("{}", path.display())),
            Err(_) if has_run => findings.add(Grade::Bad, what, format!("{} is missing: put it back", path.display())),
            Err(_) => findings.add(Grade::Note, what, format!("{} is made at the first start", path.display())),
        }
    }
    let dir = &config.server.data_dir;
    if let Ok(data) = fs::metadata(dir)
        && data.mode() & 0o077 != 0
    {
        findings.add(Grade::Note, "data", format!("{} can be entered by others: chmod 700", dir.display()));
    }
    if config.server.master_key.command.is_none() && config.server.master_key_path().starts_with(dir) {
        findings.add(
            Grade::Note,
            "master key",
            "it lies beside the data that it protects; a copy of the whole disk holds both",
        );
    }
}

fn store(findings: &mut Findings, config: &Config) {
    match config.server.storage.engine {
        Engine::Sqlite => {
            findings.add(Grade::Good, "engine", "sqlite: durable at each answer, deleted rows overwritten")
        }
        Engine::Sled => findings.add(
            Grade::Note,
            "engine",
            "sled: durable, but it needs more memory as data grows (about 1 GiB at 500,000 events) and gives disk \
             back only by backup and restore",
        ),
        Engine::Memory => {
            findings.add(Grade::Bad, "engine", "memory: everything is forgotten when the server stops");
        }
    }
}

fn listeners(findings: &mut Findings, config: &Config) {
    for listen in config.server.all_listeners() {
        let open = !listen.address.ip().is_loopback();
        if open && listen.tls_certificate.is_none() {
            findings.add(Grade::Note, "listener", format!("{} speaks plain HTTP to the network", listen.address));
        }
        if open && listen.resources.contains(&Resource::Metrics) {
            findings.add(Grade::Note, "listener", format!("{} shows metrics to the network", listen.address));
        }
        match crate::listener::Prepared::new(listen, axum::Router::new()) {
            Ok(_) => findings.add(Grade::Good, "listener", listen.address.to_string()),
            Err(error) => findings.add(Grade::Bad, "listener", error.to_string()),
        }
    }
}

/// Whether the server runs.
async fn running(findings: &mut Findings, config: &Config) -> bool {
    let reached = crate::operator::socket::connect(&config.server.data_dir).await;
    match &reached {
        Ok(Some(_)) => findings.add(Grade::Good, "server", "it is running"),
        Ok(None) => findings.add(Grade::Note, "server", "it is not running"),
        Err(error) => findings.add(Grade::Bad, "server", format!("its socket cannot be reached: {error}")),
    }
    matches!(reached, Ok(Some(_)))
}

/// Reads the database as a whole: the running server does, or this process.
async fn database(findings: &mut Findings, config: &Config, runs: bool) {
    let path = Layout(&config.server.data_dir).store();
    if config.server.storage.engine == Engine::Memory || !path.exists() {
        return;
    }
    if !runs && config.server.storage.engine == Engine::Sled {
        // It writes when it is opened, and an examination changes nothing.
        return findings.add(Grade::Note, "database", "sled is read as a whole only while the server runs");
    }
    let checked = if runs {
        match crate::operator::Client::open(config).await {
            Ok(client) => client.ask(http::Method::GET, "/store", None).await.map(drop),
            Err(failure) => Err(failure),
        }
    } else {
        data::open_store(config.server.storage.engine, &path)
            .and_then(|store| {
                let checked = store.check().map_err(|source| data::DataError::Store { path, source });
                store.close();
                checked
            })
            .map_err(Failure::from)
    };
    match checked {
        Ok(()) => findings.add(Grade::Good, "database", "all of it can be read, and is in order"),
        Err(failure) => findings.add(Grade::Bad, "database", failure.to_string()),
    }
}

/// Asks each peer for its signing keys: discovery, DNS and TLS are tried on the way.
async fn reach_peers(findings: &mut Findings, config: &Config, named: &[String]) {
    let peers: Vec<_> = config.net.addresses.keys().chain(named).collect();
    if peers.is_empty() || !config.settings.federation {
        return;
    }
    // A key of its own: a published key is asked for without a signature.
    let key = Arc::new(matron_room::SigningKey::generate(data::random_seed()));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let own = match ServerName::parse(&config.server.server_name) {
        Ok(own) => own.to_owned(),
        Err(_) => return,
    };
    let carrier = match crate::serve::federation(config, &own, &key, &clock) {
        Ok(carrier) => carrier,
        Err(error) => return findings.add(Grade::Bad, "peers", error.to_string()),
    };
    for peer in peers {
        let Ok(destination) = ServerName::parse(peer) else {
            findings.add(Grade::Bad, "peer", format!("{peer} is no server name"));
            continue;
        };
        let request = FederationRequest {
            destination: destination.to_owned(),
            method: http_method::Method::Get,
            path_and_query: "/_matrix/key/v2/server".to_owned(),
            body: None,
            signed: false,
            timeout: Duration::from_secs(15),
            max_bytes: 64 * 1024,
        };
        match carrier.request(request).await {
            Ok(_) => findings.add(Grade::Good, "peer", format!("{peer} shows its keys")),
            Err(error) => findings.add(Grade::Bad, "peer", format!("{peer}: {error}")),
        }
    }
}
