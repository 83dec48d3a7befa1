//! What can go wrong while the local system is started, used and stopped.

use std::{io, path::Path, time::Duration};

use super::reaper::Exit;

#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error("cannot {what}")]
    Io { what: String, source: io::Error },
    #[error("btcd refused {method}: {message} (code {code})")]
    Rpc { method: &'static str, code: i64, message: String },
    #[error("btcd did not answer {method}")]
    Transport { method: &'static str, source: reqwest::Error },
    #[error("{name} ended while it was needed ({exit}); the end of its log:\n{log}")]
    Ended { name: String, exit: Exit, log: String },
    #[error("{what} took longer than {} s", limit.as_secs())]
    TimedOut { what: String, limit: Duration },
    #[error("{0}")]
    Unusable(String),
}

impl DevError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// For an operation on a file.
    pub(super) fn file(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(format!("{verb} {}", path.display()))
    }
}
