//! This master's heartbeat, and how it judges those of others (design: store.md, "Claims").
//!
//! A master acts only while its own last confirmed heartbeat is younger than `ttl`; others take its claims only after they
//! have seen no change of it for `ttl` + 2 s on their own monotonic clock. Spending calls carry a macaroon that ends with
//! the lease, so that not even a call that was held up on its way can act after that.

use super::feed::STALE_AFTER;
use crate::clock::SharedClock;
use crate::error::{Error, Result, StoreError};
use crate::model::MasterId;
use crate::model::node::{Authorities, Heartbeat};
use crate::store::{Store, Version, repo};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How much longer than `ttl` an observer waits: clocks are taken to agree within 1 s.
pub const TAKEOVER_MARGIN: Duration = Duration::from_secs(2);

/// However long the lease is: the heartbeat is also how a master knows that its feed is alive, and one that is late must
/// not look like silence. Not more often than it has to: Firestore takes about one write a second to a document.
const SLOWEST_BEAT: Duration = Duration::from_secs(2);
const _: () = assert!(SLOWEST_BEAT.as_secs() * 2 < STALE_AFTER.as_secs());

/// How often a master with this `ttl` writes its heartbeat.
fn beat_interval(ttl: Duration) -> Duration {
    (ttl / 4).min(SLOWEST_BEAT)
}

#[derive(Debug, Clone, Copy)]
struct Confirmed {
    /// Taken before the heartbeat was sent, so never later than the Store's own view of it.
    at: Instant,
    wall: OffsetDateTime,
    /// Grows whenever the lease had lapsed in between: whatever was claimed before must be claimed again.
    term: u64,
}

/// This master's lease.
#[derive(Debug)]
pub struct Lease {
    master: MasterId,
    ttl: Duration,
    clock: SharedClock,
    confirmed: Mutex<Option<Confirmed>>,
    /// The versions of the sealing key that the heartbeat tells of.
    keys: Mutex<Vec<u32>>,
    /// What it tells of authorities.
    authorities: Mutex<Option<Authorities>>,
}

impl Lease {
    /// A lease that holds nothing until its first heartbeat was stored.
    #[must_use]
    pub fn new(master: MasterId, ttl: Duration, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            master,
            ttl,
            clock,
            confirmed: Mutex::new(None),
            keys: Mutex::default(),
            authorities: Mutex::default(),
        })
    }

    /// Who this master is.
    #[must_use]
    pub fn master(&self) -> &MasterId {
        &self.master
    }

    /// How long a heartbeat is good for.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// From the next heartbeat on it tells that this master has these versions of the sealing key.
    pub fn tell_keys(&self, versions: Vec<u32>) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = versions;
    }

    /// From the next heartbeat on it tells that this master has taken up these authorities.
    pub fn tell_authorities(&self, authorities: Authorities) {
        *self.authorities.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorities);
    }

    fn current(&self, now: Instant) -> Option<Confirmed> {
        let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.filter(|c| now.duration_since(c.at) < self.ttl)
    }

    /// The term of the lease, while it holds.
    ///
    /// # Errors
    /// [`Error::ClaimLost`] when the last heartbeat is too old.
    pub fn term(&self) -> Result<u64> {
        self.current(Instant::now()).map(|c| c.term).ok_or(Error::ClaimLost)
    }

    /// Until when this master may spend, if the lease still is in `term`.
    ///
    /// # Errors
    /// [`Error::ClaimLost`] when it is not.
    pub fn spend_until(&self, term: u64) -> Result<OffsetDateTime> {
        self.spend_until_at(term, Instant::now())
    }

    fn spend_until_at(&self, term: u64, now: Instant) -> Result<OffsetDateTime> {
        let held = self.current(now).filter(|c| c.term == term).ok_or(Error::ClaimLost)?;
        Ok(held.wall + self.ttl)
    }

    /// Takes note of a heartbeat sent at `at` and confirmed at `now`.
    fn confirm(&self, at: Instant, wall: OffsetDateTime, now: Instant) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        let term = match *confirmed {
            Some(last) if now.duration_since(last.at) < self.ttl => last.term,
            Some(last) => last.term + 1,
            None => 1,
        };
        *confirmed = Some(Confirmed { at, wall, term });
    }

    /// Writes heartbeats until `stop`, then takes the heartbeat away so that nobody waits for a master that is gone.
    pub async fn run(self: Arc<Self>, store: Arc<dyn Store>, stop: CancellationToken) {
        let mut beat = 0;
        let mut version = None;
        let mut ticks = tokio::time::interval(beat_interval(self.ttl));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            beat += 1;
            match self.beat(&*store, beat, version).await {
                Ok(written) => version = Some(written),
                Err(error) => {
                    tracing::warn!(%error, "the heartbeat could not be stored");
                    // A write whose answer was lost may have happened: read before the next one.
                    version = self.stored_version(&*store).await.unwrap_or(version);
                }
            }
        }
        if let Some(version) = version {
            let gone = store.commit(vec![repo::delete::<Heartbeat>(self.master.as_str(), version)]).await;
            if let Err(error) = gone {
                tracing::debug!(%error, "the heartbeat stays; others will see that it no longer changes");
            }
        }
    }

    async fn beat(&self, store: &dyn Store, beat: u64, version: Option<Version>) -> Result<Version, StoreError> {
        let (at, wall) = (Instant::now(), self.clock.now());
        let ttl_ms = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let authorities = self.authorities.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let heartbeat = Heartbeat { master: self.master.clone(), beat, ttl_ms, keys, authorities };
        let write = match version {
            None => repo::create(&heartbeat)?,
            Some(version) => repo::update(&heartbeat, version)?,
        };
        let versions = store.commit(vec![write]).await?;
        self.confirm(at, wall, Instant::now());
        Ok(versions.first().copied().unwrap_or(Version(0)))
    }

    async fn stored_version(&self, store: &dyn Store) -> Option<Option<Version>> {
        let read = repo::get::<Heartbeat>(store, self.master.as_str()).await.ok()?;
        Some(read.map(|h| h.version))
    }
}

/// What this master has seen of the others' heartbeats.
#[derive(Debug)]
pub struct Observer {
    own_ttl: Duration,
    seen: Mutex<HashMap<MasterId, Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    beat: u64,
    ttl: Duration,
    changed: Instant,
    gone: bool,
}

impl Observer {
    /// Nothing seen yet. `own_ttl` stands in for masters that have no heartbeat at all.
    #[must_use]
    pub fn new(own_ttl: Duration) -> Self {
        Self { own_ttl, seen: Mutex::new(HashMap::new()) }
    }

    /// Takes note of a heartbeat, seen at `now`.
    pub fn saw(&self, heartbeat: &Heartbeat, now: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let ttl = Duration::from_millis(heartbeat.ttl_ms);
        let entry = seen.entry(heartbeat.master.clone()).or_insert(Seen {
            beat: heartbeat.beat,
            ttl,
            changed: now,
            gone: false,
        });
        if entry.beat != heartbeat.beat {
            *entry = Seen { beat: heartbeat.beat, ttl, changed: now, gone: false };
        }
    }

    /// Takes note of a heartbeat that was taken away: a master that has stopped in good order holds nothing.
    pub fn gone(&self, master: &MasterId) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = seen.get_mut(master) {
            entry.gone = true;
        }
    }

    /// Whether that master's claims may be taken at `now`. The first question about an unknown master starts its time.
    pub fn is_dead(&self, master: &MasterId, now: Instant) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let entry =
            seen.entry(master.clone()).or_insert(Seen { beat: 0, ttl: self.own_ttl, changed: now, gone: false });
        entry.gone || now.duration_since(entry.changed) >= entry.ttl + TAKEOVER_MARGIN
    }

    /// Forgets masters that have been dead for an hour.
    pub fn prune(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, s| s.changed.elapsed() < Duration::from_secs(3600));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::store::Change;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};
    use futures::StreamExt;
    use std::collections::HashSet;

    fn lease() -> Arc<Lease> {
        let mut rng = rand::rng();
        Lease::new(MasterId::random(&mut rng), Duration::from_secs(1), Arc::new(SystemClock))
    }

    #[test]
    fn a_lease_that_lapsed_starts_a_new_term() {
        let lease = lease();
        assert!(lease.term().is_err());
        let wall = OffsetDateTime::now_utc();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        lease.confirm(at(0), wall, at(10));
        assert!(lease.spend_until_at(1, at(999)).is_ok());
        assert!(lease.spend_until_at(1, at(1000)).is_err());
        lease.confirm(at(900), wall, at(910));
        assert!(lease.spend_until_at(1, at(1800)).is_ok(), "still the first term");
        lease.confirm(at(2000), wall, at(2010));
        assert!(lease.spend_until_at(1, at(2020)).is_err(), "what was claimed before the gap must be claimed again");
        assert!(lease.spend_until_at(2, at(2020)).is_ok());
    }

    #[test]
    fn a_confirmation_that_took_too_long_is_a_gap() {
        let lease = lease();
        let (wall, start) = (OffsetDateTime::now_utc(), Instant::now());
        lease.confirm(start, wall, start);
        let late = start + Duration::from_millis(1500);
        lease.confirm(start + Duration::from_millis(800), wall, late);
        assert!(lease.spend_until_at(1, late).is_err());
    }

    /// The longest lease that the configuration takes: a master hears its own heartbeats often enough to trust its feed.
    #[tokio::test]
    async fn a_long_lease_is_confirmed_as_often_as_the_feed_needs() {
        assert_eq!(beat_interval(Duration::from_secs(1)), Duration::from_millis(250));
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("db"), SqliteOptions::default()).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let mut changes = store.changes(None).await.unwrap();
        let longest = Duration::from_secs(60);
        let lease = Lease::new(MasterId::random(&mut rand::rng()), longest, Arc::new(SystemClock));
        let beating = tokio::spawn(lease.run(Arc::clone(&store), CancellationToken::new()));
        let mut beats = HashSet::new();
        while beats.len() < 2 {
            let change = tokio::time::timeout(STALE_AFTER, changes.next()).await.expect("within the feed's patience");
            if let Change::Put(document) = change.unwrap().unwrap().change {
                beats.insert(repo::decode::<Heartbeat>(document).unwrap().value.beat);
            }
        }
        beating.abort();
    }

    #[test]
    fn a_master_is_dead_only_after_ttl_and_margin_without_change() {
        let observer = Observer::new(Duration::from_secs(1));
        let master = MasterId::random(&mut rand::rng());
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut heartbeat =
            Heartbeat { master: master.clone(), beat: 1, ttl_ms: 1000, keys: Vec::new(), authorities: None };
        observer.saw(&heartbeat, at(0));
        observer.saw(&heartbeat, at(2900));
        assert!(!observer.is_dead(&master, at(2999)));
        assert!(observer.is_dead(&master, at(3000)));
        heartbeat.beat = 2;
        observer.saw(&heartbeat, at(3100));
        assert!(!observer.is_dead(&master, at(3200)));
        observer.gone(&master);
        assert!(observer.is_dead(&master, at(3200)));
    }
}
