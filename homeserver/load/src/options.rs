//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};

use crate::client::{Presence, Registration};
use crate::measure::Measure;

/// Measures a homeserver under load through the client API, Matron or any other.
///
/// One line of JSON goes to the standard output, one for a person to the standard error.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) measure: Measure,
}

/// What every measure needs to know.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The client API of the server (http://HOST:PORT)
    #[arg(long)]
    pub(crate) url: String,
    /// The client API of the second server, for `federate`
    #[arg(long)]
    pub(crate) url_b: Option<String>,
    /// How accounts are registered: dummy, or token:VALUE
    #[arg(long, default_value = "dummy")]
    pub(crate) registration: Registration,
    /// The same at the second server, if it differs
    #[arg(long)]
    pub(crate) registration_b: Option<Registration>,
    /// The server's processes, with commas between them; what descends from them counts too
    #[arg(long, value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
    /// The second server's processes
    #[arg(long, value_delimiter = ',')]
    pub(crate) pid_b: Vec<u32>,
    /// A name for the server, copied to the output
    #[arg(long, default_value = "")]
    pub(crate) label: String,
    /// A file that keeps users and filled rooms for the next call
    #[arg(long)]
    pub(crate) cache: Option<PathBuf>,
    /// The version of new rooms; the server's own default otherwise
    #[arg(long)]
    pub(crate) room_version: Option<String>,
    /// `set_presence` of syncs
    #[arg(long, default_value = "offline")]
    pub(crate) presence: Presence,
    /// The timeline limit of syncs in `fanout` and `federate`; after a gap the generator pages back
    #[arg(long, default_value_t = 100)]
    pub(crate) timeline_limit: u32,
    /// How long a server is watched after a phase, so that what it put off is counted
    #[arg(long, default_value_t = 1000)]
    tail_ms: u64,
}

impl Common {
    /// How long a server is watched after a phase.
    pub(crate) fn tail(&self) -> Duration {
        Duration::from_millis(self.tail_ms)
    }
}

/// What is not a rate.
#[derive(Debug, thiserror::Error)]
#[error("a number above 0 is needed")]
pub(crate) struct NoRate;

/// A number of messages a second.
pub(crate) fn rate(text: &str) -> Result<f64, NoRate> {
    text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0).ok_or(NoRate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("matron-load").chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Options::command().debug_assert();
    }

    #[test]
    fn several_processes_are_one_server() {
        let options = parsed("--url http://h --pid 12,13 send --senders 3").unwrap();
        assert_eq!(options.common.pid, [12, 13]);
        assert_eq!(options.common.registration, Registration::Dummy);
        assert_eq!(options.common.presence, Presence::Offline);
        assert_eq!(options.measure.name(), "send");
    }

    #[test]
    fn every_measure_has_sizes_of_its_own() {
        for line in [
            "register --logins 0",
            "send --rooms 50 --members 5",
            "fanout --burst 0 --rate 0.5",
            "initial-sync",
            "messages",
            "join-local",
            "federate --joins 12",
            "mem",
            "polls",
        ] {
            let name = line.split(' ').next().unwrap();
            assert_eq!(parsed(&format!("--url http://h {line}")).unwrap().measure.name(), name);
        }
    }

    #[test]
    fn sizes_that_measure_nothing_are_refused() {
        for line in [
            "send",
            "--url http://h",
            "--url http://h send --senders 0",
            "--url http://h fanout --rate 0",
            "--url http://h fanout --rate nan",
            "--url http://h federate --joins 0",
            "--url http://h --registration open send",
            "--url http://h --pid me send",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
