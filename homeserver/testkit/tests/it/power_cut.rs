//! Two servers, of which one is killed at each of the commits that what they do together takes: both go on.
//!
//! Here the steps lie inside of a server; `homeserver/server/tests/trusts/steps.rs` kills real processes between requests.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use matron_storage::{Batch, Key, Table};
use matron_testkit::{Person, TestNet, TestServer, part};
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Value, json};

/// More commits than anything here takes.
const MOST_COMMITS: usize = 400;

/// A host with a room, and a guest.
struct Pair {
    net: Arc<TestNet>,
    host: TestServer,
    guest: TestServer,
    owner: Person,
    visitor: Person,
    room: OwnedRoomId,
    /// What was acknowledged.
    said: Mutex<BTreeSet<OwnedEventId>>,
}

impl Pair {
    /// The guest's people are not in the room yet.
    async fn new() -> Self {
        let net = TestNet::new();
        let (host, guest) = (net.server("host.example"), net.server("guest.example"));
        let (owner, visitor) = (host.person("owner").await, guest.person("visitor").await);
        let room = owner.room(json!({"preset": "public_chat"})).await;
        Self { net, host, guest, owner, visitor, room, said: Mutex::default() }
    }

    async fn joined() -> Self {
        let pair = Self::new().await;
        assert_eq!(pair.try_join().await, 200);
        pair.net.settle(&[&pair.host, &pair.guest]).await;
        pair
    }

    async fn try_join(&self) -> u16 {
        self.visitor.try_join(self.room.as_str(), "host.example").await.0
    }

    /// Says something, which counts if it is acknowledged.
    async fn try_say(&self, person: &Person, text: &str) -> bool {
        let path = format!("/v3/rooms/{}/send/m.room.message/{}", part(self.room.as_str()), part(text));
        let (status, answer) = person.send("PUT", &path, &json!({"msgtype": "m.text", "body": text})).await;
        let event: Option<OwnedEventId> = answer["event_id"].as_str().and_then(|id| id.try_into().ok());
        let acknowledged = status == 200;
        self.said.lock().unwrap().extend(event.filter(|_| acknowledged));
        acknowledged
    }

    /// As [`Pair::in_line`], in no order.
    async fn found_by(&self, person: &Person) -> BTreeSet<OwnedEventId> {
        self.in_line(person).await.into_iter().collect()
    }

    /// What the person finds in the room, paging back: the newest first, each once.
    async fn in_line(&self, person: &Person) -> Vec<OwnedEventId> {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        let mut from = String::new();
        loop {
            let path = format!("/v3/rooms/{}/messages?dir=b&limit=20{from}", part(self.room.as_str()));
            let (status, page) = person.send("GET", &path, &Value::Null).await;
            if status != 200 {
                return found;
            }
            for event in page["chunk"].as_array().unwrap() {
                let id: OwnedEventId = event["event_id"].as_str().unwrap().try_into().unwrap();
                assert!(seen.insert(id.clone()), "{event} is there twice");
                found.push(id);
            }
            match page["end"].as_str() {
                Some(end) => from = format!("&from={end}"),
                None => return found,
            }
        }
    }

    /// The visitor was told everything that was acknowledged, nothing of it before what it follows.
    async fn caught_up(&self) -> bool {
        let line = self.in_line(&self.visitor).await;
        let mut later = BTreeSet::new();
        for id in &line {
            let event = self.guest.core.load_event(id).unwrap().unwrap();
            let first = event.pdu.prev_events().iter().all(|prev| !later.contains(prev));
            assert!(first, "{id} was told before what it follows");
            later.insert(id.clone());
        }
        self.said.lock().unwrap().is_subset(&later)
    }

    /// The condition comes true; the clock moves on meanwhile.
    async fn until<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        let all = async {
            while !holds().await {
                self.net.clock().advance_ms(10_000);
                // They look at the clock when they are woken.
                for server in [&self.host, &self.guest] {
                    server.core.wake_outbox(&server.name);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(90), all).await.is_ok(), "it never came to this: {what}");
    }

    /// Both hold the same room, and everything that was acknowledged; what is said now arrives.
    async fn go_on(&self) {
        for person in [&self.owner, &self.visitor] {
            assert!(self.try_say(person, &format!("{} is here", person.id)).await);
        }
        let both = [&self.host, &self.guest];
        self.net.settle(&both).await;
        let said = self.said.lock().unwrap().clone();
        for person in [&self.owner, &self.visitor] {
            self.until("everything is there", || async { said.is_subset(&self.found_by(person).await) }).await;
        }
        assert_eq!(self.host.state(&self.room), self.guest.state(&self.room));
        assert_eq!(self.host.ends(&self.room), self.guest.ends(&self.room));
    }
}

/// Kills either side at each commit of `act`; `again` is what its people try until it succeeds.
async fn kill_at_each_commit<P, A, B>(
    prepare: impl Fn() -> P,
    act: impl Fn(Arc<Pair>) -> A,
    again: impl Fn(Arc<Pair>) -> B,
) where
    P: Future<Output = Pair>,
    A: Future<Output = ()>,
    B: Future<Output = bool>,
{
    let mut deaths = [0, 0];
    for is_host in [true, false] {
        for commits in 0..MOST_COMMITS {
            let pair = Arc::new(prepare().await);
            let victim = if is_host { &pair.host } else { &pair.guest };
            victim.dies_after(commits);
            let whole = async {
                act(Arc::clone(&pair)).await;
                pair.net.settle(&[&pair.host, &pair.guest]).await;
            };
            tokio::select! {
                biased;
                () = victim.died() => {}
                () = whole => {}
            }
            let died = victim.is_dead();
            victim.dies_after(usize::MAX);
            let mut pair = Arc::into_inner(pair).expect("nobody else has it");
            if died {
                deaths[usize::from(is_host)] += 1;
                let net = Arc::clone(&pair.net);
                let (server, person) =
                    if is_host { (&mut pair.host, &mut pair.owner) } else { (&mut pair.guest, &mut pair.visitor) };
                server.restart(&net);
                person.is_at(server);
            }
            let pair = Arc::new(pair);
            pair.until("it succeeds", || again(Arc::clone(&pair))).await;
            pair.go_on().await;
            if !died {
                break;
            }
        }
    }
    assert!(deaths[0] > 0 && deaths.iter().all(|count| *count < MOST_COMMITS), "of the guest and the host: {deaths:?}");
}

#[tokio::test]
async fn a_join_that_ends_at_any_commit_succeeds_when_it_is_tried_again() {
    let join = |pair: Arc<Pair>| async move { pair.try_join().await == 200 };
    kill_at_each_commit(
        Pair::new,
        |pair| async move {
            let _ = join(pair).await;
        },
        join,
    )
    .await;
}

#[tokio::test]
async fn every_acknowledged_message_arrives_though_a_side_ends_at_any_commit() {
    let act = |pair: Arc<Pair>| async move {
        for number in 0..2 {
            pair.try_say(&pair.owner, &format!("owner {number}")).await;
            pair.try_say(&pair.visitor, &format!("visitor {number}")).await;
        }
    };
    kill_at_each_commit(Pair::joined, act, |_| async { true }).await;
}

#[tokio::test]
async fn the_past_is_read_to_its_end_though_a_side_ends_at_any_commit() {
    let prepare = || async {
        let pair = Pair::new().await;
        for number in 0..25 {
            assert!(pair.try_say(&pair.owner, &format!("past {number}")).await);
        }
        assert_eq!(pair.try_join().await, 200);
        pair.net.settle(&[&pair.host, &pair.guest]).await;
        pair
    };
    let act = |pair: Arc<Pair>| async move { drop(pair.found_by(&pair.visitor).await) };
    kill_at_each_commit(prepare, act, |_| async { true }).await;
}

#[tokio::test]
async fn what_was_missed_is_filled_in_though_a_side_ends_at_any_commit() {
    let prepare = || async {
        let pair = Pair::joined().await;
        pair.net.cut_off(&pair.guest, true);
        for number in 0..5 {
            assert!(pair.try_say(&pair.owner, &format!("missed {number}")).await);
        }
        // As if the guest had been away for longer than anything waits.
        let mut batch = Batch::new();
        batch.delete_range(Table::OutboxRow, Key::new().text(&pair.guest.name).prefix());
        pair.host.core.store.submit(batch).wait().unwrap();
        pair.net.heal();
        pair
    };
    let act = |pair: Arc<Pair>| async move {
        let _ = pair.try_say(&pair.owner, "what comes next").await;
    };
    kill_at_each_commit(prepare, act, |_| async { true }).await;
}

#[tokio::test]
async fn whoever_was_away_hears_everything_once_and_in_order_though_a_side_ends_at_any_commit() {
    let prepare = || async {
        let pair = Pair::joined().await;
        pair.net.cut_off(&pair.guest, true);
        // More than a transaction.
        for number in 0..60 {
            assert!(pair.try_say(&pair.owner, &format!("missed {number}")).await);
        }
        pair
    };
    let act = |pair: Arc<Pair>| async move { pair.net.heal() };
    kill_at_each_commit(prepare, act, |pair| async move { pair.caught_up().await }).await;
}
