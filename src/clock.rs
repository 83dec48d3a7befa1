//! The clock, passed in wherever a decision depends on the time.

use std::sync::Arc;
use time::OffsetDateTime;

/// Tells the wall-clock time (UTC).
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// Now.
    fn now(&self) -> OffsetDateTime;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// A clock that many parts share.
pub type SharedClock = Arc<dyn Clock>;
