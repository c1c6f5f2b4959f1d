//! The load generator against real servers, in sizes that say nothing of their speed: every measure runs, nothing is
//! lost on the way, and every figure that `docs/bench/run.py` prints is among those that are measured.

use std::collections::BTreeMap;

use clap::Parser as _;
use matron_load::{Options, run};
use serde_json::Value;

use crate::federation::Trust;
use crate::support::{Home, Server};

/// The figures of one call; `options` are those after the server's.
fn measured(server: &Server, options: &str) -> Value {
    let line = format!("matron-load --url http://{} --pid {} --tail-ms 0 {options}", server.address, server.id());
    let options = Options::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(run(&options)).unwrap_or_else(|error| panic!("{line}: {}", error.with_causes()));
    assert_eq!(report.json["http_429"], 0, "{line}: {}", report.json);
    report.json["result"].clone()
}

/// The figures that the table of `docs/bench/run.py` has: the step and the path in its result.
fn wanted() -> Vec<(String, String)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/bench/run.py");
    let script = std::fs::read_to_string(script).unwrap();
    let (_, figures) = script.split_once("\nFIGURES = [\n").unwrap();
    let (figures, _) = figures.split_once("\n]").unwrap();
    // Of what stands between quotation marks, every first is a step, every second a heading, every third a path.
    let strings: Vec<&str> = figures.split('"').skip(1).step_by(2).collect();
    let (rows, rest) = strings.as_chunks::<3>();
    assert!(rows.len() > 20 && rest.is_empty(), "{strings:?}");
    rows.iter().map(|[step, _, path]| ((*step).to_owned(), (*path).to_owned())).collect()
}

/// The steps whose figures are in `results` have all that the table wants of them.
fn check(results: &BTreeMap<&str, Value>) {
    for (step, path) in wanted() {
        let Some(result) = results.get(step.as_str()) else { continue };
        let figure = path.split('.').try_fold(result, |value, part| value.get(part));
        assert!(figure.is_some_and(Value::is_number), "{step} has no {path}: {result}");
    }
}

#[test]
fn every_measure_of_one_server_finds_its_figures() {
    let home = Home::new();
    let server = home.start();
    let cache = home.path().join("load.json");
    let results: BTreeMap<&str, Value> = [
        ("register", "register --users 2 --logins 2"),
        ("send", "send --users 4 --senders 2 --messages 10"),
        ("send-50rooms", "send --users 4 --senders 2 --messages 10 --rooms 3 --members 2"),
        // A timeline of one event, so that receivers page back for the others of the burst.
        ("fanout", "--timeline-limit 1 fanout --users 3 --messages 3 --rate 20 --burst 10"),
        ("initial-sync", "initial-sync --rooms 3 --messages 3 --members 1 --repeat 2"),
        ("messages", "messages --events 30 --limit 10 --repeat 2 --senders 2"),
        ("join-local", "join-local --users 6 --group 2"),
        ("mem", "mem --messages 5 --users 2 --senders 2 --settle-s 1"),
        ("polls", "polls --polls 20 --users 2 --idle-s 1"),
    ]
    .into_iter()
    .map(|(step, options)| (step, measured(&server, &format!("--cache {} {options}", cache.display()))))
    .collect();
    check(&results);
    for step in ["send", "send-50rooms", "join-local", "mem"] {
        assert_eq!(results[step]["errors"], 0, "{step}: {}", results[step]);
    }
    for phase in ["paced", "burst"] {
        let phase = &results["fanout"][phase];
        assert!(phase["missing"] == 0 && phase["first_error"].is_null(), "{phase}");
    }
    assert_eq!(results["initial-sync"]["sync"]["rooms"], 3);
    assert_eq!(results["initial-sync"]["sliding_all_timeline10"]["rooms"], 3);
    // The messages, and what the room was created of.
    assert!(results["messages"]["passes"][1]["events"].as_u64() > Some(30), "{}", results["messages"]);
    assert_eq!(results["join-local"]["joined_members_after"], 7);
}

#[test]
fn a_federated_join_is_measured_several_times_over() {
    let (north, south) = (Trust::new("north.test"), Trust::new("south.test"));
    let (north, south) = (north.start(&[&south]), south.start(&[&north]));
    let options = format!(
        "--url-b http://{} --pid-b {} federate --members 3 --state-events 4 --joins 2 --messages 6 --paced 2 --rate 20",
        south.address,
        south.id(),
    );
    let result = measured(&north, &options);
    for phase in ["paced", "burst"] {
        let phase = &result[phase];
        assert!(phase["missing"] == 0 && phase["first_error"].is_null(), "{phase}");
    }
    assert_eq!(result["joins"]["n"], 2);
    assert_eq!(result["joins"]["cpu"]["server_b_cpu_ms"]["n"], 2);
    check(&BTreeMap::from([("federate", result.clone()), ("big-room", result)]));
}
