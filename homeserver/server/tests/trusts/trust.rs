//! One trust's server: a process with a folder, ports and a name that stay over kills and restarts.

use std::{
    fs::OpenOptions,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use serde_json::{Value, json};

use crate::{
    authority::Authority,
    checkpoint::Checkpoint,
    free_address::free_address,
    http::{Reply, request, wait_for},
};

/// What runs.
#[derive(Clone, Debug)]
enum Program {
    Matron,
    /// Synapse, in the Python that has it.
    Synapse(PathBuf),
}

/// A trust's server.
#[derive(Debug)]
pub(crate) struct Trust {
    /// The server's name.
    pub(crate) name: String,
    /// Where clients reach it, plain HTTP.
    pub(crate) clients: SocketAddr,
    pub(crate) folder: PathBuf,
    program: Program,
    process: Mutex<Option<Child>>,
}

fn write_json(file: &Path, value: &Value) {
    std::fs::write(file, value.to_string()).unwrap();
}

impl Trust {
    /// A Matron that is not running yet. Its name has a port, so that others find it without any name server.
    pub(crate) fn matron(authority: &Authority, folder: &Path) -> Self {
        let servers = free_address();
        let name = format!("localhost:{}", servers.port());
        std::fs::create_dir_all(folder).unwrap();
        let (certificate, key) = authority.certify("localhost", folder);
        let listener = json!({
            "address": servers,
            "tls_certificate": certificate,
            "tls_key": key,
            "resources": ["federation", "key"],
        });
        Self::matron_with(authority, folder, name, &listener)
    }

    /// As [`Trust::matron`]; whatever other servers say to it passes the checkpoint.
    pub(crate) fn matron_behind(authority: &Authority, folder: &Path, checkpoint: &Checkpoint) -> Self {
        let outside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("localhost:{}", outside.local_addr().unwrap().port());
        std::fs::create_dir_all(folder).unwrap();
        let (certificate, key) = authority.certify("localhost", folder);
        let servers = free_address();
        checkpoint.stand_before(servers, outside, &certificate, &key);
        let listener = json!({"address": servers, "resources": ["federation", "key"]});
        Self::matron_with(authority, folder, name, &listener)
    }

    fn matron_with(authority: &Authority, folder: &Path, name: String, listener: &Value) -> Self {
        let clients = free_address();
        let config = json!({
            "server_name": name,
            "data_dir": folder.join("data"),
            "listen": {"address": clients, "resources": ["client", "media"]},
            "listeners": [listener],
            "registration": {"mode": "open"},
            "insecure_fast_password_hash": true,
            "rate_limit": false,
            "anyone_may_publish": true,
            "public_rooms_over_federation": true,
            "logging": {"level": "info,matron_core=debug,matron_api=debug"},
            "federation": {
                "allow_ip_ranges": ["127.0.0.0/8"],
                "ca_files": [authority.file],
            },
            "retention": {"interval_ms": 500, "grace_ms": 2000},
        });
        write_json(&folder.join("matron.json"), &config);
        Self { name, clients, folder: folder.to_owned(), program: Program::Matron, process: Mutex::new(None) }
    }

    /// A Synapse that is not running yet.
    pub(crate) fn synapse(authority: &Authority, folder: &Path, python: &Path) -> Self {
        let (clients, servers) = (free_address(), free_address());
        let name = format!("localhost:{}", servers.port());
        std::fs::create_dir_all(folder).unwrap();
        let (certificate, key) = authority.certify("localhost", folder);
        let seed = STANDARD_NO_PAD.encode(rand::random::<[u8; 32]>());
        std::fs::write(folder.join("signing.key"), format!("ed25519 test {seed}\n")).unwrap();
        write_json(&folder.join("log.yaml"), &synapse_log());
        let listener = |address: SocketAddr, tls: bool, resource: &str| {
            json!({
                "port": address.port(), "type": "http", "tls": tls, "bind_addresses": ["127.0.0.1"],
                "resources": [{"names": [resource], "compress": false}],
            })
        };
        let mut config = json!({
            "server_name": name,
            "listeners": [listener(clients, false, "client"), listener(servers, true, "federation")],
            "tls_certificate_path": certificate,
            "tls_private_key_path": key,
            "federation_custom_ca_list": [authority.file],
            "database": {"name": "sqlite3", "args": {"database": folder.join("homeserver.db")}},
            "log_config": folder.join("log.yaml"),
            "media_store_path": folder.join("media"),
            "signing_key_path": folder.join("signing.key"),
            "ip_range_blacklist": [],
            "federation_ip_range_blacklist": [],
        });
        for (key, value) in synapse_choices().as_object().unwrap() {
            config[key] = value.clone();
        }
        write_json(&folder.join("homeserver.yaml"), &config);
        let program = Program::Synapse(python.to_owned());
        Self { name, clients, folder: folder.to_owned(), program, process: Mutex::new(None) }
    }

    /// Whether Synapse runs here.
    pub(crate) fn is_synapse(&self) -> bool {
        matches!(self.program, Program::Synapse(_))
    }

    /// Lays these keys over a Matron's configuration; they count from the next start.
    pub(crate) fn configure(&self, keys: &Value) {
        let file = self.folder.join("matron.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for (key, value) in keys.as_object().unwrap() {
            config[key] = value.clone();
        }
        write_json(&file, &config);
    }

    /// The server runs and answers clients.
    pub(crate) fn start(&self) {
        let log = OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let child = self.command().stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        assert!(self.process.lock().unwrap().replace(child).is_none(), "{} runs already", self.name);
        wait_for("a server answers", || {
            let ended = self.process.lock().unwrap().as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{} ended at its start:\n{}", self.name, self.log_tail());
            self.get("/_matrix/client/versions").ok().filter(|reply| reply.status == 200)
        });
    }

    fn command(&self) -> Command {
        match &self.program {
            Program::Matron => {
                let mut command = binary(Some(&self.folder.join("matron.json")));
                command.arg("serve");
                command
            }
            Program::Synapse(python) => {
                let mut command = Command::new(python);
                command.args(["-m", "synapse.app.homeserver", "-c", "homeserver.yaml"]).current_dir(&self.folder);
                command
            }
        }
    }

    /// The process is ended at once, as a power cut would.
    pub(crate) fn kill(&self) {
        let mut child = self.process.lock().unwrap().take().unwrap_or_else(|| panic!("{} does not run", self.name));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn get(&self, path: &str) -> std::io::Result<Reply> {
        request(self.clients, "GET", path, None, "", b"")
    }

    /// Runs a command of the binary with this trust's configuration; gives what it prints.
    pub(crate) fn operate(&self, arguments: &[&str]) -> String {
        matron(Some(&self.folder.join("matron.json")), arguments)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// The last lines of what the server wrote about itself.
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// A folder for servers: it goes with them, unless `MATRON_KEEP_TRUSTS` is set.
pub(crate) fn new_folder() -> tempfile::TempDir {
    let mut folder = tempfile::Builder::new().prefix("matron-trusts-").tempdir().unwrap();
    folder.disable_cleanup(std::env::var_os("MATRON_KEEP_TRUSTS").is_some());
    folder
}

/// The binary, without this process's own settings.
fn binary(config: Option<&Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_matron"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MATRON_")) {
        command.env_remove(name);
    }
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    command
}

/// What a command of the binary prints.
pub(crate) fn matron(config: Option<&Path>, arguments: &[&str]) -> String {
    let output = binary(config).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Drop for Trust {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.get_mut().ok().and_then(Option::take) {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            crate::install::tell(&format!("---- end of the log of {}\n{}", self.name, self.log_tail()));
        }
    }
}

/// A log of warnings on standard error, which goes into the same file as everything else.
fn synapse_log() -> Value {
    json!({
        "version": 1,
        "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
        "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "plain"}},
        "root": {"level": std::env::var("SYNAPSE_LOG").unwrap_or_else(|_| "WARNING".to_owned()), "handlers": ["out"]},
        "disable_existing_loggers": false,
    })
}

/// What a test chooses: everybody may register, nothing is limited, and a peer that was away is tried again soon.
fn synapse_choices() -> Value {
    let unlimited = json!({"per_second": 100_000, "burst_count": 100_000});
    json!({
        "macaroon_secret_key": "macaroon",
        "form_secret": "form",
        "report_stats": false,
        "trusted_key_servers": [],
        "suppress_key_server_warning": true,
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "bcrypt_rounds": 4,
        "presence": {"enabled": true},
        "allow_public_rooms_over_federation": true,
        "room_list_publication_rules": [{"action": "allow"}],
        "federation": {
            "client_timeout": "20s",
            "max_short_retries": 2,
            "max_short_retry_delay": 500,
            "max_long_retries": 2,
            "max_long_retry_delay": "2s",
            "destination_min_retry_interval": "1s",
            "destination_retry_multiplier": 2,
            "destination_max_retry_interval": "5s",
        },
        "rc_message": unlimited,
        "rc_registration": unlimited,
        "rc_login": {"address": unlimited, "account": unlimited, "failed_attempts": unlimited},
        "rc_joins": {"local": unlimited, "remote": unlimited},
        "rc_joins_per_room": unlimited,
        "rc_invites": {"per_room": unlimited, "per_user": unlimited, "per_issuer": unlimited},
        "rc_room_creation": unlimited,
        "rc_presence": {"per_user": unlimited},
        "rc_federation":
            {"window_size": 1000, "sleep_limit": 100_000, "sleep_delay": 1, "reject_limit": 100_000, "concurrent": 100},
    })
}
