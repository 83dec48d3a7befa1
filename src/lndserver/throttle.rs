//! What those may ask of a master that are not to be trusted with it: whoever wants to enrol, and each host.

use crate::pki::Source;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::num::NonZeroU32;
use tonic::Status;

/// Enrolments a second of one source, and how many may come at once. A certificate request costs a signature to check.
const OF_EACH: (NonZeroU32, NonZeroU32) = (NonZeroU32::new(5).unwrap(), NonZeroU32::new(50).unwrap());
/// The same of all sources together.
const OF_ALL: (NonZeroU32, NonZeroU32) = (NonZeroU32::new(50).unwrap(), NonZeroU32::new(200).unwrap());
/// Sources that are remembered before those that have been quiet are forgotten.
const MOST_SOURCES: usize = 10_000;

fn quota((a_second, at_once): (NonZeroU32, NonZeroU32)) -> Quota {
    Quota::per_second(a_second).allow_burst(at_once)
}

/// Enrolments, which need no certificate: whoever asks too often is told so before anything is looked at.
#[derive(Debug)]
pub(super) struct Enrolments {
    each: DefaultKeyedRateLimiter<Source>,
    all: DefaultDirectRateLimiter,
}

impl Enrolments {
    pub(super) fn new() -> Self {
        Self { each: RateLimiter::keyed(quota(OF_EACH)), all: RateLimiter::direct(quota(OF_ALL)) }
    }

    /// Lets one more pass.
    ///
    /// # Errors
    /// `ResourceExhausted`, after which agents ask again.
    pub(super) fn check(&self, source: Source) -> Result<(), Status> {
        if self.each.len() > MOST_SOURCES {
            self.each.retain_recent();
        }
        // In this order: one source's excess does not count against the others.
        if self.each.check_key(&source).is_err() || self.all.check().is_err() {
            return Err(Status::resource_exhausted("too many hosts want to enrol at once"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn one_source_enrols_no_more_than_its_share() {
        let enrolments = Enrolments::new();
        let source = |address: &str| Source::from(address.parse::<IpAddr>().unwrap());
        let passed = (0..1000).take_while(|_| enrolments.check(source("192.0.2.1")).is_ok()).count();
        assert!((50..1000).contains(&passed), "{passed}");
        assert!(enrolments.check(source("192.0.2.2")).is_ok(), "another one");
        let sources = (0..=255).map(|last| source(&format!("198.51.100.{last}")));
        let passed = sources.cycle().take(100_000).take_while(|source| enrolments.check(*source).is_ok()).count();
        assert!((100..100_000).contains(&passed), "all together: {passed}");
    }
}
