//! A load generator for Matrix homeservers.
//!
//! It speaks the client API over plain HTTP/1.1 and nothing else, so it measures Matron and any other homeserver alike.
//! Each measured thing is a file of [`measure`]; what the servers' processes cost is read from `/proc` ([`process`]).
//! Figures of one run on one machine are comparable with each other, and with no others.

mod cache;
mod client;
mod drive;
mod error;
mod figures;
mod measure;
mod meter;
mod options;
mod process;
mod stage;

use serde_json::{Value, json};

pub use client::RequestError;
pub use error::LoadError;
pub use options::Options;

use measure::Measured;
use stage::Stage;

/// What one call measured.
#[derive(Debug)]
pub struct Report {
    /// The sizes that were asked for and every figure.
    pub json: Value,
    /// The same in a line for a person.
    pub summary: String,
}

/// Prepares the servers as the measure needs them, measures, and reports.
///
/// # Errors
///
/// Where the servers cannot be prepared, or a request fails on which the rest depends. Requests that fail under load are
/// counted in the report.
pub async fn run(options: &Options) -> Result<Report, LoadError> {
    let stage = Stage::new(&options.common)?;
    let name = options.measure.name();
    let Measured { sizes, result, summary } = options.measure.run(&stage).await?;
    let limited = stage.rate_limited_answers();
    let label = &options.common.label;
    let json = json!({
        "cmd": name, "label": label, "url": options.common.url, "params": sizes, "result": result, "http_429": limited,
    });
    // Whoever reads these figures must know that the server's limits were measured, and not the server.
    let warning = if limited > 0 { format!(" WARNING: {limited} answers were 429") } else { String::new() };
    Ok(Report { json, summary: format!("{name} {label}: {summary}{warning}") })
}
