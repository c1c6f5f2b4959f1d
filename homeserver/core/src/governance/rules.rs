//! What policy goes by at this moment: the deployment's layers, the register, what was revoked.

use std::{collections::BTreeSet, sync::Arc};

use matron_policy::{PolicyLayer, PolicySet, RegisterStatus, Revocations, VerifiedRegister, VerifyingKey};
use ruma::{OwnedUserId, ServerName};

use crate::{Error, settings};

/// What policy goes by. Never changed, only replaced as a whole.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// The deployment's layers.
    pub(crate) policies: PolicySet,
    /// Whether they demand nothing.
    pub(crate) ordinary: bool,
    /// The register in force.
    pub(crate) register: Option<Arc<VerifiedRegister>>,
    /// Everything that was revoked, by register or notice.
    pub(crate) revocations: Arc<Revocations>,
    /// Whose signature makes a register ours.
    pub(crate) trusted: Arc<Vec<VerifyingKey>>,
    /// Governance bots and officers, by configuration.
    pub(crate) officers: Arc<BTreeSet<OwnedUserId>>,
    /// Moves with every change.
    pub(crate) generation: u64,
}

impl Rules {
    /// What the settings say; no register yet.
    ///
    /// # Errors
    /// [`Error::Internal`] naming the setting that makes no sense.
    pub(crate) fn from_settings(settings: &settings::Policy) -> Result<Self, Error> {
        let floor: Option<PolicyLayer> = settings
            .layer
            .clone()
            .map(serde_json::from_value)
            .transpose()
            .map_err(|error| Error::internal(format!("`policy.layer`: {error}")))?;
        if let Some(floor) = &floor {
            floor.check().map_err(|error| Error::internal(format!("`policy.layer`: {error}")))?;
        }
        let trusted = settings
            .register_keys
            .iter()
            .map(|(id, text)| {
                matron_policy::keys::decode_verifying_key(text)
                    .map_err(|error| Error::internal(format!("`policy.register_keys`, {id}: {error}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if settings.register_file.is_some() && trusted.is_empty() {
            return Err(Error::internal(
                "`policy.register_file` is set, but `policy.register_keys` names no key that may sign it",
            ));
        }
        let officers = settings
            .officers
            .iter()
            .map(|text| {
                OwnedUserId::try_from(text.as_str())
                    .map_err(|_| Error::internal(format!("`policy.officers`: `{text}` is not a user id")))
            })
            .collect::<Result<_, _>>()?;
        let policies = PolicySet { floor, ..PolicySet::default() };
        Ok(Self {
            ordinary: policies.is_ordinary(),
            policies,
            trusted: Arc::new(trusted),
            officers: Arc::new(officers),
            ..Self::default()
        })
    }

    /// The same with another register and other revocations.
    pub(crate) fn with(&self, register: Option<Arc<VerifiedRegister>>, revocations: Arc<Revocations>) -> Self {
        Self {
            policies: self.policies.clone(),
            ordinary: self.ordinary,
            register,
            revocations,
            trusted: Arc::clone(&self.trusted),
            officers: Arc::clone(&self.officers),
            generation: self.generation.wrapping_add(1),
        }
    }

    /// The register's state at this time.
    pub(crate) fn register_status(&self, now_ms: u64) -> RegisterStatus {
        self.register.as_ref().map_or(RegisterStatus::None, |register| register.status(now_ms))
    }

    /// Whether the server is one of those that a layer bounds its rooms to: by the register, one of an organisation and in a
    /// jurisdiction that it names. Every server, where it names none.
    pub(crate) fn has_within(&self, layer: &PolicyLayer, server: &ServerName) -> bool {
        if layer.organisations.is_none() && layer.jurisdictions.is_none() {
            return true;
        }
        let organisation = self.register.as_ref().and_then(|register| register.organisation_of_server(server.as_str()));
        organisation.is_some_and(|organisation| {
            layer.organisations.as_ref().is_none_or(|allowed| allowed.contains(&organisation.code))
                && layer.jurisdictions.as_ref().is_none_or(|allowed| allowed.contains(&organisation.jurisdiction))
        })
    }
}
