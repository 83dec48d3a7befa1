//! What those may ask of a master that are not to be trusted with it: whoever wants to enrol, and each host.

use crate::model::HostId;
use crate::pki::{Serial, Source};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Enrolments a second of one source, and how many may come at once. A certificate request costs a signature to check.
const OF_EACH: (NonZeroU32, NonZeroU32) = (NonZeroU32::new(5).unwrap(), NonZeroU32::new(50).unwrap());
/// The same of all sources together.
const OF_ALL: (NonZeroU32, NonZeroU32) = (NonZeroU32::new(50).unwrap(), NonZeroU32::new(200).unwrap());
/// Reports a second of one host; and how many may come at once, when it begins with all there is to say. Each is a commit.
const REPORTS: (NonZeroU32, NonZeroU32) = (NonZeroU32::new(20).unwrap(), NonZeroU32::new(400).unwrap());
/// Renewals of one host's certificate, which is due every some days.
const RENEWALS: (NonZeroU32, NonZeroU32) = (NonZeroU32::new(1).unwrap(), NonZeroU32::new(10).unwrap());
/// Sources and certificates that are remembered before those that have been quiet are forgotten.
const REMEMBERED: usize = 10_000;

fn quota((a_second, at_once): (NonZeroU32, NonZeroU32)) -> Quota {
    Quota::per_second(a_second).allow_burst(at_once)
}

fn forget<K: Hash + Eq + Clone>(rates: &DefaultKeyedRateLimiter<K>) {
    if rates.len() > REMEMBERED {
        rates.retain_recent();
    }
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
        forget(&self.each);
        // In this order: one source's excess does not count against the others.
        if self.each.check_key(&source).is_err() || self.all.check().is_err() {
            return Err(Status::resource_exhausted("too many hosts want to enrol at once"));
        }
        Ok(())
    }
}

/// What hosts may ask, who have a certificate. It has its own count, since one that is void, which only the Store knows, must
/// not cost the host anything that it was for.
#[derive(Debug)]
pub(super) struct Hosts {
    reports: DefaultKeyedRateLimiter<Serial>,
    renewals: DefaultKeyedRateLimiter<Serial>,
    streams: Mutex<Streams>,
}

/// The one stream of reports that each host has.
#[derive(Debug, Default)]
struct Streams {
    begun: u64,
    newest: HashMap<HostId, (u64, CancellationToken)>,
}

impl Hosts {
    pub(super) fn new() -> Arc<Self> {
        let (reports, renewals) = (RateLimiter::keyed(quota(REPORTS)), RateLimiter::keyed(quota(RENEWALS)));
        Arc::new(Self { reports, renewals, streams: Mutex::default() })
    }

    /// Lets one more renewal pass.
    ///
    /// # Errors
    /// `ResourceExhausted`, after which agents ask again.
    pub(super) fn check_renewal(&self, certificate: Serial) -> Result<(), Status> {
        forget(&self.renewals);
        let too_often = |_| Status::resource_exhausted("this host renews its certificate too often");
        self.renewals.check_key(&certificate).map_err(too_often)
    }

    /// Waits until whoever shows this certificate may report again. Nothing is lost by that: reports wait where they are.
    pub(super) async fn slow_down(&self, certificate: Serial) {
        forget(&self.reports);
        while let Err(not_until) = self.reports.check_key(&certificate) {
            tokio::time::sleep(not_until.wait_time_from(DefaultClock::default().now())).await;
        }
    }

    /// Begins a stream of reports of this host, and so ends the one before: its agent has given that up.
    pub(super) fn begin(self: &Arc<Self>, host: HostId) -> Turn {
        let superseded = CancellationToken::new();
        let mut streams = self.streams();
        streams.begun += 1;
        let number = streams.begun;
        if let Some((_, before)) = streams.newest.insert(host.clone(), (number, superseded.clone())) {
            before.cancel();
        }
        drop(streams);
        Turn { hosts: Arc::clone(self), host, number, superseded }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream of reports, while it lives.
#[derive(Debug)]
pub(super) struct Turn {
    hosts: Arc<Hosts>,
    host: HostId,
    number: u64,
    superseded: CancellationToken,
}

impl Turn {
    /// Ends when the host has begun another stream.
    pub(super) async fn superseded(&self) {
        self.superseded.cancelled().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut streams = self.hosts.streams();
        if streams.newest.get(&self.host).is_some_and(|(number, _)| *number == self.number) {
            streams.newest.remove(&self.host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
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

    #[test]
    fn a_host_has_one_stream_and_the_newest_wins() {
        let (hosts, mut rng) = (Hosts::new(), rand::rng());
        let (host, other) = (HostId::random(&mut rng), HostId::random(&mut rng));
        let (first, others) = (hosts.begin(host.clone()), hosts.begin(other));
        let second = hosts.begin(host.clone());
        let is_over = |turn: &Turn| turn.superseded().now_or_never().is_some();
        assert!(is_over(&first) && !is_over(&second) && !is_over(&others));
        drop(first);
        let third = hosts.begin(host);
        assert!(is_over(&second) && !is_over(&third), "that the first is gone changes nothing for the second");
        drop((second, third, others));
        assert!(hosts.streams().newest.is_empty());
    }

    #[tokio::test]
    async fn who_reports_too_much_is_slowed_down_and_nobody_else_is() {
        let hosts = Hosts::new();
        let [flooding, other] = [1, 2].map(|serial| format!("{serial:032x}").parse::<Serial>().unwrap());
        let passed = (0..10_000).take_while(|_| hosts.slow_down(flooding).now_or_never().is_some()).count();
        assert!((400..10_000).contains(&passed), "{passed}");
        assert!(hosts.slow_down(other).now_or_never().is_some());
        let passed = (0..1000).take_while(|_| hosts.check_renewal(flooding).is_ok()).count();
        assert!((10..1000).contains(&passed), "{passed}");
        assert!(hosts.check_renewal(other).is_ok());
    }
}
