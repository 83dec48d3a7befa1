//! What happens too often to be logged each time: it is counted, and told now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two times that it is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Counts what happens, until it is told.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Untold>);

#[derive(Debug, Default)]
struct Untold {
    number: u64,
    told_at: Option<Instant>,
}

impl Tally {
    /// Notes that it has happened. At most once a second: how often since it was told last, this time included, so that it
    /// is told now.
    pub fn note(&self, now: Instant) -> Option<u64> {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.number += 1;
        if untold.told_at.is_some_and(|at| now.saturating_duration_since(at) < TELL_EVERY) {
            return None;
        }
        untold.told_at = Some(now);
        Some(std::mem::take(&mut untold.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_once_a_second_with_its_number() {
        let (tally, start) = (Tally::default(), Instant::now());
        assert_eq!(tally.note(start), Some(1));
        for _ in 0..41 {
            assert_eq!(tally.note(start + Duration::from_millis(999)), None);
        }
        assert_eq!(tally.note(start + TELL_EVERY), Some(42));
        assert_eq!(tally.note(start + TELL_EVERY), None);
    }
}
