//! State resolution: known forks, and random rooms whose events arrive in any order.

use matron_room::{StateMap, resolve};
use proptest::prelude::*;
use ruma::OwnedEventId;
use serde_json::json;

use crate::support::{TestRoom, user, version};

const VERSIONS: [&str; 6] = ["2", "3", "6", "10", "11", "12"];
const ALL_ALGORITHMS: [&str; 5] = ["1", "2", "6", "11", "12"];

fn member(membership: &str) -> serde_json::Value {
    json!({ "membership": membership })
}

/// A room with a creator `a`, a moderator `b` and a member `c`.
fn moderated(id: &str) -> TestRoom {
    let mut room = TestRoom::new(version(id), "a");
    room.join(&[room.last()], "b").unwrap();
    room.join(&[room.last()], "c").unwrap();
    let levels = if id == "12" {
        json!({ "users": { user("b"): 50 } })
    } else {
        json!({ "users": { user("a"): 100, user("b"): 50 } })
    };
    room.send_last("a", "m.room.power_levels", Some(""), levels).unwrap();
    room
}

#[test]
fn ban_beats_what_the_banned_moderator_did_at_the_same_time() {
    for id in VERSIONS {
        let mut room = moderated(id);
        let fork = room.last();
        let ban =
            room.send(std::slice::from_ref(&fork), "a", "m.room.member", Some(&user("b")), member("ban")).unwrap();
        let topic = room.send(&[fork], "b", "m.room.topic", Some(""), json!({ "topic": "mine" })).unwrap();
        let merged = room.state_before(&[ban.event_id().to_owned(), topic.event_id().to_owned()]);
        assert_eq!(room.membership(&merged, "b").as_deref(), Some("ban"), "version {id}");
        assert!(room.find(&merged, "m.room.topic", "").is_none(), "version {id}");
    }
}

#[test]
fn greater_power_wins_over_lesser_whatever_the_clocks_say() {
    for id in VERSIONS {
        let mut room = moderated(id);
        let fork = room.last();
        let creator = if id == "12" { json!({}) } else { json!({ user("a"): 100 }) };
        let mut demoted = json!({ "users": creator.clone() });
        demoted["users"][user("b")] = json!(0);
        let mut promoted = json!({ "users": creator });
        promoted["users"][user("b")] = json!(50);
        promoted["users"][user("c")] = json!(50);
        // The moderator's change is older and so would come first, were it not for the power of the senders.
        let promotion = room.send(std::slice::from_ref(&fork), "b", "m.room.power_levels", Some(""), promoted).unwrap();
        let demotion = room.send(&[fork], "a", "m.room.power_levels", Some(""), demoted).unwrap();
        let merged = room.state_before(&[promotion.event_id().to_owned(), demotion.event_id().to_owned()]);
        assert_eq!(room.find(&merged, "m.room.power_levels", ""), Some(demotion), "version {id}");
    }
}

#[test]
fn closing_the_room_beats_a_join_at_the_same_time() {
    for id in VERSIONS {
        let mut room = moderated(id);
        let fork = room.last();
        let closed = room
            .send(std::slice::from_ref(&fork), "a", "m.room.join_rules", Some(""), json!({ "join_rule": "invite" }))
            .unwrap();
        let join = room.join(&[fork], "d").unwrap();
        let merged = room.state_before(&[closed.event_id().to_owned(), join.event_id().to_owned()]);
        assert_eq!(room.membership(&merged, "d"), None, "version {id}");
    }
}

#[test]
fn later_of_two_topics_wins() {
    for id in VERSIONS {
        let mut room = moderated(id);
        let fork = room.last();
        let one =
            room.send(std::slice::from_ref(&fork), "a", "m.room.topic", Some(""), json!({ "topic": "1" })).unwrap();
        let two = room.send(&[fork], "b", "m.room.topic", Some(""), json!({ "topic": "2" })).unwrap();
        let merged = room.state_before(&[two.event_id().to_owned(), one.event_id().to_owned()]);
        assert_eq!(room.find(&merged, "m.room.topic", ""), Some(two), "version {id}");
    }
}

#[test]
fn version_12_does_not_undo_a_state_that_only_one_fork_forgot() {
    // A fork that comes from before the room was closed must not reset the rules of the fork that closed it.
    let mut room = moderated("12");
    let early = room.last();
    room.send_last("a", "m.room.join_rules", Some(""), json!({ "join_rule": "invite" })).unwrap();
    room.send_last("a", "m.room.member", Some(&user("c")), member("ban")).unwrap();
    let late = room.last();
    let stray = room.send(&[early], "c", "m.room.message", None, json!({ "body": "late" })).unwrap();
    let merged = room.state_before(&[late, stray.event_id().to_owned()]);
    assert_eq!(room.membership(&merged, "c").as_deref(), Some("ban"));
    let rules = room.find(&merged, "m.room.join_rules", "").unwrap();
    assert_eq!(rules.content_value(), json!({ "join_rule": "invite" }));
}

#[test]
fn version_1_prefers_depth_and_keeps_what_only_one_fork_knows() {
    let mut room = moderated("1");
    let fork = room.last();
    let shallow =
        room.send(std::slice::from_ref(&fork), "a", "m.room.topic", Some(""), json!({ "topic": "1" })).unwrap();
    let name = room.send(&[fork], "b", "m.room.name", Some(""), json!({ "name": "n" })).unwrap();
    let deep =
        room.send(&[name.event_id().to_owned()], "b", "m.room.topic", Some(""), json!({ "topic": "2" })).unwrap();
    let merged = room.state_before(&[shallow.event_id().to_owned(), deep.event_id().to_owned()]);
    assert_eq!(room.find(&merged, "m.room.topic", ""), Some(deep));
    assert_eq!(room.find(&merged, "m.room.name", ""), Some(name));
}

#[test]
fn version_1_refuses_a_topic_that_a_ban_forbids() {
    let mut room = moderated("1");
    let fork = room.last();
    let first = room.send_last("a", "m.room.topic", Some(""), json!({ "topic": "0" })).unwrap();
    let ban = room.send_last("a", "m.room.member", Some(&user("b")), member("ban")).unwrap();
    let x = room.send(&[fork], "b", "m.x", None, json!({})).unwrap();
    let y = room.send(&[x.event_id().to_owned()], "b", "m.x", None, json!({})).unwrap();
    let topic = room.send(&[y.event_id().to_owned()], "b", "m.room.topic", Some(""), json!({ "topic": "1" })).unwrap();
    let merged = room.state_before(&[ban.event_id().to_owned(), topic.event_id().to_owned()]);
    assert_eq!(room.membership(&merged, "b").as_deref(), Some("ban"));
    assert_eq!(room.find(&merged, "m.room.topic", ""), Some(first));
}

#[test]
fn version_12_keeps_the_power_levels_that_earlier_versions_lose() {
    for (id, kept) in [("2", false), ("11", false), ("12", true)] {
        let mut room = moderated(id);
        let fork = room.last();
        let mut users = json!({ user("b"): 60 });
        if id != "12" {
            users[user("a")] = json!(100);
        }
        let raised =
            room.send(std::slice::from_ref(&fork), "a", "m.room.power_levels", Some(""), json!({ "users": users }));
        let raised = raised.unwrap();
        let left = room.send(&[fork], "a", "m.room.member", Some(&user("a")), member("leave")).unwrap();
        let heads = [raised.event_id().to_owned(), left.event_id().to_owned()];
        let merge = room.send(&heads, "b", "m.room.message", None, json!({})).unwrap();
        let merged = room.state_before(&[merge.event_id().to_owned()]);
        assert_eq!(room.find(&merged, "m.room.power_levels", ""), Some(raised.clone()));
        // The two states agree that the sender of both power levels is gone, and disagree about these only.
        let again = room.state_before(&[merge.event_id().to_owned(), left.event_id().to_owned()]);
        let expected = kept.then_some(raised);
        assert_eq!(room.find(&again, "m.room.power_levels", ""), expected, "version {id}");
    }
}

#[test]
fn one_state_is_its_own_resolution_and_none_is_empty() {
    let room = moderated("11");
    let state = room.state_before(&[room.last()]);
    assert_eq!(room.resolve(std::slice::from_ref(&state)), state);
    assert_eq!(room.resolve(&[state.clone(), state.clone()]), state);
    let none = resolve(version("11"), &[], Vec::new(), |_id| None).unwrap();
    assert_eq!(none, StateMap::new());
}

/// One step of a random room: who does what, after which of the newest events.
#[derive(Debug, Clone)]
struct Step {
    actor: usize,
    target: usize,
    action: usize,
    level: i64,
    first_parent: usize,
    second_parent: Option<usize>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..4_usize, 0..4_usize, 0..9_usize, 0..4_i64, 0..5_usize, proptest::option::of(0..5_usize)).prop_map(
        |(actor, target, action, level, first_parent, second_parent)| Step {
            actor,
            target,
            action,
            level: level * 25,
            first_parent,
            second_parent,
        },
    );
    prop::collection::vec(step, 4..40)
}

/// The room in which everyone tried everything; what the rules refused did not happen.
fn grow(id: &str, steps: &[Step]) -> TestRoom {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let mut room = moderated(id);
    room.join(&[room.last()], "d").unwrap();
    let founded = room.order.len() - 1;
    for step in steps {
        let nth_newest = |nth: usize| room.order[room.order.len().saturating_sub(nth + 1).max(founded)].clone();
        let mut prev = vec![nth_newest(step.first_parent)];
        if let Some(second) = step.second_parent.map(nth_newest).filter(|second| !prev.contains(second)) {
            prev.push(second);
        }
        let (actor, target) = (NAMES[step.actor], NAMES[step.target]);
        let (kind, key, content) = match step.action {
            0 => ("m.room.member", user(actor), member("join")),
            1 => ("m.room.member", user(actor), member("leave")),
            2 => ("m.room.member", user(target), member("ban")),
            3 => ("m.room.member", user(target), member("leave")),
            4 => ("m.room.member", user(target), member("invite")),
            5 => {
                let before = room.state_before(&prev);
                let current = room.find(&before, "m.room.power_levels", "");
                // Before version 12 a resolution can lose the power levels, see below.
                let mut users = current.map_or(json!({}), |levels| levels.content_value()["users"].clone());
                users[user(target)] = json!(step.level);
                ("m.room.power_levels", String::new(), json!({ "users": users }))
            }
            6 => {
                let rule = if step.level > 25 { "public" } else { "invite" };
                ("m.room.join_rules", String::new(), json!({ "join_rule": rule }))
            }
            7 => ("m.room.topic", String::new(), json!({ "topic": step.level })),
            _ => ("m.room.name", String::new(), json!({ "name": step.level })),
        };
        // A refusal is as good an outcome as any.
        let _ = room.send(&prev, actor, kind, Some(&key), content);
    }
    room
}

/// A topological order of the room's events, picked by the numbers.
fn shuffled(room: &TestRoom, picks: &[usize]) -> Vec<OwnedEventId> {
    let mut waiting = room.order.clone();
    let mut order: Vec<OwnedEventId> = Vec::new();
    let mut picks = picks.iter().cycle();
    while !waiting.is_empty() {
        let ready: Vec<usize> = (0..waiting.len())
            .filter(|&index| room.events[&waiting[index]].prev_events().iter().all(|prev| order.contains(prev)))
            .collect();
        let pick = ready[picks.next().unwrap() % ready.len()];
        order.push(waiting.remove(pick));
    }
    order
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_arrival_order_resolves_alike(
        steps in steps(),
        picks in prop::collection::vec(0..64_usize, 8..32),
        id in prop::sample::select(ALL_ALGORITHMS.to_vec()),
    ) {
        let here = grow(id, &steps);
        let there = here.replay(&shuffled(&here, &picks));
        prop_assert_eq!(&here.state_after, &there.state_after);

        let heads: Vec<StateMap> = here
            .order
            .iter()
            .filter(|id| !here.events.values().any(|event| event.prev_events().contains(id)))
            .map(|id| here.state_after[id].clone())
            .collect();
        let mut turned = heads.clone();
        turned.rotate_left(picks[0] % heads.len());
        turned.push(heads[0].clone());
        let merged = here.resolve(&heads);
        prop_assert_eq!(&there.resolve(&turned), &merged);

        // What is resolved is still a room: creation stands, and every key's event belongs to that key.
        prop_assert_eq!(merged.get(&("m.room.create".to_owned(), String::new())), here.order.first());
        for ((kind, key), id) in &merged {
            prop_assert!(here.events[id].is_state_of(kind, key));
        }
    }
}
