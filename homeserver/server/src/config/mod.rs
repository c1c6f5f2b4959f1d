//! The configuration: defaults, then a TOML (or JSON) file, then `MATRON_*` variables; an unknown key is an error.

mod env;
mod example;
mod schema;
mod types;

use std::path::{Path, PathBuf};

use matron_core::{
    Settings,
    settings::{MailTls, Protocol},
};
use matron_net::NetConfig;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub(crate) use example::example;
pub(crate) use types::{Engine, Listen, LogFormat, Logging, Resource, Server};

/// Everything that an operator may choose.
#[derive(Clone, Default)]
pub(crate) struct Config {
    /// The binary's own sections.
    pub(crate) server: Server,
    /// What the use cases need to know.
    pub(crate) settings: Settings,
    /// How other servers are reached: the section `federation` without `enabled`.
    pub(crate) net: NetConfig,
    /// Where the shared secret of registration came from.
    shared_secret_file: Option<PathBuf>,
    /// Where the secret shared with the TURN servers came from.
    turn_secret_file: Option<PathBuf>,
}

/// Why the configuration is no good, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The file is neither TOML nor, with the extension `.json`, JSON.
    #[error("{}: {what}", path.display())]
    Syntax { path: PathBuf, what: String },
    /// A key that no setting has.
    #[error("unknown key `{path}`{}", nearest.as_ref().map(|near| format!("; the nearest known key is `{near}`")).unwrap_or_default())]
    UnknownKey { path: String, nearest: Option<String> },
    /// A variable that cannot be understood.
    #[error("the variable {name}: {what}")]
    Variable { name: String, what: String },
    /// A value of the wrong kind.
    #[error("`{path}`: {what}")]
    Value { path: String, what: String },
}

impl Config {
    /// The configuration from `file`, if given, and the process's environment.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong; nothing is created or changed.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let tree = match file {
            Some(path) => read_tree(path)?,
            None => Value::Object(Map::new()),
        };
        Self::from_tree(tree, std::env::vars_os().filter_map(text_pair))
    }

    /// The configuration from a tree of keys and variables laid over it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn from_tree(
        mut tree: Value,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let schema = schema_tree()?;
        env::overlay(&mut tree, &schema, variables)?;
        schema::check_keys(&tree, &schema)
            .map_err(|unknown| ConfigError::UnknownKey { path: unknown.path, nearest: unknown.nearest })?;
        let mut config = split(tree)?;
        config.check()?;
        config.read_secrets()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |path: &str, what: &str| Err(ConfigError::Value { path: path.to_owned(), what: what.to_owned() });
        if ruma::ServerName::parse(&self.server.server_name).is_err() {
            return wrong("server_name", "this is no server name, such as `matrix.example.org` or `10.0.0.7:8448`");
        }
        for listen in self.server.all_listeners() {
            if listen.tls_certificate.is_some() != listen.tls_key.is_some() {
                return wrong("listen", "`tls_certificate` and `tls_key` go together");
            }
            if listen.max_connections == 0 {
                return wrong("listen.max_connections", "at least 1");
            }
        }
        if self.server.master_key.file.is_some() && self.server.master_key.command.is_some() {
            return wrong("master_key", "either `file` or `command`, not both");
        }
        if self.settings.oauth.enabled && self.settings.public_base_url.is_none() {
            return wrong("public_base_url", "`oauth.enabled` needs the URL under which browsers reach this server");
        }
        let mut ids = std::collections::BTreeSet::new();
        for upstream in &self.settings.oauth.upstreams {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
            if upstream.id.is_empty() || upstream.id.len() > 64 || !upstream.id.chars().all(allowed) {
                return wrong("oauth.upstreams.id", "1 to 64 characters of a-z 0-9 - _");
            }
            if !ids.insert(&upstream.id) {
                return wrong("oauth.upstreams.id", "two providers have the same id");
            }
            let is_cas = upstream.protocol == Protocol::Cas;
            if upstream.issuer.is_empty() || upstream.name.is_empty() || (upstream.client_id.is_empty() && !is_cas) {
                return wrong(
                    "oauth.upstreams",
                    "a provider needs `id`, `name`, `issuer` and, unless it is CAS, `client_id`",
                );
            }
            if is_cas != upstream.client_id.is_empty() || (upstream.insecure_without_cookies && !is_cas) {
                return wrong(
                    "oauth.upstreams.protocol",
                    "`client_id` is for OpenID Connect, `insecure_without_cookies` for CAS",
                );
            }
            if upstream.client_secret.is_some() && upstream.client_secret_file.is_some() {
                return wrong("oauth.upstreams.client_secret_file", "either `client_secret` or `client_secret_file`");
            }
        }
        let captcha = &self.settings.registration.recaptcha;
        if captcha.secret.is_some() && captcha.secret_file.is_some() {
            return wrong("registration.recaptcha.secret_file", "either `secret` or `secret_file`, not both");
        }
        if captcha.public_key.is_some() != (captcha.secret.is_some() || captcha.secret_file.is_some()) {
            return wrong("registration.recaptcha", "`public_key` and its secret go together");
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]".contains(c);
        let below = captcha.url.strip_prefix("https://").or_else(|| captcha.url.strip_prefix("http://"));
        if !below.is_some_and(|rest| !rest.is_empty() && rest.chars().all(is_plain)) {
            return wrong("registration.recaptcha.url", "this is no URL of a service");
        }
        let is_identity_server =
            |name: &String| !name.is_empty() && (name.contains(['*', '?']) || ruma::ServerName::parse(name).is_ok());
        if !self.settings.identity_servers.iter().all(is_identity_server) {
            return wrong("identity_servers", "these are names, such as `id.example.org` or `id.example.org:8090`");
        }
        self.check_email()?;
        if !self.settings.room_versions.contains(&self.settings.default_room_version) {
            return wrong("default_room_version", "this version is not among `room_versions`");
        }
        if let Err(what) = crate::logging::check_level(&self.server.logging.level) {
            return wrong("logging.level", &what);
        }
        Ok(())
    }

    fn check_email(&self) -> Result<(), ConfigError> {
        let wrong = |path: &str, what: &str| Err(ConfigError::Value { path: path.to_owned(), what: what.to_owned() });
        let email = &self.settings.email;
        if email.server.is_none() {
            return Ok(());
        }
        let bare = email.from.rsplit_once('<').map_or(Some(&*email.from), |(_, rest)| rest.strip_suffix('>'));
        let is_line = email.from.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !is_line || !bare.is_some_and(matron_core::accounts::email::is_email_address) {
            return wrong("email.from", "this is no sender, such as `Matron <matron@trust.example>`, in ASCII");
        }
        if self.settings.public_base_url.is_none() {
            return wrong("public_base_url", "`email.server` needs the URL under which browsers reach this server");
        }
        if email.password.is_some() && email.password_file.is_some() {
            return wrong("email.password_file", "either `password` or `password_file`");
        }
        let has_password = email.password.is_some() || email.password_file.is_some();
        if email.username.is_some() != has_password {
            return wrong("email.username", "`username` and a password go together");
        }
        if has_password && email.tls == MailTls::None {
            return wrong("email.tls", "a password is not sent without TLS");
        }
        Ok(())
    }

    fn read_secrets(&mut self) -> Result<(), ConfigError> {
        for upstream in &mut self.settings.oauth.upstreams {
            if let Some(path) = upstream.client_secret_file.take() {
                let path = PathBuf::from(path);
                let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read { path, source })?;
                upstream.client_secret = Some(text.trim().to_owned());
            }
        }
        let own = &mut self.settings;
        if let Some(path) = own.email.password_file.take() {
            own.email.password = Some(read_filled("email.password_file", Path::new(&path))?);
        }
        let captcha = &mut own.registration.recaptcha;
        if let Some(path) = captcha.secret_file.take() {
            captcha.secret = Some(read_filled("registration.recaptcha.secret_file", Path::new(&path))?);
        }
        read_secret("registration", self.shared_secret_file.as_deref(), &mut own.registration.shared_secret)?;
        read_secret("turn", self.turn_secret_file.as_deref(), &mut own.turn.shared_secret)
    }
}

/// The section's secret is what its file says, if it names one.
fn read_secret(section: &str, path: Option<&Path>, secret: &mut Option<String>) -> Result<(), ConfigError> {
    let Some(path) = path else { return Ok(()) };
    let key = format!("{section}.shared_secret_file");
    if secret.is_some() {
        let what = "either `shared_secret` or `shared_secret_file`, not both".to_owned();
        return Err(ConfigError::Value { path: key, what });
    }
    *secret = Some(read_filled(&key, path)?);
    Ok(())
}

/// What a secret's file says, which is something.
fn read_filled(key: &str, path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    match text.trim() {
        "" => Err(ConfigError::Value { path: key.to_owned(), what: "the file is empty".to_owned() }),
        text => Ok(text.to_owned()),
    }
}

/// Takes `shared_secret_file` out of a section.
fn take_secret_file(tree: &mut Map<String, Value>, section: &str) -> Result<Option<PathBuf>, ConfigError> {
    match tree.get_mut(section).and_then(Value::as_object_mut).and_then(|fields| fields.remove("shared_secret_file")) {
        Some(path) => typed(&format!("{section}.shared_secret_file"), path),
        None => Ok(None),
    }
}

fn text_pair((name, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

fn read_tree(path: &Path) -> Result<Value, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let syntax = |what: String| ConfigError::Syntax { path: path.to_owned(), what };
    let tree: Value = if path.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(&text).map_err(|error| syntax(error.to_string()))?
    } else {
        toml::from_str(&text).map_err(|error| syntax(error.to_string()))?
    };
    if tree.is_object() { Ok(tree) } else { Err(syntax("this is no table of settings".to_owned())) }
}

/// Every key with its default, as one tree.
fn schema_tree() -> Result<Value, ConfigError> {
    let mut tree = as_object("the defaults", &Server::default())?;
    if let Some(listeners) = tree.get_mut("listeners") {
        *listeners = Value::Array(vec![Value::Object(as_object("the defaults", &Listen::default())?)]);
    }
    let mut settings = as_object("the defaults", &Settings::default())?;
    let enabled = settings.remove("federation");
    for section in ["registration", "turn"] {
        if let Some(Value::Object(fields)) = settings.get_mut(section) {
            fields.insert("shared_secret_file".to_owned(), Value::Null);
        }
    }
    tree.extend(settings);
    let mut federation = as_object("the defaults", &NetConfig::default())?;
    federation.insert("enabled".to_owned(), enabled.unwrap_or(Value::Bool(true)));
    tree.insert("federation".to_owned(), Value::Object(federation));
    Ok(Value::Object(tree))
}

/// Gives each key of a tree to the type that owns it.
fn split(tree: Value) -> Result<Config, ConfigError> {
    let Value::Object(mut tree) = tree else {
        return Err(ConfigError::Value { path: String::new(), what: "this is no table of settings".to_owned() });
    };
    let own = as_object("the defaults", &Server::default())?;
    let mut server = Map::new();
    for key in own.keys() {
        if let Some(value) = tree.remove(key) {
            server.insert(key.clone(), value);
        }
    }
    let mut net = match tree.remove("federation") {
        None => Map::new(),
        Some(Value::Object(section)) => section,
        Some(_) => {
            return Err(ConfigError::Value { path: "federation".to_owned(), what: "this is a section".to_owned() });
        }
    };
    if let Some(enabled) = net.remove("enabled") {
        tree.insert("federation".to_owned(), enabled);
    }
    // TOML has no null: `rate_limit = false` says that there are no limits.
    if tree.get("rate_limit") == Some(&Value::Bool(false)) {
        tree.insert("rate_limit".to_owned(), Value::Null);
    }
    let shared_secret_file = take_secret_file(&mut tree, "registration")?;
    let turn_secret_file = take_secret_file(&mut tree, "turn")?;
    Ok(Config {
        server: typed("", Value::Object(server))?,
        settings: typed("", Value::Object(tree))?,
        net: typed("federation", Value::Object(net))?,
        shared_secret_file,
        turn_secret_file,
    })
}

fn as_object<T: serde::Serialize>(what: &str, value: &T) -> Result<Map<String, Value>, ConfigError> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(ConfigError::Value { path: what.to_owned(), what: "no table of settings".to_owned() }),
        Err(error) => Err(ConfigError::Value { path: what.to_owned(), what: error.to_string() }),
    }
}

fn typed<T: DeserializeOwned>(section: &str, value: Value) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = match error.path().to_string().as_str() {
            "." => section.to_owned(),
            path => schema::join(section, path),
        };
        ConfigError::Value { path, what: error.into_inner().to_string() }
    })
}

#[cfg(test)]
mod tests;
