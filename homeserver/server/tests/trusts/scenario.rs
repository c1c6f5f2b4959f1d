//! What a Matron and a Synapse that both run show each other, one thing after the other, on the same two servers.
//!
//! `MATRON_TRUSTS_ONLY=knock cargo test -p matron --test trusts scenario` plays the parts with this word in their names.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    time::Instant,
};

use crate::{directory, encrypted, install::tell, joins, media, membership, talk, trusts::Trusts};

/// A part: what it shows, and how.
type Part = (&'static str, fn(&Trusts));

const PARTS: &[Part] = &[
    ("a_room_is_joined_from_the_other_trust_and_both_talk", joins::a_room_is_joined_from_the_other_trust_and_both_talk),
    (
        "an_invitation_to_a_private_room_is_accepted_or_declined",
        joins::an_invitation_to_a_private_room_is_accepted_or_declined,
    ),
    ("a_knock_is_heard_and_answered", joins::a_knock_is_heard_and_answered),
    ("a_member_of_the_ward_joins_its_restricted_room", joins::a_member_of_the_ward_joins_its_restricted_room),
    ("an_upgraded_room_is_followed_by_the_other_trust", joins::an_upgraded_room_is_followed_by_the_other_trust),
    ("a_room_is_joined_by_its_alias", joins::a_room_is_joined_by_its_alias),
    ("a_receipt_crosses", talk::a_receipt_crosses),
    ("typing_crosses", talk::typing_crosses),
    ("presence_crosses", talk::presence_crosses),
    ("a_redaction_takes_the_words_away_on_both_sides", talk::a_redaction_takes_the_words_away_on_both_sides),
    ("reactions_threads_and_edits_are_found_on_both_sides", talk::reactions_threads_and_edits_are_found_on_both_sides),
    ("a_message_to_a_device_arrives_once", talk::a_message_to_a_device_arrives_once),
    ("a_name_and_a_picture_are_seen_by_the_other_trust", talk::a_name_and_a_picture_are_seen_by_the_other_trust),
    ("a_file_is_opened_at_the_other_trust", media::a_file_is_opened_at_the_other_trust),
    ("a_thumbnail_is_shown_at_the_other_trust", media::a_thumbnail_is_shown_at_the_other_trust),
    (
        "who_is_kicked_may_come_back_and_who_is_banned_may_not",
        membership::who_is_kicked_may_come_back_and_who_is_banned_may_not,
    ),
    (
        "power_given_across_the_trusts_counts_and_power_not_given_does_not",
        membership::power_given_across_the_trusts_counts_and_power_not_given_does_not,
    ),
    (
        "a_server_that_the_rooms_acl_denies_is_not_heard_any_more",
        membership::a_server_that_the_rooms_acl_denies_is_not_heard_any_more,
    ),
    (
        "public_rooms_of_the_other_trust_are_listed_and_searched",
        directory::public_rooms_of_the_other_trust_are_listed_and_searched,
    ),
    (
        "the_rooms_of_a_space_are_shown_with_those_of_the_other_trust",
        directory::the_rooms_of_a_space_are_shown_with_those_of_the_other_trust,
    ),
    ("the_event_of_a_day_is_found", directory::the_event_of_a_day_is_found),
    (
        "encrypted_words_and_files_are_read_across_the_trusts_by_new_devices_too",
        encrypted::encrypted_words_and_files_are_read_across_the_trusts_by_new_devices_too,
    ),
];

#[test]
fn a_matron_and_a_synapse_share_rooms_in_every_way() {
    let Some(trusts) = Trusts::start() else { return };
    let only = std::env::var("MATRON_TRUSTS_ONLY").unwrap_or_default();
    let waiting = Mutex::new(PARTS.iter().filter(|(name, _)| name.contains(&only)));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some((name, part)) = waiting.lock().unwrap().next() else { break };
                    let began = Instant::now();
                    let held = catch_unwind(AssertUnwindSafe(|| part(&trusts))).is_ok();
                    let verdict = if held { "holds" } else { "DOES NOT HOLD" };
                    tell(&format!("  {verdict}: {name}, {:.1} s", began.elapsed().as_secs_f32()));
                    if !held {
                        failed.lock().unwrap().push(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "these parts do not hold: {failed:#?}");
}
