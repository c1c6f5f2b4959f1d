//! Messages for devices that are sealed anew between a look at the queue and their sending.

use std::{collections::BTreeSet, sync::Arc};

use matron_storage::{Batch, Key, Order, Table};
use serde_json::json;

use super::{Running, server, units, until};
use crate::{
    outbox::{
        peer::Backoff,
        sender::{FRONT, Rows},
    },
    test_world::{NOW_MS, World, json_answer},
};

const THREE_DAYS_MS: u64 = 3 * 24 * 60 * 60 * 1000;
const KIND: &str = "m.direct_to_device";

async fn queue_messages(world: &World, count: usize) {
    let mut batch = Batch::new();
    for number in 0..count {
        let content = json!({"message_id": number.to_string()});
        world.core.queue_edu(&mut batch, server("them.example"), KIND, &content).unwrap();
    }
    world.core.commit(batch).await.unwrap();
}

fn queued(world: &World) -> Rows {
    let prefix = Key::new().text("them.example").prefix();
    world.core.store.scan(Table::OutboxRow, &prefix, Order::Ascending, 1_000).unwrap()
}

#[tokio::test]
async fn what_is_sealed_anew_while_a_peer_catches_up_reaches_it() {
    const COUNT: usize = FRONT + 40;
    let world = World::new();
    let well = Backoff { last_success_ms: NOW_MS, ..Backoff::default() };
    world.core.keep_backoff(server("them.example"), &well).await.unwrap();
    queue_messages(&world, COUNT).await;
    world.advance_ms(THREE_DAYS_MS);
    // The plan is made by the time the first transaction comes.
    let mut renewed_by = Some(Arc::clone(&world.core));
    world.answer(move |_| {
        if let Some(core) = renewed_by.take() {
            let renewal = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(core.renew_message_keys(false)).unwrap()
            });
            assert!(renewal.join().unwrap());
        }
        json_answer(&json!({"pdus": {}}))
    });
    let running = Running::start(world);
    let core = Arc::clone(&running.world.core);
    until("the queue is empty", || core.queue_length(server("them.example"), 10).unwrap() == 0).await;
    let sent = units(&running.sent("them.example"), KIND);
    let distinct: BTreeSet<_> = sent.iter().map(|unit| unit["message_id"].to_string()).collect();
    assert_eq!((sent.len(), distinct.len()), (COUNT, COUNT), "each once");
    running.stop().await;
}

#[tokio::test]
async fn what_nobody_can_open_is_dropped_and_what_was_sealed_anew_is_sent() {
    let world = World::new();
    let core = &world.core;
    world.answer(|_| json_answer(&json!({"pdus": {}})));
    queue_messages(&world, 1).await;
    for bucket in core.keyring.buckets("to-device") {
        core.keyring.destroy("to-device", bucket).unwrap();
    }
    assert!(core.send_rows(server("them.example"), &queued(&world)).await.unwrap());
    assert!(queued(&world).is_empty());
    assert!(world.peers.asked.lock().is_empty(), "there is nothing to tell");

    queue_messages(&world, 1).await;
    let before = queued(&world);
    world.advance_ms(THREE_DAYS_MS);
    assert!(core.renew_message_keys(false).await.unwrap());
    assert_ne!(queued(&world), before);
    assert!(core.send_rows(server("them.example"), &before).await.unwrap());
    assert!(queued(&world).is_empty());
    assert_eq!(world.peers.asked.lock().len(), 1);
    assert!(!core.send_rows(server("them.example"), &before).await.unwrap(), "it is gone");
}

#[tokio::test]
async fn what_was_written_anew_before_it_could_be_dropped_stays() {
    let world = World::new();
    let core = &world.core;
    queue_messages(&world, 1).await;
    let rows = queued(&world);
    for bucket in core.keyring.buckets("to-device") {
        core.keyring.destroy("to-device", bucket).unwrap();
    }
    let key = rows[0].0.clone();
    world.meanwhile(move |store| {
        let mut batch = Batch::new();
        batch.put(Table::OutboxRow, key, b"written anew".to_vec());
        store.submit(batch).wait().unwrap();
    });
    core.send_rows(server("them.example"), &rows).await.unwrap();
    assert_eq!(queued(&world)[0].1, b"written anew");
}
