//! The Store in Google's Firestore (native mode): for any number of masters on any machines.
//!
//! - **Versions** are Firestore's update times, exact in µs, and every expectation is a precondition on them. A commit is
//!   one Commit call ([`commit`]).
//! - **Documents** keep their fields readable ([`codec`]), **listings** ask an array of index entries ([`read`]).
//! - **The feed** ([`feed`]) listens to one query a collection, "what has changed since": one stream for each master,
//!   whatever the number of nodes, and no write more for a commit. A log of changes would double the writes of every
//!   commit and need a second read for each change; listening to whole collections would read all of them at each start.
//! - **Hot spots**: ids are random but for those of operations, and `_changed` grows, so Firestore bears about 500 writes a
//!   second to one collection; and about one a second to one document, lastingly. So what many write is spread over
//!   documents (`model/limits/shards.rs`).
//!
//! docs/firestore.md tells an operator what this means, and which of it was never tried on the real service.

mod codec;
mod commit;
mod connect;
mod feed;
mod read;
mod status;

pub use connect::{GOOGLE, OpenError};

use super::{Cursor, Document, FeedItem, Key, Page, Query, Result, Store, Version, Write, bounded};
use async_trait::async_trait;
use connect::Connection;
use futures::stream::BoxStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// About so many writes a second are borne by what is counted in so many documents.
const SPREAD: u8 = 16;

/// What is known of a database in Firestore before it is opened.
#[derive(Debug, Clone)]
pub struct FirestoreOptions {
    /// The project at Google.
    pub project: String,
    /// The database in it.
    pub database: String,
    /// A JSON file of Google's: of a service account, or of a workload identity federation. None: Google's usual places.
    pub credentials_file: Option<PathBuf>,
    /// Where Firestore is, where not at [`GOOGLE`]. Credentials are sent over https only.
    pub api_url: Option<String>,
    /// The collections there are: those of every entity, and of nothing else.
    pub collections: Vec<&'static str>,
    /// How long any call may take.
    pub timeout: Duration,
    /// How long the feed may hear nothing before it asks anew. Masters hear their own heartbeats all the time.
    pub silence: Duration,
}

impl FirestoreOptions {
    /// With the defaults that are right for production.
    #[must_use]
    pub fn new(project: impl Into<String>) -> Self {
        Self {
            project: project.into(),
            database: firestore::FIREBASE_DEFAULT_DATABASE_ID.to_owned(),
            credentials_file: None,
            api_url: None,
            collections: super::entities::COLLECTIONS.to_vec(),
            timeout: Duration::from_secs(5),
            silence: Duration::from_secs(10),
        }
    }
}

/// What a Store has asked of Firestore so far, as Firestore bills it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Commits that were done.
    pub commits: u64,
    /// Documents written by them, checks and tombstones included.
    pub writes: u64,
    /// Documents read, by calls and by the feed.
    pub reads: u64,
}

#[derive(Debug, Default)]
struct UsageCounters {
    commits: AtomicU64,
    writes: AtomicU64,
    reads: AtomicU64,
}

impl UsageCounters {
    fn read(&self, documents: usize) {
        self.reads.fetch_add(documents as u64, Ordering::Relaxed);
    }

    fn committed(&self, writes: usize) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(writes as u64, Ordering::Relaxed);
    }

    fn now(&self) -> Usage {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Usage { commits: of(&self.commits), writes: of(&self.writes), reads: of(&self.reads) }
    }
}

/// A [`Store`] in Firestore. Dropping it ends its feeds; what was committed needs no closing.
pub struct FirestoreStore {
    connection: Arc<Connection>,
    silence: Duration,
    stop: CancellationToken,
    _stop_feeds: DropGuard,
}

impl std::fmt::Debug for FirestoreStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirestoreStore").field("database", &self.connection.database()).finish_non_exhaustive()
    }
}

impl FirestoreStore {
    /// Connects, and makes sure that the database is there, may be used, and was made by no newer scale-lnd.
    ///
    /// # Errors
    /// See [`OpenError`]; its words are for operators.
    pub async fn open(options: FirestoreOptions) -> std::result::Result<Self, OpenError> {
        let connection = Arc::new(connect::open(&options).await?);
        let stop = CancellationToken::new();
        let _stop_feeds = stop.clone().drop_guard();
        Ok(Self { connection, silence: options.silence, stop, _stop_feeds })
    }

    /// What was asked of Firestore since this was opened.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.connection.usage()
    }
}

#[async_trait]
impl Store for FirestoreStore {
    async fn get(&self, key: &Key) -> Result<Option<Document>> {
        self.connection.validate(key)?;
        bounded(self.connection.timeout(), read::get(&self.connection, key)).await
    }

    async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<Document>>> {
        for key in keys {
            self.connection.validate(key)?;
        }
        bounded(self.connection.timeout(), read::get_all(&self.connection, keys)).await
    }

    fn spread(&self) -> u8 {
        SPREAD
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Version>> {
        let prepared = commit::prepare(&self.connection, writes)?;
        if prepared.is_empty() {
            return Ok(Vec::new());
        }
        bounded(self.connection.timeout(), commit::commit(&self.connection, &prepared)).await
    }

    async fn list(&self, query: &Query) -> Result<Page> {
        bounded(self.connection.timeout(), read::list(&self.connection, query)).await
    }

    async fn changes(&self, cursor: Option<Cursor>) -> Result<BoxStream<'static, Result<FeedItem>>> {
        let follow = feed::follow(Arc::clone(&self.connection), self.silence, self.stop.clone(), cursor);
        bounded(self.connection.timeout(), follow).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::entities::COLLECTIONS;
    use super::commit::DELETED;
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    /// deploy/firestore declares what every listing and the feed ask for, and takes the index of everything else away.
    #[test]
    fn the_declared_indexes_are_those_that_are_used() {
        let declared: Value =
            serde_json::from_str(include_str!("../../../deploy/firestore/firestore.indexes.json")).unwrap();
        let mut composite = BTreeSet::new();
        let mut single = BTreeSet::new();
        for collection in COLLECTIONS {
            let fields = json!([
                {"fieldPath": "_index", "arrayConfig": "CONTAINS"},
                {"fieldPath": "__name__", "order": "DESCENDING"},
            ]);
            let index = json!({"collectionGroup": collection, "queryScope": "COLLECTION", "fields": fields});
            composite.insert(index.to_string());
            let contains = json!([{"arrayConfig": "CONTAINS", "queryScope": "COLLECTION"}]);
            single
                .insert(json!({"collectionGroup": collection, "fieldPath": "_index", "indexes": contains}).to_string());
        }
        for collection in COLLECTIONS.iter().chain([&DELETED]) {
            let changed = json!([{"order": "ASCENDING", "queryScope": "COLLECTION"}]);
            for (path, indexes) in [("*", json!([])), ("_changed", changed)] {
                single
                    .insert(json!({"collectionGroup": collection, "fieldPath": path, "indexes": indexes}).to_string());
            }
        }
        let expiry = json!({"collectionGroup": DELETED, "fieldPath": "expires_at", "ttl": true, "indexes": []});
        single.insert(expiry.to_string());
        let all = |name: &str| declared[name].as_array().unwrap().iter().map(Value::to_string).collect::<BTreeSet<_>>();
        assert_eq!(all("indexes"), composite);
        assert_eq!(all("fieldOverrides"), single);
    }
}
