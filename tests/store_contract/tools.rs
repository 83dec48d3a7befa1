//! Short words for the cases.

use crate::harness::within;
use futures::StreamExt;
use futures::stream::BoxStream;
use scale_lnd::error::StoreError;
use scale_lnd::store::{
    Change, Cursor, Document, Expect, FeedItem, IndexEntry, Key, Query, Result, Store, Version, Write,
};
use serde_json::Value;
use std::time::Duration;

/// A test beside the contract has this long, as every case of the contract has a minute: some start an emulator.
pub async fn timed<T>(test: impl Future<Output = T>) -> T {
    within(Duration::from_secs(120), test).await
}

/// The collection most cases use.
pub const THINGS: &str = "contract_things";
/// Another one.
pub const OTHERS: &str = "contract_others";

pub fn key(id: &str) -> Key {
    Key { collection: THINGS, id: id.to_owned() }
}

pub fn create(id: &str, body: Value) -> Write {
    Write::Put { key: key(id), expect: Expect::Absent, body, index: Vec::new() }
}

pub fn update(id: &str, version: Version, body: Value) -> Write {
    Write::Put { key: key(id), expect: Expect::Version(version), body, index: Vec::new() }
}

pub fn delete(id: &str, version: Version) -> Write {
    Write::Delete { key: key(id), expect: version }
}

/// The numbers `n` of all things, as the store lists them.
pub async fn numbers(store: &dyn Store) -> Vec<u64> {
    let page = store.list(&all()).await.unwrap();
    page.documents.iter().map(|document| document.body["n"].as_u64().unwrap()).collect()
}

pub fn check(id: &str, expect: Expect) -> Write {
    Write::Check { key: key(id), expect }
}

/// The same write with these index entries.
pub fn indexed(write: Write, entries: &[(&'static str, &str)]) -> Write {
    let entry = |&(name, value): &(&'static str, &str)| IndexEntry { name, value: value.to_owned() };
    match write {
        Write::Put { key, expect, body, .. } => {
            Write::Put { key, expect, body, index: entries.iter().map(entry).collect() }
        }
        other => other,
    }
}

/// Commits one write.
pub async fn commit(store: &dyn Store, write: Write) -> Result<Version> {
    store.commit(vec![write]).await.map(|versions| versions[0])
}

/// Reads a document that must be there.
pub async fn read(store: &dyn Store, id: &str) -> Document {
    store.get(&key(id)).await.unwrap().unwrap_or_else(|| panic!("{id} is not there"))
}

/// Whether a document is there.
pub async fn exists(store: &dyn Store, id: &str) -> bool {
    store.get(&key(id)).await.unwrap().is_some()
}

/// The result must be a conflict about this document.
#[track_caller]
pub fn assert_conflict<T: std::fmt::Debug>(result: Result<T>, about: &str) {
    match result {
        Err(StoreError::Conflict { collection: THINGS, id }) if id == about => {}
        other => panic!("a conflict about {about} expected, not {other:?}"),
    }
}

#[track_caller]
pub fn assert_invalid<T: std::fmt::Debug>(result: Result<T>) {
    assert!(matches!(result, Err(StoreError::Invalid { .. })), "{result:?}");
}

/// A query for all of [`THINGS`] upwards.
pub fn all() -> Query {
    Query { collection: THINGS, index: None, after: None, limit: 100, descending: false }
}

/// A query by index.
pub fn by(name: &'static str, value: &str) -> Query {
    Query { index: Some(IndexEntry { name, value: value.to_owned() }), ..all() }
}

/// The ids of one page.
pub async fn ids(store: &dyn Store, query: Query) -> Vec<String> {
    store.list(&query).await.unwrap().documents.into_iter().map(|d| d.key.id).collect()
}

/// A follower of the feed that remembers what it was told.
pub struct Follower {
    stream: BoxStream<'static, Result<FeedItem>>,
    pub cursor: Option<Cursor>,
    pub told: Vec<Change>,
}

impl Follower {
    pub async fn of(store: &dyn Store, cursor: Option<Cursor>) -> Self {
        Self { stream: store.changes(cursor).await.unwrap(), cursor, told: Vec::new() }
    }

    /// A follower that has had its first resync.
    pub async fn from_now(store: &dyn Store) -> Self {
        let mut follower = Self::of(store, None).await;
        assert!(matches!(follower.next().await, Some(Change::Resync)));
        follower
    }

    /// The next change; `None` when the feed has ended. Other processes' changes are to be heard within 5 s.
    pub async fn next(&mut self) -> Option<Change> {
        let item = tokio::time::timeout(Duration::from_secs(5), self.stream.next()).await.expect("nothing was told");
        let item = item?.unwrap();
        self.cursor = Some(item.cursor);
        self.told.push(item.change.clone());
        Some(item.change)
    }

    /// Listens until this document is told at this version.
    pub async fn until(&mut self, id: &str, version: Version) {
        while !matches!(self.next().await, Some(Change::Put(d)) if d.key == key(id) && d.version == version) {}
    }

    /// The versions told of a document, in order.
    pub fn versions_of(&self, id: &str) -> Vec<Version> {
        let of = |change: &Change| match change {
            Change::Put(d) if d.key == key(id) => Some(d.version),
            _ => None,
        };
        self.told.iter().filter_map(of).collect()
    }
}
