//! Whatever is thrown at it: an answer or an error, and no panic.

use matron_policy::{
    Action, Credential, Facts, PolicySet, Principal, PrincipalKind, Request, RevocationNotice, RoomPolicy,
    SignedRegister, decide, keys, names,
};
use proptest::prelude::*;

use crate::canonical::value;
use crate::fixtures::*;

#[test]
fn empty_and_enormous_names_are_outsiders() {
    for user in ["", "@", "@:", "@a:", "amira", "@a:B.example", "@a:*", "@a:trust-a.example:", &"@a:".repeat(100_000)] {
        assert_eq!(names::server_of(user).filter(|server| register().organisation_of_server(server).is_some()), None);
        assert!(!judge(user, Action::Join, &facts(user)).is_permit(), "{user}");
    }
}

#[test]
fn server_names_are_told_from_other_texts() {
    for good in
        ["a", "trust-a.example", "trust-a.example:8448", "10.0.0.1", "[::1]:8448", "[2001:db8::1]", "localhost:1"]
    {
        assert!(names::is_server_name(good), "{good}");
    }
    for bad in ["", ":8448", "a:", "a:b", "a:123456", "A", "a b", "*.example", "a/b", "[::1", "[zz]", "[::1]8448", "é"]
    {
        assert!(!names::is_server_name(bad), "{bad}");
    }
    assert_eq!(names::host_of("[::1]:8448"), "[::1]");
    assert_eq!(names::host_of("a:1"), "a");
}

#[test]
fn numbers_at_the_edge_do_no_harm() {
    let mut edge = facts(AMIRA);
    edge.now_ms = u64::MAX;
    edge.room.lifetime_ms = matron_policy::Fact::Known(u64::MAX);
    let policies = PolicySet { register_grace_ms: u64::MAX, ..PolicySet::default() };
    let _ = decide(&request(AMIRA, message()), &edge, &policies);
    edge.now_ms = 0;
    let _ = decide(&request(AMIRA, message()), &edge, &policies);
}

#[test]
fn bad_keys_are_told_apart() {
    assert_eq!(keys::decode_verifying_key("!").unwrap_err(), keys::KeyError::NotBase64);
    assert_eq!(keys::decode_verifying_key("").unwrap_err(), keys::KeyError::WrongLength);
    let own = register_key();
    let text = keys::encode_verifying_key(&own.verifying_key());
    assert_eq!(keys::decode_verifying_key(&text).unwrap(), own.verifying_key());
    assert_eq!(keys::decode_verifying_key(&format!("{text}=\n")).unwrap(), own.verifying_key());
}

proptest! {
    #[test]
    fn any_value_is_read_or_refused(value in value()) {
        let text = value.to_string();
        let _ = RoomPolicy::parse(&value);
        let _ = Credential::from_value(&value);
        let _ = Credential::parse(text.as_bytes());
        let _ = RevocationNotice::verify(text.as_bytes(), &register());
        let _ = SignedRegister::verify(text.as_bytes(), &[register_key().verifying_key()]);
    }

    #[test]
    fn any_user_gets_an_answer(user: String, target: String, room: String) {
        let request = Request::in_room(
            Principal::new(&user, PrincipalKind::Unknown), Action::Invite { invitee: target }, &room
        );
        prop_assert!(!decide(&request, &facts(&user), &PolicySet::default()).is_permit());
        prop_assert!(decide(&request, &Facts::ordinary(0), &PolicySet::default()).is_permit());
    }

    #[test]
    fn names_are_judged_without_a_panic(text: String, other: String) {
        let _ = (names::server_of(&text), names::is_server_name(&text), names::is_code(&text));
        let _ = names::user_matches(&text, &other);
        prop_assert!(text.starts_with(names::host_of(&text)));
    }
}
