//! No bytes make a panic; what reads as an event prints, redacts and reads back as the same event.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matron_room::{Pdu, RoomVersion, UncheckedPdu, Unsigned, check_auth, check_state_independent, client_event};

fuzz_target!(|input: (u8, &str)| {
    let (version, text) = input;
    let versions = RoomVersion::supported();
    let version = &versions[usize::from(version) % versions.len()];
    let Ok(unchecked) = UncheckedPdu::parse_str(text, version) else { return };
    let _ = unchecked.required_key_ids();
    let event = unchecked.trust_own();
    let again = UncheckedPdu::parse(event.json(), version).expect("what was printed reads back").trust_own();
    assert_eq!(again.event_id(), event.event_id());
    assert_eq!(again.json().get(), event.json().get());

    let skeleton = event.skeleton().expect("every event has a skeleton");
    let read = UncheckedPdu::parse(skeleton.json(), version).expect("a skeleton is an event");
    assert_eq!(read.event_id(), event.event_id());
    assert_eq!(skeleton.skeleton().expect("as before").json().get(), skeleton.json().get());
    Pdu::from_stored(event.json().get(), version, event.event_id().to_owned()).expect("our own bytes read back");

    let seen = client_event(&event, &Unsigned::default());
    assert!(serde_json::from_str::<serde_json::Value>(seen.get()).expect("client form is JSON").is_object());
    let _ = check_state_independent(&event, |_id| Some(event.clone().into()));
    let _ = check_auth(&event, |_kind, _key| Some(event.clone()));
});
