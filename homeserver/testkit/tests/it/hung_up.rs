//! Clients that hang up before they are answered.

use std::{collections::BTreeSet, time::Duration};

use matron_core::rooms::send::NewEvent;
use matron_testkit::TestNet;
use serde_json::json;

#[tokio::test]
async fn what_was_sent_before_the_sender_hung_up_is_told_to_everyone() {
    let net = TestNet::new();
    let (north, south) = (net.server("north.example"), net.server("south.example"));
    let (alice, bob) = (north.person("alice").await, south.person("bob").await);
    let room: ruma::OwnedRoomId = alice.room_with(&[&bob]).await.try_into().unwrap();
    let (mut here, mut there) = (alice.now().await, bob.now().await);
    for number in 0..20 {
        let content = json!({"msgtype": "m.text", "body": format!("{number}")});
        let new = NewEvent::message(room.clone(), alice.user(), "m.room.message", content);
        let mut sending = Box::pin(north.core.send_event(new));
        // Long enough to set out, too short to be answered.
        let _ = futures_util::poll!(&mut sending);
        drop(sending);
    }
    let (mut at_north, mut at_south) = (BTreeSet::new(), BTreeSet::new());
    let all = async {
        while at_north.len() < 20 || at_south.len() < 20 {
            for (person, since, heard) in [(&alice, &mut here, &mut at_north), (&bob, &mut there, &mut at_south)] {
                let (events, next) = person.timeline_since(room.as_str(), since).await;
                *since = next;
                for event in events {
                    let body = event["content"]["body"].as_str().unwrap().to_owned();
                    assert!(heard.insert(body), "told twice: {event}");
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("somebody was not told");
}
