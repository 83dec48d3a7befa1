//! Whose turn it is. A master that starts finds something to do for every node there is: those wait here, some bytes each,
//! rather than all of them in a task with a connection; and so does what has to be tried again.

use super::Chore;
use crate::model::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many are at it at a time.
const AT_A_TIME: usize = 128;

/// What waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting {
    pub node: NodeId,
    pub chore: Chore,
    /// How often it was tried.
    pub tries: u32,
}

/// Those that wait, by when they are due.
#[derive(Debug)]
pub(super) struct Turns {
    due: BTreeMap<(Instant, u64), Waiting>,
    /// Tells those apart that are due at the same time, in the order in which they came.
    count: u64,
    places: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { due: BTreeMap::new(), count: 0, places: Arc::new(Semaphore::new(AT_A_TIME)) }
    }
}

impl Turns {
    pub(super) fn add(&mut self, due: Instant, waiting: Waiting) {
        self.count += 1;
        self.due.insert((due, self.count), waiting);
    }

    /// Who is due, with the place that they have until it is dropped.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Waiting, OwnedSemaphorePermit)> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= now)?;
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some((first.remove(), place))
    }

    /// How long until somebody is due who has not been taken; none where nobody waits. Where there is no place, whoever leaves
    /// one is to be waited for.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        let (due, _) = self.due.first_key_value()?.0;
        (self.places.available_permits() > 0).then(|| due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_a_time_and_each_when_it_is_due() {
        let (mut turns, now, node) = (Turns::default(), Instant::now(), NodeId::random(&mut rand::rng()));
        let waiting = |tries| Waiting { node: node.clone(), chore: Chore::Reconnect { starts: 1 }, tries };
        turns.add(now + Duration::from_secs(5), waiting(9));
        assert!(turns.take(now).is_none());
        assert_eq!(turns.next(now), Some(Duration::from_secs(5)));
        for n in 0..=AT_A_TIME {
            turns.add(now, waiting(u32::try_from(n).unwrap()));
        }
        let mut taken: Vec<_> = std::iter::from_fn(|| turns.take(now)).collect();
        assert!(taken.iter().map(|(waiting, _)| waiting.tries).eq(0..128), "in the order in which they came");
        assert_eq!(turns.next(now), None, "no place");
        drop(taken.pop());
        assert_eq!(turns.next(now), Some(Duration::ZERO));
        assert_eq!(turns.take(now).map(|(waiting, _)| waiting.tries), Some(128));
        assert!(turns.take(now).is_none(), "the last is not due");
    }
}
