//! Why nothing was measured.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::client::RequestError;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A request failed on which the rest depends.
    #[error("{0}")]
    Request(#[from] RequestError),
    /// The servers could not be prepared for the measure.
    #[error("{what}: {errors} of {of} failed, the first with: {first}")]
    Preparation {
        /// What was being prepared.
        what: &'static str,
        /// How many requests failed.
        errors: usize,
        /// How many were tried.
        of: usize,
        /// Why the first of them failed.
        first: RequestError,
    },
    /// Only federation between two servers can be measured so.
    #[error("two servers are needed: name the second with --url-b")]
    SecondServer,
    /// This measure is of a process.
    #[error("the server's process is needed: name it with --pid")]
    Process,
    /// No process has that number.
    #[error("there is no process {0}")]
    NoSuchProcess(u32),
    /// The URL names no host.
    #[error("{0} is not an http URL")]
    Url(String),
    /// The file that keeps users and rooms between calls cannot be used.
    #[error("{path}")]
    Cache {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// A connection of an idle long poll could not be opened.
    #[error("a connection could not be opened")]
    Connection(#[source] io::Error),
    /// The runtime could not be started.
    #[error("the runtime could not be started")]
    Runtime(#[source] io::Error),
}

impl LoadError {
    /// The error and everything behind it, in one line.
    #[must_use]
    pub fn with_causes(&self) -> String {
        with_causes(self)
    }
}

/// The error and everything behind it, in one line.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !line.contains(&said) {
            line.push_str(": ");
            line.push_str(&said);
        }
        cause = error.source();
    }
    line
}
