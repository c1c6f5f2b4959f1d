//! The way to one server, looked at step by step, for whoever must find out what is wrong.

use std::time::{Duration, UNIX_EPOCH};

use http::{Method, header::DATE, uri::PathAndQuery};
use matron_core::ports::{Finding, Grade, PeerError, span};
use ruma::ServerName;

use crate::{
    NetFederation,
    dial::{Host, Place, Route},
    discovery::{by_service, direct},
    exchange::Outgoing,
    well_known::{look, may_delegate},
};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// A clock that is wrong by more is bad: signatures, keys and lifetimes depend on it, ms.
const WRONG_CLOCK_MS: u64 = 60_000;
/// A clock that is wrong by more is worth a note, ms.
const UNEVEN_CLOCK_MS: u64 = 5_000;

impl NetFederation {
    /// All that was found on the way, up to the first step that cannot be taken.
    pub(crate) async fn examine(&self, server: &ServerName) -> Vec<Finding> {
        let mut found = Vec::new();
        let Some(route) = self.examine_name(server, &mut found).await else { return found };
        if self.examine_addresses(&route, &mut found).await && self.examine_connection(&route, &mut found).await {
            self.examine_answer(server, &route, &mut found).await;
        }
        found
    }

    /// Where the name leads, as the specification has it.
    async fn examine_name(&self, server: &ServerName, found: &mut Vec<Finding>) -> Option<Route> {
        let mut say = |grade, what, sentence: String| found.push(Finding::new(grade, what, sentence));
        if let Some(place) = self.discovery.configured_place(server) {
            say(
                Grade::Note,
                "address",
                format!("`federation.addresses` sends it to {}; no DNS is asked", text_of(place)),
            );
            return self.discovery.find_route(&self.exchanger, server).await.ok();
        }
        let mut name = server.to_owned();
        if may_delegate(server) {
            match look(&self.exchanger, server.host()).await {
                Ok(Some(delegated)) => {
                    say(Grade::Good, "well-known", format!("https://{server} sends other servers to {delegated}"));
                    name = delegated;
                }
                Ok(None) => say(Grade::Note, "well-known", format!("https://{server} sends nobody elsewhere")),
                Err(error) => say(
                    Grade::Note,
                    "well-known",
                    format!(
                        "https://{server}/.well-known/matrix/server gives no answer ({error}); the name itself is tried"
                    ),
                ),
            }
        }
        let route = match direct(&name) {
            Ok(Some(route)) => Ok(route),
            Ok(None) => by_service(&self.exchanger, name.host()).await,
            Err(error) => Err(error),
        };
        match route {
            Ok(route) => {
                let places: Vec<String> = route.places.iter().map(text_of).collect();
                say(Grade::Good, "address", format!("the name leads to {}", places.join(", ")));
                Some(route)
            }
            Err(error) => {
                say(Grade::Bad, "address", error.to_string());
                None
            }
        }
    }

    /// Whether at least one place has an address that may be reached.
    async fn examine_addresses(&self, route: &Route, found: &mut Vec<Finding>) -> bool {
        let mut reachable = false;
        for place in &route.places {
            let addresses = match &place.host {
                Host::Address(address) => vec![*address],
                Host::Name(name) => match self.exchanger.dialer.network.addresses(name).await {
                    Ok(addresses) if addresses.is_empty() => {
                        found.push(Finding::new(Grade::Bad, "DNS", format!("{name} has no address")));
                        continue;
                    }
                    Ok(addresses) => {
                        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                        found.push(Finding::new(Grade::Good, "DNS", format!("{name} is at {}", list.join(", "))));
                        addresses
                    }
                    Err(error) => {
                        let sentence = format!("{name} cannot be looked up: {error}");
                        found.push(Finding::new(Grade::Bad, "DNS", sentence));
                        continue;
                    }
                },
            };
            let allowed =
                route.trusted || addresses.iter().any(|address| self.exchanger.dialer.guard.check(*address).is_ok());
            if !allowed {
                let sentence = format!(
                    "{} has only private addresses, which are refused unless `federation.allow_ip_ranges` names them",
                    text_of(place)
                );
                found.push(Finding::new(Grade::Bad, "address", sentence));
            }
            reachable |= allowed;
        }
        reachable
    }

    /// Whether a connection stands, its certificate verified.
    async fn examine_connection(&self, route: &Route, found: &mut Vec<Finding>) -> bool {
        match tokio::time::timeout(PATIENCE, self.exchanger.dialer.dial(route)).await {
            Ok(Ok(_stream)) => {
                found.push(Finding::new(Grade::Good, "TLS", "it answers, and its certificate is good"));
                true
            }
            Ok(Err(error)) => {
                let said = match error {
                    PeerError::Resolve(said) | PeerError::Connect(said) => said,
                    other => other.to_string(),
                };
                found.push(match said.strip_prefix("TLS: ") {
                    Some(said) => Finding::new(Grade::Bad, "TLS", said),
                    None => Finding::new(Grade::Bad, "connection", said),
                });
                false
            }
            Err(_elapsed) => {
                found.push(Finding::new(Grade::Bad, "connection", "nobody accepts a connection in time"));
                false
            }
        }
    }

    /// Whether a homeserver answers there, and what its clock says.
    async fn examine_answer(&self, server: &ServerName, route: &Route, found: &mut Vec<Finding>) {
        let outgoing = Outgoing {
            method: Method::GET,
            target: PathAndQuery::from_static("/_matrix/federation/v1/version"),
            authorization: None,
            content_type: crate::exchange::JSON,
            body: None,
            timeout: PATIENCE.min(self.longest),
            max_bytes: 64 * 1024,
        };
        let before_ms = self.clock.now_ms();
        let answer = match self.exchanger.exchange(&format!("probe {server}"), route, &outgoing).await {
            Ok(answer) => answer,
            Err(error) => return found.push(Finding::new(Grade::Bad, "answer", error.to_string())),
        };
        let version: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let software = |field: &str| {
            let text = version.pointer(&format!("/server/{field}"))?.as_str()?;
            Some(text.chars().filter(|c| !c.is_control()).take(60).collect::<String>())
        };
        found.push(match (answer.status, software("name")) {
            (200, Some(name)) => {
                let version = software("version").unwrap_or_default();
                Finding::new(Grade::Good, "answer", format!("a homeserver answers: {name} {version}"))
            }
            (200, None) => Finding::new(Grade::Note, "answer", "something answers, and does not say what it is"),
            (status, _) => Finding::new(
                Grade::Bad,
                "answer",
                format!("what answers there is no homeserver, or none that federates: HTTP status {status}"),
            ),
        });
        let date = answer.headers.get(DATE).and_then(|date| date.to_str().ok());
        let theirs_ms = date
            .and_then(|date| httpdate::parse_http_date(date).ok())
            .and_then(|date| date.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| u64::try_from(since.as_millis()).ok());
        if let Some(theirs_ms) = theirs_ms {
            found.push(clock(theirs_ms, before_ms, self.clock.now_ms()));
        }
    }
}

/// What a `Date` says that was written between two moments of our own; it knows only whole seconds.
fn clock(theirs_ms: u64, before_ms: u64, after_ms: u64) -> Finding {
    let ahead_ms = theirs_ms.saturating_sub(after_ms);
    let behind_ms = before_ms.saturating_sub(theirs_ms.saturating_add(1_000));
    let off_ms = ahead_ms.max(behind_ms);
    let word = if ahead_ms > behind_ms { "ahead of" } else { "behind" };
    if off_ms <= UNEVEN_CLOCK_MS {
        return Finding::new(Grade::Good, "clock", "its clock and ours agree");
    }
    let grade = if off_ms > WRONG_CLOCK_MS { Grade::Bad } else { Grade::Note };
    let sentence = format!("its clock is {} {word} ours: one of the two is wrong", span(off_ms));
    Finding::new(grade, "clock", sentence)
}

fn text_of(place: &Place) -> String {
    match &place.host {
        Host::Address(address) => std::net::SocketAddr::new(*address, place.port).to_string(),
        Host::Name(name) => format!("{name}:{}", place.port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_agree_within_seconds_and_are_named_when_they_do_not() {
        assert_eq!(clock(1_000_000, 1_000_400, 1_000_900).grade, Grade::Good);
        assert_eq!(clock(1_010_000, 1_000_000, 1_000_100).grade, Grade::Note);
        let late = clock(1_000_000, 1_400_000, 1_400_100);
        assert!(late.grade == Grade::Bad && late.sentence.contains("behind"), "{late:?}");
    }
}
