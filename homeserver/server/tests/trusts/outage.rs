//! A trust that was away gets what it missed.

use crate::{
    http::wait_for,
    person::{Person, wait_for_same_state},
    trust::Trust,
    trusts::Trusts,
};

/// More than a transaction, a gap's first answers and a page of history hold.
const MANY: usize = 130;
/// Less than a transaction holds.
const FEW: usize = 20;

#[test]
fn a_trust_that_was_away_gets_all_it_missed_and_says_what_it_could_not() {
    let Some(trusts) = Trusts::start() else { return };
    for (host, guest) in trusts.both_ways() {
        for away in [guest, host] {
            // How Synapse makes up for more is Synapse's affair.
            let count = if std::ptr::eq(away, &trusts.matron) { MANY } else { FEW };
            missed(host, guest, away, count);
        }
    }
}

fn missed(host: &Trust, guest: &Trust, away: &Trust, count: usize) {
    let (owner, visitor, room) = Trusts::together(host, guest, "11");
    let (absent, present): (&Person, &Person) =
        if std::ptr::eq(away, guest) { (&visitor, &owner) } else { (&owner, &visitor) };
    let before = absent.say(&room, "before");
    present.wait_for_text(&room, &before, "before");
    // What the absent one says last is on disk there before the kill, whether it was delivered or not.
    let last = absent.say(&room, "the last word");
    away.kill();
    let sent: Vec<String> = (0..count).map(|number| present.say(&room, &format!("missed {number}"))).collect();
    away.start();
    // A word after the outage makes the servers look for each other, if they have not yet.
    let after = present.say(&room, "after");
    absent.wait_for_text(&room, &after, "after");
    present.wait_for_text(&room, &last, "the last word");
    let back = absent.say(&room, "back again");
    present.wait_for_text(&room, &back, "back again");
    for person in [absent, present] {
        wait_for("every message is there once", || {
            let found = person.messages(&room);
            let all = sent.iter().chain([&before, &last, &after, &back]);
            let missing = all.filter(|event| found.iter().filter(|(id, _)| id == *event).count() != 1).count();
            (missing == 0).then_some(())
        });
    }
    wait_for_same_state(&room, &[&owner, &visitor]);
}
