//! Joining across the trusts, in every version that both create.

use serde_json::json;

use crate::{
    http::{part, wait_for},
    person::{Person, unique, wait_for_same_state},
    trusts::Trusts,
};

const VERSIONS: [&str; 3] = ["10", "11", "12"];

pub(crate) fn a_room_is_joined_from_the_other_trust_and_both_talk(trusts: &Trusts) {
    for version in VERSIONS {
        for (host, guest) in trusts.both_ways() {
            let (owner, visitor, room) = Trusts::together(host, guest, version);
            let first = owner.say(&room, "bed 7 is free");
            visitor.wait_for_text(&room, &first, "bed 7 is free");
            let second = visitor.say(&room, "on my way");
            owner.wait_for_text(&room, &second, "on my way");
            visitor.leave(&room);
            owner.wait_for_membership(&room, &visitor.id, "leave");
            visitor.join(&room, &host.name);
            wait_for_same_state(&room, &[&owner, &visitor]);
        }
    }
}

pub(crate) fn an_invitation_to_a_private_room_is_accepted_or_declined(trusts: &Trusts) {
    for version in VERSIONS {
        for (host, guest) in trusts.both_ways() {
            let (owner, visitor, shy) =
                (Person::at(host, "owner"), Person::at(guest, "visitor"), Person::at(guest, "shy"));
            let room = owner.create_room(&json!({"preset": "private_chat", "room_version": version, "name": "Ward 3"}));
            assert_eq!(
                visitor.refused(
                    "POST",
                    &format!("v3/join/{}?via={}&server_name={}", part(&room), part(&host.name), part(&host.name)),
                    &json!({})
                ),
                "M_FORBIDDEN"
            );
            for person in [&visitor, &shy] {
                owner.act("invite", &room, &person.id);
                let shown = person.wait_in_sync("the invitation", |sync| {
                    sync["rooms"]["invite"][&room]["invite_state"]["events"].as_array().cloned()
                });
                let name = shown.iter().find(|event| event["type"] == "m.room.name");
                assert_eq!(name.unwrap()["content"]["name"], "Ward 3", "{version}: {shown:?}");
            }
            visitor.join(&room, &host.name);
            shy.leave(&room);
            owner.wait_for_membership(&room, &shy.id, "leave");
            owner.wait_for_membership(&room, &visitor.id, "join");
            wait_for_same_state(&room, &[&owner, &visitor]);
        }
    }
}

pub(crate) fn a_knock_is_heard_and_answered(trusts: &Trusts) {
    for version in VERSIONS {
        for (host, guest) in trusts.both_ways() {
            let (owner, visitor) = (Person::at(host, "owner"), Person::at(guest, "visitor"));
            let room = owner.create_room(&json!({
                "preset": "private_chat", "room_version": version, "name": "Ward 3",
                "initial_state": [{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}],
            }));
            let via = part(&host.name);
            visitor
                .post(&format!("v3/knock/{}?via={via}&server_name={via}", part(&room)), &json!({"reason": "please"}));
            owner.wait_for_membership(&room, &visitor.id, "knock");
            visitor.wait_in_sync("the own knock", |sync| {
                let events = sync["rooms"]["knock"][&room]["knock_state"]["events"].as_array()?.clone();
                events.iter().any(|event| event["content"]["name"] == "Ward 3").then_some(())
            });
            owner.act("invite", &room, &visitor.id);
            visitor.wait_in_sync("the invitation", |sync| sync["rooms"]["invite"].get(&room).map(drop));
            visitor.join(&room, &host.name);
            wait_for_same_state(&room, &[&owner, &visitor]);
        }
    }
}

pub(crate) fn a_member_of_the_ward_joins_its_restricted_room(trusts: &Trusts) {
    for version in VERSIONS {
        for (host, guest) in trusts.both_ways() {
            let (owner, visitor, ward) = Trusts::together(host, guest, version);
            let stranger = Person::at(guest, "stranger");
            let room = owner.create_room(&json!({
                "preset": "private_chat", "room_version": version,
                "initial_state": [{"type": "m.room.join_rules", "state_key": "", "content": {
                    "join_rule": "restricted",
                    "allow": [{"type": "m.room_membership", "room_id": ward}],
                }}],
            }));
            let via = part(&host.name);
            let path = format!("v3/join/{}?via={via}&server_name={via}", part(&room));
            stranger.refused("POST", &path, &json!({}));
            visitor.join(&room, &host.name);
            owner.wait_for_membership(&room, &visitor.id, "join");
            let member = owner.state(&room, "m.room.member", &visitor.id).unwrap();
            assert_eq!(member["join_authorised_via_users_server"], owner.id);
            // Whoever is in the room but has no power to invite needs the host's word; a colleague asks through him.
            let colleague = Person::at(guest, "colleague");
            colleague.join(&ward, &guest.name);
            owner.wait_for_membership(&ward, &colleague.id, "join");
            colleague.join(&room, &guest.name);
            owner.wait_for_membership(&room, &colleague.id, "join");
            wait_for_same_state(&room, &[&owner, &visitor, &colleague]);
        }
    }
}

pub(crate) fn an_upgraded_room_is_followed_by_the_other_trust(trusts: &Trusts) {
    for (from, to) in [("10", "11"), ("11", "12")] {
        for (host, guest) in trusts.both_ways() {
            let (owner, visitor, old) = Trusts::together(host, guest, from);
            let upgraded = owner.post(&format!("v3/rooms/{}/upgrade", part(&old)), &json!({"new_version": to}));
            let new = upgraded["replacement_room"].as_str().unwrap().to_owned();
            let tombstone = wait_for("the tombstone crosses", || visitor.state(&old, "m.room.tombstone", ""));
            assert_eq!(tombstone["replacement_room"], new);
            visitor.join(&new, &host.name);
            let create = visitor.state(&new, "m.room.create", "").unwrap();
            assert_eq!(create["room_version"], to);
            assert_eq!(create["predecessor"]["room_id"], old);
            wait_for_same_state(&old, &[&owner, &visitor]);
            wait_for_same_state(&new, &[&owner, &visitor]);
        }
    }
}

pub(crate) fn a_room_is_joined_by_its_alias(trusts: &Trusts) {
    for (host, guest) in trusts.both_ways() {
        let (owner, visitor) = (Person::at(host, "owner"), Person::at(guest, "visitor"));
        let alias = unique("renal");
        let room = owner.create_room(&json!({"preset": "public_chat", "room_alias_name": alias}));
        let alias = format!("#{alias}:{}", host.name);
        let found = visitor.get(&format!("v3/directory/room/{}", part(&alias)));
        assert_eq!(found["room_id"], room);
        visitor.post(&format!("v3/join/{}", part(&alias)), &json!({}));
        wait_for_same_state(&room, &[&owner, &visitor]);
    }
}
