//! Claims: who works on a node. One holder for all the unfinished work of a node, or of the treasury.

use super::lease::{Lease, Observer};
use crate::error::{Error, Result};
use crate::model::node::Claim;
use crate::store::repo::Entity;
use crate::store::{Change, Store, Version, Write, repo};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::broadcast::Receiver;

/// A claim that this master has made. It is only as good as the lease it was made under: ask [`ClaimGuard::check`] before
/// every effect and put [`ClaimGuard::condition`] into every commit.
#[derive(Debug)]
pub struct ClaimGuard {
    lease: Arc<Lease>,
    claim: Claim,
    version: Version,
    term: u64,
}

impl ClaimGuard {
    /// The number of this claim; orders to agents carry it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.claim.epoch
    }

    /// Whether this master may still act under the claim.
    ///
    /// # Errors
    /// [`Error::ClaimLost`].
    pub fn check(&self) -> Result<()> {
        self.spend_until().map(|_| ())
    }

    /// When spending calls made under the claim end.
    ///
    /// # Errors
    /// [`Error::ClaimLost`].
    pub fn spend_until(&self) -> Result<OffsetDateTime> {
        self.lease.spend_until(self.term)
    }

    /// The condition for every commit of work under the claim.
    #[must_use]
    pub fn condition(&self) -> Write {
        repo::check::<Claim>(&self.claim.subject, self.version)
    }

    /// Whether the Store still has this claim.
    pub async fn is_stored(&self, store: &dyn Store) -> Result<bool> {
        let stored = repo::get::<Claim>(store, &self.claim.subject).await?;
        Ok(stored.is_some_and(|s| s.version == self.version))
    }

    /// Gives the claim back. Failing to do so only makes others wait.
    pub async fn release(&self, store: &dyn Store) -> Result<()> {
        let released = Claim { holder: None, ..self.claim.clone() };
        store.commit(vec![repo::update(&released, self.version)?]).await?;
        Ok(())
    }
}

/// Tries to claim `subject`; `None` while another master, not known to be dead, holds it.
pub async fn claim(
    store: &dyn Store,
    lease: &Arc<Lease>,
    observer: &Observer,
    subject: &str,
) -> Result<Option<ClaimGuard>> {
    let term = lease.term()?;
    let current = repo::get::<Claim>(store, subject).await?;
    if let Some(holder) = current.as_ref().and_then(|c| c.value.holder.as_ref())
        && holder != lease.master()
        && !observer.is_dead(holder, tokio::time::Instant::now())
    {
        return Ok(None);
    }
    let epoch = current.as_ref().map_or(0, |c| c.value.epoch) + 1;
    let claim = Claim { subject: subject.to_owned(), holder: Some(lease.master().clone()), epoch };
    let write = match &current {
        None => repo::create(&claim)?,
        Some(current) => repo::update(&claim, current.version)?,
    };
    match store.commit(vec![write]).await {
        Ok(versions) => {
            let version =
                versions.first().copied().ok_or_else(|| Error::Invariant("a commit without versions".into()))?;
            Ok(Some(ClaimGuard { lease: lease.clone(), claim, version, term }))
        }
        Err(e) if e.is_conflict() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Waits until the claim on `subject` may be free, at most so long: the caller looks anyway.
pub async fn released(feed: &mut Receiver<Arc<Change>>, subject: &str, at_most: Duration) {
    let let_go = async {
        while let Ok(change) = feed.recv().await {
            if let Change::Put(document) = &*change
                && document.key.collection == Claim::COLLECTION
                && document.key.id == subject
            {
                return;
            }
        }
    };
    let _looks_anyway = tokio::time::timeout(at_most, let_go).await;
}
