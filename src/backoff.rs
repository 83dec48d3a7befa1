//! Pauses that grow, between tries of what may succeed later.

use rand::RngExt;
use std::time::Duration;

/// Pauses that grow: the first, and the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Backoff {
    /// The pause before attempt `failures` (the first one is 0), between half and all of the exponential one; `jitter` is
    /// from 0 to 1.
    #[must_use]
    pub fn pause(&self, failures: u32, jitter: f64) -> Duration {
        self.full(failures).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }

    /// The pauses of one thing that is tried again and again.
    #[must_use]
    pub fn pauses(self) -> Pauses {
        Pauses { backoff: self, failures: 0 }
    }

    fn full(&self, failures: u32) -> Duration {
        self.first.saturating_mul(1u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX)).min(self.longest)
    }
}

/// The pauses of one thing that is tried again and again.
#[derive(Debug, Clone)]
pub struct Pauses {
    backoff: Backoff,
    failures: u32,
}

impl Pauses {
    /// The next pause, jittered; the one after it is longer.
    pub fn take(&mut self) -> Duration {
        let pause = self.backoff.pause(self.failures, rand::rng().random_range(0.0..1.0));
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Whether they grow no more.
    #[must_use]
    pub fn are_longest(&self) -> bool {
        self.backoff.full(self.failures) >= self.backoff.longest
    }

    /// Begins with the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(1) };

    #[test]
    fn pauses_double_up_to_the_longest_and_are_jittered_downwards() {
        let full: Vec<_> = (0..6).map(|n| BACKOFF.pause(n, 1.0).as_millis()).collect();
        assert_eq!(full, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(BACKOFF.pause(0, 0.0), Duration::from_millis(50));
        assert_eq!(BACKOFF.pause(u32::MAX, 1.0), Duration::from_secs(1));
    }

    #[test]
    fn each_pause_is_longer_than_the_one_before_until_they_begin_anew() {
        let mut pauses = BACKOFF.pauses();
        for full in [100, 200, 400, 800, 1000, 1000] {
            assert_eq!(pauses.are_longest(), full == 1000);
            let pause = pauses.take().as_millis();
            assert!((full / 2..=full).contains(&pause), "{pause} of {full}");
        }
        pauses.reset();
        assert!(!pauses.are_longest() && pauses.take().as_millis() <= 100);
    }
}
