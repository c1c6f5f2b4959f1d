//! A signed register, its organisations, and credentials.

use std::collections::BTreeMap;

use matron_core::settings;
use matron_policy::{
    Credential, CredentialClaims, MEGOLM, Organisation, ROOM_POLICY_TYPE, Register, Revocation, RoomPolicy,
    SignedRegister, SigningKey, VerificationLevel, keys,
};
use ruma::UserId;
use serde_json::{Value, json};

use crate::{START_MS, TestServer};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Organisations under one register, each with one server, a bot `@bot` with a governance user's rights, and a key for
/// credentials.
#[derive(Clone, Debug)]
pub struct Governance {
    key: SigningKey,
    organisations: Vec<(String, String, SigningKey)>,
    version: u64,
    revocations: Vec<Revocation>,
    life_ms: u64,
}

impl Governance {
    /// A register with organisations by code and server name; valid for 30 days.
    #[must_use]
    pub fn of(organisations: &[(&str, &str)]) -> Self {
        let mut all = Vec::new();
        for (code, server) in organisations {
            all.push(((*code).to_owned(), (*server).to_owned(), key(u8::try_from(10 + all.len()).unwrap())));
        }
        Self { key: key(7), organisations: all, version: 0, revocations: Vec::new(), life_ms: 30 * DAY_MS }
    }

    /// The next registers are valid for so long.
    pub fn live_for_ms(&mut self, life_ms: u64) {
        self.life_ms = life_ms;
    }

    /// The organisation is in the next registers no more.
    pub fn expel(&mut self, code: &str) {
        self.organisations.retain(|(other, ..)| other != code);
    }

    /// The organisation is in the next registers.
    pub fn admit(&mut self, code: &str, server: &str) {
        self.organisations.push((code.to_owned(), server.to_owned(), key(90)));
    }

    /// The credential with this serial is revoked in the next registers.
    pub fn revoke(&mut self, code: &str, serial: &str, at_ms: u64) {
        let revocation = Revocation { organisation: code.to_owned(), serial: serial.to_owned(), revoked_at_ms: at_ms };
        self.revocations.push(revocation);
    }

    /// The next register, issued at this time.
    pub fn register(&mut self, now_ms: u64) -> Vec<u8> {
        self.version += 1;
        let organisation = |(code, server, key): &(String, String, SigningKey)| Organisation {
            code: code.clone(),
            name: format!("Trust {code}"),
            jurisdiction: "GB-ENG".to_owned(),
            server_names: vec![server.clone()],
            credential_keys: BTreeMap::from([("k1".to_owned(), keys::encode_verifying_key(&key.verifying_key()))]),
            policy_server_key: None,
            governance_users: vec![format!("@bot:{server}")],
            service_users: Vec::new(),
        };
        let register = Register {
            kind: Default::default(),
            version: self.version,
            issued_at_ms: now_ms.saturating_sub(1000),
            expires_at_ms: now_ms + self.life_ms,
            federation: "Test".to_owned(),
            organisations: self.organisations.iter().map(organisation).collect(),
            revocations: self.revocations.clone(),
        };
        SignedRegister::sign(&register, &[&self.key]).unwrap().to_bytes().unwrap()
    }

    /// The settings of a server of this organisation.
    #[must_use]
    pub fn settings(&self, code: &str, server: &str) -> settings::Policy {
        settings::Policy {
            register_file: None,
            register_keys: BTreeMap::from([("k".to_owned(), keys::encode_verifying_key(&self.key.verifying_key()))]),
            organisation: Some(code.to_owned()),
            layer: None,
            officers: vec![format!("@bot:{server}")],
        }
    }

    /// The server has this register.
    ///
    /// # Panics
    /// If it refuses it.
    pub async fn tell(&self, server: &TestServer, register: &[u8]) {
        server.core.offer_register(register.to_vec()).await.unwrap();
    }

    /// A credential of the user by the organisation, with the serial `serial-` and the user's localpart.
    ///
    /// # Panics
    /// If there is no such organisation.
    #[must_use]
    pub fn credential(&self, code: &str, user: &UserId) -> Credential {
        let claims = CredentialClaims {
            user_id: user.to_string(),
            organisation: code.to_owned(),
            profession: "nurse".to_owned(),
            roles: Default::default(),
            level: VerificationLevel::Employment,
            checked_at_ms: START_MS,
            expires_at_ms: START_MS + 365 * DAY_MS,
            serial: format!("serial-{}", user.localpart()),
        };
        let organisation = self.organisations.iter().find(|(other, ..)| other == code);
        let (_, _, key) = organisation.expect("the organisation is in the register");
        Credential::issue(claims, "k1", key).unwrap()
    }

    /// The server's user holds a credential.
    ///
    /// # Panics
    /// If the server refuses it.
    pub async fn verify(&self, server: &TestServer, code: &str, user: &UserId) {
        server.core.store_credential("test", &self.credential(code, user).to_value()).await.unwrap();
    }

    /// The body of `createRoom` for an encrypted room of these organisations whose content lives so long.
    #[must_use]
    pub fn ward(organisations: &[&str], lifetime_ms: u64) -> Value {
        let policy = RoomPolicy::of_organisations(organisations.iter().copied()).with_max_lifetime_ms(lifetime_ms);
        let state = |kind: &str, content: Value| json!({"type": kind, "state_key": "", "content": content});
        json!({
            "preset": "private_chat",
            "initial_state": [
                state("m.room.guest_access", json!({"guest_access": "forbidden"})),
                state("m.room.encryption", json!({"algorithm": MEGOLM, "rotation_period_ms": lifetime_ms})),
                state("m.room.retention", json!({"max_lifetime": lifetime_ms})),
                state(ROOM_POLICY_TYPE, policy.to_content()),
            ],
        })
    }

    /// What an encrypted message holds, as far as anyone but its readers can see.
    #[must_use]
    pub fn ciphertext(text: &str) -> Value {
        json!({"algorithm": MEGOLM, "ciphertext": text, "session_id": "s"})
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}
