//! What one phase of a measure cost: the servers' CPU time, the generator's own, and what others took of the machine.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::figures::rounded;
use crate::process::{CpuWatch, Processes, machine_busy_s};

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
        let named = servers.iter().filter(|(_, processes)| processes.any());
        Self {
            servers: named.map(|(name, processes)| (*name, CpuWatch::start(processes))).collect(),
            own: CpuWatch::start(&Processes::own()),
            busy_at_start_s: machine_busy_s(),
            began: Instant::now(),
        }
    }

    /// The phase is over; what it cost, and each of its `operations`. The servers are watched for `tail` longer, so that
    /// what they put off counts too.
    ///
    /// `foreign_cores` is what everything else on the machine took meanwhile: above about 0.2, distrust the times.
    pub(crate) async fn stop(self, operations: usize, tail: Duration) -> Cost {
        let wall_s = self.began.elapsed().as_secs_f64();
        let own_s = self.own.used().seconds;
        let mut figures = Map::new();
        figures.insert("phase_wall_s".to_owned(), json!(rounded(wall_s)));
        figures.insert("generator_cpu_s".to_owned(), json!(rounded(own_s)));
        if self.servers.is_empty() {
            return Cost { figures };
        }
        let servers_s: f64 = self.servers.iter().map(|(_, watch)| watch.used().seconds).sum();
        let foreign_s = (machine_busy_s() - self.busy_at_start_s - servers_s - own_s).max(0.0);
        figures.insert("foreign_cores".to_owned(), json!(rounded(foreign_s / wall_s.max(1e-3))));

        tokio::time::sleep(tail).await;
        let used: Vec<_> = self.servers.iter().map(|(name, watch)| (*name, watch.used())).collect();
        let mut all = used.clone();
        if let [(_, a), (_, b)] = used.as_slice() {
            all.push(("server", a.plus(*b)));
        }
        for (name, used) in all {
            let each_ms = used.seconds * 1000.0 / operations.max(1) as f64;
            figures.insert(format!("{name}_cpu_s"), json!(rounded(used.seconds)));
            figures.insert(format!("{name}_cpu_ms_per_op"), json!(rounded(each_ms)));
        }
        let clock = if used.iter().all(|(_, used)| used.fine) { "schedstat" } else { "ticks" };
        figures.insert("clock".to_owned(), json!(clock));
        Cost { figures }
    }
}

/// What a phase cost.
#[derive(Debug, Clone)]
pub(crate) struct Cost {
    figures: Map<String, Value>,
}

impl Cost {
    /// A figure, or none where no process was named.
    pub(crate) fn get(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure)?.as_f64()
    }

    /// The servers' CPU time for each operation, for a person.
    pub(crate) fn each(&self) -> String {
        self.get("server_cpu_ms_per_op").map_or_else(|| "?".to_owned(), |each_ms| format!("{each_ms:.3}"))
    }

    /// All figures.
    pub(crate) fn json(self) -> Value {
        Value::Object(self.figures)
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
    }
}
