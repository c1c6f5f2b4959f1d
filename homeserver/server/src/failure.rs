//! How a command ends when it cannot do what was asked: one sentence, with its causes.

use std::io::Write as _;

/// Why a command ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The configuration is no good.
    #[error("configuration: {0}")]
    Config(#[from] crate::config::ConfigError),
    /// The data directory cannot be opened.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// An address cannot be served.
    #[error(transparent)]
    Listen(#[from] crate::listener::ListenError),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// The server, running or opened for this command, refused.
    #[error(transparent)]
    Operator(#[from] crate::operator::OperatorError),
    /// A register, credential or key is no good, or does not fit.
    #[error("{0}")]
    Document(String),
    /// What was asked for was checked and is not so.
    #[error("{0}")]
    CheckFailed(String),
}

impl Failure {
    /// Turns an input or output error into a failure that says what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The failure and its causes on standard error.
    pub(crate) fn print(&self) {
        let mut line = format!("matron: {self}");
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            let text = source.to_string();
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = source.source();
        }
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}
