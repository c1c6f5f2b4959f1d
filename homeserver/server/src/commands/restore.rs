//! `matron restore DIR`: a backup into an empty data directory; keys that are there stay.

use std::path::Path;

use super::say;
use crate::{
    config::{Config, Engine},
    data::{self, DataError, Layout},
    failure::Failure,
    operator::backup::{self, Manifest},
};

/// What may be in the data directory already: keys that survived.
const KEYS: [&str; 3] = ["keyring", "master.key", "signing.key"];

/// # Errors
/// [`Failure::Document`] when the directory is no backup or the data directory is in use; nothing is changed then.
pub(super) fn run(from: &Path, config: &Config) -> Result<(), Failure> {
    let manifest = Manifest::read(from)?;
    let target = config.server.data_dir.as_path();
    if manifest.server_name != config.server.server_name {
        return Err(Failure::Document(format!(
            "this is a backup of {}, and the configuration says {}",
            manifest.server_name, config.server.server_name
        )));
    }
    check_empty(target)?;
    data::make_private_dir(target)?;
    let (source, layout) = (Layout(from), Layout(target));
    if manifest.engine == config.server.storage.engine.name() {
        backup::copy_tree(&source.store(), &layout.store()).map_err(Failure::io("cannot copy the database"))?;
    } else {
        convert(&manifest, config, &source, &layout)?;
    }
    backup::copy_tree(&source.media(), &layout.media()).map_err(Failure::io("cannot copy the media"))?;
    let signing_key = config.server.signing_key_path();
    for (kept, wanted) in [(from.join("signing.key"), signing_key), (source.key_ring(), layout.key_ring())] {
        if kept.exists() && !wanted.exists() {
            std::fs::copy(&kept, &wanted).map_err(Failure::io(format!("cannot copy {}", kept.display())))?;
        }
    }
    data::write_new(&layout.server_name(), 0o600, manifest.server_name.as_bytes())?;
    say(format!("The backup of {} is in {}.", manifest.server_name, target.display()));
    if !layout.key_ring().exists() {
        say(
            "There is no key ring: put the one of the lost server into the data directory, or begin an empty one with `matron keyring new`; what the lost one sealed stays unreadable then.",
        );
    }
    if config.server.master_key.command.is_none() && !config.server.master_key_path().exists() {
        say(format!("Put the master key into {} before the first start.", config.server.master_key_path().display()));
    }
    Ok(())
}

fn check_empty(target: &Path) -> Result<(), Failure> {
    let entries = match std::fs::read_dir(target) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(DataError::Io { path: target.to_owned(), source }.into()),
    };
    for entry in entries {
        let entry = entry.map_err(|source| DataError::Io { path: target.to_owned(), source })?;
        if !KEYS.iter().any(|key| entry.file_name() == *key) {
            return Err(Failure::Document(format!(
                "{} holds data ({}); a backup goes into an empty directory",
                target.display(),
                entry.file_name().to_string_lossy()
            )));
        }
    }
    Ok(())
}

/// Another engine than the backup's: every row is read from the one and written to the other.
fn convert(manifest: &Manifest, config: &Config, from: &Layout<'_>, to: &Layout<'_>) -> Result<(), Failure> {
    let engine = match manifest.engine.as_str() {
        "sqlite" => Engine::Sqlite,
        "sled" => Engine::Sled,
        other => return Err(Failure::Document(format!("the backup's engine `{other}` is not known"))),
    };
    let source = data::open_store(engine, &from.store())?;
    let target = data::open_store(config.server.storage.engine, &to.store())?;
    let copied = matron_storage::transfer::copy(&*source, &*target)
        .map_err(|source| DataError::Store { path: to.store(), source })?;
    source.close();
    target.close();
    say(format!("{copied} rows were written to {}.", config.server.storage.engine.name()));
    Ok(())
}
