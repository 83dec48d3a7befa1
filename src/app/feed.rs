//! One follower of the Store's change feed for the whole master: caches, waiting calls, event streams and the executor
//! all hear of changes through it, other masters' writes included.

use crate::error::StoreError;
use crate::model::OperationId;
use crate::model::operation::Operation;
use crate::store::repo::{self, Entity, Versioned};
use crate::store::{Change, Cursor, Document, FeedItem, Store};
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
/// How long a Store that gives no feed is left alone.
const REOPEN_AFTER: Duration = Duration::from_millis(200);

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

    /// Follows the Store until `stop`. What cannot be read is left out and told as `Resync`, so that nobody goes on with what
    /// they have of it.
    pub async fn run(self: Arc<Self>, store: Arc<dyn Store>, stop: CancellationToken) {
        stop.run_until_cancelled(self.follow(&*store)).await;
    }

    async fn follow(&self, store: &dyn Store) {
        let mut cursor = None;
        loop {
            match store.changes(cursor).await {
                Ok(mut stream) => {
                    // The Store's feed goes on after an error, and it is the Store that pauses where it has to.
                    while let Some(item) = stream.next().await {
                        self.hear(item, &mut cursor);
                    }
                    tracing::warn!("the change feed ended");
                }
                Err(error) => tracing::warn!(%error, "the change feed cannot be opened"),
            }
            tokio::time::sleep(REOPEN_AFTER).await;
        }
    }

    fn hear(&self, item: Result<FeedItem, StoreError>, cursor: &mut Option<Cursor>) {
        let change = match item {
            Ok(item) => {
                *cursor = Some(item.cursor);
                item.change
            }
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, "a change is left out");
                Change::Resync
            }
            Err(error) => {
                tracing::warn!(%error, "the change feed is held up");
                return;
            }
        };
        self.heard.send_replace(Some(Instant::now()));
        let _nobody_listens = self.changes.send(Arc::new(change));
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

/// What the feed says of an operation.
#[derive(Debug)]
pub enum Changed {
    /// This is how it is, or was: what was read from the Store meanwhile may have a higher version.
    To(Box<Versioned<Operation>>),
    /// It may have changed: only the Store knows.
    LookAgain,
}

/// Waits until this operation has changed, or may have. `None`: the feed has ended.
pub async fn next_change_of(changes: &mut broadcast::Receiver<Arc<Change>>, id: &OperationId) -> Option<Changed> {
    loop {
        match changes.recv().await {
            Ok(change) => match &*change {
                Change::Resync => return Some(Changed::LookAgain),
                Change::Put(d) if d.key.collection == Operation::COLLECTION && d.key.id == id.as_str() => {
                    let read = repo::decode_ref(d);
                    return Some(read.map_or(Changed::LookAgain, |read| Changed::To(Box::new(read))));
                }
                Change::Put(_) | Change::Deleted(_) => {}
            },
            Err(broadcast::error::RecvError::Lagged(_)) => return Some(Changed::LookAgain),
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

/// Waits until a document that is `relevant` has changed, or anything may have. At most so long: the caller looks anyway.
pub async fn wait_for_change(
    changes: &mut broadcast::Receiver<Arc<Change>>,
    at_most: Duration,
    relevant: impl Fn(&Document) -> bool + Send,
) {
    let changed = async {
        while let Ok(change) = changes.recv().await {
            match &*change {
                Change::Resync => return,
                Change::Put(document) if relevant(document) => return,
                Change::Put(_) | Change::Deleted(_) => {}
            }
        }
    };
    let _past_the_time_the_caller_looks_anyway = tokio::time::timeout(at_most, changed).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};
    use crate::store::{Expect, Key, Write};
    use sqlx::ConnectOptions;
    use sqlx::sqlite::SqliteConnectOptions;

    fn put(id: &str) -> Write {
        let key = Key { collection: Operation::COLLECTION, id: id.to_owned() };
        Write::Put { key, expect: Expect::Absent, body: serde_json::json!({}), index: Vec::new() }
    }

    #[tokio::test]
    async fn a_damaged_document_does_not_stop_the_feed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let store = Arc::new(SqliteStore::open(&path, SqliteOptions::default()).await.unwrap());
        let mut stranger = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        let damage = "CREATE TRIGGER damage AFTER INSERT ON documents WHEN new.id = 'bad'
            BEGIN UPDATE documents SET body = '{' WHERE id = 'bad'; END";
        sqlx::query(damage).execute(&mut stranger).await.unwrap();
        let feed = Feed::new();
        let mut told = feed.subscribe();
        let running = tokio::spawn(Arc::clone(&feed).run(store.clone(), CancellationToken::new()));
        let mut next = async || {
            let told = tokio::time::timeout(Duration::from_secs(10), told.recv()).await;
            told.expect("the feed goes on").unwrap()
        };
        assert!(matches!(&*next().await, Change::Resync), "the beginning");
        store.commit(vec![put("bad"), put("good")]).await.unwrap();
        assert!(matches!(&*next().await, Change::Resync), "whoever knew the damaged one has to look");
        assert!(matches!(&*next().await, Change::Put(document) if document.key.id == "good"));
        assert!(feed.is_fresh());
        running.abort();
    }
}
