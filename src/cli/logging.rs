//! The log: one subscriber for the process, on standard error.

use super::Failure;
use crate::config::{LogFormat, LogSection};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging as configured.
///
/// # Errors
/// When the filter is wrong, or logging was started before.
pub fn start(log: &LogSection) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| Failure::Failed("logging was started before".to_owned()))
}
