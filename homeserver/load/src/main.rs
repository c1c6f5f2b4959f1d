//! The binary `matron-load`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use matron_load::{LoadError, Options, Report, run};

fn main() -> ExitCode {
    match measure(&Options::parse()) {
        Ok(report) => {
            let written = writeln!(std::io::stdout(), "{}", report.json);
            let _unread = writeln!(std::io::stderr(), "{}", report.summary);
            if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            let _unread = writeln!(std::io::stderr(), "matron-load: {}", error.with_causes());
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<Report, LoadError> {
    // One thread: the generator never takes more than one core from what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LoadError::Runtime)?;
    let report = runtime.block_on(run(options));
    runtime.shutdown_timeout(Duration::from_millis(100));
    report
}
