//! Sync is exact: whatever is done at once, in whatever order, and over restarts, no token loses, repeats or reorders an
//! event, for `/sync` and sliding sync alike.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use matron_storage::EngineKind;
use serde_json::{Value, json};

use super::{Client, Server, enc, ids, list, stream::current_state};

/// A small generator, so that a seed names a run.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides).unwrap()).unwrap()
    }

    /// Another generator.
    fn split(&mut self) -> Self {
        self.roll(2);
        Self(self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
}

/// What a client holds of the rooms.
#[derive(Clone, Default)]
struct Held {
    timelines: BTreeMap<String, Vec<String>>,
    states: BTreeMap<String, BTreeMap<(String, String), String>>,
}

impl Held {
    fn apply(&mut self, room: &str, event: &Value) {
        if let Some(key) = event["state_key"].as_str() {
            let text = |field: &str| event[field].as_str().unwrap().to_owned();
            self.states.entry(room.to_owned()).or_default().insert((text("type"), key.to_owned()), text("event_id"));
        }
    }

    fn knows(&self, room: &str, id: &str) -> bool {
        self.timelines.get(room).is_some_and(|known| known.iter().any(|known| known == id))
    }

    /// Reads backwards from `prev_batch` until what the client holds, or the beginning.
    async fn fill(&self, client: &Client, room: &str, prev_batch: Option<&str>) -> Vec<String> {
        let mut found = Vec::new();
        let Some(mut from) = prev_batch.map(ToOwned::to_owned) else { return found };
        'pages: loop {
            let page = client.get(&format!("/rooms/{}/messages?dir=b&limit=7&from={from}", enc(room))).await;
            for id in ids(list(&page, "/chunk")) {
                if self.knows(room, &id) {
                    break 'pages;
                }
                found.push(id);
            }
            match page["end"].as_str() {
                Some(end) => end.clone_into(&mut from),
                None => break,
            }
        }
        found.reverse();
        found
    }
}

/// Now and then a client waits, and is woken by what happens.
fn wait_ms(dice: &mut Dice) -> u32 {
    if dice.roll(3) == 0 { 20 } else { 0 }
}

/// A client of `/sync`.
struct Syncer {
    client: Client,
    since: Option<String>,
    limit: usize,
    held: Held,
}

impl Syncer {
    async fn step(&mut self, dice: &mut Dice) {
        let filter = json!({"room": {"timeline": {"limit": self.limit}}});
        let since = self.since.as_ref().map(|since| format!("&since={since}")).unwrap_or_default();
        let filter = enc(&filter.to_string());
        let answer = self.client.get(&format!("/sync?timeout={}&filter={filter}{since}", wait_ms(dice))).await;
        if dice.roll(6) == 0 {
            // The answer was lost on its way; the client asks again from the same token.
            return;
        }
        for room in answer["rooms"]["leave"].as_object().into_iter().flat_map(|rooms| rooms.keys()) {
            // A client that is in again starts the room over.
            self.held.timelines.remove(room);
            self.held.states.remove(room);
        }
        for (room, told) in answer["rooms"]["join"].as_object().cloned().unwrap_or_default() {
            for event in list(&told, "/state/events") {
                self.held.apply(&room, event);
            }
            if told["timeline"]["limited"] == json!(true) {
                let prev = told["timeline"]["prev_batch"].as_str();
                let gap = self.held.fill(&self.client, &room, prev).await;
                self.held.timelines.entry(room.clone()).or_default().extend(gap);
            }
            for event in list(&told, "/timeline/events") {
                let id = event["event_id"].as_str().unwrap();
                assert!(!self.held.knows(&room, id), "{id} was told twice");
                self.held.timelines.entry(room.clone()).or_default().push(id.to_owned());
                self.held.apply(&room, event);
            }
        }
        self.since = Some(answer["next_batch"].as_str().unwrap().to_owned());
    }
}

/// A client of sliding sync.
struct Slider {
    client: Client,
    pos: Option<String>,
    limit: usize,
    held: Held,
}

impl Slider {
    async fn step(&mut self, dice: &mut Dice, last: bool) {
        const PATH: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout=";
        let to = if last { 99 } else { dice.roll(4) };
        let list_of = json!({"ranges": [[0, to]], "timeline_limit": self.limit, "required_state": [["*", "*"]]});
        let pos = self.pos.as_ref().map(|pos| format!("&pos={pos}")).unwrap_or_default();
        let body = json!({"lists": {"all": list_of}});
        let wait_ms = if last { 0 } else { wait_ms(dice) };
        let (status, answer) = self.client.ask(Method::POST, &format!("{PATH}{wait_ms}{pos}"), Some(body)).await;
        if status != StatusCode::OK {
            assert_eq!(answer["errcode"], "M_UNKNOWN_POS", "{answer}");
            self.pos = None;
            return;
        }
        if !last && dice.roll(6) == 0 {
            return;
        }
        for (room, told) in answer["rooms"].as_object().cloned().unwrap_or_default() {
            if told["initial"] == json!(true) {
                self.held.timelines.remove(&room);
                self.held.states.remove(&room);
            }
            for event in list(&told, "/required_state") {
                self.held.apply(&room, event);
            }
            let events = list(&told, "/timeline");
            let left = list(&told, "/required_state").iter().any(|event| {
                event["state_key"] == json!(self.client.user) && event["content"]["membership"] != json!("join")
            });
            if left {
                self.held.timelines.remove(&room);
                self.held.states.remove(&room);
                continue;
            }
            if told["limited"] == json!(true) {
                let gap = self.held.fill(&self.client, &room, told["prev_batch"].as_str()).await;
                self.held.timelines.entry(room.clone()).or_default().extend(gap);
            }
            for id in ids(events) {
                assert!(!self.held.knows(&room, &id), "{id} was told twice");
                self.held.timelines.entry(room.clone()).or_default().push(id);
            }
        }
        self.pos = Some(answer["pos"].as_str().unwrap().to_owned());
    }
}

/// Says, sets, redacts, leaves and comes back, as the dice fall.
async fn act(client: Client, rooms: Vec<String>, mut dice: Dice, turns: usize) {
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    for room in &rooms {
        // Whoever was cut off may be outside.
        client.join(room).await;
    }
    for turn in 0..turns {
        let room = &rooms[dice.roll(rooms.len())];
        match dice.roll(10) {
            0 | 1 => {
                client.state(room, "x.turn", &client.user, json!({"turn": turn})).await;
            }
            2 if said.contains_key(room) => {
                let id = said.remove(room).unwrap();
                client.ok(Method::POST, &format!("/rooms/{}/redact/{}", enc(room), enc(&id)), json!({})).await;
            }
            3 => {
                client.leave(room).await;
                client.join(room).await;
            }
            _ => {
                said.insert(room.clone(), client.say(room, &format!("{turn}")).await);
            }
        }
    }
}

async fn run(seed: u64, engine: EngineKind) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut server = Server::start_on(engine);
    let mut syncer =
        Syncer { client: server.user("syncer").await, since: None, limit: 1 + dice.roll(5), held: Held::default() };
    let mut slider =
        Slider { client: server.user("slider").await, pos: None, limit: 1 + dice.roll(5), held: Held::default() };
    let open = json!({"preset": "public_chat", "power_level_content_override": {"state_default": 0}});
    let mut actors = Vec::new();
    for name in ["one", "two", "three"] {
        actors.push(server.user(name).await);
    }
    let mut rooms = Vec::new();
    for _ in 0..4 {
        let room = actors[0].create(open.clone()).await;
        for client in actors[1..].iter().chain([&syncer.client, &slider.client]) {
            client.join(&room).await;
        }
        rooms.push(room);
    }
    for phase in 0..3 {
        let tasks: Vec<_> =
            actors.iter().map(|actor| tokio::spawn(act(actor.clone(), rooms.clone(), dice.split(), 12))).collect();
        // Clients hang up in the middle of what they do, and the server is closed over it.
        let mut cut = if dice.roll(2) == 0 { 3 + dice.roll(20) } else { usize::MAX };
        while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
            cut = cut.saturating_sub(1);
            if cut == 0 {
                tasks.iter().for_each(tokio::task::JoinHandle::abort);
            }
            syncer.step(&mut dice).await;
            slider.step(&mut dice, false).await;
            match dice.roll(8) {
                0 => {
                    let room = &rooms[dice.roll(rooms.len())];
                    syncer.client.leave(room).await;
                    slider.client.leave(room).await;
                    if dice.roll(2) == 0 {
                        syncer.step(&mut dice).await;
                        slider.step(&mut dice, false).await;
                    }
                    syncer.client.join(room).await;
                    slider.client.join(room).await;
                }
                1 => tokio::task::yield_now().await,
                _ => {}
            }
        }
        for task in tasks {
            task.await.or_else(|ended| if ended.is_cancelled() { Ok(()) } else { Err(ended) }).unwrap();
        }
        if phase < 2 && engine != EngineKind::Memory {
            server.restart(actors.iter_mut().chain([&mut syncer.client, &mut slider.client])).await;
        }
    }
    for room in &rooms {
        actors[0].join(room).await;
    }
    for _ in 0..8 {
        syncer.step(&mut dice).await;
        slider.step(&mut dice, true).await;
    }
    for room in &rooms {
        let whole = ids(&actors[0].history(room, 1000).await);
        let state = current_state(&actors[0], room).await;
        assert_eq!(syncer.held.timelines[room], whole, "sync, seed {seed}");
        assert_eq!(syncer.held.states[room], state, "sync, seed {seed}");
        assert_eq!(slider.held.timelines[room], whole, "sliding sync, seed {seed}");
        assert_eq!(slider.held.states[room], state, "sliding sync, seed {seed}");
    }
}

/// As many seeds as `MATRON_EXACT_SEEDS` says, for long runs, from `first` on.
fn seeds(first: u64, count: u64) -> std::ops::Range<u64> {
    let wanted = std::env::var("MATRON_EXACT_SEEDS").ok().and_then(|text| text.parse().ok());
    first..first + wanted.unwrap_or(count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_token_loses_repeats_or_reorders_an_event_whatever_happens_at_once() {
    for seed in seeds(1, 8) {
        run(seed, EngineKind::Memory).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_token_loses_repeats_or_reorders_an_event_over_restarts() {
    for seed in seeds(10_000, 3) {
        run(seed, EngineKind::Sqlite).await;
    }
}
