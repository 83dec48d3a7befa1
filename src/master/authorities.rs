//! Follows which certificate authorities the deployment has, so that one can take over from another while this master serves.

use crate::app::Parts;
use crate::app::feed::wait_for_change;
use crate::app::fleet::Fleet;
use crate::app::lease::Lease;
use crate::backoff::Backoff;
use crate::model::authority::Authority;
use crate::model::node::Authorities;
use crate::pki::Credentials;
use crate::store::repo::Entity;
use crate::store::{Change, Document};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;

/// It is looked at without a change, too; the feed tells of every change, and when it cannot.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// When they cannot be read. What was believed stays so meanwhile.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };

/// Takes up every change of the authorities, has a certificate of the one that issues, and tells of both in the heartbeat,
/// afterwards. Goes on until it is dropped.
pub(super) async fn follow(parts: Arc<Parts>, fleet: Arc<Fleet>, own: Credentials, mut changes: Receiver<Arc<Change>>) {
    let mut pauses = BACKOFF.pauses();
    loop {
        match look(&parts, &fleet, &own).await {
            Ok(()) => {
                pauses.reset();
                wait_for_change(&mut changes, LOOK_EVERY, is_authority).await;
            }
            // Such as a sealing key that is about to come.
            Err(error) => {
                tracing::warn!(%error, "the deployment's authorities cannot be taken up yet");
                tokio::time::sleep(pauses.take()).await;
            }
        }
    }
}

fn is_authority(document: &Document) -> bool {
    document.key.collection == Authority::COLLECTION && document.key.id == Authority::ID
}

async fn look(parts: &Parts, fleet: &Fleet, own: &Credentials) -> crate::error::Result<()> {
    if fleet.refresh(&parts.keys).await? {
        let (believed, step) = fleet.believed();
        tracing::info!(step, ?believed, "these authorities are believed from now on; the first issues");
    }
    if own.issuer() != fleet.ca().fingerprint() {
        fleet.renew_own(parts.lease.master(), own)?;
        tracing::info!("this master has a certificate of the authority that issues now");
    }
    tell(&parts.lease, fleet, own);
    Ok(())
}

/// From the next heartbeat on others know what this master believes and shows.
pub(super) fn tell(lease: &Lease, fleet: &Fleet, own: &Credentials) {
    let (_, step) = fleet.believed();
    lease.tell_authorities(Authorities { step, shown: own.issuer().to_string() });
}
