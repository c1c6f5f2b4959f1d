//! A server that was away for a day.
//!
//! `MATRON_AWAY_EVENTS=10000 cargo test -p matron-testkit --test it away` sends more than the test command does: it passes in
//! 155 s on two busy cores, about 100 s of them CPU, in a debug build of 9abf924.

use std::collections::BTreeSet;

use matron_core::rooms::send::NewEvent;
use matron_testkit::TestNet;
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::json;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How many events the test command sends.
const EVENTS: usize = 600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_away_for_a_day_hears_everything_once_and_in_order() {
    let count = std::env::var("MATRON_AWAY_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(EVENTS);
    let net = TestNet::new();
    let (north, south) = (net.server("north.example"), net.server("south.example"));
    let (alice, bob) = (north.person("alice").await, south.person("bob").await);
    let room = OwnedRoomId::try_from(alice.room_with(&[&bob]).await).unwrap();
    let mut since = bob.now().await;
    net.settle(&[&north, &south]).await;
    let told_before = net.told(&south.name);
    net.cut_off(&south, true);
    let mut sent = Vec::new();
    for number in 0..count {
        let new = if number % 50 == 0 {
            NewEvent::state(room.clone(), alice.user(), "m.room.topic", "", json!({"topic": format!("{number}")}))
        } else {
            let content = json!({"msgtype": "m.text", "body": format!("{number}")});
            NewEvent::message(room.clone(), alice.user(), "m.room.message", content)
        };
        sent.push(north.core.send_event(new).await.unwrap());
        net.clock().advance_ms(DAY_MS / u64::try_from(count).unwrap());
    }
    // He was away too, and spoke to nobody.
    let said: OwnedEventId = bob.say(room.as_str(), "is anybody there").await.try_into().unwrap();
    net.heal();
    let mut heard: Vec<OwnedEventId> = Vec::new();
    let (mut known, wanted): (BTreeSet<OwnedEventId>, BTreeSet<_>) = (BTreeSet::new(), sent.iter().cloned().collect());
    let all = async {
        while !wanted.is_subset(&known) {
            net.clock().advance_ms(60_000);
            north.core.wake_outbox(&north.name);
            let (events, next) = bob.timeline_since(room.as_str(), &since).await;
            since = next;
            for event in events {
                let id = OwnedEventId::try_from(event["event_id"].as_str().unwrap()).unwrap();
                assert!(known.insert(id.clone()), "{id} was told twice");
                heard.push(id);
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60 + u64::try_from(count / 10).unwrap()), all).await.unwrap();
    net.settle(&[&north, &south]).await;
    assert_eq!(net.told(&south.name) - told_before, u64::try_from(count).unwrap(), "each is sent once");
    assert_eq!(heard.iter().filter(|id| wanted.contains(*id)).count(), count, "each is heard once");
    let mut before = BTreeSet::new();
    for id in &heard {
        let event = south.core.load_event(id).unwrap().unwrap();
        for prev in event.pdu.prev_events().iter().filter(|prev| wanted.contains(*prev)) {
            assert!(before.contains(prev), "{id} was told before what it follows");
        }
        before.insert(id.clone());
    }
    alice.sync_until("", |_| north.status(&said).map(|_| ())).await;
    alice.say(room.as_str(), "welcome back").await;
    net.settle(&[&north, &south]).await;
    assert_eq!(north.state(&room), south.state(&room));
    assert_eq!(north.ends(&room), south.ends(&room));
    assert_eq!(north.reach(&room), south.reach(&room));
}
