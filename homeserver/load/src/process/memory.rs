//! What processes hold in memory. See proc_pid_status(5) and proc_pid_smaps(5).

use std::fs;

use serde_json::{Value, json};

use super::Processes;
use crate::figures::rounded;

impl Processes {
    /// Resident memory and its proportional share in MiB, over all processes; null where none was named.
    ///
    /// The share counts a page that several processes map once: it is the one to read for PostgreSQL, whose processes
    /// share their buffers.
    pub(crate) fn memory(&self) -> Value {
        if !self.any() {
            return Value::Null;
        }
        let running = self.running();
        let sum = |file: &str, field: &str| {
            let read = |id| fs::read_to_string(format!("/proc/{id}/{file}")).ok();
            running.iter().filter_map(read).filter_map(|text| parse_kib(&text, field)).sum::<u64>() as f64 / 1024.0
        };
        json!({
            "rss_mib": rounded(sum("status", "VmRSS")),
            "pss_mib": rounded(sum("smaps_rollup", "Pss")),
            "processes": running.len(),
        })
    }
}

/// The field of a text with lines of the form `Field:  123 kB`.
fn parse_kib(text: &str, field: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "Name:\tVmRSS\nVmRSSx:\t 1 kB\nVmRSS:\t   73728 kB\nThreads:\t9\n";
        assert_eq!(parse_kib(text, "VmRSS"), Some(73_728));
        assert_eq!(parse_kib(text, "Threads"), None);
        assert_eq!(parse_kib(text, "Pss"), None);
    }

    #[test]
    fn this_process_is_resident() {
        let memory = Processes::own().memory();
        assert!(memory["rss_mib"].as_f64().unwrap() > 0.0, "{memory}");
        assert!(Processes::new(&[]).unwrap().memory().is_null());
    }
}
