//! A bulkhead around each node: so many calls at a time, and only a few once the node has stopped answering. A node that
//! is dead then costs its own callers only.

use crate::model::problem::{Code, Refusal};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Calls that may go on waiting for a node that has not answered anybody for [`SILENCE`].
const MOST_WHEN_SILENT: usize = 8;
const SILENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Bulkhead {
    most: usize,
    places: Arc<Semaphore>,
    /// When the node last answered, or was idle and so had nothing to answer.
    heard: Mutex<Instant>,
}

/// A place for one call.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Bulkhead {
    /// For `most` calls to one node at a time.
    pub(super) fn new(most: usize, now: Instant) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self { most, places: Arc::new(Semaphore::new(most)), heard: Mutex::new(now) }
    }

    /// A place, at once or not at all.
    pub(super) fn enter(&self, now: Instant) -> Result<Place, Refusal> {
        let busy = |message| Refusal::new(Code::NodeBusy, message).retry_after(1);
        let inside = self.most.saturating_sub(self.places.available_permits());
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if inside == 0 {
            *heard = now;
        } else if inside >= MOST_WHEN_SILENT && now.duration_since(*heard) > SILENCE {
            return Err(busy("the node does not answer, and enough calls are waiting for it"));
        }
        drop(heard);
        let permit = Arc::clone(&self.places).try_acquire_owned();
        permit.map(|permit| Place { _permit: permit }).map_err(|_| busy("too many calls to this node are waiting"))
    }

    /// The node has answered.
    pub(super) fn answered(&self, now: Instant) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_is_waited_for_by_a_few_only() {
        let start = Instant::now();
        let bulkhead = Bulkhead::new(200, start);
        let mut inside: Vec<Place> = (0..100).map(|_| bulkhead.enter(start).expect("answers so far")).collect();
        let later = start + Duration::from_secs(3);
        assert_eq!(bulkhead.enter(later).expect_err("silent").code, Code::NodeBusy);
        inside.truncate(MOST_WHEN_SILENT - 1);
        inside.push(bulkhead.enter(later).expect("a few may try"));
        assert!(bulkhead.enter(later).is_err());
        bulkhead.answered(later);
        assert!(bulkhead.enter(later).is_ok(), "it answers again");
    }

    #[test]
    fn an_idle_node_is_not_a_silent_one() {
        let start = Instant::now();
        let bulkhead = Bulkhead::new(16, start);
        let later = start + Duration::from_secs(3600);
        let inside: Vec<_> = (0..16).map(|_| bulkhead.enter(later)).collect();
        assert!(inside.iter().all(Result::is_ok));
        assert_eq!(bulkhead.enter(later).expect_err("full").code, Code::NodeBusy);
        drop(inside);
        assert!(bulkhead.enter(later).is_ok());
    }
}
