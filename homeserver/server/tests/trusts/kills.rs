//! Two Matrons, of which one is killed in the middle of a join, of messages or of a look into the past: both go on.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::json;

use crate::{
    authority::Authority,
    http::{part, wait_for},
    person::{Person, wait_for_same_state},
    trust::{Trust, new_folder},
};

/// How often each activity is cut off, on either side.
const ROUNDS: u64 = 5;

/// Two Matrons in a folder of their own.
fn two_matrons() -> ([Trust; 2], tempfile::TempDir) {
    let folder = new_folder();
    let authority = Authority::found(folder.path());
    let trusts = ["north", "south"].map(|name| Trust::matron(&authority, &folder.path().join(name)));
    trusts.iter().for_each(Trust::start);
    (trusts, folder)
}

/// Runs `activity` and kills `victim` at a moment of it that differs from round to round; the victim runs afterwards.
fn cut_off(victim: &Trust, round: u64, span_ms: u64, activity: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let running = scope.spawn(activity);
        thread::sleep(Duration::from_micros(round * span_ms * 1_000 / ROUNDS));
        victim.kill();
        running.join().unwrap();
    });
    victim.start();
}

/// Both still talk in the room, and hold the same state.
pub(crate) fn both_go_on(room: &str, owner: &Person, visitor: &Person) {
    let (first, second) = (owner.say(room, "still here"), visitor.say(room, "so am I"));
    visitor.wait_for_text(room, &first, "still here");
    owner.wait_for_text(room, &second, "so am I");
    wait_for_same_state(room, &[owner, visitor]);
}

#[test]
fn a_join_that_was_cut_off_on_either_side_succeeds_when_it_is_tried_again() {
    let ([host, guest], _folder) = two_matrons();
    for round in 0..ROUNDS {
        for victim in [&host, &guest] {
            let (owner, visitor) = (Person::at(&host, "owner"), Person::at(&guest, "visitor"));
            let room = owner.create_public_room("12");
            for number in 0..20 {
                owner.set_state(&room, "org.example.bed", &number.to_string(), &json!({"free": true}));
            }
            let path = format!("v3/join/{}?via={}", part(&room), part(&host.name));
            cut_off(victim, round, 60, || drop(visitor.try_ask("POST", &path, &json!({}))));
            wait_for("the join succeeds", || {
                visitor.try_ask("POST", &path, &json!({})).ok().filter(|reply| reply.status == 200)
            });
            owner.wait_for_membership(&room, &visitor.id, "join");
            both_go_on(&room, &owner, &visitor);
        }
    }
}

#[test]
fn every_acknowledged_message_arrives_once_though_either_side_is_killed() {
    let ([host, guest], _folder) = two_matrons();
    let (owner, visitor) = (Person::at(&host, "owner"), Person::at(&guest, "visitor"));
    let room = owner.create_public_room("11");
    visitor.join(&room, &host.name);
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        for victim in [&host, &guest] {
            let mut sent = Vec::new();
            cut_off(victim, round, 120, || {
                for number in 0..20 {
                    for author in [&owner, &visitor] {
                        let txn = crate::person::unique("txn");
                        let path = format!("v3/rooms/{}/send/m.room.message/{txn}", part(&room));
                        let body = json!({"msgtype": "m.text", "body": format!("{round}/{number}")});
                        if let Ok(reply) = author.try_ask("PUT", &path, &body) {
                            sent.push(reply.json()["event_id"].as_str().unwrap().to_owned());
                        }
                    }
                }
            });
            acknowledged.extend(sent);
            both_go_on(&room, &owner, &visitor);
        }
    }
    for person in [&owner, &visitor] {
        wait_for("every message is there once", || {
            let found = person.messages(&room);
            let ids: BTreeSet<_> = found.iter().map(|(id, _)| id.clone()).collect();
            assert_eq!(ids.len(), found.len(), "a message is there twice");
            acknowledged.is_subset(&ids).then_some(())
        });
    }
}

#[test]
fn the_past_is_read_to_its_end_though_either_side_is_killed_meanwhile() {
    let ([host, guest], _folder) = two_matrons();
    for round in 0..ROUNDS {
        for victim in [&host, &guest] {
            let (owner, visitor) = (Person::at(&host, "owner"), Person::at(&guest, "visitor"));
            let room = owner.create_public_room("11");
            let past: BTreeSet<_> = (0..80).map(|number| owner.say(&room, &format!("past {number}"))).collect();
            visitor.join(&room, &host.name);
            cut_off(victim, round, 150, || {
                // As far as it comes.
                let mut from = String::new();
                while let Ok(page) = visitor.try_ask(
                    "GET",
                    &format!("v3/rooms/{}/messages?dir=b&limit=20{from}", part(&room)),
                    &json!({}),
                ) {
                    match page.json()["end"].as_str() {
                        Some(end) => from = format!("&from={}", part(end)),
                        None => break,
                    }
                }
            });
            wait_for("all of the past is read", || {
                let found = visitor.messages(&room);
                let ids: BTreeSet<_> = found.iter().map(|(id, _)| id.clone()).collect();
                assert_eq!(ids.len(), found.len(), "a message is there twice");
                past.is_subset(&ids).then_some(())
            });
            both_go_on(&room, &owner, &visitor);
        }
    }
}
