//! What one phase of a measure cost: the servers' CPU time, the generator's own, and what others took of the machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::figures::rounded;
use crate::process::{CpuWatch, Processes, machine_busy_s};

/// In less than this the ticks in which the machine's time is counted say nothing of what others took.
const SHORTEST_S: f64 = 0.5;

/// A phase that is being measured.
pub(crate) struct Meter {
    servers: Vec<(&'static str, CpuWatch)>,
    own: CpuWatch,
    busy_at_start_s: f64,
    began: Instant,
}

impl Meter {
    /// The phase begins now. Servers of whose processes none was named are left out.
    pub(crate) fn start(servers: &[(&'static str, &Processes)]) -> Self {
        Self::start_with(servers, CpuWatch::start)
    }

    /// The same for a phase whose parts are measured themselves, and are not disturbed by it.
    pub(crate) fn start_around(servers: &[(&'static str, &Processes)]) -> Self {
        Self::start_with(servers, CpuWatch::start_unread)
    }

    fn start_with(servers: &[(&'static str, &Processes)], watch: fn(&Processes) -> CpuWatch) -> Self {
        let named = servers.iter().filter(|(_, processes)| processes.any());
        Self {
            // To find a server's processes takes the generator a while, which is not part of the phase.
            servers: named.map(|(name, processes)| (*name, watch(processes))).collect(),
            own: watch(&Processes::own()),
            busy_at_start_s: machine_busy_s(),
            began: Instant::now(),
        }
    }

    /// The phase is over; what it cost, and each of the `operations` that succeeded. The servers are watched for `tail`
    /// longer, so that what they put off counts too.
    ///
    /// `foreign_cores` is what everything else on the machine took meanwhile: above about 0.2, distrust the times. A short
    /// phase has none.
    pub(crate) async fn stop(self, operations: usize, tail: Duration) -> Cost {
        // At one point, and before the generator looks for the servers' processes.
        let wall_s = self.began.elapsed().as_secs_f64();
        let busy_s = machine_busy_s() - self.busy_at_start_s;
        let own_s = self.own.used().seconds;
        let mut figures = BTreeMap::new();
        figures.insert("phase_wall_s".to_owned(), wall_s);
        figures.insert("generator_cpu_s".to_owned(), own_s);
        if self.servers.is_empty() {
            return Cost { figures, clock: None };
        }
        let servers_s: f64 = self.servers.iter().map(|(_, watch)| watch.used().seconds).sum();
        let foreign = foreign_cores(busy_s, own_s + servers_s, wall_s);
        figures.extend(foreign.map(|cores| ("foreign_cores".to_owned(), cores)));

        tokio::time::sleep(tail).await;
        let used: Vec<_> = self.servers.iter().map(|(name, watch)| (*name, watch.used())).collect();
        let mut all = used.clone();
        if let [(_, a), (_, b)] = used.as_slice() {
            all.push(("server", a.plus(*b)));
        }
        for (name, used) in all {
            figures.insert(format!("{name}_cpu_s"), used.seconds);
            if operations > 0 {
                figures.insert(format!("{name}_cpu_ms_per_op"), used.seconds * 1000.0 / operations as f64);
            }
        }
        let clock = if used.iter().all(|(_, used)| used.fine) { "schedstat" } else { "ticks" };
        Cost { figures, clock: Some(clock) }
    }
}

/// The processors that others kept busy in a phase of `wall_s`; none where it was too short to tell.
fn foreign_cores(busy_s: f64, known_s: f64, wall_s: f64) -> Option<f64> {
    (wall_s >= SHORTEST_S).then(|| (busy_s - known_s).max(0.0) / wall_s)
}

/// What a phase cost.
#[derive(Debug, Clone)]
pub(crate) struct Cost {
    figures: BTreeMap<String, f64>,
    clock: Option<&'static str>,
}

impl Cost {
    /// A figure as it was read, or none where no process was named or nothing succeeded.
    pub(crate) fn get(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure).copied()
    }

    /// What others took of the machine, as it is reported.
    pub(crate) fn foreign_cores(&self) -> Option<f64> {
        self.get("foreign_cores").map(rounded)
    }

    /// The servers' CPU time for each operation, for a person.
    pub(crate) fn each(&self) -> String {
        self.get("server_cpu_ms_per_op").map_or_else(|| "?".to_owned(), |each_ms| format!("{each_ms:.3}"))
    }

    /// All figures, and the clock by which the servers were measured.
    pub(crate) fn json(self) -> Value {
        let mut json: Map<_, _> =
            self.figures.into_iter().map(|(figure, value)| (figure, json!(rounded(value)))).collect();
        json.extend(self.clock.map(|clock| ("clock".to_owned(), json!(clock))));
        Value::Object(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_servers_are_measured_apart_and_together() {
        let own = Processes::own();
        let cost = Meter::start(&[("server_a", &own), ("server_b", &own)]).stop(2, Duration::ZERO).await;
        for name in ["server_a", "server_b", "server"] {
            assert!(cost.get(&format!("{name}_cpu_ms_per_op")).is_some(), "{name}: {cost:?}");
        }
    }

    #[tokio::test]
    async fn without_a_process_there_is_no_figure_of_a_server() {
        let nobody = Processes::new(&[]).unwrap();
        let cost = Meter::start(&[("server", &nobody)]).stop(1, Duration::ZERO).await;
        assert_eq!((cost.get("server_cpu_s"), cost.each().as_str()), (None, "?"));
        assert!(cost.get("generator_cpu_s").is_some());
        assert!(cost.json().get("clock").is_none());
    }

    #[tokio::test]
    async fn where_nothing_succeeded_no_operation_has_a_cost() {
        let cost = Meter::start(&[("server", &Processes::own())]).stop(0, Duration::ZERO).await;
        assert_eq!((cost.get("server_cpu_ms_per_op"), cost.each().as_str()), (None, "?"));
        assert!(cost.json()["server_cpu_s"].is_number());
    }

    #[test]
    fn others_are_what_neither_the_servers_nor_the_generator_took() {
        assert_eq!(foreign_cores(3.0, 2.0, 2.0), Some(0.5));
        assert_eq!(foreign_cores(1.0, 1.5, 2.0), Some(0.0));
        assert_eq!(foreign_cores(0.4, 0.1, 0.49), None);
    }
}
