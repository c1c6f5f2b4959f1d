//! What may be said in the clear, where encryption is required: as good as nothing.

use matron_policy::*;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::canonical::value;
use crate::fixtures::*;

fn sent(event_type: &str, content: Value) -> Action {
    Action::of_event(AMIRA, event_type, None, &content, RedactTarget::Message)
}

fn member(sender: &str, target: &str, content: Value) -> Action {
    Action::of_event(sender, "m.room.member", Some(target), &content, RedactTarget::Unknown)
}

fn encrypted() -> Value {
    json!({
        "algorithm": MEGOLM, "ciphertext": "AwgAEnACgAkLmt6q", "device_id": "RJYKSTBOIE",
        "sender_key": "IlRMeOPX2e0MurIyfWEucYBRVOEEUMrOHqn/8mLqMjA",
        "session_id": "X3lUlvLELLYxeTx4yOVu6UDpasGEVO0Jbu+QFnm0cKQ",
    })
}

fn with(mut content: Value, field: &str, value: Value) -> Value {
    content[field] = value;
    content
}

#[test]
fn encrypted_means_megolm_and_nothing_beside() {
    let thread = json!({"rel_type": "m.thread", "event_id": "$root", "is_falling_back": true,
        "m.in_reply_to": {"event_id": "$last"}});
    for content in [
        encrypted(),
        with(encrypted(), "m.relates_to", thread),
        with(encrypted(), "m.relates_to", json!({"m.in_reply_to": {"event_id": "$last"}})),
        json!({"algorithm": MEGOLM, "ciphertext": "x"}),
    ] {
        assert_permitted(&judge(AMIRA, sent("m.room.encrypted", content), &facts(AMIRA)));
    }
    for content in [
        json!({"body": "clear", "msgtype": "m.text"}),
        json!({"algorithm": MEGOLM}),
        json!({"algorithm": MEGOLM, "ciphertext": {"a": "b"}}),
        json!({"algorithm": MEGOLM, "ciphertext": ""}),
        json!({"algorithm": MEGOLM, "ciphertext": "this is no ciphertext"}),
        with(encrypted(), "algorithm", json!("org.rot13")),
        with(encrypted(), "body", json!("clear")),
        with(encrypted(), "session_id", json!({"body": "clear"})),
        with(encrypted(), "m.relates_to", json!({"rel_type": "m.thread", "note": "clear"})),
        with(encrypted(), "m.relates_to", json!("clear")),
        json!([]),
        json!("clear"),
    ] {
        let act = sent("m.room.encrypted", content);
        assert_refused(&judge(AMIRA, act.clone(), &facts(AMIRA)), ReasonCode::MessageNotEncrypted);
        assert_refused(&judge(BEN, act.from_outside(), &facts(BEN)), ReasonCode::MessageNotEncrypted);
    }
}

#[test]
fn what_was_redacted_on_its_way_says_nothing() {
    for event_type in ["m.room.encrypted", "m.reaction", "m.key.verification.ready"] {
        let act = sent(event_type, json!({}));
        assert_refused(&judge(AMIRA, act.clone(), &facts(AMIRA)), ReasonCode::MessageNotEncrypted);
        assert_permitted(&judge(BEN, act.from_outside(), &facts(BEN)));
    }
    let act = sent("m.room.message", json!({}));
    assert_refused(&judge(BEN, act.from_outside(), &facts(BEN)), ReasonCode::MessageNotEncrypted);
}

#[test]
fn a_reaction_is_a_symbol_and_its_target() {
    let about = |key: &str| json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": "$said", "key": key}});
    let family = "\u{1f468}\u{1f3fd}\u{200d}\u{1f469}\u{1f3fd}\u{200d}\u{1f467}\u{1f3fd}\u{200d}\u{1f466}\u{1f3fd}";
    for key in ["\u{1f44d}", family, "ok"] {
        assert_permitted(&judge(AMIRA, sent("m.reaction", about(key)), &facts(AMIRA)));
    }
    let mut beside = about("x");
    beside["m.relates_to"]["note"] = json!("clear");
    let mut elsewhere = about("x");
    elsewhere["m.relates_to"]["rel_type"] = json!("m.thread");
    for content in [
        about(&"a sentence ".repeat(6)),
        with(about("x"), "body", json!("clear")),
        beside,
        elsewhere,
        json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": "$said"}}),
        json!({"body": "clear"}),
    ] {
        assert_refused(&judge(AMIRA, sent("m.reaction", content), &facts(AMIRA)), ReasonCode::MessageNotEncrypted);
    }
}

#[test]
fn a_step_of_a_verification_holds_what_the_specification_names() {
    let about = json!({"rel_type": "m.reference", "event_id": "$request"});
    let steps = [
        ("ready", json!({"from_device": "AliceDevice2", "methods": ["m.sas.v1", "m.qr_code.show.v1"]})),
        (
            "start",
            json!({"from_device": "A", "method": "m.sas.v1", "hashes": ["sha256"],
                "key_agreement_protocols": ["curve25519-hkdf-sha256"],
                "message_authentication_codes": ["hkdf-hmac-sha256.v2"],
                "short_authentication_string": ["decimal", "emoji"]}),
        ),
        (
            "accept",
            json!({"method": "m.sas.v1", "hash": "sha256", "key_agreement_protocol": "curve25519-hkdf-sha256",
                "message_authentication_code": "hkdf-hmac-sha256.v2", "commitment": "fQpGIW1Snz",
                "short_authentication_string": ["decimal"]}),
        ),
        ("key", json!({"key": "fQpGIW1Snz+pwLZu6sTy2aHy/DYWWTspTJRPyNp0PKk"})),
        ("mac", json!({"keys": "2Wptgo4CwmLo", "mac": {"ed25519:ABCDEF": "fQpGIW1Snz"}})),
        ("cancel", json!({"code": "m.user", "reason": "The user cancelled the verification."})),
        ("done", json!({})),
    ];
    for (step, content) in steps {
        let event_type = format!("m.key.verification.{step}");
        let content = with(content, "m.relates_to", about.clone());
        assert_permitted(&judge(AMIRA, sent(&event_type, content.clone()), &facts(AMIRA)));
        for wrong in [
            with(content.clone(), "body", json!("clear")),
            with(content.clone(), "method", json!("bed seven is free")),
            with(content.clone(), "methods", json!(["bed seven is free"])),
            with(content.clone(), "m.relates_to", json!({"rel_type": "m.thread", "event_id": "$request"})),
        ] {
            let verdict = judge(AMIRA, sent(&event_type, wrong), &facts(AMIRA));
            assert_refused(&verdict, ReasonCode::MessageNotEncrypted);
        }
    }
    let made_up = sent("m.key.verification.foo", json!({"m.relates_to": about}));
    assert_refused(&judge(AMIRA, made_up, &facts(AMIRA)), ReasonCode::MessageNotEncrypted);
}

#[test]
fn members_of_encrypted_rooms_write_no_state_of_their_own_making() {
    let note = |event_type: &str| {
        Action::of_event(AMIRA, event_type, Some("x"), &json!({"note": "clear"}), RedactTarget::Unknown)
    };
    for event_type in ["com.example.note", "m.room.note", "im.vector.modular.widgets", "m.beacon_info", ""] {
        assert_refused(&judge(AMIRA, note(event_type), &facts(AMIRA)), ReasonCode::StateInTheClear);
        assert_refused(&judge(BEN, note(event_type).from_outside(), &facts(BEN)), ReasonCode::StateInTheClear);
        assert_refused(&judge(LAB, note(event_type), &facts(LAB)), ReasonCode::StateInTheClear);
        assert_permitted(&judge(BOT, note(event_type), &facts(BOT)));
        assert_permitted(&judge(AMIRA, note(event_type), &Facts::ordinary(NOW_MS)));
    }
    for event_type in ["m.room.topic", "m.room.name", "m.room.pinned_events", "m.space.child", "m.call.member"] {
        assert_permitted(&judge(AMIRA, note(event_type), &facts(AMIRA)));
    }
}

#[test]
fn a_way_out_is_open_without_words_to_whoever_may_not_speak() {
    let deeds = [
        (
            member(AMIRA, AMIRA, json!({"membership": "leave"})),
            member(AMIRA, AMIRA, json!({"membership": "leave", "reason": "r"})),
        ),
        (
            member(AMIRA, BEN, json!({"membership": "ban"})),
            member(AMIRA, BEN, json!({"membership": "ban", "reason": "r"})),
        ),
        (
            sent("m.room.redaction", json!({"redacts": "$x"})),
            sent("m.room.redaction", json!({"redacts": "$x", "reason": "r"})),
        ),
    ];
    for (without, with_reason) in deeds {
        assert_permitted(&judge(AMIRA, with_reason.clone(), &facts(AMIRA)));
        for status in [CredentialStatus::Missing, CredentialStatus::Expired { expired_at_ms: 1 }] {
            let mut silenced = facts(AMIRA);
            silenced.person.credential = status;
            assert_permitted(&judge(AMIRA, without.clone(), &silenced));
            let verdict = judge(AMIRA, with_reason.clone(), &silenced);
            assert_eq!(*verdict.outcome(), Outcome::Deny);
            assert!(verdict.sentence().contains("without a reason"), "{}", verdict.sentence());
        }
        let mut dark = facts(AMIRA);
        dark.register = RegisterStatus::None;
        assert_permitted(&judge(AMIRA, without, &dark));
        assert_undetermined(&judge(AMIRA, with_reason.clone(), &dark), ReasonCode::RegisterMissing);
        // An eviction says why, whatever is out of reach.
        dark.person = facts(BOT).person;
        assert_permitted(&judge(BOT, with_reason, &dark));
    }
}

#[test]
fn who_left_on_another_server_has_left_whatever_was_said() {
    let mut silenced = facts(BEN);
    silenced.person.credential = CredentialStatus::Missing;
    for content in [
        json!({"membership": "leave", "reason": "r"}),
        json!({"membership": "leave", "displayname": "Ben", "note": {"a": "long story"}}),
    ] {
        assert_permitted(&judge(BEN, member(BEN, BEN, content.clone()).from_outside(), &silenced));
        assert_permitted(&judge(BEN, member(BEN, AMIRA, content).from_outside(), &silenced));
    }
    let redaction = sent("m.room.redaction", json!({"reason": "r"}));
    let verdict = judge(BEN, redaction.from_outside(), &silenced);
    assert_eq!(codes(&verdict), [ReasonCode::CredentialMissing, ReasonCode::AlwaysPossible]);
}

#[test]
fn beside_a_deed_nothing_but_a_short_reason_is_said() {
    for more in [json!({"body": "clear"}), json!({"reason": "long ".repeat(300)}), json!({"reason": {"a": "b"}})] {
        let mut content = json!({"redacts": "$x"});
        content.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let redaction = sent("m.room.redaction", content.clone());
        for act in [redaction.clone(), redaction.from_outside()] {
            let verdict = judge(AMIRA, act, &facts(AMIRA));
            assert!(codes(&verdict).contains(&ReasonCode::WordsInTheClear), "{verdict:?}");
        }
        content.as_object_mut().unwrap().remove("redacts");
        for membership in ["join", "knock", "leave"] {
            content["membership"] = json!(membership);
            let verdict = judge(AMIRA, member(AMIRA, AMIRA, content.clone()), &facts(AMIRA));
            assert!(codes(&verdict).contains(&ReasonCode::WordsInTheClear), "{verdict:?}");
        }
    }
    let join =
        |reason: &str| member(AMIRA, AMIRA, json!({"membership": "join", "displayname": "Amira", "reason": reason}));
    assert_permitted(&judge(AMIRA, join(""), &facts(AMIRA)));
    assert_refused(&judge(AMIRA, join("r"), &facts(AMIRA)), ReasonCode::WordsInTheClear);
    assert_permitted(&judge(AMIRA, join("r").from_outside(), &facts(AMIRA)));
}

proptest! {
    #[test]
    fn no_content_makes_a_message_that_servers_can_read(
        event_type in proptest::sample::select(&[
            "m.room.encrypted", "m.reaction", "m.key.verification.start", "m.key.verification.mac", "m.room.message",
        ][..]),
        content in value(),
        field in "[a-z]{1,12}",
    ) {
        let mut content = content;
        if let Value::Object(object) = &mut content {
            object.insert(format!("x.{field}"), json!("clear"));
        }
        prop_assert_eq!(Form::of(event_type, &content), Form::Clear);
    }

    #[test]
    fn a_deed_with_another_field_has_words(field in "[a-z]{1,12}", text in "[a-z ]{1,20}") {
        let content = json!({"membership": "leave", format!("x.{field}"): text});
        prop_assert_eq!(Words::of("m.room.member", true, &content), Some(Words::More));
        prop_assert_eq!(Words::of("m.room.redaction", false, &content), Some(Words::More));
        prop_assert_eq!(Words::of("m.room.message", false, &content), None);
    }
}
