//! `matron register new|add|sign|show|verify`: the federation register, as files.

use std::{collections::BTreeMap, path::Path};

use matron_policy::{Organisation, Register, SignedRegister, VerifiedRegister};
use serde_json::Value;

use super::{keyfile, now_ms, read, replace, say};
use crate::{cli::RegisterCommand, config::Config, failure::Failure};

/// The largest register that is read, bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// # Errors
/// [`Failure::Document`] with what is wrong with the register; files stay as they were.
pub(super) fn run(command: RegisterCommand, config: Option<&Path>) -> Result<(), Failure> {
    match command {
        RegisterCommand::New { file, key, name, days } => new(&file, &key, name, days),
        RegisterCommand::Add { file, code, name, servers, jurisdiction, credential_key, governance, services } => {
            let key = keyfile::load_or_create(&credential_key)?;
            let organisation = Organisation {
                code,
                name,
                jurisdiction,
                server_names: servers,
                credential_keys: BTreeMap::from([(key.id.clone(), key.public())]),
                policy_server_key: None,
                governance_users: governance,
                service_users: services,
            };
            add(&file, organisation)
        }
        RegisterCommand::Sign { file, key, days } => sign(&file, &key, days),
        RegisterCommand::Show { file } => {
            show(&unsigned(&file)?);
            Ok(())
        }
        RegisterCommand::Verify { file, public_key } => {
            let register = verified(&file, &public_key, config)?;
            register.check_current(now_ms()).map_err(document)?;
            say(format!(
                "Version {} of the register of {} is signed by a trusted key and current, with {} organisations.",
                register.version(),
                register.register().federation,
                register.register().organisations.len()
            ));
            Ok(())
        }
    }
}

fn new(file: &Path, key: &Path, federation: String, days: u64) -> Result<(), Failure> {
    if file.exists() {
        return Err(Failure::Document(format!("{} exists already", file.display())));
    }
    let key = keyfile::load_or_create(key)?;
    let now = now_ms();
    let register = Register {
        kind: Default::default(),
        version: 0,
        issued_at_ms: now,
        expires_at_ms: now.saturating_add(days.saturating_mul(DAY_MS)),
        federation,
        organisations: Vec::new(),
        revocations: Vec::new(),
    };
    write(file, &register)?;
    say(format!("An empty register is in {}. Public key of its signer, for `policy.register_keys`:", file.display()));
    say(key.public());
    Ok(())
}

fn add(file: &Path, organisation: Organisation) -> Result<(), Failure> {
    let mut register = unsigned(file)?;
    let code = organisation.code.clone();
    match register.organisations.iter_mut().find(|known| known.code == code) {
        // A new key joins the old ones: what they signed stays good.
        Some(known) => {
            let mut keys = std::mem::take(&mut known.credential_keys);
            keys.extend(organisation.credential_keys.clone());
            *known = Organisation { credential_keys: keys, ..organisation };
        }
        None => register.organisations.push(organisation),
    }
    register.check_consistency().map_err(document)?;
    write(file, &register)?;
    say(format!("{code} is in the register; sign it anew with `matron register sign`."));
    Ok(())
}

fn sign(file: &Path, key: &Path, days: u64) -> Result<(), Failure> {
    let key = keyfile::load(key)?;
    let mut register = unsigned(file)?;
    let now = now_ms();
    register.version = register.version.saturating_add(1);
    register.issued_at_ms = now;
    register.expires_at_ms = now.saturating_add(days.saturating_mul(DAY_MS));
    let signed = SignedRegister::sign(&register, &[&key.key]).and_then(|signed| signed.to_bytes()).map_err(document)?;
    replace(file, &signed)?;
    say(format!("Version {} is signed and good for {days} days.", register.version));
    Ok(())
}

fn show(register: &Register) {
    say(format!("Register of {}, version {}", register.federation, register.version));
    for organisation in &register.organisations {
        say(format!(
            "{}  {}  {}  servers: {}  credential keys: {}",
            organisation.code,
            organisation.name,
            organisation.jurisdiction,
            organisation.server_names.join(" "),
            organisation.credential_keys.len(),
        ));
    }
    say(format!("{} revoked credentials", register.revocations.len()));
}

/// The register in a file, without regard to its signatures.
fn unsigned(file: &Path) -> Result<Register, Failure> {
    let bytes = read(file, MAX_BYTES)?;
    let mut value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::Document(format!("{} is not JSON: {error}", file.display())))?;
    if let Value::Object(fields) = &mut value {
        fields.remove("signatures");
    }
    serde_json::from_value(value)
        .map_err(|error| Failure::Document(format!("{} is no register: {error}", file.display())))
}

fn write(file: &Path, register: &Register) -> Result<(), Failure> {
    let mut text = serde_json::to_vec_pretty(register).map_err(|error| Failure::Document(error.to_string()))?;
    text.push(b'\n');
    replace(file, &text)
}

/// The register in a file, verified with these keys, or with the configuration's when none is given.
///
/// # Errors
/// [`Failure::Document`] when no trusted key signed it.
pub(super) fn verified(file: &Path, keys: &[String], config: Option<&Path>) -> Result<VerifiedRegister, Failure> {
    let trusted = if keys.is_empty() {
        keyfile::public_keys(Config::load(config)?.settings.policy.register_keys.values())?
    } else {
        keyfile::public_keys(keys)?
    };
    if trusted.is_empty() {
        return Err(Failure::Document(
            "no public key to verify with: give --public-key or configure `policy.register_keys`".to_owned(),
        ));
    }
    SignedRegister::verify(&read(file, MAX_BYTES)?, &trusted).map_err(document)
}

fn document(error: matron_policy::RegisterError) -> Failure {
    Failure::Document(error.to_string())
}
