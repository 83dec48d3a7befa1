//! Whether the masters that live have taken something up that is in the Store.

use crate::app::lease::Observer;
use crate::error::StoreError;
use crate::model::MasterId;
use crate::model::node::Heartbeat;
use crate::store::{Store, repo};
use std::time::Duration;
use tokio::time::Instant;

/// How often the heartbeats are looked at. That one stands still is no event.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Stands in for the lease of a master without a heartbeat, which no one asks about here.
const NO_LEASE: Duration = Duration::from_secs(60);

/// What was seen of heartbeats.
pub(super) fn observer() -> Observer {
    Observer::new(NO_LEASE)
}

/// The masters that live, as far as `observer` knows, and whose heartbeat does not tell it.
pub(super) async fn lacking(
    store: &dyn Store,
    observer: &Observer,
    tells: impl Fn(&Heartbeat) -> bool,
) -> Result<Vec<MasterId>, StoreError> {
    let now = Instant::now();
    let mut masters = Vec::new();
    for heartbeat in repo::list_all::<Heartbeat>(store, None).await?.into_iter().map(|found| found.value) {
        observer.saw(&heartbeat, now);
        if !tells(&heartbeat) && !observer.is_dead(&heartbeat.master, now) {
            masters.push(heartbeat.master);
        }
    }
    Ok(masters)
}
