//! Random partitions: whatever happened while the network was apart, all servers end with the same room.
//!
//! `MATRON_SEEDS=200 cargo test -p matron-testkit --test it partition -- --nocapture` tries more seeds than the test command
//! does, `MATRON_SEED=17` one; `any_partition_all` names those without restarts, `with_restarts` those with.

use std::collections::{BTreeMap, BTreeSet};

use matron_core::{
    Error,
    rooms::{Status, membership::JoinOptions, send::NewEvent},
};
use matron_testkit::{Dice, Person, TestNet, TestServer, Weather};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use serde_json::{Value, json};

/// How many seeds the test command tries.
const SEEDS: u64 = 6;
const STEPS: usize = 60;

/// One server with its people: an anchor whom nobody removes, and some whom everybody may.
struct Trust {
    server: TestServer,
    anchor: Person,
    others: Vec<OwnedUserId>,
    /// What the anchor's syncs told, in their order.
    told: Vec<String>,
    since: String,
}

struct World {
    seed: u64,
    net: std::sync::Arc<TestNet>,
    dice: Dice,
    room: OwnedRoomId,
    trusts: Vec<Trust>,
    sent: Vec<OwnedEventId>,
    /// What the anchors said: nobody may miss it.
    anchored: BTreeSet<OwnedEventId>,
    serial: u64,
    restarts: usize,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let net = TestNet::seeded(dice.number());
        let mut trusts = Vec::new();
        for name in ["north", "east", "south", "west"].into_iter().take(3 + dice.below(2)) {
            let server = net.server(&format!("{name}.example"));
            let anchor = server.person("anchor").await;
            let mut others = Vec::new();
            for number in 0..2 {
                others.push(server.core.create_user(&format!("other{number}"), None, false).await.unwrap());
            }
            trusts.push(Trust { server, anchor, others, told: Vec::new(), since: String::new() });
        }
        let version = *dice.pick(&["6", "10", "11", "12"]);
        let mut levels: BTreeMap<String, i64> =
            trusts.iter().skip(1).map(|trust| (trust.anchor.id.clone(), 60)).collect();
        if version != "12" {
            levels.insert(trusts[0].anchor.id.clone(), 100);
        }
        let body = json!({
            "preset": "public_chat", "room_version": version, "power_level_content_override": { "users": levels },
        });
        let room = trusts[0].anchor.room(body).await;
        for trust in trusts.iter().skip(1) {
            let (status, answer) = trust.anchor.try_join(room.as_str(), "north.example").await;
            assert_eq!(status, 200, "seed {seed}: {answer}");
        }
        net.settle(&trusts.iter().map(|trust| &trust.server).collect::<Vec<_>>()).await;
        for trust in &mut trusts {
            trust.since = trust.anchor.now().await;
        }
        Self { seed, net, dice, room, trusts, sent: Vec::new(), anchored: BTreeSet::new(), serial: 0, restarts: 0 }
    }

    fn servers(&self) -> Vec<&TestServer> {
        self.trusts.iter().map(|trust| &trust.server).collect()
    }

    /// One of the people who may be removed.
    fn somebody(&mut self) -> (usize, OwnedUserId) {
        let trust = self.dice.below(self.trusts.len());
        let user = self.dice.pick(&self.trusts[trust].others).clone();
        (trust, user)
    }

    /// Something happens at one of the servers; what is not allowed there does not.
    async fn happen(&mut self) {
        self.serial += 1;
        let (serial, room) = (self.serial, self.room.clone());
        let at = self.dice.below(self.trusts.len());
        let anchor = self.trusts[at].anchor.user();
        let core = self.trusts[at].server.core.clone();
        let what = self.dice.below(100);
        let sent: Result<Option<OwnedEventId>, Error> = match what {
            0..40 => {
                let by_anchor = self.dice.chance(50);
                let sender = if by_anchor { anchor } else { self.dice.pick(&self.trusts[at].others).clone() };
                let content = json!({"msgtype": "m.text", "body": format!("{serial}")});
                let sent = core.send_event(NewEvent::message(room, sender, "m.room.message", content)).await;
                if let (true, Ok(id)) = (by_anchor, &sent) {
                    self.anchored.insert(id.clone());
                }
                sent.map(Some)
            }
            40..52 => {
                let (kind, content) = match self.dice.below(3) {
                    0 => ("m.room.topic", json!({"topic": format!("{serial}")})),
                    1 => ("m.room.name", json!({"name": format!("{serial}")})),
                    _ => ("org.matron.test", json!({"serial": serial})),
                };
                core.send_event(NewEvent::state(room, anchor, kind, "", content)).await.map(Some)
            }
            52..57 => self.change_levels(at).await.map(Some),
            57..61 => {
                let rule = *self.dice.pick(&["public", "invite"]);
                let content = json!({"join_rule": rule, "serial": serial});
                core.send_event(NewEvent::state(room, anchor, "m.room.join_rules", "", content)).await.map(Some)
            }
            61..76 => {
                let user = self.dice.pick(&self.trusts[at].others).clone();
                core.join_room(&user, &room, JoinOptions::default()).await.map(|_| None)
            }
            76..82 => {
                let user = self.dice.pick(&self.trusts[at].others).clone();
                core.leave_room(&user, &room, None).await.map(|()| None)
            }
            82..92 => {
                let (_, user) = self.somebody();
                let done = match self.dice.below(4) {
                    0 => core.kick(&anchor, &room, &user, None).await,
                    1 | 2 => core.ban(&anchor, &room, &user, None).await,
                    _ => core.unban(&anchor, &room, &user, None).await,
                };
                done.map(|()| None)
            }
            _ if self.sent.is_empty() => Ok(None),
            _ => {
                let target = self.dice.pick(&self.sent).clone();
                let mut new = NewEvent::message(room, anchor, "m.room.redaction", json!({"redacts": target}));
                new.redacts = Some(target);
                core.redact_event(new).await.map(|_| None)
            }
        };
        match sent {
            Ok(id) => self.sent.extend(id),
            // Not allowed, not there, or nobody to ask: such is a partition.
            Err(
                Error::Forbidden(_)
                | Error::NotFound(_)
                | Error::BadState(_)
                | Error::InvalidParam(_)
                | Error::UnableToAuthoriseJoin(_)
                | Error::UnableToGrantJoin(_),
            ) => {}
            Err(error) => panic!("seed {}: step {serial}: {error}", self.seed),
        }
    }

    async fn change_levels(&mut self, at: usize) -> Result<OwnedEventId, Error> {
        let trust = &self.trusts[at];
        let room = trust.server.room(&self.room);
        let levels: Option<Value> = room.lock().state_content(&trust.server.core, "m.room.power_levels", "")?;
        let mut levels = levels.unwrap_or_else(|| json!({}));
        let (_, user) = self.somebody();
        let trust = &self.trusts[at];
        levels["users"][user.as_str()] = json!(*self.dice.pick(&[0, 10, 50]));
        levels["state_default"] = json!(*self.dice.pick(&[50, 55]));
        let new = NewEvent::state(self.room.clone(), trust.anchor.user(), "m.room.power_levels", "", levels);
        trust.server.core.send_event(new).await
    }

    fn change_network(&mut self) {
        match self.dice.below(5) {
            0 | 1 => {
                let parts = 2 + self.dice.below(2);
                let mut groups: Vec<Vec<&TestServer>> = vec![Vec::new(); parts];
                for trust in &self.trusts {
                    let part = self.dice.below(parts);
                    groups[part].push(&trust.server);
                }
                self.net.partition(&groups);
            }
            2 => self.net.heal(),
            3 => self.net.set_weather(Weather::storm()),
            _ => self.net.set_weather(Weather::default()),
        }
        self.net.clock().advance_ms(u64::try_from(self.dice.below(120_000)).unwrap());
    }

    /// One of the servers is killed and starts again.
    fn restart(&mut self) {
        let at = self.dice.below(self.trusts.len());
        let trust = &mut self.trusts[at];
        trust.server.restart(&self.net);
        trust.anchor.is_at(&trust.server);
        self.restarts += 1;
    }

    async fn hear(&mut self) {
        for trust in &mut self.trusts {
            let (events, since) = trust.anchor.timeline_since(self.room.as_str(), &trust.since).await;
            trust.told.extend(events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()));
            trust.since = since;
        }
    }

    /// Everyone is told everything, and everyone says one thing more, so that what only some accepted is tied in.
    async fn come_together(&mut self) {
        self.net.heal();
        self.net.set_weather(Weather::default());
        self.net.settle(&self.servers()).await;
        for round in 0..3 {
            // Long enough that what nobody gave before is asked for again.
            self.net.clock().advance_ms(3_600_000);
            for trust in &self.trusts {
                let said = trust.anchor.say(self.room.as_str(), &format!("last {round}")).await;
                self.anchored.insert(said.try_into().unwrap());
                self.net.settle(&self.servers()).await;
            }
        }
    }

    fn check(&self) {
        let seed = self.seed;
        let first = &self.trusts[0].server;
        let room: &RoomId = &self.room;
        let (state, ends, reach) = (first.state(room), first.ends(room), first.reach(room));
        for trust in &self.trusts {
            let (name, server) = (&trust.server.name, &trust.server);
            let here = server.state(room);
            for (key, id) in state.iter().filter(|(key, id)| here.get(*key) != Some(*id)) {
                println!("{key:?}: {} at {}, {} at {name}", told(first, id), first.name, tell(server, here.get(key)));
            }
            if here != state {
                self.first_difference(first, server, &reach);
            }
            assert!(here == state, "seed {seed}: the state at {name} is another than at {}", first.name);
            assert_eq!(server.ends(room), ends, "seed {seed}: the graph at {name} has other ends");
            assert_eq!(server.reach(room), reach, "seed {seed}: the graph at {name} reaches otherwise");
            let mut seen = BTreeSet::new();
            for id in &trust.told {
                assert!(
                    seen.insert(OwnedEventId::try_from(id.as_str()).unwrap()),
                    "seed {seed}: {name} told {id} twice"
                );
            }
            for id in &self.anchored {
                assert!(seen.contains(id), "seed {seed}: {name} never told {id}, {:?}", server.status(id));
            }
            let since = &self.sent;
            for id in since.iter().filter(|id| server.status(id) == Some(Status::Accepted)) {
                let event = server.core.load_event(id).unwrap().unwrap();
                assert!(
                    seen.contains(id),
                    "seed {seed}: {name} accepted {id} and never told it: {} by {}, at {} in the timeline, redacted by {:?}",
                    event.pdu.kind(),
                    event.pdu.sender(),
                    event.record.timeline,
                    event.record.redacted_by,
                );
            }
            for id in &seen {
                assert_eq!(server.status(id), Some(Status::Accepted), "seed {seed}: {name} told {id}");
                assert!(reach.contains(id), "seed {seed}: {name} told {id}, which the graph does not reach");
            }
        }
    }
}

impl World {
    /// Prints the first events on whose state before them two servers do not agree.
    fn first_difference(&self, one: &TestServer, other: &TestServer, reach: &BTreeSet<OwnedEventId>) {
        let mut events: Vec<_> = reach.iter().map(|id| one.core.load_event(id).unwrap().unwrap()).collect();
        events.sort_by_key(|event| event.pdu.depth());
        let mut shown = 0;
        for event in events {
            let before = |server: &TestServer| {
                let known = server.core.load_event(event.id()).unwrap().unwrap();
                server.core.load_state_group(known.record.state_before).unwrap()
            };
            let (here, there) = (before(one), before(other));
            let placed = [one, other].iter().all(|server| server.status(event.id()) != Some(Status::Outlier));
            if placed && here != there && shown < 3 {
                shown += 1;
                println!("first: {} {}", event.pdu.kind(), told(one, &event.id().to_owned()));
                println!("  at {}: {}", other.name, told(other, &event.id().to_owned()));
                for prev in event.pdu.prev_events() {
                    println!("  after {} / {}", told(one, prev), told(other, prev));
                    let after = |server: &TestServer| {
                        let known = server.core.load_event(prev).unwrap().unwrap();
                        server.core.load_state_group(known.record.state_before).unwrap()
                    };
                    println!(
                        "    before which the states are {}",
                        if after(one) == after(other) { "one" } else { "two" }
                    );
                }
                let keys: BTreeSet<_> = here.keys().chain(there.keys()).collect();
                for key in keys.into_iter().filter(|key| here.get(*key) != there.get(*key)) {
                    let at = |server, state: &matron_core::rooms::StateMap| {
                        tell(server, state.get(key).map(|id| (**id).clone()).as_ref())
                    };
                    println!("  {} {}: {} / {}", key.kind, key.key, at(one, &here), at(other, &there));
                    for id in [here.get(key), there.get(key)].into_iter().flatten() {
                        println!("    known as {} / {}", told(one, id), told(other, id));
                    }
                }
            }
        }
    }
}

fn tell(server: &TestServer, id: Option<&OwnedEventId>) -> String {
    id.map_or_else(|| "nothing".to_owned(), |id| told(server, id))
}

/// An event in words, for whoever looks for what went wrong.
fn told(server: &TestServer, id: &OwnedEventId) -> String {
    let Some(event) = server.core.load_event(id).unwrap() else { return format!("{id}, unknown") };
    let pdu = &event.pdu;
    let content: String = pdu.content_str().chars().take(70).collect();
    let short: String = id.as_str().chars().take(9).collect();
    format!("{short} ({:?}, depth {}, by {}: {content})", event.record.status, pdu.depth(), pdu.sender())
}

/// Plays a seed; gives how many restarts it had. `restarts`: how likely one is in each step, in a hundred.
async fn run(seed: u64, restarts: u32) -> usize {
    let mut world = World::new(seed).await;
    for step in 0..STEPS {
        if restarts > 0 && world.dice.chance(restarts) {
            world.restart();
        }
        if world.dice.chance(12) {
            world.change_network();
        }
        world.happen().await;
        if world.dice.chance(40) {
            tokio::task::yield_now().await;
        }
        if step % 20 == 19 {
            world.hear().await;
        }
    }
    world.come_together().await;
    world.hear().await;
    world.check();
    world.restarts
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays the seeds that are asked for, or so many; gives how many restarts they had.
async fn run_all(seeds: u64, restarts: u32) -> usize {
    let (from, count) = number("MATRON_SEED").map_or((0, number("MATRON_SEEDS").unwrap_or(seeds)), |seed| (seed, 1));
    let mut restarted = 0;
    for seed in from..from + count {
        let began = std::time::Instant::now();
        restarted += run(seed, restarts).await;
        println!("seed {seed}: {} ms", began.elapsed().as_millis());
    }
    restarted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_partition_all_servers_hold_the_same_room() {
    run_all(SEEDS, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_any_partition_with_restarts_all_servers_hold_the_same_room() {
    let restarted = run_all(SEEDS, 8).await;
    println!("{restarted} restarts");
}
