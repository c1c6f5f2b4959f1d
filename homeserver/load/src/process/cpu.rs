//! CPU time of a server, to the nanosecond.
//!
//! `/proc/PID/stat` counts the whole process, threads that ended included, in ticks of 10 ms: too coarse for what lasts
//! 20. The first field of `/proc/PID/task/TID/schedstat` is what one thread has used, in nanoseconds; that of
//! `/proc/PID/schedstat` is the first thread's alone. So the threads are summed. A thread that ends takes its file with
//! it, so all are read every [`INTERVAL`], and what a thread had used when it was last seen stays in the sum. What it
//! used between that and its end is lost to the sum, and so is a process that came and went in between; the ticks know of
//! both, and where they say more than their own coarseness explains, they are the figure. They are it always where the
//! kernel keeps no such file, or keeps it at 0.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::stat::Stat;
use super::{Processes, numbered};

/// How often the threads are read. A runtime's idle threads live for seconds before they end.
const INTERVAL: Duration = Duration::from_millis(200);
/// How far the difference of two readings in ticks may be from the truth, for each process: a tick of user and one of
/// system time.
const COARSENESS_S: f64 = 0.02;

/// A thread of a process, with the nanoseconds that it has used.
type Threads = BTreeMap<(u32, u32), u64>;

/// Watches what a server's processes use from when it is made until it is dropped.
pub(crate) struct CpuWatch {
    processes: Processes,
    threads: Arc<Mutex<ThreadTimes>>,
    ticks_at_start_s: f64,
    sampler: Option<AbortHandle>,
}

/// CPU time, and how it was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CpuTime {
    pub(crate) seconds: f64,
    /// To the nanosecond, not to the tick.
    pub(crate) fine: bool,
}

/// What threads used since a first reading.
#[derive(Debug)]
struct ThreadTimes {
    last: Threads,
    used_ns: u64,
    /// Does the kernel count? No server has used nothing before it is measured.
    counted: bool,
}

impl ThreadTimes {
    fn since(first: Threads) -> Self {
        let counted = first.values().any(|used_ns| *used_ns > 0);
        Self { last: first, used_ns: 0, counted }
    }

    /// Adds what each thread used since it was last seen. A thread that was not there before began in between, and one
    /// with less than before is another that got its number.
    fn add(&mut self, reading: Threads) {
        for (thread, now_ns) in reading {
            let before_ns = self.last.insert(thread, now_ns).filter(|before_ns| *before_ns <= now_ns);
            self.used_ns += now_ns - before_ns.unwrap_or_default();
        }
    }

    /// The sum over the threads in seconds; none where the kernel does not count.
    fn used_s(&self) -> Option<f64> {
        self.counted.then(|| Duration::from_nanos(self.used_ns).as_secs_f64())
    }
}

impl CpuTime {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { seconds: self.seconds + other.seconds, fine: self.fine && other.fine }
    }

    /// The sum over the threads, unless there is none, or the ticks of `processes` processes prove that it has missed
    /// something.
    fn settled(threads_s: Option<f64>, ticks_s: f64, processes: usize) -> Self {
        let coarseness_s = COARSENESS_S * processes as f64;
        match threads_s.filter(|threads_s| ticks_s - threads_s <= coarseness_s) {
            Some(seconds) => Self { seconds, fine: true },
            // A process that ended took its ticks with it.
            None => Self { seconds: ticks_s.max(0.0), fine: false },
        }
    }
}

impl CpuWatch {
    /// Begins now. Must be called within the runtime.
    pub(crate) fn start(processes: &Processes) -> Self {
        let (mut watch, running) = Self::begin(processes);
        watch.sampler = Some(tokio::spawn(sample(running, Arc::clone(&watch.threads))).abort_handle());
        watch
    }

    /// Begins now, and reads nothing before the end: for what lasts so long that ticks are fine enough, and has parts
    /// which a reading would disturb.
    pub(crate) fn start_unread(processes: &Processes) -> Self {
        Self::begin(processes).0
    }

    fn begin(processes: &Processes) -> (Self, BTreeSet<u32>) {
        let running = processes.running();
        let threads = Arc::new(Mutex::new(ThreadTimes::since(read_threads(&running))));
        let ticks_at_start_s = ticks_s(&running);
        (Self { processes: processes.clone(), threads, ticks_at_start_s, sampler: None }, running)
    }

    /// What was used until now.
    pub(crate) fn used(&self) -> CpuTime {
        let running = self.processes.running();
        let mut threads = self.threads.lock();
        threads.add(read_threads(&running));
        CpuTime::settled(threads.used_s(), ticks_s(&running) - self.ticks_at_start_s, running.len())
    }
}

impl Drop for CpuWatch {
    fn drop(&mut self) {
        self.sampler.iter().for_each(AbortHandle::abort);
    }
}

/// Reads the threads of `running` until it is aborted.
async fn sample(running: BTreeSet<u32>, threads: Arc<Mutex<ThreadTimes>>) {
    // Not at once: what is measured begins now, and reading would delay its first request.
    let mut interval = tokio::time::interval_at(Instant::now() + INTERVAL, INTERVAL);
    loop {
        interval.tick().await;
        threads.lock().add(read_threads(&running));
    }
}

fn ticks_s(running: &BTreeSet<u32>) -> f64 {
    running.iter().filter_map(|id| Stat::read(*id)).map(Stat::cpu_s).sum()
}

/// Every thread that runs. None where the kernel keeps no such file, so that the ticks decide.
fn read_threads(running: &BTreeSet<u32>) -> Threads {
    let mut threads = Threads::new();
    for process in running {
        for thread in numbered(&format!("/proc/{process}/task")) {
            let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/schedstat"));
            if let Some(used_ns) = text.ok().as_deref().and_then(parse_schedstat) {
                threads.insert((*process, thread), used_ns);
            }
        }
    }
    threads
}

/// The first field: time on a processor, in nanoseconds.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(threads: &[(u32, u64)]) -> Threads {
        threads.iter().map(|(thread, used_ns)| ((1, *thread), *used_ns)).collect()
    }

    #[test]
    fn the_first_field_of_schedstat_is_the_time_used() {
        assert_eq!(parse_schedstat("218099 2336060 3\n"), Some(218_099));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn what_threads_used_before_the_first_reading_does_not_count() {
        let mut times = ThreadTimes::since(reading(&[(1, 100), (2, 50)]));
        times.add(reading(&[(1, 130), (2, 50)]));
        times.add(reading(&[(1, 131), (2, 60)]));
        assert_eq!(times.used_ns, 41);
    }

    #[test]
    fn threads_that_begin_and_end_in_between_count_as_last_seen() {
        let mut times = ThreadTimes::since(reading(&[(1, 100)]));
        times.add(reading(&[(1, 100), (2, 7)]));
        times.add(reading(&[(1, 100)]));
        assert_eq!(times.used_ns, 7);
        // Another thread with the number of the one that ended.
        times.add(reading(&[(1, 100), (2, 3)]));
        assert_eq!(times.used_ns, 10);
    }

    #[test]
    fn ticks_are_believed_only_where_they_say_more_than_they_can_be_wrong() {
        assert_eq!(CpuTime::settled(Some(0.0051), 0.02, 1), CpuTime { seconds: 0.0051, fine: true });
        assert_eq!(CpuTime::settled(Some(0.03), 0.0, 1), CpuTime { seconds: 0.03, fine: true });
        // Half a second went with a thread that nobody had seen.
        assert_eq!(CpuTime::settled(Some(0.1), 0.6, 1), CpuTime { seconds: 0.6, fine: false });
        // Three processes are three times as coarse.
        assert!(CpuTime::settled(Some(0.1), 0.15, 3).fine);
    }

    #[test]
    fn a_kernel_that_does_not_count_leaves_the_ticks() {
        for first in [reading(&[]), reading(&[(1, 0), (2, 0)])] {
            let mut times = ThreadTimes::since(first.clone());
            times.add(first);
            // Less than the ticks' coarseness, and yet not nothing.
            assert_eq!(CpuTime::settled(times.used_s(), 0.01, 1), CpuTime { seconds: 0.01, fine: false });
        }
        assert_eq!(CpuTime::settled(None, -1.0, 1), CpuTime { seconds: 0.0, fine: false });
        // One thread that never ran, beside one that did.
        assert_eq!(ThreadTimes::since(reading(&[(1, 0), (2, 9)])).used_s(), Some(0.0));
    }

    #[tokio::test]
    async fn a_watch_sees_threads_that_live_and_threads_that_ended() {
        let own = Processes::own();
        let watches = [CpuWatch::start(&own), CpuWatch::start_unread(&own)];
        std::thread::spawn(|| burn(0.1)).join().unwrap();
        burn(0.1);
        // Nobody saw the thread that ended, but the ticks did.
        for used in watches.each_ref().map(CpuWatch::used) {
            assert!(used.seconds >= 0.2 - 2.0 * COARSENESS_S, "{used:?}");
        }
    }

    /// Works until this process has used so much, by its ticks.
    fn burn(seconds: f64) {
        let used_s = || ticks_s(&BTreeSet::from([std::process::id()]));
        let end_s = used_s() + seconds;
        while used_s() < end_s {}
    }
}
