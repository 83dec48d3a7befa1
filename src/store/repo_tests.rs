use super::*;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{Cursor, FeedItem, Page};
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::Deserialize;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Mutex;
use tempfile::TempDir;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Thing {
    id: String,
    n: u64,
}

impl Entity for Thing {
    const COLLECTION: &'static str = "things";
    const SCHEMA: u32 = 7;
    fn id(&self) -> String {
        self.id.clone()
    }
    fn index(&self) -> Vec<IndexEntry> {
        vec![IndexEntry { name: "parity", value: (self.n % 2).to_string() }]
    }
}

fn thing(id: &str, n: u64) -> Thing {
    Thing { id: id.to_owned(), n }
}

/// A store in which somebody else commits just before our commits do, as often as there is something in `others`.
#[derive(Debug)]
struct Interfered {
    store: SqliteStore,
    others: Mutex<VecDeque<u64>>,
    _dir: TempDir,
}

impl Interfered {
    async fn new(others: &[u64]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("store.db"), SqliteOptions::default()).await.unwrap();
        Self { store, others: Mutex::new(others.iter().copied().collect()), _dir: dir }
    }

    async fn create(&self, value: &Thing) -> Version {
        self.store.commit(vec![create(value).unwrap()]).await.unwrap()[0]
    }

    async fn read(&self, id: &str) -> Option<Thing> {
        get::<Thing>(&self.store, id).await.unwrap().map(|read| read.value)
    }

    fn next_other(&self) -> Option<u64> {
        self.others.lock().unwrap().pop_front()
    }
}

#[async_trait]
impl Store for Interfered {
    async fn get(&self, key: &Key) -> Result<Option<Document>> {
        self.store.get(key).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Version>> {
        if let Some(n) = self.next_other() {
            let now = get::<Thing>(&self.store, "a").await?.unwrap();
            self.store.commit(vec![update(&thing("a", now.value.n + n), now.version)?]).await?;
        }
        self.store.commit(writes).await
    }

    async fn list(&self, query: &Query) -> Result<Page> {
        self.store.list(query).await
    }

    async fn changes(&self, cursor: Option<Cursor>) -> Result<BoxStream<'static, Result<FeedItem>>> {
        self.store.changes(cursor).await
    }
}

/// Adds 1 to `a`.
async fn add(store: &Interfered) -> (u32, Result<Option<Versioned<Thing>>>) {
    let mut tries = 0;
    let result = modify::<Thing, StoreError>(store, "a", |thing| {
        tries += 1;
        thing.n += 1;
        Ok(true)
    })
    .await;
    (tries, result)
}

#[tokio::test]
async fn an_entity_is_kept_with_its_schema_and_index() {
    let store = Interfered::new(&[]).await;
    let version = store.create(&thing("a", 3)).await;
    let raw = store.get(&key::<Thing>("a")).await.unwrap().unwrap();
    assert_eq!(raw.body, json!({"id": "a", "n": 3, "schema": 7}));
    assert_eq!(decode::<Thing>(raw).unwrap(), Versioned { value: thing("a", 3), version });
    let odd = IndexEntry { name: "parity", value: "1".to_owned() };
    assert_eq!(list_all::<Thing>(&store, Some(odd)).await.unwrap(), [Versioned { value: thing("a", 3), version }]);
}

#[tokio::test]
async fn a_document_of_another_shape_is_corrupt_and_not_quoted() {
    let body = json!({"id": "a", "n": "hunter2"});
    let document = Document { key: key::<Thing>("a"), version: Version(1), body };
    let error = decode::<Thing>(document).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { collection: "things", id, .. } if id == "a"), "{error:?}");
    assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn all_is_more_than_a_page() {
    let store = Interfered::new(&[]).await;
    let things: Vec<_> = (0..1100).map(|n| thing(&format!("t-{n:04}"), n)).collect();
    for chunk in things.chunks(100) {
        store.commit(chunk.iter().map(|t| create(t).unwrap()).collect()).await.unwrap();
    }
    let all = list_all::<Thing>(&store, None).await.unwrap();
    assert_eq!(all.into_iter().map(|t| t.value).collect::<Vec<_>>(), things);
}

#[tokio::test]
async fn modify_tries_again_while_others_change_it() {
    let store = Interfered::new(&[10, 100, 1000]).await;
    store.create(&thing("a", 0)).await;
    let (tries, result) = add(&store).await;
    let modified = result.unwrap().unwrap();
    assert_eq!((tries, modified.value), (4, thing("a", 1111)));
    assert_eq!(get::<Thing>(&store, "a").await.unwrap().unwrap().version, modified.version);
    assert_eq!(store.read("a").await, Some(thing("a", 1111)));
}

#[tokio::test]
async fn modify_of_nothing_is_none() {
    let store = Interfered::new(&[]).await;
    let (tries, result) = add(&store).await;
    assert_eq!((tries, result.unwrap()), (0, None));
}

#[tokio::test]
async fn modify_may_leave_everything_as_it_is_or_refuse() {
    let store = Interfered::new(&[]).await;
    let version = store.create(&thing("a", 0)).await;
    let looked = modify::<Thing, StoreError>(&store, "a", |_| Ok(false)).await.unwrap().unwrap();
    assert_eq!(looked.version, version);
    let refusal = || StoreError::Unavailable("no".to_owned());
    let refused = modify::<Thing, StoreError>(&store, "a", |_| Err(refusal())).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(no)) if no == "no"));
    assert_eq!(get::<Thing>(&store, "a").await.unwrap().unwrap().version, version);
}

#[tokio::test]
async fn no_concurrent_modification_is_lost() {
    let store = Interfered::new(&[]).await;
    store.create(&thing("a", 0)).await;
    for (_, result) in futures::future::join_all((0..50).map(|_| add(&store))).await {
        result.unwrap();
    }
    assert_eq!(store.read("a").await, Some(thing("a", 50)));
}

#[tokio::test]
async fn what_a_newer_program_wrote_is_refused_and_the_others_are_read() {
    let store = Interfered::new(&[]).await;
    for (id, schema) in [("newer", json!(8)), ("same", json!(7)), ("older", json!(6)), ("first", json!(null))] {
        let body = json!({ "schema": schema, "id": id, "n": 1 });
        let key = key::<Thing>(id);
        store.commit(vec![Write::Put { key, expect: Expect::Absent, body, index: Vec::new() }]).await.unwrap();
    }
    let refused = get::<Thing>(&store.store, "newer").await.expect_err("newer");
    let said = "document things/newer cannot be read: its schema is 8, and this program knows none after 7";
    assert_eq!(refused.to_string(), said);
    assert!(list_all::<Thing>(&store.store, None).await.is_err());
    let mut unreadable = Vec::new();
    let tell = |error: StoreError| unreadable.push(error.to_string());
    let read = list_all_readable::<Thing>(&store.store, None, tell).await.unwrap();
    assert_eq!(read.into_iter().map(|read| read.value.id).collect::<Vec<_>>(), ["first", "older", "same"]);
    assert_eq!(unreadable, [said]);
}
