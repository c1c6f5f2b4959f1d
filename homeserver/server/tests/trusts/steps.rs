//! Two Matrons, of which one is killed at a certain step of what they do together: both go on.
//!
//! Each step is a request between them, stopped before or after it was acted upon.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::json;

use crate::{
    authority::Authority,
    checkpoint::{Checkpoint, Moment, Step},
    http::{part, wait_for},
    kills::both_go_on,
    person::{Person, unique},
    trust::{Trust, new_folder},
};

/// Two Matrons and the place between them.
struct Pair {
    host: Trust,
    guest: Trust,
    between: Checkpoint,
    // Last: the servers end before their folder goes.
    _folder: tempfile::TempDir,
}

impl Pair {
    fn start() -> Self {
        let folder = new_folder();
        let authority = Authority::found(folder.path());
        let between = Checkpoint::default();
        let [host, guest] =
            ["host", "guest"].map(|name| Trust::matron_behind(&authority, &folder.path().join(name), &between));
        host.start();
        guest.start();
        Self { host, guest, between, _folder: folder }
    }

    /// Kills each side at each moment of each of these requests while `act` is under way, and lets `check` judge afterwards.
    fn kill_at_each_step<T>(
        &self,
        parts: &[(&'static str, usize)],
        prepare: impl Fn(&Person, &Person) -> T,
        act: impl Fn(&Person, &Person, &T) + Sync,
        check: impl Fn(&Person, &Person, &T),
    ) where
        T: Sync,
    {
        for (part, after) in parts.iter().copied() {
            for moment in [Moment::Asked, Moment::Answered] {
                for victim in [&self.host, &self.guest] {
                    let (owner, visitor) = (Person::at(&self.host, "owner"), Person::at(&self.guest, "visitor"));
                    let prepared = prepare(&owner, &visitor);
                    self.between.wait_at(Step { part, after, moment });
                    thread::scope(|scope| {
                        let acting = scope.spawn(|| act(&owner, &visitor, &prepared));
                        self.between.wait_until_stopped();
                        victim.kill();
                        self.between.let_go();
                        acting.join().unwrap();
                    });
                    victim.start();
                    check(&owner, &visitor, &prepared);
                }
            }
        }
    }

    /// A room of the host with both in it.
    fn room_of_both(&self, owner: &Person, visitor: &Person) -> String {
        let room = owner.create_public_room("11");
        visitor.join(&room, &self.host.name);
        owner.wait_for_membership(&room, &visitor.id, "join");
        room
    }
}

/// Sends a message, if the server lives long enough to acknowledge it; its event id.
fn try_say(author: &Person, room: &str, text: &str) -> Option<String> {
    let path = format!("v3/rooms/{}/send/m.room.message/{}", part(room), unique("txn"));
    let reply = author.try_ask("PUT", &path, &json!({"msgtype": "m.text", "body": text})).ok()?;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["event_id"].as_str().map(str::to_owned)
}

/// Both find each of these messages once.
fn all_are_there(room: &str, people: &[&Person], sent: &BTreeSet<String>) {
    for person in people {
        wait_for(&format!("{} finds every message once", person.id), || {
            let found = person.messages(room);
            let ids: BTreeSet<_> = found.iter().map(|(id, _)| id.clone()).collect();
            assert_eq!(ids.len(), found.len(), "a message is there twice");
            sent.is_subset(&ids).then_some(())
        });
    }
}

#[test]
fn a_join_that_ends_at_any_step_succeeds_when_it_is_tried_again() {
    let pair = Pair::start();
    let path = |room: &str| format!("v3/join/{}?via={}", part(room), part(&pair.host.name));
    pair.kill_at_each_step(
        &[("/make_join/", 0), ("/send_join/", 0), ("/v1/send/", 0)],
        |owner, _| {
            let room = owner.create_public_room("12");
            for number in 0..5 {
                owner.set_state(&room, "org.example.bed", &number.to_string(), &json!({"free": true}));
            }
            room
        },
        |owner, visitor, room| {
            drop(visitor.try_ask("POST", &path(room), &json!({})));
            // Then there is something to tell those who have come.
            drop(owner.try_ask(
                "PUT",
                &format!("v3/rooms/{}/state/m.room.topic/", part(room)),
                &json!({"topic": "beds"}),
            ));
        },
        |owner, visitor, room| {
            wait_for("the join succeeds", || {
                visitor.try_ask("POST", &path(room), &json!({})).ok().filter(|reply| reply.status == 200)
            });
            owner.wait_for_membership(room, &visitor.id, "join");
            both_go_on(room, owner, visitor);
        },
    );
}

#[test]
fn a_join_of_a_large_room_that_ends_while_its_state_is_written_succeeds_when_it_is_tried_again() {
    const STATE: usize = 600;
    let pair = Pair::start();
    let (owner, visitor) = (Person::at(&pair.host, "owner"), Person::at(&pair.guest, "visitor"));
    let room = owner.create_public_room("12");
    for number in 0..STATE {
        owner.set_state(&room, "org.example.bed", &number.to_string(), &json!({"free": true}));
    }
    let path = format!("v3/join/{}?via={}", part(&room), part(&pair.host.name));
    // Each time it lives twice as long with what it was given.
    let mut life = Duration::from_millis(5);
    let is_joined = || visitor.get("v3/joined_rooms")["joined_rooms"].as_array().unwrap().contains(&json!(room));
    while !is_joined() {
        pair.between.wait_at(Step { part: "/send_join/", after: 0, moment: Moment::Answered });
        thread::scope(|scope| {
            let acting = scope.spawn(|| drop(visitor.try_ask("POST", &path, &json!({}))));
            pair.between.wait_until_stopped();
            pair.between.let_go();
            thread::sleep(life);
            pair.guest.kill();
            acting.join().unwrap();
        });
        pair.guest.start();
        life *= 2;
    }
    both_go_on(&room, &owner, &visitor);
    let beds = visitor.whole_state(&room).into_keys().filter(|(kind, _)| kind == "org.example.bed");
    assert_eq!(beds.count(), STATE);
}

#[test]
fn servers_that_never_met_go_on_though_one_ends_when_it_is_asked_for_its_keys() {
    for victim_is_host in [true, false] {
        let pair = Pair::start();
        let victim = if victim_is_host { &pair.host } else { &pair.guest };
        let (owner, visitor) = (Person::at(&pair.host, "owner"), Person::at(&pair.guest, "visitor"));
        let room = owner.create_public_room("12");
        let path = format!("v3/join/{}?via={}", part(&room), part(&pair.host.name));
        pair.between.wait_at(Step { part: "/_matrix/key/", after: 0, moment: Moment::Asked });
        thread::scope(|scope| {
            let acting = scope.spawn(|| drop(visitor.try_ask("POST", &path, &json!({}))));
            pair.between.wait_until_stopped();
            victim.kill();
            pair.between.let_go();
            acting.join().unwrap();
        });
        victim.start();
        wait_for("the join succeeds", || {
            visitor.try_ask("POST", &path, &json!({})).ok().filter(|reply| reply.status == 200)
        });
        both_go_on(&room, &owner, &visitor);
    }
}

#[test]
fn every_acknowledged_message_arrives_once_though_a_side_ends_at_any_step_of_sending() {
    let pair = Pair::start();
    pair.kill_at_each_step(
        &[("/v1/send/", 0), ("/v1/send/", 2)],
        |owner, visitor| {
            let sent = std::sync::Mutex::new(BTreeSet::new());
            (pair.room_of_both(owner, visitor), sent)
        },
        |owner, visitor, (room, sent)| {
            for number in 0.. {
                if number >= 6 && !pair.between.is_waiting() {
                    break;
                }
                for author in [owner, visitor] {
                    sent.lock().unwrap().extend(try_say(author, room, &format!("message {number}")));
                }
            }
        },
        |owner, visitor, (room, sent)| {
            both_go_on(room, owner, visitor);
            all_are_there(room, &[owner, visitor], &sent.lock().unwrap());
        },
    );
}

#[test]
fn the_past_is_read_to_its_end_though_a_side_ends_at_any_step_of_fetching_it() {
    let pair = Pair::start();
    pair.kill_at_each_step(
        &[("/backfill/", 0), ("/backfill/", 1)],
        |owner, visitor| {
            let room = owner.create_public_room("11");
            let past: BTreeSet<_> = (0..90).map(|number| owner.say(&room, &format!("past {number}"))).collect();
            visitor.join(&room, &pair.host.name);
            (room, past)
        },
        |_, visitor, (room, _)| {
            // As far as it comes.
            let mut from = String::new();
            let page = |from: &str| {
                visitor.try_ask("GET", &format!("v3/rooms/{}/messages?dir=b&limit=20{from}", part(room)), &json!({}))
            };
            while let Ok(page) = page(&from) {
                match page.json()["end"].as_str() {
                    Some(end) => from = format!("&from={}", part(end)),
                    None => break,
                }
            }
        },
        |owner, visitor, (room, past)| {
            all_are_there(room, &[visitor], past);
            both_go_on(room, owner, visitor);
        },
    );
}

#[test]
fn what_was_missed_is_filled_in_though_a_side_ends_at_any_step_of_filling_it_in() {
    let pair = Pair::start();
    pair.kill_at_each_step(
        &[("/get_missing_events/", 0)],
        |owner, visitor| {
            let room = pair.room_of_both(owner, visitor);
            // The guest never hears of these, and the host believes that it did.
            pair.between.swallow_transactions(true);
            let mut sent: BTreeSet<_> = (0..20).map(|number| owner.say(&room, &format!("missed {number}"))).collect();
            wait_for("nothing waits any more", || {
                let status = pair.host.operate(&["federation", "status", &pair.guest.name]);
                status.contains("well: nothing waits").then_some(())
            });
            pair.between.swallow_transactions(false);
            sent.extend(try_say(visitor, &room, "and I say this"));
            (room, std::sync::Mutex::new(sent))
        },
        |owner, _, (room, sent)| sent.lock().unwrap().extend(try_say(owner, room, "what comes next")),
        |owner, visitor, (room, sent)| {
            both_go_on(room, owner, visitor);
            all_are_there(room, &[owner, visitor], &sent.lock().unwrap());
        },
    );
}
