//! Which servers a room's organisations have: by the signed federation register, or by configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use matron_policy::{RegisterError, SignedRegister, VerifiedRegister, keys};
use serde_json::Value;
use thiserror::Error;

use super::room::{ClinicalRoomSpec, server_of};

/// Why a room's servers are not known.
#[derive(Debug, Error)]
pub enum BoundsError {
    /// The register file cannot be read.
    #[error("the federation register cannot be read")]
    Read(#[from] std::io::Error),
    /// A key in `register_keys` is no ed25519 key.
    #[error("a key of register_keys is malformed")]
    Key(#[from] matron_policy::keys::KeyError),
    /// The register is corrupt, foreign, unsigned or out of date.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The register does not know an organisation.
    #[error("an organisation is not in the federation register")]
    UnknownOrganisation,
}

/// Where organisations' servers are looked up.
#[derive(Debug, Clone, Default)]
pub struct Organisations {
    /// The signed register; it alone counts where it is given.
    pub register_file: Option<PathBuf>,
    /// Keys that may have signed it, ed25519 in base64.
    pub register_keys: Vec<String>,
    /// Server names by code, where there is no register.
    pub configured: BTreeMap<String, Vec<String>>,
    /// Rooms name the organisation's policy server, so that other homeservers obey it too.
    pub policy_server: bool,
}

/// The bounds of one room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Servers that may take part, our own included.
    pub servers: BTreeSet<String>,
    /// Content of `m.room.policy`.
    pub policy_server: Option<Value>,
}

impl Organisations {
    /// The bounds of the room that `bot` is asked for. Reads the register file.
    ///
    /// # Errors
    /// [`BoundsError`]; no room is bounded by a register that does not hold.
    pub fn bounds(&self, spec: &ClinicalRoomSpec, bot: &str, now_ms: u64) -> Result<Bounds, BoundsError> {
        let own = server_of(bot).unwrap_or_default();
        let Some(path) = &self.register_file else {
            return Ok(Bounds { servers: self.configured_servers(spec, own), policy_server: None });
        };
        let trusted =
            self.register_keys.iter().map(|key| keys::decode_verifying_key(key)).collect::<Result<Vec<_>, _>>()?;
        let register = SignedRegister::verify(&std::fs::read(path)?, &trusted)?;
        register.check_current(now_ms)?;
        self.registered(spec, own, &register)
    }

    fn registered(
        &self,
        spec: &ClinicalRoomSpec,
        own: &str,
        register: &VerifiedRegister,
    ) -> Result<Bounds, BoundsError> {
        let mut servers = BTreeSet::from([own.to_owned()]);
        for code in &spec.organisations {
            let organisation = register.organisation(code).ok_or(BoundsError::UnknownOrganisation)?;
            servers.extend(organisation.server_names.iter().cloned());
        }
        let policy_server = register
            .organisation_of_server(own)
            .filter(|_| self.policy_server)
            .and_then(|organisation| organisation.policy_server_content(own));
        Ok(Bounds { servers, policy_server })
    }

    /// Our own server, those configured for the organisations, those asked for, and those of the invited.
    fn configured_servers(&self, spec: &ClinicalRoomSpec, own: &str) -> BTreeSet<String> {
        let named = spec.organisations.iter().filter_map(|code| self.configured.get(code)).flatten();
        let invited = spec.invite.iter().filter_map(|user| server_of(user));
        std::iter::once(own)
            .chain(named.map(String::as_str))
            .chain(spec.servers.iter().map(String::as_str))
            .chain(invited)
            .map(str::to_owned)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(organisations: &[&str]) -> ClinicalRoomSpec {
        serde_json::from_value(json!({
            "name": "W", "organisations": organisations, "invite": ["@a:guest.example"], "lifetime_ms": 1000,
        }))
        .unwrap()
    }

    #[test]
    fn without_a_register_the_configured_and_the_invited_count() {
        let organisations = Organisations {
            configured: BTreeMap::from([("s".to_owned(), vec!["s.example".to_owned()])]),
            ..Organisations::default()
        };
        let bounds = organisations.bounds(&spec(&["s", "t"]), "@bot:n.example", 0).unwrap();
        let servers: Vec<_> = bounds.servers.iter().map(String::as_str).collect();
        assert_eq!(servers, ["guest.example", "n.example", "s.example"]);
    }

    #[test]
    fn a_register_that_does_not_hold_bounds_no_room() {
        let root = tempfile::tempdir().unwrap();
        let mut organisations =
            Organisations { register_file: Some(root.path().join("register.json")), ..Organisations::default() };
        let bounds = |organisations: &Organisations| organisations.bounds(&spec(&["s"]), "@b:n", 0);
        assert!(matches!(bounds(&organisations), Err(BoundsError::Read(_))));
        std::fs::write(root.path().join("register.json"), b"{}").unwrap();
        assert!(matches!(bounds(&organisations), Err(BoundsError::Register(_))));
        organisations.register_keys.push("nonsense".to_owned());
        assert!(matches!(bounds(&organisations), Err(BoundsError::Key(_))));
    }

    #[test]
    fn the_registers_servers_count_and_nobody_elses() {
        let signer = keys::decode_signing_key("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE").unwrap();
        let key = keys::encode_verifying_key(&signer.verifying_key());
        let organisation = |code: &str| {
            json!({
                "code": code, "name": code, "jurisdiction": "GB-ENG", "credential_keys": {},
                "server_names": [format!("{code}.example")], "policy_server_key": key,
            })
        };
        let register = serde_json::from_value(json!({
            "type": "org.matron.register", "version": 1, "issued_at_ms": 1_000, "expires_at_ms": 9_000_000,
            "federation": "test", "organisations": [organisation("n"), organisation("s"), organisation("t")],
        }))
        .unwrap();
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("register.json");
        let signed = SignedRegister::sign(&register, &[&signer]).unwrap();
        std::fs::write(&file, signed.to_bytes().unwrap()).unwrap();
        let organisations = Organisations {
            register_file: Some(file),
            register_keys: vec![key],
            policy_server: true,
            ..Organisations::default()
        };
        let bounds = organisations.bounds(&spec(&["n", "s"]), "@bot:n.example", 2_000).unwrap();
        let servers: Vec<_> = bounds.servers.iter().map(String::as_str).collect();
        assert_eq!(servers, ["n.example", "s.example"]);
        assert_eq!(bounds.policy_server.unwrap()["via"], "n.example");
        let unknown = organisations.bounds(&spec(&["n", "x"]), "@bot:n.example", 2_000);
        assert!(matches!(unknown, Err(BoundsError::UnknownOrganisation)));
        let late = organisations.bounds(&spec(&["n"]), "@bot:n.example", 900_000_000);
        assert!(matches!(late, Err(BoundsError::Register(_))));
    }
}
