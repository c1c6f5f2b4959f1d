//! The federation register: verified, kept for days without a line, never rolled back.

use std::{io::Read, path::PathBuf, sync::Arc, time::SystemTime};

use matron_policy::{
    AuditKind, Revocation, Revocations, SignedRegister, VerifiedRegister, VerifyingKey, accept,
    register::MAX_REGISTER_BYTES,
};
use matron_storage::{Batch, Key, KeyRange, Order, StoreError, Table};

use super::rules::Rules;
use crate::{
    Core, Error,
    house::{from_json, to_json},
};

/// How a register's file looked when it was read last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    size_bytes: u64,
}

/// A register that may come into use, and what is kept of it.
struct Offer {
    batch: Batch,
    drafts: Vec<matron_policy::AuditDraft>,
    register: VerifiedRegister,
    revocations: Revocations,
}

/// What became of a register that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterChange {
    /// It is the one in use already.
    Same,
    /// It came into use, with this version.
    Accepted(u64),
}

fn refused(error: &dyn std::fmt::Display) -> Error {
    Error::Unknown(format!("the register is refused: {error}").into())
}

impl Core {
    /// The register that was accepted last is in use, and everything that was ever revoked is known.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) fn load_register(&self) -> Result<(), Error> {
        let rules = self.rules();
        let register = self.kept_register(&rules.trusted)?;
        let mut revocations = Revocations::default();
        if let Some(register) = &register {
            revocations.add_register(register);
        }
        for (_, row) in self.scan_all(Table::PolicyRevocation, &Key::new())? {
            revocations.add_known(&from_json::<Revocation>(Table::PolicyRevocation, &row)?);
        }
        self.replace_rules(&rules, register.map(Arc::new), Arc::new(revocations));
        Ok(())
    }

    /// The newest register that was accepted, if one of the keys that are trusted now signed it.
    fn kept_register(&self, trusted: &[VerifyingKey]) -> Result<Option<VerifiedRegister>, Error> {
        let rows = self.store.scan(Table::PolicyRegister, &KeyRange::all(), Order::Descending, 1)?;
        let Some((_, bytes)) = rows.first() else { return Ok(None) };
        match SignedRegister::verify(bytes, trusted) {
            Ok(register) => Ok(Some(register)),
            Err(error) => {
                tracing::warn!(%error, "the register that was kept is not used any more");
                Ok(None)
            }
        }
    }

    pub(super) fn replace_rules(
        &self,
        rules: &Rules,
        register: Option<Arc<VerifiedRegister>>,
        revocations: Arc<Revocations>,
    ) {
        *self.governance.rules.write() = Arc::new(rules.with(register, revocations));
        self.governance.credentials.lock().clear();
    }

    /// The register of the configured file is in use, if it is good and not older than the one in use; who may not
    /// remain in a room is evicted soon after.
    ///
    /// # Errors
    /// [`Error::Unknown`] with what is wrong with it; the one in use stays. [`Error::Store`].
    pub async fn reload_register(&self) -> Result<RegisterChange, Error> {
        let Some(file) = self.settings.policy.register_file.clone().map(PathBuf::from) else {
            return Err(Error::Unknown("no register is configured: set `policy.register_file`".into()));
        };
        let (bytes, stamp) = tokio::task::spawn_blocking(move || read_file(&file))
            .await
            .map_err(|_| Error::internal("reading the register was interrupted"))??;
        let changed = self.offer_register(bytes).await;
        *self.governance.register_file.lock() = stamp;
        changed
    }

    /// As [`Core::reload_register`], if the file has changed since.
    pub(super) async fn poll_register(&self) -> Option<Result<RegisterChange, Error>> {
        let file = PathBuf::from(self.settings.policy.register_file.as_ref()?);
        let now = tokio::task::spawn_blocking(move || stamp_of(&file)).await.ok()?;
        if now == *self.governance.register_file.lock() {
            return None;
        }
        let outcome = self.reload_register().await;
        if outcome.is_err() {
            // Told once; a file that cannot be read is not tried again until it changes.
            *self.governance.register_file.lock() = now;
        }
        Some(outcome)
    }

    /// This register is in use, if it is good and not older than the one in use.
    ///
    /// # Errors
    /// As [`Core::reload_register`].
    pub async fn offer_register(&self, bytes: Vec<u8>) -> Result<RegisterChange, Error> {
        let _one_at_a_time = self.governance.changing.lock().await;
        let rules = self.rules();
        let Some(offer) = self.examine_register(&rules, bytes)? else { return Ok(RegisterChange::Same) };
        self.commit_audited(&offer.batch, offer.drafts.clone()).await?;
        Ok(self.take_into_use(&rules, offer))
    }

    /// What follows from this register; nothing, if it is the one in use.
    fn examine_register(&self, rules: &Rules, bytes: Vec<u8>) -> Result<Option<Offer>, Error> {
        let offered = SignedRegister::verify(&bytes, &rules.trusted).map_err(|error| refused(&error))?;
        if rules.register.as_ref().is_some_and(|register| register.digest() == offered.digest()) {
            return Ok(None);
        }
        let register = accept(rules.register.as_deref(), offered).map_err(|error| refused(&error))?;
        if rules.register.is_none() {
            self.check_not_older(register.version())?;
        }
        let mut revocations = Revocations::clone(&rules.revocations);
        let new = revocations.add_register(&register);
        let version = register.version();
        let mut batch = Batch::new();
        batch.put(Table::PolicyRegister, Key::new().number(version), bytes);
        write_revocations(&mut batch, &new)?;
        let mut drafts = vec![self.audit_act(AuditKind::RegisterAccepted { version, digest: register.digest() })];
        drafts.extend(new.iter().map(|one| self.revocation_draft(one)));
        Ok(Some(Offer { batch, drafts, register, revocations }))
    }

    fn take_into_use(&self, rules: &Rules, offer: Offer) -> RegisterChange {
        let version = offer.register.version();
        self.replace_rules(rules, Some(Arc::new(offer.register)), Arc::new(offer.revocations));
        tracing::info!(register.version = version, "a register came into use");
        self.facts_changed();
        RegisterChange::Accepted(version)
    }

    /// A register that is kept, but signed by keys that are not trusted any more, still bars older ones.
    fn check_not_older(&self, version: u64) -> Result<(), Error> {
        let rows = self.store.scan(Table::PolicyRegister, &KeyRange::all(), Order::Descending, 1)?;
        let kept = rows.first().and_then(|(key, _)| matron_storage::KeyReader::new(key).number());
        match kept {
            Some(current) if current > version => {
                Err(refused(&matron_policy::RegisterError::RolledBack { current, offered: version }))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn revocation_draft(&self, one: &Revocation) -> matron_policy::AuditDraft {
        self.audit_act(AuditKind::Revocation { organisation: one.organisation.clone(), serial: one.serial.clone() })
    }

    /// Who waits is judged again, and who may not remain is evicted, as soon as the worker gets to it.
    pub(crate) fn facts_changed(&self) {
        self.governance.sweep_due.store(true, std::sync::atomic::Ordering::Release);
        self.governance.wake.notify_one();
    }
}

/// Adds revocations to the batch: they are kept even when register or notice are not there any more.
pub(super) fn write_revocations(batch: &mut Batch, revocations: &[Revocation]) -> Result<(), Error> {
    for one in revocations {
        batch.put(Table::PolicyRevocation, Key::new().text(&one.organisation).text(&one.serial), to_json(one)?);
    }
    Ok(())
}

fn stamp_of(file: &std::path::Path) -> Stamp {
    std::fs::metadata(file)
        .map(|metadata| Stamp { modified: metadata.modified().ok(), size_bytes: metadata.len() })
        .unwrap_or_default()
}

fn read_file(file: &std::path::Path) -> Result<(Vec<u8>, Stamp), Error> {
    let stamp = stamp_of(file);
    let limit = u64::try_from(MAX_REGISTER_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    std::fs::File::open(file).and_then(|opened| opened.take(limit).read_to_end(&mut bytes)).map_err(|error| {
        Error::Unknown(format!("the register cannot be read from {}: {error}", file.display()).into())
    })?;
    if bytes.len() > MAX_REGISTER_BYTES {
        return Err(Error::Store(StoreError::Foreign("the register's file is too large".to_owned())));
    }
    Ok((bytes, stamp))
}

impl Core {
    /// At the start: the register of the file, if it can be used; else the one that was kept.
    ///
    /// # Errors
    /// [`Error::Internal`] with what is wrong with the file when no register was kept; nothing is overwritten.
    pub(super) fn start_register(&self) -> Result<(), Error> {
        self.load_register()?;
        let Some(file) = &self.settings.policy.register_file else { return Ok(()) };
        let rules = self.rules();
        let read = read_file(std::path::Path::new(file)).and_then(|(bytes, stamp)| {
            let offer = self.examine_register(&rules, bytes)?;
            Ok((offer, stamp))
        });
        match read {
            Ok((offer, stamp)) => {
                if let Some(offer) = offer {
                    self.governance.log.commit_now(&*self.store, &offer.batch, &offer.drafts)?;
                    self.take_into_use(&rules, offer);
                }
                *self.governance.register_file.lock() = stamp;
                Ok(())
            }
            Err(error) if rules.register.is_some() => {
                tracing::error!(%error, "the register of the file is not used; the one that was kept stays in use");
                Ok(())
            }
            Err(error) => Err(Error::internal(format!("`policy.register_file`: {error}"))),
        }
    }
}
