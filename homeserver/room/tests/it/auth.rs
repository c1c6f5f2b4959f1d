//! The authorisation rules and the power levels helper.

use matron_room::{
    AuthEvent, DraftPdu, PowerLevels, RoomVersion, UserLevel, auth_types_for, check_auth, check_state_independent,
};
use proptest::prelude::*;
use ruma::server_name;
use serde_json::{json, value::to_raw_value};

use crate::support::{TestRoom, spec_key, user, user_id, version};

fn member(membership: &str) -> serde_json::Value {
    json!({ "membership": membership })
}

#[test]
fn public_rooms_are_joined_and_private_ones_are_not() {
    for version in RoomVersion::supported() {
        let mut room = TestRoom::new(version, "a");
        room.join(&[room.last()], "b").unwrap();
        room.send_last("a", "m.room.join_rules", Some(""), json!({ "join_rule": "invite" })).unwrap();
        let refused = room.join(&[room.last()], "c").unwrap_err();
        assert_eq!(refused.rule, "member.join");
        room.send_last("a", "m.room.member", Some(&user("c")), member("invite")).unwrap();
        room.join(&[room.last()], "c").unwrap();
    }
}

#[test]
fn banned_users_stay_out_until_unbanned() {
    let mut room = TestRoom::new(version("12"), "a");
    room.join(&[room.last()], "b").unwrap();
    room.send_last("a", "m.room.member", Some(&user("b")), member("ban")).unwrap();
    assert!(room.join(&[room.last()], "b").is_err());
    assert_eq!(room.send_last("b", "m.room.message", None, json!({})).unwrap_err().rule, "send");
    room.send_last("a", "m.room.member", Some(&user("b")), member("leave")).unwrap();
    room.join(&[room.last()], "b").unwrap();
}

#[test]
fn members_without_power_change_nothing() {
    for id in ["6", "10", "11", "12"] {
        let mut room = TestRoom::new(version(id), "a");
        room.join(&[room.last()], "b").unwrap();
        room.send_last("b", "m.room.message", None, json!({ "body": "x" })).unwrap();
        assert_eq!(room.send_last("b", "m.room.topic", Some(""), json!({})).unwrap_err().rule, "send");
        assert_eq!(
            room.send_last("b", "m.room.power_levels", Some(""), json!({ "users": { user("b"): 100 } }))
                .unwrap_err()
                .rule,
            "power_levels"
        );
        assert_eq!(
            room.send_last("b", "m.room.member", Some(&user("a")), member("leave")).unwrap_err().rule,
            "member.leave"
        );
        assert!(room.send_last("b", "m.x", Some(&user("a")), json!({})).is_err());
    }
}

#[test]
fn knocking_begins_with_version_7_and_restriction_with_version_8() {
    for (id, knock, restricted, both) in [
        ("6", false, false, false),
        ("7", true, false, false),
        ("8", true, true, false),
        ("10", true, true, true),
        ("12", true, true, true),
    ] {
        for (rule, allowed) in [("knock", knock), ("knock_restricted", both)] {
            let mut room = TestRoom::new(version(id), "a");
            room.send_last("a", "m.room.join_rules", Some(""), json!({ "join_rule": rule })).unwrap();
            let outcome = room.send_last("b", "m.room.member", Some(&user("b")), member("knock"));
            assert_eq!(outcome.is_ok(), allowed, "{rule} in version {id}");
        }
        for (rule, allowed) in [("restricted", restricted), ("knock_restricted", both)] {
            let mut room = TestRoom::new(version(id), "a");
            room.send_last("a", "m.room.join_rules", Some(""), json!({ "join_rule": rule })).unwrap();
            let content = json!({ "membership": "join", "join_authorised_via_users_server": user("a") });
            let outcome = room.send_last("b", "m.room.member", Some(&user("b")), content);
            assert_eq!(outcome.is_ok(), allowed, "{rule} in version {id}");
            assert!(room.join(&[room.last()], "c").is_err());
        }
    }
}

#[test]
fn power_levels_must_be_integers_since_version_10() {
    for (id, allowed) in [("9", true), ("10", false), ("12", false)] {
        let mut room = TestRoom::new(version(id), "a");
        let mut users = json!({ user("b"): "50" });
        if id != "12" {
            users[user("a")] = json!(100);
        }
        let outcome = room.send_last("a", "m.room.power_levels", Some(""), json!({ "users": users }));
        assert_eq!(outcome.is_ok(), allowed, "version {id}");
    }
}

#[test]
fn version_12_creators_stand_above_all_levels() {
    let mut room = TestRoom::empty(version("12"));
    room.found("a", json!({ "additional_creators": [user("b")] }));
    room.send_last("a", "m.room.join_rules", Some(""), json!({ "join_rule": "public" })).unwrap();
    let levels = json!({ "users": { user("c"): 100 }, "state_default": 100, "ban": 100 });
    room.send_last("a", "m.room.power_levels", Some(""), levels).unwrap();
    for name in ["b", "c"] {
        room.join(&[room.last()], name).unwrap();
    }
    for creator in ["a", "b"] {
        let refused = room.send_last("a", "m.room.power_levels", Some(""), json!({ "users": { user(creator): 5 } }));
        assert_eq!(refused.unwrap_err().rule, "power_levels");
        assert!(room.send_last("c", "m.room.member", Some(&user(creator)), member("ban")).is_err());
    }
    room.send_last("b", "m.room.member", Some(&user("c")), member("ban")).unwrap();
}

#[test]
fn unfederated_rooms_keep_other_servers_out() {
    let mut room = TestRoom::empty(version("11"));
    room.found("a", json!({ "m.federate": false }));
    room.send_last("a", "m.room.join_rules", Some(""), json!({ "join_rule": "public" })).unwrap();
    let state = room.state_before(&[room.last()]);
    let mut draft =
        DraftPdu::new(room.room_id.clone(), "@x:elsewhere".try_into().unwrap(), "m.room.member", member("join"))
            .with_state_key("@x:elsewhere");
    draft.prev_events = vec![room.last()];
    let event = draft.seal(room.version, &spec_key(), server_name!("elsewhere")).unwrap();
    assert!(check_auth(&event, |kind, key| room.find(&state, kind, key)).is_err());
}

#[test]
fn create_event_must_be_of_the_version_under_whose_rules_it_was_read() {
    for (id, claimed, allowed) in
        [("11", json!("11"), true), ("11", json!("12"), false), ("1", json!(null), true), ("11", json!(null), false)]
    {
        let mut content = json!({ "creator": user("a") });
        if !claimed.is_null() {
            content["room_version"] = claimed;
        }
        let room = TestRoom::new(version(id), "a");
        let draft = DraftPdu::new(room.room_id.clone(), user_id("a"), "m.room.create", content).with_state_key("");
        let event = draft.seal(version(id), &spec_key(), server_name!("domain")).unwrap();
        assert_eq!(check_state_independent(&event, |_id| None).is_ok(), allowed);
    }
}

#[test]
fn rejected_unknown_and_surplus_auth_events_reject_the_event() {
    for id in ["6", "11", "12"] {
        let mut room = TestRoom::new(version(id), "a");
        let event = room.send_last("a", "m.room.message", None, json!({})).unwrap();
        let accepted = |id: &ruma::EventId| room.event(id).map(AuthEvent::Accepted);
        check_state_independent(&event, accepted).unwrap();
        let unknown = check_state_independent(&event, |_id| None).unwrap_err();
        assert_eq!(unknown.rule, "auth_events");
        for rejected in event.auth_event_ids_with_create() {
            let find = |id: &ruma::EventId| {
                if id == rejected { Some(AuthEvent::Rejected) } else { accepted(id) }
            };
            let refused = check_state_independent(&event, find).unwrap_err();
            assert_eq!(refused.sentence, "an auth event was rejected");
        }
        let mut draft = DraftPdu::new(room.room_id.clone(), user_id("a"), "m.room.message", json!({}));
        draft.auth_events = event.auth_events().to_vec();
        draft.auth_events.push(room.order.get(3).unwrap().clone());
        let surplus = draft.seal(room.version, &spec_key(), server_name!("domain")).unwrap();
        assert!(check_state_independent(&surplus, accepted).is_err());
    }
}

#[test]
fn version_12_room_id_must_name_a_create_event() {
    let room = TestRoom::new(version("12"), "a");
    let not_create = room.last();
    let room_id = not_create.as_str().replace('$', "!").try_into().unwrap();
    let draft = DraftPdu::new(Some(room_id), user_id("a"), "m.room.message", json!({}));
    let event = draft.seal(version("12"), &spec_key(), server_name!("domain")).unwrap();
    let refused = check_state_independent(&event, |id| room.event(id).map(AuthEvent::Accepted)).unwrap_err();
    assert_eq!(refused.rule, "auth_events");
}

#[test]
fn auth_types_are_those_of_the_specification() {
    let types = |kind: &str, key: Option<&str>, content: serde_json::Value, id: &str| -> Vec<String> {
        auth_types_for(kind, "@a:x", key, &to_raw_value(&content).unwrap(), version(id))
            .into_iter()
            .map(|(kind, key)| format!("{}|{key}", kind.trim_start_matches("m.room.")))
            .collect()
    };
    assert!(types("m.room.create", Some(""), json!({}), "11").is_empty());
    assert_eq!(types("m.room.message", None, json!({}), "11"), ["create|", "power_levels|", "member|@a:x"]);
    assert_eq!(types("m.room.message", None, json!({}), "12"), ["power_levels|", "member|@a:x"]);
    let third = json!({ "membership": "invite", "third_party_invite": { "signed": { "token": "t" } } });
    assert_eq!(
        types("m.room.member", Some("@b:x"), third, "12"),
        ["power_levels|", "member|@a:x", "member|@b:x", "join_rules|", "third_party_invite|t"]
    );
    let restricted = json!({ "membership": "join", "join_authorised_via_users_server": "@c:x" });
    assert_eq!(
        types("m.room.member", Some("@a:x"), restricted.clone(), "8"),
        ["create|", "power_levels|", "member|@a:x", "join_rules|", "member|@c:x"]
    );
    assert_eq!(types("m.room.member", Some("@a:x"), restricted, "7").len(), 4);
    assert_eq!(types("m.room.member", Some("@a:x"), json!({ "membership": 5 }), "12").len(), 2);
}

#[test]
fn helper_knows_the_defaults_of_a_room_without_power_levels() {
    for (id, creator) in [("11", UserLevel::Level(100)), ("12", UserLevel::Infinite)] {
        let room = TestRoom::new(version(id), "a");
        let create = room.event(room.order.first().unwrap()).unwrap();
        let levels = PowerLevels::from(&create, None);
        assert_eq!(levels.user(&user_id("a")), creator);
        assert_eq!(levels.user(&user_id("b")), UserLevel::Level(0));
        assert!(levels.can_send(&user_id("b"), "m.room.message", false));
        assert!(!levels.can_send(&user_id("b"), "m.room.topic", true));
        assert!(levels.can_invite(&user_id("b")));
        assert!(levels.can_ban(&user_id("a"), &user_id("b")) && !levels.can_ban(&user_id("a"), &user_id("a")));
        assert!(!levels.can_notify(&user_id("b"), "room"));
    }
}

#[test]
fn helper_reads_what_the_event_says_with_strings_before_version_10() {
    let mut room = TestRoom::new(version("6"), "a");
    let content = json!({
        "users": { user("a"): 100, user("b"): " 50 " }, "users_default": 1, "events": { "m.room.name": "7" },
        "invite": 60, "redact": 40, "kick": 30, "notifications": { "room": 2 },
    });
    let event = room.send_last("a", "m.room.power_levels", Some(""), content).unwrap();
    let levels = PowerLevels::from(&room.event(room.order.first().unwrap()).unwrap(), Some(&event));
    assert_eq!(levels.user(&user_id("b")), UserLevel::Level(50));
    assert_eq!(levels.user(&user_id("c")), UserLevel::Level(1));
    assert_eq!(levels.needed_for("m.room.name", true), 7);
    assert!(!levels.can_invite(&user_id("b")));
    assert!(levels.can_kick(&user_id("b"), &user_id("c")) && !levels.can_kick(&user_id("b"), &user_id("a")));
    assert!(levels.can_redact(&user_id("b"), ruma::user_id!("@z:elsewhere")));
    assert!(!levels.can_redact(&user_id("c"), ruma::user_id!("@z:elsewhere")));
    assert!(!levels.can_notify(&user_id("c"), "room"));
}

/// A level as rooms have it: usually a number, sometimes nonsense.
fn level() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        6 => (-1..=3_i64).prop_map(|level| json!(level * 25)),
        1 => Just(json!("50")),
        1 => Just(json!(null)),
        1 => Just(json!([])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn short_way_for_plain_events_agrees_with_the_full_rules(
        fields in proptest::collection::vec(
            (prop::sample::select(vec!["users_default", "events_default", "state_default", "ban"]), level()),
            0..3,
        ),
        events in proptest::collection::vec((prop::sample::select(vec!["m.x", "m.y", "m.room.redaction"]), level()), 0..3),
        users in proptest::collection::vec((prop::sample::select(vec!["@a:domain", "@b:domain", "b"]), level()), 0..3),
        extra in prop::sample::select(vec![
            json!({}),
            json!({ "m.federate": false }),
            json!({ "m.federate": 1 }),
            json!({ "additional_creators": ["@b:domain"] }),
            json!({ "additional_creators": ["b"] }),
            json!({ "creator": 5 }),
        ]),
        kind in prop::sample::select(vec!["m.x", "m.y", "m.room.redaction", "m.room.aliases", "m.room.topic"]),
        sender in prop::sample::select(vec!["@a:domain", "@b:domain", "@c:elsewhere"]),
        state_key in prop::sample::select(vec![None, Some(""), Some("@a:domain"), Some("domain")]),
        membership in prop::sample::select(vec!["join", "leave", "nonsense"]),
        has_levels in any::<bool>(),
        id in prop::sample::select(vec!["1", "5", "6", "9", "10", "11", "12"]),
    ) {
        let version = version(id);
        let map = |entries: Vec<(&str, serde_json::Value)>| -> serde_json::Value {
            entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<serde_json::Map<_, _>>().into()
        };
        let room_id = || Some(ruma::owned_room_id!("!room:domain"));
        let seal = |kind: &str, sender: &str, key: Option<&str>, content: serde_json::Value| {
            let founds = kind == "m.room.create" && version.has_hashed_room_id();
            let mut draft = DraftPdu::new(
                if founds { None } else { room_id() },
                sender.try_into().unwrap(),
                kind,
                content,
            );
            draft.state_key = key.map(str::to_owned);
            draft.nonce = Some(matron_room::CreateNonce::from_random([0; 16]));
            draft.redacts = (kind == "m.room.redaction").then(|| ruma::owned_event_id!("$target:domain"));
            draft.seal(version, &spec_key(), server_name!("domain")).unwrap()
        };
        let mut founding = json!({ "creator": "@a:domain", "room_version": id });
        founding.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let create = seal("m.room.create", "@a:domain", Some(""), founding);
        let mut content = map(fields);
        content["events"] = map(events);
        content["users"] = map(users);
        let levels = has_levels.then(|| seal("m.room.power_levels", "@a:domain", Some(""), content));
        let member = seal("m.room.member", sender, Some(sender), json!({ "membership": membership }));
        let event = seal(kind, sender, state_key, json!({}));
        let state = |kind: &str, key: &str| match (kind, key) {
            ("m.room.create", "") => Some(create.clone()),
            ("m.room.power_levels", "") => levels.clone(),
            ("m.room.member", key) if key == sender => Some(member.clone()),
            _ => None,
        };
        let ours = check_auth(&event, state);
        let full = ruma::state_res::check_state_dependent_auth_rules(
            &version.rules.authorization,
            &event,
            |kind, key| state(&kind.to_string(), key),
        );
        prop_assert_eq!(ours.is_ok(), full.is_ok(), "{:?} {:?}", ours, full);
    }
}
