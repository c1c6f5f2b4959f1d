//! Test vectors: the specification's, and events that an implementation in another language made.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use matron_room::{ContentState, RoomVersion, SigningKey, UncheckedPdu, canonical_json, content_hash, parse_canonical};
use ruma::{OwnedServerName, server_name};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::support::spec_key;

#[derive(Deserialize)]
struct Vector {
    room_version: String,
    event_id: String,
    event: Box<RawValue>,
    redacted: Box<RawValue>,
}

/// The fixture's text without the spaces between tokens: its keys are sorted and its numbers spelled already.
fn sorted(raw: &RawValue) -> String {
    let (mut out, mut in_string, mut escaped) = (String::new(), false, false);
    for character in raw.get().chars() {
        if in_string || !character.is_whitespace() {
            out.push(character);
        }
        in_string ^= character == '"' && !escaped;
        escaped = in_string && character == '\\' && !escaped;
    }
    out
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("fixtures/events.json")).unwrap()
}

fn keys(key: &SigningKey) -> BTreeMap<OwnedServerName, BTreeMap<String, matron_room::VerifyKey>> {
    let of_domain = BTreeMap::from([(key.key_id().to_owned(), key.verify_key())]);
    BTreeMap::from([(server_name!("domain").to_owned(), of_domain)])
}

#[test]
fn events_of_every_version_have_the_ids_that_another_implementation_computed() {
    assert_eq!(vectors().len(), 12 * 8 + 5);
    for vector in vectors() {
        let version = RoomVersion::find(&vector.room_version).unwrap();
        let event = UncheckedPdu::parse(&vector.event, version).unwrap();
        assert_eq!(event.event_id().as_str(), vector.event_id, "version {}", vector.room_version);
    }
}

#[test]
fn events_of_every_version_verify_and_stay_intact() {
    for vector in vectors() {
        let version = RoomVersion::find(&vector.room_version).unwrap();
        let event = UncheckedPdu::parse(&vector.event, version).unwrap();
        let signed = event.verify(&keys(&spec_key())).unwrap();
        assert_eq!(signed.content(), ContentState::Intact);
        assert_eq!(signed.pdu().json().get(), sorted(&vector.event));
    }
}

#[test]
fn events_of_every_version_redact_as_another_implementation_redacts_them() {
    for vector in vectors() {
        let version = RoomVersion::find(&vector.room_version).unwrap();
        let event = UncheckedPdu::parse(&vector.event, version).unwrap().trust_own();
        let skeleton = event.skeleton().unwrap();
        assert_eq!(skeleton.json().get(), sorted(&vector.redacted), "version {} {}", vector.room_version, event.kind());
        let again = UncheckedPdu::parse(skeleton.json(), version).unwrap();
        assert_eq!(again.event_id().as_str(), vector.event_id);
        assert!(again.verify(&keys(&spec_key())).is_ok());
    }
}

#[test]
fn canonical_json_of_the_specification_is_ours() {
    let cases = [
        ("{}", "{}"),
        (r#"{"one": 1, "two": "Two"}"#, r#"{"one":1,"two":"Two"}"#),
        (r#"{"b": "2", "a": "1"}"#, r#"{"a":"1","b":"2"}"#),
        (r#"{"a": "日本語"}"#, r#"{"a":"日本語"}"#),
        (r#"{"本": 2, "日": 1}"#, r#"{"日":1,"本":2}"#),
        (r#"{"a": "\u65E5"}"#, r#"{"a":"日"}"#),
        (r#"{"a": null}"#, r#"{"a":null}"#),
        (r#"{"\uffff": 1, "\ud83d\ude00": 2}"#, "{\"\u{ffff}\":1,\"\u{1f600}\":2}"),
    ];
    for (input, expected) in cases {
        let object = parse_canonical(input).unwrap();
        assert_eq!(canonical_json(&object).unwrap(), expected);
    }
    for refused in [r#"{"a":1.0}"#, r#"{"a":-0}"#, r#"{"a":1e2}"#, r#"{"a":9007199254740992}"#, "[]", "{", ""] {
        assert!(parse_canonical(refused).is_err(), "{refused}");
    }
}

#[test]
fn json_signatures_of_the_specification_are_ours() {
    let key = spec_key();
    let cases = [
        ("{}", "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
        (
            r#"{"one":1,"two":"Two"}"#,
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ];
    for (input, signature) in cases {
        let mut object = parse_canonical(input).unwrap();
        key.sign_json(&mut object, "domain").unwrap();
        let expected = format!(r#""signatures":{{"domain":{{"ed25519:1":"{signature}"}}}}"#);
        assert!(canonical_json(&object).unwrap().contains(&expected));
    }
}

#[test]
fn content_hash_of_the_specification_is_ours() {
    let object = parse_canonical(
        r#"{"room_id":"!x:domain","sender":"@a:domain","origin":"domain","origin_server_ts":1000000,"signatures":{},
            "hashes":{},"type":"X","content":{},"prev_events":[],"auth_events":[],"depth":3,"unsigned":{"age_ts":1000000}}"#,
    )
    .unwrap();
    let computed = STANDARD_NO_PAD.encode(content_hash(&object, RoomVersion::default_version()).unwrap());
    assert_eq!(computed, "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos");
}

#[test]
fn minimal_event_of_the_specification_verifies() {
    let json = r#"{"auth_events":[],"content":{},"depth":3,"hashes":{"sha256":"5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"},
        "origin":"domain","origin_server_ts":1000000,"prev_events":[],"room_id":"!x:domain","sender":"@a:domain",
        "signatures":{"domain":{"ed25519:1":"KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"}},
        "type":"X","unsigned":{"age_ts":1000000}}"#;
    let event = UncheckedPdu::parse_str(json, RoomVersion::find("6").unwrap()).unwrap();
    let signed = event.verify(&keys(&spec_key())).unwrap();
    assert_eq!(signed.content(), ContentState::Intact);
}
