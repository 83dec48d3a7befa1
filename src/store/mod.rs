//! The Store: where everything a master knows is kept, so that any master can be killed at any instant.
//!
//! One trait, shaped so that Firestore can do it and SQLite then can; one contract suite (`tests/store_contract`) holds
//! every store to it. Typed access is in [`repo`].

mod entities;
pub mod firestore;
pub mod repo;
pub mod sqlite;

pub(crate) use entities::{COLLECTIONS, index_of};

use crate::error::StoreError;
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::time::Duration;

/// The result of a Store call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Names a document. Ids are ours: 1–200 characters of `A-Za-z0-9_-`, not beginning with `__` (Firestore keeps those names for
/// itself), never taken from a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The collection, one of a fixed set.
    pub collection: &'static str,
    /// The document's id in it.
    pub id: String,
}

impl Key {
    /// Checks what every store must be able to rely on about an id.
    fn validate(&self) -> Result<()> {
        if is_id(&self.id) {
            return Ok(());
        }
        let reason = "an id is 1–200 characters of A-Za-z0-9_-, not beginning with __";
        Err(StoreError::Invalid { collection: self.collection, reason })
    }
}

fn is_id(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=200).contains(&id.len()) && id.bytes().all(allowed) && !id.starts_with("__")
}

/// Bounds a call in time.
async fn bounded<T>(timeout: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(timeout, call).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unavailable(format!("no answer from the database within {timeout:?}"))),
    }
}

/// The version of a document: grows with every write of it, and goes on from there when the document is deleted and made
/// anew. Opaque otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u64);

/// A stored document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its name.
    pub key: Key,
    /// The version read.
    pub version: Version,
    /// Its contents.
    pub body: serde_json::Value,
}

/// What a write expects of the document before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// It does not exist.
    Absent,
    /// It is at this version.
    Version(Version),
}

/// An index entry of a document: `list` finds documents by (name, value).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IndexEntry {
    /// The index.
    pub name: &'static str,
    /// The value, compared for equality only.
    pub value: String,
}

/// One part of a commit.
#[derive(Debug, Clone)]
pub enum Write {
    /// Create or replace the document, and with it all its index entries.
    Put {
        /// Which document.
        key: Key,
        /// What must hold before.
        expect: Expect,
        /// The new contents.
        body: serde_json::Value,
        /// The new index entries, in place of all old ones.
        index: Vec<IndexEntry>,
    },
    /// Delete the document.
    Delete {
        /// Which document.
        key: Key,
        /// The version it must have.
        expect: Version,
    },
    /// Write nothing, but let the commit fail unless this holds.
    Check {
        /// Which document.
        key: Key,
        /// What must hold.
        expect: Expect,
    },
}

/// Which documents to list, in the order of their ids.
#[derive(Debug, Clone)]
pub struct Query {
    /// The collection.
    pub collection: &'static str,
    /// Only documents with this index entry; all of the collection where absent.
    pub index: Option<IndexEntry>,
    /// Only ids after this one.
    pub after: Option<String>,
    /// At most this many (1–1000).
    pub limit: usize,
    /// Ids downwards instead of upwards (`after` then means before).
    pub descending: bool,
}

/// A page of a listing.
#[derive(Debug, Clone)]
pub struct Page {
    /// The documents.
    pub documents: Vec<Document>,
    /// `after` of the next page, where there is one.
    pub next: Option<String>,
}

/// A position in the change feed. A cursor is only good for the store that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor(pub u64);

/// What the change feed tells.
#[derive(Debug, Clone)]
pub enum Change {
    /// A document was written. The body may already be newer than the write that caused this.
    Put(Document),
    /// A document was deleted.
    Deleted(Key),
    /// There may be a gap: whoever caches must read everything again. Also the first item of a feed without a cursor.
    Resync,
}

/// A change and the position after it.
#[derive(Debug, Clone)]
pub struct FeedItem {
    /// Where to go on after this item.
    pub cursor: Cursor,
    /// What happened.
    pub change: Change,
}

/// Keeps documents. Implementations are shared by all tasks of a master and by several masters.
///
/// Contract: every call is bounded in time (an implementation has its own timeouts) and returns
/// [`StoreError::Unavailable`] past that. A commit that returned `Ok` survives a crash of the machine. `Unavailable`
/// from `commit` leaves unknown whether it happened: read before deciding. A caller holds no lock across a call, unless taking turns is
/// what the lock is for.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug + 'static {
    /// Reads one document as of the latest commit.
    async fn get(&self, key: &Key) -> Result<Option<Document>>;

    /// Reads several documents, in the order of `keys`: each as of the latest commit, but not all as of one.
    async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<Document>>> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.get(key).await?);
        }
        Ok(found)
    }

    /// In how many documents that is best counted which many commits write: in one, unless writes of one document wait for each
    /// other longer than those of several.
    fn spread(&self) -> u8 {
        1
    }

    /// Does all the writes or none; versions are returned in the order of the writes (for `Check` and `Delete` the version
    /// is the one of the commit). Each key occurs at most once. [`StoreError::Conflict`] names the first document whose
    /// expectation failed.
    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Version>>;

    /// Lists documents by index: each as of the latest commit or of one that came while it was listed, but not all as of one
    /// instant, as pages are not either. Whoever decides on several commits on condition of their versions.
    async fn list(&self, query: &Query) -> Result<Page>;

    /// Follows all changes after `cursor`, whoever makes them: at least once, in order per document. Without a cursor:
    /// from now on, `Resync` first. A feed that cannot go on where it was says `Resync`. It ends only with the store.
    /// Several changes of a document may be told as one, as the state they led to. After an error the feed goes on.
    async fn changes(&self, cursor: Option<Cursor>) -> Result<BoxStream<'static, Result<FeedItem>>>;
}
