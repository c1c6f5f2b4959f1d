//! Taking credentials back, by a notice that travels alone.

use std::collections::BTreeMap;

use matron_policy::{CredentialStatus, RevocationError, RevocationNotice, Revocations};

use crate::fixtures::*;

fn notice(organisation: &str, signer: &str, serials: &[&str]) -> RevocationNotice {
    let revoked: BTreeMap<String, u64> = serials.iter().map(|serial| ((*serial).to_owned(), NOW_MS)).collect();
    RevocationNotice::issue(organisation, revoked, NOW_MS, "2027", &organisation_key(signer)).unwrap()
}

#[test]
fn notice_revokes_wherever_it_arrives() {
    let bytes = notice("RXB", "RXB", &["RXB-0001", "RXB-0002"]).to_bytes().unwrap();
    let notice = RevocationNotice::verify(&bytes, &register()).unwrap();
    let mut revocations = Revocations::default();
    assert_eq!(revocations.add_notice(&notice, &register()).unwrap().len(), 2);
    let status = credential(BEN, "RXB").verify(&register(), &revocations, BEN, NOW_MS);
    assert_eq!(status, CredentialStatus::Revoked { revoked_at_ms: NOW_MS });
}

#[test]
fn notice_heard_twice_brings_nothing_new() {
    let mut revocations = Revocations::default();
    let notice = notice("RXB", "RXB", &["RXB-0001"]);
    revocations.add_notice(&notice, &register()).unwrap();
    assert!(revocations.add_notice(&notice, &register()).unwrap().is_empty());
    assert_eq!(revocations.len(), 1);
}

#[test]
fn organisation_takes_back_its_own_credentials_alone() {
    let forged = notice("RXB", "RXA", &["RXB-0001"]);
    let mut revocations = Revocations::default();
    assert!(matches!(revocations.add_notice(&forged, &register()), Err(RevocationError::BadSignature)));
    let foreign = notice("RXZ", "RXA", &["RXB-0001"]);
    assert!(matches!(revocations.add_notice(&foreign, &register()), Err(RevocationError::UnknownKey)));
    assert!(revocations.is_empty());
}

#[test]
fn malformed_notices_are_refused() {
    let none = RevocationNotice::issue("RXB", BTreeMap::new(), NOW_MS, "2027", &organisation_key("RXB"));
    assert!(matches!(none, Err(RevocationError::Serials)));
    let many = (0..10_001).map(|n| (format!("s{n}"), 1)).collect();
    assert!(matches!(
        RevocationNotice::issue("RXB", many, NOW_MS, "2027", &organisation_key("RXB")),
        Err(RevocationError::Serials)
    ));
    assert!(matches!(RevocationNotice::verify(b"{}", &register()), Err(RevocationError::Unreadable(_))));
    assert!(matches!(RevocationNotice::verify(b"{", &register()), Err(RevocationError::Corrupt(_))));
    let credential = credential(BEN, "RXB").to_value().to_string();
    assert!(RevocationNotice::verify(credential.as_bytes(), &register()).is_err());
}
