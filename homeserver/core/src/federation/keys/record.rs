//! What is remembered of one server's keys.

use std::collections::{BTreeMap, BTreeSet};

use matron_room::VerifyKey;
use ruma::{CanonicalJsonObject, CanonicalJsonValue, ServerName};
use serde::{Deserialize, Serialize};

/// The longest that a published key is believed without asking again, ms.
pub const LONGEST_VALIDITY_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// How many keys of one server are remembered; the ones that were valid longest ago go first.
const MAX_KEYS: usize = 64;
/// How many key documents of one server are kept.
const MAX_DOCUMENTS: usize = 8;
/// Larger documents are not kept once there is a newer one, bytes.
const MAX_OLD_DOCUMENT_BYTES: usize = 16 * 1024;

/// The keys of one server, as stored in `server_key`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerKeys {
    /// Every key ever seen, by key id.
    pub keys: BTreeMap<String, KeyRecord>,
    /// Key documents, newest first; older ones only while they publish a key that no newer one does.
    pub documents: Vec<StoredDocument>,
}

/// A key document: what a notary hands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDocument {
    /// Canonical, with its signatures.
    pub text: String,
    /// Until when it holds, ms; bounded by [`LONGEST_VALIDITY_MS`] after its arrival.
    pub valid_until_ts: u64,
    /// When it arrived, ms; 0 if that was not noted.
    #[serde(default)]
    pub received_ms: u64,
    /// The ids of the keys that it publishes.
    pub key_ids: BTreeSet<String>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Unpadded base64.
    pub key: String,
    /// The last moment at which it may have signed, ms.
    pub valid_until_ts: u64,
    /// Whether the server said that it uses the key no more: nobody makes that moment later then.
    #[serde(default)]
    pub retired: bool,
}

impl KeyRecord {
    /// What two records of the same key say together: the server's word that it retired the key weighs more than that it
    /// used it, and of two of a kind the earlier end of use, the later validity.
    fn and(&self, other: &Self) -> Self {
        let (one, two) = (self.valid_until_ts, other.valid_until_ts);
        let valid_until_ts = match (self.retired, other.retired) {
            (true, true) => one.min(two),
            (true, false) => one,
            (false, true) => two,
            (false, false) => one.max(two),
        };
        Self { key: self.key.clone(), valid_until_ts, retired: self.retired || other.retired }
    }
}

/// Why a key document is not believed.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not what the specification describes.
    #[error("the key document is malformed")]
    Malformed(#[source] Option<serde_json::Error>),
    /// It is of another server.
    #[error("the key document names another server")]
    OtherServer,
    /// The server did not sign it with one of the keys inside, or a signature is wrong.
    #[error("the key document is not signed by its server")]
    Signature(#[from] matron_room::SignatureError),
}

#[derive(Deserialize)]
struct Document {
    server_name: String,
    verify_keys: BTreeMap<String, PublishedKey>,
    #[serde(default)]
    old_verify_keys: BTreeMap<String, RetiredKey>,
    valid_until_ts: u64,
}

#[derive(Deserialize)]
struct PublishedKey {
    key: String,
}

#[derive(Deserialize)]
struct RetiredKey {
    key: String,
    expired_ts: u64,
}

impl ServerKeys {
    /// What this key document, received now, says of the server.
    ///
    /// # Errors
    /// [`DocumentError`]: nothing of the document may be used.
    pub fn from_document(
        server: &ServerName,
        object: &CanonicalJsonObject,
        now_ms: u64,
    ) -> Result<Self, DocumentError> {
        let text = serde_json::to_string(object).map_err(|error| DocumentError::Malformed(Some(error)))?;
        let document: Document = serde_json::from_str(&text).map_err(|error| DocumentError::Malformed(Some(error)))?;
        if document.server_name != server.as_str() {
            return Err(DocumentError::OtherServer);
        }
        let current: BTreeMap<String, String> = document
            .verify_keys
            .into_iter()
            .filter(|(key_id, _)| is_ed25519(key_id))
            .map(|(key_id, published)| (key_id, published.key))
            .collect();
        if current.len() > MAX_KEYS {
            return Err(DocumentError::Malformed(None));
        }
        matron_room::verify_json_signature(object, server.as_str(), &current)?;

        // SPEC: the lesser of `valid_until_ts` and seven days.
        let valid_until_ts = document.valid_until_ts.min(now_ms.saturating_add(LONGEST_VALIDITY_MS));
        let key_ids = current.keys().cloned().collect();
        let retired =
            document.old_verify_keys.into_iter().filter(|(key_id, _)| is_ed25519(key_id)).map(|(key_id, retired)| {
                // SPEC: old keys are for events alone: one that ends in the future would sign requests.
                let valid_until_ts = retired.expired_ts.min(now_ms);
                (key_id, KeyRecord { key: retired.key, valid_until_ts, retired: true })
            });
        let mut keys: BTreeMap<String, KeyRecord> = retired.collect();
        keys.extend(
            current.into_iter().map(|(key_id, key)| (key_id, KeyRecord { key, valid_until_ts, retired: false })),
        );
        keys.retain(|_, record| VerifyKey::from_base64(&record.key).is_ok());
        let document = StoredDocument { text, valid_until_ts, received_ms: now_ms, key_ids };
        let mut found = Self { keys, documents: vec![document] };
        found.forget_oldest();
        Ok(found)
    }

    /// These keys, and of the older record those that they no longer name.
    #[must_use]
    pub fn over(mut self, older: &Self) -> Self {
        for (key_id, record) in &older.keys {
            self.keys.entry(key_id.clone()).or_insert_with(|| record.clone());
        }
        for document in &older.documents {
            let published: BTreeSet<&String> = self.documents.iter().flat_map(|newer| &newer.key_ids).collect();
            let adds = document.key_ids.iter().any(|key_id| !published.contains(key_id));
            if adds && document.text.len() <= MAX_OLD_DOCUMENT_BYTES && self.documents.len() < MAX_DOCUMENTS {
                self.documents.push(document.clone());
            }
        }
        self.forget_oldest();
        self
    }

    /// These keys, each valid for as long as either record says unless one of them knows it as retired, and those that only the
    /// other record names.
    #[must_use]
    pub fn under(self, other: Self) -> Self {
        let of_both: Vec<(String, KeyRecord)> = self
            .keys
            .iter()
            .filter_map(|(key_id, record)| {
                let seen = other.keys.get(key_id)?;
                (seen.key == record.key).then(|| (key_id.clone(), record.and(seen)))
            })
            .collect();
        let newest = |keys: &Self| keys.documents.first().map_or(0, |document| document.valid_until_ts);
        let mut both = if newest(&other) > newest(&self) { other.over(&self) } else { self.over(&other) };
        for (key_id, record) in of_both {
            if let Some(known) = both.keys.get_mut(&key_id) {
                *known = record;
            }
        }
        both
    }

    /// The key of this id, if it was valid at that time; any key ever seen when `valid_at_ms` is `None`.
    #[must_use]
    pub fn find(&self, key_id: &str, valid_at_ms: Option<u64>) -> Option<VerifyKey> {
        let record = self.keys.get(key_id)?;
        if valid_at_ms.is_some_and(|at| record.valid_until_ts < at) {
            return None;
        }
        VerifyKey::from_base64(&record.key).ok()
    }

    /// The newest document that publishes the key; of any key, if `key_id` is `None`.
    #[must_use]
    pub fn document_with(&self, key_id: Option<&str>) -> Option<&StoredDocument> {
        self.documents.iter().find(|document| key_id.is_none_or(|key_id| document.key_ids.contains(key_id)))
    }

    fn forget_oldest(&mut self) {
        while self.keys.len() > MAX_KEYS {
            let oldest = self.keys.iter().min_by_key(|(_, record)| record.valid_until_ts);
            let Some(oldest) = oldest.map(|(key_id, _)| key_id.clone()) else { break };
            self.keys.remove(&oldest);
        }
    }
}

impl StoredDocument {
    /// Whether less than half of its life is over, so that it need not be fetched anew.
    ///
    /// SPEC: v1.19, `GET /_matrix/key/v2/server`: how long a notary should keep an answer.
    #[must_use]
    pub fn is_fresh(&self, now_ms: u64) -> bool {
        let half_ms = self.valid_until_ts.saturating_sub(self.received_ms) / 2;
        self.received_ms != 0 && now_ms < self.received_ms.saturating_add(half_ms)
    }

    /// The document as an object, to be signed once more.
    #[must_use]
    pub fn object(&self) -> Option<CanonicalJsonObject> {
        matron_room::parse_canonical(&self.text).ok()
    }
}

fn is_ed25519(key_id: &str) -> bool {
    key_id.strip_prefix("ed25519:").is_some_and(|name| {
        !name.is_empty() && name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// A key document without signatures.
#[must_use]
pub fn unsigned_document(
    server: &ServerName,
    current: (&str, String),
    retired: &BTreeMap<String, KeyRecord>,
    valid_until_ts: u64,
) -> CanonicalJsonObject {
    let text = |text: &str| CanonicalJsonValue::String(text.to_owned());
    let time = |ms: u64| CanonicalJsonValue::Integer(ruma::Int::new_saturating(i64::try_from(ms).unwrap_or(i64::MAX)));
    let object = |members: Vec<(String, CanonicalJsonValue)>| -> CanonicalJsonValue {
        CanonicalJsonValue::Object(members.into_iter().collect())
    };
    let (key_id, key) = current;
    let verify_keys = object(vec![(key_id.to_owned(), object(vec![("key".to_owned(), text(&key))]))]);
    let retired = retired.iter().map(|(key_id, record)| {
        let members =
            vec![("key".to_owned(), text(&record.key)), ("expired_ts".to_owned(), time(record.valid_until_ts))];
        (key_id.clone(), object(members))
    });
    CanonicalJsonObject::from([
        ("server_name".to_owned(), text(server.as_str())),
        ("verify_keys".to_owned(), verify_keys),
        ("old_verify_keys".to_owned(), object(retired.collect())),
        ("valid_until_ts".to_owned(), time(valid_until_ts)),
    ])
}

#[cfg(test)]
mod tests {
    use matron_room::SigningKey;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn server() -> &'static ServerName {
        "a.example".try_into().unwrap()
    }

    fn key(byte: u8, name: &str) -> SigningKey {
        SigningKey::from_seed(name, &[byte; 32]).unwrap()
    }

    fn document(key: &SigningKey, retired: &BTreeMap<String, KeyRecord>, valid_until_ts: u64) -> CanonicalJsonObject {
        let current = (key.key_id(), key.verify_key().to_base64());
        let mut document = unsigned_document(server(), current, retired, valid_until_ts);
        key.sign_json(&mut document, server().as_str()).unwrap();
        document
    }

    #[test]
    fn a_key_is_believed_for_at_most_seven_days() {
        let key = key(1, "one");
        let found = ServerKeys::from_document(server(), &document(&key, &BTreeMap::new(), u64::MAX), NOW_MS).unwrap();
        let last = NOW_MS + LONGEST_VALIDITY_MS;
        assert_eq!(found.find("ed25519:one", Some(last)), Some(key.verify_key()));
        assert_eq!(found.find("ed25519:one", Some(last + 1)), None);
        assert_eq!(found.find("ed25519:one", None), Some(key.verify_key()), "old room versions ignore validity");
    }

    #[test]
    fn a_retired_key_signs_only_what_is_older() {
        let (old, new) = (key(1, "one"), key(2, "two"));
        let retired = BTreeMap::from([(
            "ed25519:one".to_owned(),
            KeyRecord { key: old.verify_key().to_base64(), valid_until_ts: NOW_MS - 5, retired: true },
        )]);
        let found = ServerKeys::from_document(server(), &document(&new, &retired, NOW_MS + 9), NOW_MS).unwrap();
        assert_eq!(found.find("ed25519:one", Some(NOW_MS - 5)), Some(old.verify_key()));
        assert_eq!(found.find("ed25519:one", Some(NOW_MS)), None);
    }

    #[test]
    fn a_key_that_was_retired_in_time_is_not_made_valid_again_by_an_older_document() {
        let (old, new) = (key(1, "one"), key(2, "two"));
        let record = KeyRecord { key: old.verify_key().to_base64(), valid_until_ts: NOW_MS - 5, retired: true };
        let retired = BTreeMap::from([("ed25519:one".to_owned(), record)]);
        let told = |valid_until_ts: u64| {
            ServerKeys::from_document(server(), &document(&new, &retired, valid_until_ts), NOW_MS).unwrap()
        };
        let before =
            ServerKeys::from_document(server(), &document(&old, &BTreeMap::new(), NOW_MS + 99), NOW_MS).unwrap();
        // Whichever of them a notary brings, and whichever is newer.
        for both in [
            told(NOW_MS + 999).under(before.clone()),
            told(NOW_MS).under(before.clone()),
            before.under(told(NOW_MS + 999)),
        ] {
            assert_eq!(both.find("ed25519:one", Some(NOW_MS - 5)), Some(old.verify_key()));
            assert_eq!(both.find("ed25519:one", Some(NOW_MS - 4)), None);
        }
    }

    #[test]
    fn a_key_that_retires_tomorrow_is_retired_now() {
        let (old, new) = (key(1, "one"), key(2, "two"));
        let record = KeyRecord { key: old.verify_key().to_base64(), valid_until_ts: u64::MAX >> 12, retired: true };
        let retired = BTreeMap::from([("ed25519:one".to_owned(), record)]);
        let found = ServerKeys::from_document(server(), &document(&new, &retired, NOW_MS + 9), NOW_MS).unwrap();
        assert_eq!(found.find("ed25519:one", Some(NOW_MS)), Some(old.verify_key()));
        assert_eq!(found.find("ed25519:one", Some(NOW_MS + 1)), None);
    }

    #[test]
    fn a_document_is_fresh_for_half_of_its_life() {
        let key = key(1, "one");
        let found =
            ServerKeys::from_document(server(), &document(&key, &BTreeMap::new(), NOW_MS + 100), NOW_MS).unwrap();
        assert!(found.documents[0].is_fresh(NOW_MS + 49));
        assert!(!found.documents[0].is_fresh(NOW_MS + 50));
        let found = ServerKeys::from_document(server(), &document(&key, &BTreeMap::new(), NOW_MS - 1), NOW_MS).unwrap();
        assert!(!found.documents[0].is_fresh(NOW_MS), "it is over already");
    }

    #[test]
    fn a_key_that_is_no_longer_published_is_kept_for_old_events() {
        let (old, new) = (key(1, "one"), key(2, "two"));
        let first = ServerKeys::from_document(server(), &document(&old, &BTreeMap::new(), NOW_MS + 9), NOW_MS).unwrap();
        let second = ServerKeys::from_document(server(), &document(&new, &BTreeMap::new(), NOW_MS + 99), NOW_MS + 50);
        let both = second.unwrap().over(&first);
        assert_eq!(both.find("ed25519:one", Some(NOW_MS + 9)), Some(old.verify_key()));
        assert_eq!(both.find("ed25519:one", Some(NOW_MS + 10)), None);
        assert_eq!(both.find("ed25519:two", Some(NOW_MS + 99)), Some(new.verify_key()));
    }

    #[test]
    fn a_document_that_its_server_did_not_sign_is_refused() {
        let (right, wrong) = (key(1, "one"), key(2, "one"));
        let current = (right.key_id(), right.verify_key().to_base64());
        let mut unsigned = unsigned_document(server(), current, &BTreeMap::new(), NOW_MS);
        assert!(matches!(ServerKeys::from_document(server(), &unsigned, NOW_MS), Err(DocumentError::Signature(_))));
        wrong.sign_json(&mut unsigned, server().as_str()).unwrap();
        assert!(matches!(ServerKeys::from_document(server(), &unsigned, NOW_MS), Err(DocumentError::Signature(_))));
        let other: &ServerName = "b.example".try_into().unwrap();
        let signed = document(&right, &BTreeMap::new(), NOW_MS);
        assert!(matches!(ServerKeys::from_document(other, &signed, NOW_MS), Err(DocumentError::OtherServer)));
    }
}
