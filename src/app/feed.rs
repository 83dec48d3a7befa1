//! One follower of the Store's change feed for the whole master: caches, waiting calls, event streams and the executor
//! all hear of changes through it, other masters' writes included.

use crate::model::OperationId;
use crate::model::operation::Operation;
use crate::store::repo::Entity;
use crate::store::{Change, Store};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A master whose feed has been silent for this long cannot be sure of what it has cached (its own heartbeat comes through
/// the feed, so a healthy feed is never silent).
pub const STALE_AFTER: Duration = Duration::from_secs(5);
const BUFFER: usize = 4096;

/// The feed, shared.
#[derive(Debug)]
pub struct Feed {
    changes: broadcast::Sender<Arc<Change>>,
    heard: watch::Sender<Option<Instant>>,
}

impl Feed {
    /// A feed that nobody follows yet: subscribe first, then [`Feed::run`], so that nothing is missed.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { changes: broadcast::channel(BUFFER).0, heard: watch::channel(None).0 })
    }

    /// Follows the Store until `stop`. A feed that breaks is opened again; the gap is told as `Resync`.
    pub async fn run(self: Arc<Self>, store: Arc<dyn Store>, stop: CancellationToken) {
        let mut cursor = None;
        while !stop.is_cancelled() {
            let mut stream = match store.changes(cursor).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the change feed cannot be opened");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_millis(200)) => continue,
                    }
                }
            };
            loop {
                let item = tokio::select! {
                    () = stop.cancelled() => return,
                    item = stream.next() => item,
                };
                match item {
                    Some(Ok(item)) => {
                        cursor = Some(item.cursor);
                        self.heard.send_replace(Some(Instant::now()));
                        let _nobody_listens = self.changes.send(Arc::new(item.change));
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%error, "the change feed broke");
                        break;
                    }
                    None => break,
                }
            }
        }
    }

    /// All changes from now on. `Lagged` means the same as [`Change::Resync`].
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Change>> {
        self.changes.subscribe()
    }

    /// Whether something was heard recently enough to trust what is cached.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.heard.borrow().is_some_and(|at| at.elapsed() < STALE_AFTER)
    }
}

/// Waits until this operation has changed, or may have. `None`: the feed has ended.
pub async fn next_change_of(changes: &mut broadcast::Receiver<Arc<Change>>, id: &OperationId) -> Option<()> {
    loop {
        match changes.recv().await {
            Ok(change) => match &*change {
                Change::Resync => return Some(()),
                Change::Put(d) if d.key.collection == Operation::COLLECTION && d.key.id == id.as_str() => {
                    return Some(());
                }
                Change::Put(_) | Change::Deleted(_) => {}
            },
            Err(broadcast::error::RecvError::Lagged(_)) => return Some(()),
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}
