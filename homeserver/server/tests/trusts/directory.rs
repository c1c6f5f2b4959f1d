//! Finding rooms of the other trust.

use serde_json::json;

use crate::{
    http::{part, wait_for},
    person::{Person, unique},
    trusts::Trusts,
};

pub(crate) fn public_rooms_of_the_other_trust_are_listed_and_searched(trusts: &Trusts) {
    for (host, guest) in trusts.both_ways() {
        let (owner, visitor) = (Person::at(host, "owner"), Person::at(guest, "visitor"));
        let name = unique("oncology");
        let room = owner.create_room(&json!({"preset": "public_chat", "visibility": "public", "name": name}));
        let server = part(&host.name);
        let body = json!({"limit": 10, "filter": {"generic_search_term": name}});
        let found = wait_for("the room is listed", || {
            let found = visitor.post(&format!("v3/publicRooms?server={server}"), &body);
            found["chunk"].as_array()?.iter().find(|found| found["room_id"] == room.as_str()).cloned()
        });
        assert_eq!(found["name"], name);
        let all = visitor.get(&format!("v3/publicRooms?limit=1000&server={server}"));
        assert!(all["chunk"].as_array().unwrap().iter().any(|found| found["room_id"] == room.as_str()));
    }
}

pub(crate) fn the_rooms_of_a_space_are_shown_with_those_of_the_other_trust(trusts: &Trusts) {
    for (host, guest) in trusts.both_ways() {
        let (owner, visitor) = (Person::at(host, "owner"), Person::at(guest, "visitor"));
        let space = owner.create_room(&json!({
            "preset": "public_chat", "name": "Hospital", "creation_content": {"type": "m.space"},
        }));
        let ward = owner.create_room(&json!({"preset": "public_chat", "name": "Ward"}));
        let secret = owner.create_room(&json!({"preset": "private_chat", "name": "Secret"}));
        for child in [&ward, &secret] {
            owner.set_state(&space, "m.space.child", child, &json!({"via": [host.name]}));
        }
        // The visitor's server is in the space but in none of the rooms, so it has to ask.
        visitor.join(&space, &host.name);
        let shown = visitor.get(&format!("v1/rooms/{}/hierarchy", part(&space)));
        let rooms = shown["rooms"].as_array().unwrap();
        let shows = |room: &str| rooms.iter().any(|shown| shown["room_id"] == room);
        assert!(shows(&space) && shows(&ward), "{shown}");
        assert!(!shows(&secret), "a private room is shown: {shown}");
    }
}

pub(crate) fn the_event_of_a_day_is_found(trusts: &Trusts) {
    for (host, guest) in trusts.both_ways() {
        let owner = Person::at(host, "owner");
        let room = owner.create_public_room("11");
        let early = owner.say(&room, "the first");
        let at = owner.event(&room, &early).unwrap()["origin_server_ts"].as_u64().unwrap();
        for number in 0..5 {
            owner.say(&room, &format!("later {number}"));
        }
        let visitor = Person::at(guest, "visitor");
        visitor.join(&room, &host.name);
        // Its server has only what came since the join, and asks the host.
        let path = format!("v1/rooms/{}/timestamp_to_event?dir=f&ts={at}", part(&room));
        let found = visitor.get(&path)["event_id"].as_str().unwrap().to_owned();
        assert_eq!(found, early, "{:?} is found from {}", visitor.event(&room, &found), guest.name);
    }
}
