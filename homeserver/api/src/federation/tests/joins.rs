//! Joining rooms of other servers.

use std::sync::Arc;

use matron_core::{Error, Settings, rooms::membership::JoinOptions};
use matron_room::Membership;
use serde_json::json;

use super::world::{Trust, Wires, open_settings, shared, two, until};

#[tokio::test]
async fn a_room_of_every_version_is_joined_and_both_sides_hear_each_other() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    for version in ["6", "7", "8", "9", "10", "11", "12"] {
        let room = north.room(&anna, "public_chat", version, shared()).await;
        south.join(&ben, &room, &north).await.unwrap();
        assert_eq!(north.membership(&ben, &room), Membership::Join, "version {version}");
        assert_eq!(south.membership(&anna, &room), Membership::Join, "version {version}");
        let one = north.say(&anna, &room, "from the north").await;
        let other = south.say(&ben, &room, "from the south").await;
        until("both have both", || south.has(&one) && north.has(&other)).await;
    }
}

#[tokio::test]
async fn old_versions_that_both_sides_allow_are_joined_and_their_events_named_as_each_demands() {
    let wires = Arc::new(Wires::default());
    let settings = || {
        let versions = (1..=12).map(|version| version.to_string()).collect();
        Settings { room_versions: versions, ..open_settings() }
    };
    let north = Trust::start(&wires, "north.example", 1, settings());
    let south = Trust::start(&wires, "south.example", 2, settings());
    let anna = north.user("anna").await;
    let ben = south.user("ben").await;
    let chosen = |id: &ruma::EventId, server: &str| id.as_str().ends_with(&format!(":{server}"));
    let is_hash = |id: &ruma::EventId, more: &str| {
        let hash = id.as_str().strip_prefix('$').unwrap();
        hash.len() == 43 && hash.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    for version in ["1", "2", "3", "4", "5"] {
        let room = north.room(&anna, "private_chat", version, shared()).await;
        north.core.invite(&anna, &room, &ben, None, false).await.unwrap();
        south.join(&ben, &room, &north).await.unwrap();
        for number in 0..8 {
            let one = north.say(&anna, &room, &format!("from the north {number}")).await;
            let other = south.say(&ben, &room, &format!("from the south {number}")).await;
            match version {
                "1" | "2" => assert!(chosen(&one, "north.example") && chosen(&other, "south.example")),
                // A hash in the alphabet that has slashes, later in the one for addresses.
                "3" => assert!(is_hash(&one, "+/") && is_hash(&other, "+/")),
                _ => assert!(is_hash(&one, "-_") && is_hash(&other, "-_")),
            }
            until("both have both", || south.has(&one) && north.has(&other)).await;
            let path =
                format!("/_matrix/federation/v1/event/{}", other.as_str().replace('/', "%2F").replace('+', "%2B"));
            let given = north.ask(&south, path).await.unwrap();
            assert_eq!(given["pdus"][0].get("event_id").is_some(), matches!(version, "1" | "2"), "{version}");
        }
        south.core.leave_room(&ben, &room, None).await.unwrap();
        until("ben is gone", || north.membership(&ben, &room) == Membership::Leave).await;
    }
}

#[tokio::test]
async fn a_third_server_joins_through_the_second_and_the_first_hears_of_it() {
    let (wires, north, south) = two();
    let west = Trust::start(&wires, "west.example", 3, open_settings());
    let anna = north.user("anna").await;
    let (ben, cleo) = (south.user("ben").await, west.user("cleo").await);
    let room = north.room(&anna, "public_chat", "12", shared()).await;
    south.join(&ben, &room, &north).await.unwrap();
    west.join(&cleo, &room, &south).await.unwrap();
    until("the north knows cleo", || north.membership(&cleo, &room) == Membership::Join).await;
    let message = west.say(&cleo, &room, "good morning").await;
    until("both hear cleo", || north.has(&message) && south.has(&message)).await;
    south.core.leave_room(&ben, &room, None).await.unwrap();
    until("ben is gone", || north.membership(&ben, &room) == Membership::Leave).await;
    south.join(&ben, &room, &west).await.unwrap();
    until("ben is back", || north.membership(&ben, &room) == Membership::Join).await;
}

#[tokio::test]
async fn a_member_of_an_allowed_room_is_vouched_for_and_others_are_not() {
    let (_wires, north, south) = two();
    let anna = north.user("anna").await;
    let (ben, bea) = (south.user("ben").await, south.user("bea").await);
    let ward = north.room(&anna, "public_chat", "11", shared()).await;
    let rules = json!([
        {"type": "m.room.join_rules", "content": {
            "join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": ward}],
        }},
        {"type": "m.room.power_levels", "content": {"users": {&anna: 100}, "invite": 50}},
    ]);
    let room = north.room(&anna, "private_chat", "11", rules).await;
    south.join(&ben, &ward, &north).await.unwrap();
    let refused = south.join(&bea, &room, &north).await.unwrap_err();
    assert!(matches!(refused, Error::Forbidden(_)), "{refused:?}");
    south.join(&ben, &room, &north).await.unwrap();
    // The south is in the room now, but none of its users may invite: the north must vouch for bea too.
    south.join(&bea, &ward, &north).await.unwrap();
    until("the north knows bea", || north.membership(&bea, &ward) == Membership::Join).await;
    south.join(&bea, &room, &north).await.unwrap();
    assert_eq!(south.membership(&bea, &room), Membership::Join);
    assert_eq!(north.membership(&bea, &room), Membership::Join);
}

#[tokio::test]
async fn a_server_that_cannot_vouch_says_so_and_another_is_asked() {
    let (wires, north, south) = two();
    let west = Trust::start(&wires, "west.example", 3, open_settings());
    let east = Trust::start(&wires, "east.example", 4, open_settings());
    let anna = north.user("anna").await;
    let (ben, wim, eve) = (south.user("ben").await, west.user("wim").await, east.user("eve").await);
    let lobby = north.room(&anna, "public_chat", "11", shared()).await;
    let allow = json!([{"type": "m.room_membership", "room_id": lobby}]);
    let state = json!([
        {"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}},
        {"type": "m.room.power_levels", "content": {"users": {anna.as_str(): 100}, "invite": 50}},
    ]);
    let ward = north.room(&anna, "private_chat", "11", state).await;
    for (trust, user) in [(&west, &wim), (&east, &eve)] {
        trust.join(user, &lobby, &north).await.unwrap();
        trust.join(user, &ward, &north).await.unwrap();
    }
    west.core.leave_room(&wim, &lobby, None).await.unwrap();
    south.join(&ben, &lobby, &north).await.unwrap();
    until("the east knows that ben is in the lobby", || east.membership(&ben, &lobby) == Membership::Join).await;
    // The west does not know who is in the lobby; in the east nobody may invite.
    let make_join = format!("/_matrix/federation/v1/make_join/{ward}/{ben}?ver=11");
    let asked = async |other: &Trust| south.ask(other, make_join.clone()).await.unwrap_err();
    assert_eq!(asked(&west).await, (400, "M_UNABLE_TO_AUTHORISE_JOIN".to_owned()));
    assert_eq!(asked(&east).await, (400, "M_UNABLE_TO_GRANT_JOIN".to_owned()));
    let via = [&west, &east, &north].map(|trust| trust.core.server_name.clone()).to_vec();
    let options = JoinOptions { via, ..JoinOptions::default() };
    south.core.join_room(&ben, &ward, options).await.unwrap();
    assert_eq!(north.membership(&ben, &ward), Membership::Join);
    // Who is in none of the rooms is told so, without another to ask.
    let bea = south.user("bea").await;
    let make_join = format!("/_matrix/federation/v1/make_join/{ward}/{bea}?ver=11");
    assert_eq!(south.ask(&north, make_join).await.unwrap_err(), (403, "M_FORBIDDEN".to_owned()));
}

#[tokio::test]
async fn a_room_of_a_version_that_is_not_spoken_is_named_as_such() {
    let wires = Arc::new(Wires::default());
    let north = Trust::start(&wires, "north.example", 1, open_settings());
    let only_ten = Settings { room_versions: vec!["10".to_owned()], ..open_settings() };
    let south = Trust::start(&wires, "south.example", 2, only_ten);
    let (anna, ben) = (north.user("anna").await, south.user("ben").await);
    let room = north.room(&anna, "public_chat", "12", shared()).await;
    let refused = south.join(&ben, &room, &north).await.unwrap_err();
    assert!(matches!(&refused, Error::IncompatibleRoomVersion { room_version } if room_version == "12"), "{refused:?}");
    let refused = north.core.invite(&anna, &room, &ben, None, false).await.unwrap_err();
    assert!(matches!(&refused, Error::IncompatibleRoomVersion { room_version } if room_version == "12"), "{refused:?}");
}
