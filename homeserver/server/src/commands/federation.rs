//! `matron federation status|retry|probe`.

use http::Method;
use matron_core::ports::span;
use serde_json::Value;

use super::{ask, say, segment, text};
use crate::{cli::FederationCommand, config::Config, failure::Failure};

/// # Errors
/// [`Failure`] when the server refuses, or when a probe finds something wrong.
pub(super) fn run(command: FederationCommand, config: &Config) -> Result<(), Failure> {
    match command {
        FederationCommand::Status { server } => {
            let path =
                server.map_or_else(|| "/federation".to_owned(), |server| format!("/federation/{}", segment(&server)));
            status(&ask(config, Method::GET, &path, None)?);
            Ok(())
        }
        FederationCommand::Retry { server } => {
            ask(config, Method::POST, &format!("/federation/{}/retry", segment(&server)), None)?;
            say(format!("{server} is tried now; `matron federation status {server}` shows what became of it"));
            Ok(())
        }
        FederationCommand::Probe { server } => {
            let answer = ask(config, Method::POST, &format!("/federation/{}/probe", segment(&server)), None)?;
            probe(&answer)
        }
    }
}

fn status(answer: &Value) {
    let now_ms = number(answer, "now_ms");
    let servers = answer.get("servers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if servers.is_empty() {
        say("Nothing was sent to another server yet.");
    }
    for server in servers {
        let name = text(server, "server");
        let queue = match number(server, "queue") {
            0 => "nothing waits".to_owned(),
            count => format!("{count} waiting"),
        };
        let success = match number(server, "last_success_ms") {
            0 => "never reached so far".to_owned(),
            at_ms => format!("last reached {} ago", span(now_ms.saturating_sub(at_ms))),
        };
        let kept_out = server.get("allowed").and_then(Value::as_bool) == Some(false);
        let failures = number(server, "failures");
        let state = match (kept_out, failures) {
            (true, _) => "kept out by policy",
            (false, 0) => "well",
            (false, _) => "DOWN",
        };
        say(format!("{name}  {state}: {queue}, {success}"));
        if failures > 0 {
            let since = span(now_ms.saturating_sub(number(server, "failing_since_ms")));
            let next = match number(server, "waiting_until_ms").saturating_sub(now_ms) {
                0 => "tried again now".to_owned(),
                wait_ms => format!("tried again in {}", span(wait_ms)),
            };
            let times = if failures == 1 { "once".to_owned() } else { format!("{failures} times in a row") };
            say(format!("    failing for {since}, {times}, {next}: {}", text(server, "reason")));
        }
        if let Some(refused) = server.get("refused").filter(|refused| refused.is_object()) {
            let ago = span(now_ms.saturating_sub(number(refused, "at_ms")));
            say(format!("    refused an event {ago} ago: {}", text(refused, "reason")));
        }
    }
}

fn probe(answer: &Value) -> Result<(), Failure> {
    let mut bad = 0_usize;
    for finding in answer.get("findings").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
        let mark = match text(finding, "grade") {
            "good" => "good",
            "note" => "note",
            _ => {
                bad = bad.saturating_add(1);
                "BAD "
            }
        };
        say(format!("{mark}  {:<14} {}", text(finding, "what"), text(finding, "sentence")));
    }
    match bad {
        0 => Ok(()),
        1 => Err(Failure::CheckFailed("1 thing is wrong".to_owned())),
        count => Err(Failure::CheckFailed(format!("{count} things are wrong"))),
    }
}

fn number(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or_default()
}
