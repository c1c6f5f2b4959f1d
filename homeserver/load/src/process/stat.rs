//! `/proc/PID/stat` and `/proc/stat`: CPU time in ticks. See proc_pid_stat(5) and proc_stat(5).

use std::fs;

/// How many ticks `/proc` counts in a second, on every machine that Matron is built for.
const TICKS_PER_S: f64 = 100.0;

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: u32,
    /// What all its threads used, those that ended included, and its children whose end it has waited for.
    ticks: u64,
}

impl Stat {
    /// None where the process has ended.
    pub(super) fn read(process: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The command is in parentheses and may hold any of them: what follows the last one is numbers.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // From `state` on: ppid is the 2nd; utime, stime, cutime and cstime the 12th to 15th.
        let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>()).sum::<Result<u64, _>>().ok()?;
        Some(Self { parent: fields.get(1)?.parse().ok()?, ticks })
    }

    /// CPU time in seconds, to within 20 ms: user and system time are each rounded down to a tick.
    pub(super) fn cpu_s(self) -> f64 {
        self.ticks as f64 / TICKS_PER_S
    }
}

/// How long all processors together have been busy since the machine started, in seconds.
pub(crate) fn machine_busy_s() -> f64 {
    fs::read_to_string("/proc/stat").ok().and_then(|text| parse_busy(&text)).unwrap_or_default()
}

fn parse_busy(text: &str) -> Option<f64> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = fields.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    // user, nice, system, (idle, iowait,) irq, softirq, steal; what guests took is in the first two.
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|field| ticks.get(*field)).sum();
    Some(busy as f64 / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "4711 (matron (serve) x) S 17 4711 17 0 -1 4194560 9 8 7 6 120 30 4 1 20 0 5 0 99 1 2\n";

    #[test]
    fn a_command_may_hold_parentheses_and_spaces() {
        let stat = Stat::parse(TEXT).unwrap();
        assert_eq!(stat, Stat { parent: 17, ticks: 155 });
        assert_eq!(stat.cpu_s(), 1.55);
    }

    #[test]
    fn what_is_no_stat_says_nothing() {
        for text in
            ["", "1 (a", "1 (a) S", "1 (a) S x 1 1 0 -1 1 1 1 1 1 1 1 1 1", "1 (a) S 1 1 1 0 -1 1 1 1 1 1 1 x 1 1"]
        {
            assert_eq!(Stat::parse(text), None, "{text}");
        }
    }

    #[test]
    fn idle_processors_are_not_busy() {
        let text = "cpu  100 10 20 9000 500 3 2 1 50 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_busy(text), Some(1.36));
        assert_eq!(parse_busy("cpu0 1"), None);
        assert!(machine_busy_s() > 0.0);
    }

    #[test]
    fn this_process_has_used_what_its_threads_used() {
        assert!(Stat::read(std::process::id()).is_some());
        assert_eq!(Stat::read(u32::MAX), None);
    }
}
