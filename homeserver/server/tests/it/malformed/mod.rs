//! No malformed request makes the server fail: every endpoint of the router is tried with seeded nonsense, by a stranger,
//! by an operator's account in a joined room, and by another homeserver with a good signature.
//!
//! `MATRON_MALFORMED_ROUNDS` tries that many requests at each endpoint instead of a few, `MATRON_MALFORMED_SEED` others,
//! `MATRON_MALFORMED_ONLY` endpoints with that in their name.

mod mutate;
mod world;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;

use self::{
    mutate::{BAD_BODIES, BAD_PARTS, BAD_VALUES, Dice, long_part, places, spoil, without},
    world::{Caller, World},
};
use crate::{
    routes::{Endpoint, endpoints},
    support::Home,
    wire::{Wire, escape, request},
};

/// What a good request to each endpoint looks like; endpoints that are not in it are tried with empty ones.
const SAMPLES: &str = include_str!("samples.json");

/// Query parameters that many endpoints know.
const COMMON_QUERY: &[&str] = &[
    "limit",
    "from",
    "since",
    "filter",
    "timeout",
    "dir",
    "user_id",
    "device_id",
    "via",
    "ts",
    "version",
    "access_token",
];

/// How many requests are tried at each endpoint.
const ROUNDS: usize = 16;

/// How many endpoints are tried at once, each caller with an account of its own.
const CALLERS: usize = 3;

/// A request before its placeholders are filled.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    /// Values of path parameters that are not the usual ones.
    parts: BTreeMap<String, String>,
    /// Query as it is written after `?`.
    query: String,
    body: Option<Vec<u8>>,
    /// The whole `Authorization` header; absent: the caller's own.
    authorization: Option<Option<String>>,
}

#[test]
fn nonsense_makes_no_endpoint_fail() {
    let setting = |name: &str| std::env::var(name).ok();
    let rounds = setting("MATRON_MALFORMED_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let seed = setting("MATRON_MALFORMED_SEED").map_or(1, |seed| seed.parse().unwrap());
    let only = setting("MATRON_MALFORMED_ONLY").unwrap_or_default();
    let mut endpoints = endpoints();
    // `r0` leads to the same handlers as `v3`.
    endpoints.retain(|endpoint| !endpoint.path.contains("/r0/") && endpoint.name().contains(&only));
    let samples: BTreeMap<String, Value> = serde_json::from_str(SAMPLES).unwrap();

    let mut world = World::start(CALLERS);
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for number in 0..CALLERS {
            let (world, next, faults, endpoints, samples) = (&world, &next, &faults, &endpoints, &samples);
            scope.spawn(move || {
                let mut caller = Caller::new(world, number);
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(endpoint) = endpoints.get(index) else { break };
                    let sample = sample_of(samples, endpoint);
                    let dice = Dice::new(seed ^ (u64::try_from(index).unwrap() << 20));
                    let found = attack(&mut caller, endpoint, &sample, dice, rounds);
                    faults.lock().unwrap().extend(found);
                }
            });
        }
    });
    let mut faults = faults.into_inner().unwrap();
    faults.extend(world.last_faults());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n\n"));
}

#[test]
fn account_data_that_nobody_can_read_is_refused_and_syncs_go_on() {
    let home = Home::new();
    let mut server = home.start();
    let token = server.register("amira", "a long password");
    let room = escape(&server.create_room(&token));
    let mut wire = Wire::new(&server.address);
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for content in [r#"{"a": 1e400}"#, r#"{"a": "\ud800"}"#, r#"{"\udc00": 1}"#, deep.as_str()] {
        for place in ["", &format!("/rooms/{room}")] {
            let path = format!("/_matrix/client/v3/user/%40amira%3Amatron.test{place}/account_data/x.y");
            let bearer = format!("Bearer {token}");
            let answer = wire.exchange(&request("PUT", &path, Some(&bearer), Some(content.as_bytes()))).unwrap();
            assert_eq!((answer.status, answer.fault()), (400, None), "{content:.40}");
        }
    }
    for path in ["/_matrix/client/v3/sync?timeout=0", "/_matrix/client/v3/initialSync"] {
        assert_eq!(server.get(path, Some(&token)).status, 200, "{path}");
    }
    server.stop();
    let log = server.rest_of_log();
    assert!(!log.contains("panicked"), "{log}");
}

#[derive(Clone, Debug, Default)]
struct Sample {
    query: BTreeMap<String, String>,
    body: Option<Value>,
}

/// The sample of an endpoint, whatever the version in its path.
fn sample_of(samples: &BTreeMap<String, Value>, endpoint: &Endpoint) -> Sample {
    let short = endpoint.path.trim_start_matches("/_matrix/").trim_start_matches("/_matron/");
    let mut rest = short;
    while let Some((_, tail)) = rest.split_once('/') {
        let name = format!("{} /{tail}", endpoint.method);
        if let Some(sample) = samples.get(&name) {
            let query = sample["query"].as_object().cloned().unwrap_or_default();
            let text = |value: Value| value.as_str().unwrap().to_owned();
            let query = query.into_iter().map(|(key, value)| (key, text(value))).collect();
            return Sample { query, body: sample.get("body").cloned() };
        }
        rest = tail;
    }
    let body = (endpoint.method != "GET").then(|| Value::Object(serde_json::Map::new()));
    Sample { query: BTreeMap::new(), body }
}

/// Tries the endpoint; gives what was wrong.
fn attack(caller: &mut Caller<'_>, endpoint: &Endpoint, sample: &Sample, mut dice: Dice, rounds: usize) -> Vec<String> {
    caller.prepare();
    let mut faults = Vec::new();
    for round in 0..rounds {
        let sample = caller.fill(sample, endpoint);
        let mut draft = Draft {
            query: query_text(&sample.query),
            body: sample.body.as_ref().map(|body| body.to_string().into_bytes()),
            ..Draft::default()
        };
        if round > 0 {
            spoil_one(&mut draft, endpoint, &sample, &mut dice);
        }
        if let Some(fault) = caller.attempt(endpoint, &draft) {
            faults.push(fault);
            if faults.len() >= 5 {
                break;
            }
        }
    }
    faults.extend(caller.check(endpoint));
    faults
}

/// Spoils one thing of the request, sometimes two.
fn spoil_one(draft: &mut Draft, endpoint: &Endpoint, sample: &Sample, dice: &mut Dice) {
    let parameters: Vec<&str> =
        endpoint.path.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name).collect();
    match dice.below(10) {
        0 => draft.authorization = Some(bad_authorization(dice)),
        1 | 2 if !parameters.is_empty() => {
            let bad = if dice.below(30) == 0 { long_part() } else { (*dice.pick(BAD_PARTS)).to_owned() };
            draft.parts.insert((*dice.pick(&parameters)).to_owned(), bad);
        }
        3 | 4 => spoil_query(draft, sample, dice),
        5 if sample.body.is_some() => draft.body = Some(dice.pick::<Vec<u8>>(&BAD_BODIES).clone()),
        _ => match &sample.body {
            Some(body) => {
                let place = dice.below(places(body));
                let text = if dice.below(8) == 0 {
                    without(body, place)
                } else {
                    spoil(body, place, dice.pick::<String>(&BAD_VALUES))
                };
                draft.body = Some(text.into_bytes());
                if dice.below(6) == 0 {
                    spoil_one(draft, endpoint, &Sample { body: None, ..sample.clone() }, dice);
                }
            }
            None => spoil_query(draft, sample, dice),
        },
    }
}

fn spoil_query(draft: &mut Draft, sample: &Sample, dice: &mut Dice) {
    let mut names: Vec<&str> = sample.query.keys().map(String::as_str).collect();
    if names.is_empty() || dice.below(3) == 0 {
        names = COMMON_QUERY.to_vec();
    }
    let name = *dice.pick(&names);
    let bad = if dice.below(30) == 0 { long_part() } else { (*dice.pick(BAD_PARTS)).to_owned() };
    let mut query = sample.query.clone();
    query.remove(name);
    let rest = query_text(&query);
    draft.query = match dice.below(8) {
        // Left out, twice, without a value, or in a query that is none.
        0 => rest,
        1 => format!("{rest}&{name}=1&{name}={bad}"),
        2 => format!("{rest}&{name}"),
        3 => format!("%ff=%00&&&=&?{bad}#"),
        _ => format!("{rest}&{name}={bad}"),
    };
    draft.query = draft.query.trim_start_matches('&').replace(['#', ' '], "");
}

fn query_text(query: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    pairs.join("&")
}

fn bad_authorization(dice: &mut Dice) -> Option<String> {
    let long = format!("Bearer {}", "x".repeat(20_000));
    let choices = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some("Bearer \u{e9}\u{e9}".to_owned()),
        Some("Bearer nonsense".to_owned()),
        Some("Bearer a b c".to_owned()),
        Some("Basic dXNlcjpwYXNz".to_owned()),
        Some(long),
        Some("X-Matrix".to_owned()),
        Some("X-Matrix ".to_owned()),
        Some("X-Matrix origin=".to_owned()),
        Some("X-Matrix origin=\"peer.test\",key=\"ed25519:p\",sig=\"AAAA\"".to_owned()),
        Some("X-Matrix origin=\"\",key=\"\",sig=\"\"".to_owned()),
        Some("X-Matrix origin=\"a b\",key=\"ed25519:\",sig=\"%%%\",destination=\"\\\"".to_owned()),
        Some("X-Matrix origin=\"matron.test\",destination=\"matron.test\",key=\"ed25519:1\",sig=\"AAAA\"".to_owned()),
        Some(format!("X-Matrix {}", "a=b,".repeat(3_000))),
    ];
    dice.pick(&choices).clone()
}
