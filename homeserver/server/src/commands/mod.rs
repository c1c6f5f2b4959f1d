//! What each word of the command line does, one file each.

mod audit;
mod backup;
mod config;
mod credential;
mod doctor;
mod federation;
mod keyfile;
mod keyring;
mod policy;
mod register;
mod restore;
mod user;

use std::{
    future::Future,
    io::{self, Write as _},
    path::Path,
};

use serde_json::Value;

use crate::{
    cli::{Arguments, Command},
    config::Config,
    failure::Failure,
};

/// Does what the command line asks.
///
/// # Errors
/// [`Failure`] with the one sentence that the operator should read.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let file = arguments.config.as_deref();
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => crate::serve::run(Config::load(file)?),
        Command::Config(command) => config::run(&command, file),
        Command::User(command) => user::run(command, &Config::load(file)?),
        Command::Register(command) => register::run(command, file),
        Command::Credential(command) => credential::run(command, file),
        Command::Policy(command) => policy::run(command, &Config::load(file)?),
        Command::Audit(command) => audit::run(command, &Config::load(file)?),
        Command::Federation(command) => federation::run(command, &Config::load(file)?),
        Command::Doctor { peers } => doctor::run(&peers, file),
        Command::Keyring(command) => keyring::run(&command, &Config::load(file)?),
        Command::Backup(arguments) => backup::run(&arguments, &Config::load(file)?),
        Command::Restore { directory } => restore::run(&directory, &Config::load(file)?),
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => demo::run(&arguments),
    }
}

#[cfg(feature = "demo")]
mod demo;

/// One line on standard output; a reader that left early is no error.
pub(crate) fn say(line: impl AsRef<str>) {
    let _ = writeln!(io::stdout(), "{}", line.as_ref());
}

/// Runs one command's asynchronous part on a small runtime.
fn wait<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::io("cannot start the runtime"))?
        .block_on(work)
}

/// Asks the running server, or the data directory itself.
fn ask(config: &Config, method: http::Method, path: &str, body: Option<Value>) -> Result<Value, Failure> {
    wait(async { crate::operator::Client::open(config).await?.ask(method, path, body).await })
}

/// A path segment, percent-encoded.
fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A text field of an answer; empty when it is not there.
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A file's bytes, bounded.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(Failure::io(format!("cannot read {}", path.display())))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(Failure::Document(format!("{} is larger than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

/// Replaces a file as a whole: readers see the old one or the new one.
fn replace(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut draft = path.to_owned().into_os_string();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = std::path::PathBuf::from(draft);
    let write = || -> io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().map_err(Failure::io(format!("cannot write {}", path.display())))
}

/// Milliseconds since 1970, by this machine's clock.
fn now_ms() -> u64 {
    matron_core::ports::Clock::now_ms(&matron_core::ports::SystemClock)
}
