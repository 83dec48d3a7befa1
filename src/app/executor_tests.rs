//! What stops one operation stops no other. The operations here are of nodes that there are not: whoever works on one parks
//! it, which shows that it was worked on.

use super::*;
use crate::clock::SystemClock;
use crate::model::node::Node;
use crate::model::work::Work;
use crate::model::work::delete::{Delete, DeleteStep};
use crate::model::{NodeId, OperationId};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{Cursor, Document, Expect, FeedItem, Key, Page, Query, Store, Version, Write};
use futures::stream::BoxStream;
use serde_json::json;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::sync::Semaphore;

const SOON: Duration = Duration::from_secs(20);

async fn sqlite() -> (SqliteStore, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("db"), SqliteOptions::default()).await.unwrap();
    (store, dir)
}

fn operation_of(node: &NodeId) -> Operation {
    let at = OffsetDateTime::now_utc();
    Operation {
        id: OperationId::random(at, &mut rand::rng()),
        owner: None,
        node: Some(node.clone()),
        host: None,
        work: Work::Delete(Delete { step: DeleteStep::Check }),
        state: State::Running,
        progress: String::new(),
        reservation: None,
        created_at: at,
        updated_at: at,
    }
}

fn nobody() -> NodeId {
    NodeId::random(&mut rand::rng())
}

/// An unfinished operation of `node` that only another program can read.
fn unreadable(node: &NodeId) -> Write {
    let operation = operation_of(node);
    let Ok(Write::Put { key, expect, index, .. }) = repo::create(&operation) else { panic!("a put") };
    Write::Put { key, expect, body: json!({ "schema": 1, "work": { "kind": "of tomorrow" } }), index }
}

/// Runs a master's executor, and what it stands on, for as long as `test` takes.
async fn with_executor(store: Arc<dyn Store>, test: impl Future<Output = ()>) {
    let parts = Parts::for_tests(Arc::clone(&store), Arc::new(SystemClock));
    let stop = CancellationToken::new();
    let mut base = JoinSet::new();
    base.spawn(Arc::clone(&parts.feed).run(Arc::clone(&store), stop.clone()));
    base.spawn(Arc::clone(&parts.lease).run(store, stop.clone()));
    base.spawn(Executor::new(parts).run(stop.clone()));
    tokio::time::timeout(SOON, test).await.expect("in time");
    stop.cancel();
    tokio::time::timeout(SOON, base.join_all()).await.expect("ends");
}

/// Waits until so many operations are parked.
async fn parked(store: &dyn Store, number: usize) {
    let index = IndexEntry { name: "state", value: "parked".to_owned() };
    loop {
        let found = repo::list_all::<Operation>(store, Some(index.clone())).await.unwrap();
        if found.len() == number {
            return;
        }
        assert!(found.len() < number, "{found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_cannot_be_read_holds_up_nothing_else() {
    let (store, dir) = sqlite().await;
    let store: Arc<dyn Store> = Arc::new(store);
    let node = nobody();
    store.commit(vec![unreadable(&node), unreadable(&nobody())]).await.unwrap();
    let (damaged, beside, alone) = (operation_of(&nobody()), operation_of(&node), operation_of(&nobody()));
    let all = [&damaged, &beside, &alone].map(|operation| repo::create(operation).unwrap());
    store.commit(all.to_vec()).await.unwrap();
    let mut stranger = SqliteConnectOptions::new().filename(dir.path().join("db")).connect().await.unwrap();
    let damage = sqlx::query("UPDATE documents SET body = '{' WHERE id = ?").bind(damaged.id.as_str());
    damage.execute(&mut stranger).await.unwrap();
    let looking = Arc::clone(&store);
    with_executor(store, async move { parked(&*looking, 2).await }).await;
}

#[tokio::test]
async fn claims_that_cannot_be_read_hold_up_no_other_subject() {
    let (store, _dir) = sqlite().await;
    let store: Arc<dyn Store> = Arc::new(store);
    for _ in 0..20 {
        let mut writes = Vec::new();
        for operation in (0..50).map(|_| operation_of(&nobody())) {
            let key = Key { collection: Claim::COLLECTION, id: operation.subject().to_owned() };
            writes.push(Write::Put { key, expect: Expect::Absent, body: json!({ "holder": 7 }), index: Vec::new() });
            writes.push(repo::create(&operation).unwrap());
        }
        store.commit(writes).await.unwrap();
    }
    store.commit(vec![repo::create(&operation_of(&nobody())).unwrap()]).await.unwrap();
    let looking = Arc::clone(&store);
    with_executor(store, async move { parked(&*looking, 1).await }).await;
}

/// What becomes of the first one that reads a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// It waits like the others.
    Waits,
    Panics,
    /// It is kept until it is let go.
    Stays,
}

/// Whoever reads a node from it waits for leave to go on.
#[derive(Debug)]
struct Booby {
    store: SqliteStore,
    first: First,
    reads: AtomicUsize,
    /// How often a subject's unfinished operations were listed.
    lists: AtomicUsize,
    go: Semaphore,
    let_first_go: Semaphore,
}

impl Booby {
    fn new(store: SqliteStore, first: First, go: usize) -> Arc<Self> {
        let (reads, lists) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { store, first, reads, lists, go: Semaphore::new(go), let_first_go: Semaphore::new(0) })
    }

    /// Waits until so many have come to read a node.
    async fn comers(&self, number: usize) {
        while self.reads.load(Ordering::SeqCst) < number {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[async_trait::async_trait]
impl Store for Booby {
    async fn get(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        if key.collection == Node::COLLECTION {
            let is_first = self.reads.fetch_add(1, Ordering::SeqCst) == 0;
            assert!(!is_first || self.first != First::Panics, "on purpose");
            let go = if is_first && self.first == First::Stays { &self.let_first_go } else { &self.go };
            let _go = go.acquire().await.unwrap();
        }
        self.store.get(key).await
    }
    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Version>, StoreError> {
        self.store.commit(writes).await
    }
    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        let is_of_a_subject = query.index.as_ref().is_some_and(|index| index.name == "running");
        self.lists.fetch_add(is_of_a_subject.into(), Ordering::SeqCst);
        self.store.list(query).await
    }
    async fn changes(
        &self,
        cursor: Option<Cursor>,
    ) -> Result<BoxStream<'static, Result<FeedItem, StoreError>>, StoreError> {
        self.store.changes(cursor).await
    }
}

#[tokio::test]
async fn a_step_that_panics_parks_its_operation_and_disturbs_no_other() {
    let (store, _dir) = sqlite().await;
    let store = Booby::new(store, First::Panics, 0);
    let node = nobody();
    let both = [operation_of(&node), operation_of(&node)].map(|operation| repo::create(&operation).unwrap());
    store.commit(both.to_vec()).await.unwrap();
    let looking = Arc::clone(&store);
    with_executor(store, async move {
        parked(&*looking, 1).await;
        looking.comers(2).await;
        looking.go.add_permits(1);
        parked(&*looking, 2).await;
        assert_eq!(looking.reads.load(Ordering::SeqCst), 2, "no step was broken off or done again");
    })
    .await;
}

#[tokio::test]
async fn a_worker_does_not_look_for_more_when_what_it_is_at_changes() {
    let (store, _dir) = sqlite().await;
    let store = Booby::new(store, First::Waits, 0);
    let node = nobody();
    let (first, second) = (operation_of(&node), operation_of(&node));
    store.commit(vec![repo::create(&first).unwrap()]).await.unwrap();
    let looking = Arc::clone(&store);
    with_executor(store, async move {
        looking.comers(1).await;
        let before = looking.lists.load(Ordering::SeqCst);
        for n in 0..20 {
            let change = |operation: &mut Operation| {
                operation.progress = n.to_string();
                Ok::<_, StoreError>(true)
            };
            repo::modify::<Operation, _>(&*looking, first.id.as_str(), change).await.unwrap();
        }
        looking.commit(vec![repo::create(&second).unwrap()]).await.unwrap();
        looking.comers(2).await;
        assert_eq!(looking.lists.load(Ordering::SeqCst) - before, 1, "for the second one");
        looking.go.add_permits(1);
        parked(&*looking, 2).await;
    })
    .await;
}

/// It is freed as soon as it is parked, when the worker is just about to leave it: to end, or to go on with another one.
#[tokio::test]
async fn what_runs_again_is_worked_on_again() {
    for first in [First::Waits, First::Stays] {
        let (store, _dir) = sqlite().await;
        let store = Booby::new(store, first, 1);
        let node = nobody();
        let looking = Arc::clone(&store);
        with_executor(store, async move {
            if first == First::Stays {
                looking.commit(vec![repo::create(&operation_of(&node)).unwrap()]).await.unwrap();
                looking.comers(1).await;
            }
            let operation = operation_of(&node);
            looking.commit(vec![repo::create(&operation).unwrap()]).await.unwrap();
            let mut times = 0;
            while times < 200 {
                let mut is_freed = false;
                let free = |operation: &mut Operation| {
                    is_freed = operation.free(OffsetDateTime::now_utc());
                    Ok::<_, StoreError>(is_freed)
                };
                repo::modify(&*looking, operation.id.as_str(), free).await.unwrap();
                times += u32::from(is_freed);
            }
            looking.let_first_go.add_permits(1);
        })
        .await;
    }
}

/// What a change of a document tells the executor that waits for `subject`: whether it looks again now.
async fn looks_again(subject: &str, change: Change) -> bool {
    let (store, _dir) = sqlite().await;
    let executor = Executor::new(Parts::for_tests(Arc::new(store), Arc::new(SystemClock)));
    let (mut waiting, mut held) = (HashSet::new(), HashSet::from([subject.to_owned()]));
    assert!(!executor.note(&change, &mut waiting, &mut held));
    assert_eq!(waiting.len() + held.len(), 1);
    waiting.contains(subject)
}

#[tokio::test]
async fn what_another_master_lets_go_is_looked_at_at_once() {
    let master = crate::model::MasterId::random(&mut rand::rng());
    let told = |subject: &str, holder| {
        let claim = Claim { subject: subject.to_owned(), holder, epoch: 1 };
        let key = Key { collection: Claim::COLLECTION, id: claim.subject.clone() };
        Change::Put(Document { key, version: Version(1), body: serde_json::to_value(&claim).unwrap() })
    };
    assert!(looks_again("alices", told("alices", None)).await, "released");
    assert!(!looks_again("alices", told("bobs", None)).await, "another's");
    assert!(!looks_again("alices", told("alices", Some(master.clone()))).await, "claimed");
    let gone = Key { collection: Heartbeat::COLLECTION, id: master.to_string() };
    assert!(looks_again("alices", Change::Deleted(gone)).await, "its holder may have ended in good order");
}

/// Changes can name a subject while its worker is at it.
#[tokio::test]
async fn no_master_takes_a_claim_from_its_own_worker() {
    let (store, _dir) = sqlite().await;
    let store: Arc<dyn Store> = Arc::new(store);
    let parts = Parts::for_tests(Arc::clone(&store), Arc::new(SystemClock));
    let beating = tokio::spawn(Arc::clone(&parts.lease).run(Arc::clone(&store), CancellationToken::new()));
    while parts.lease.term().is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let operation = operation_of(&nobody());
    store.commit(vec![repo::create(&operation).unwrap()]).await.unwrap();
    let executor = Executor::new(parts);
    let first = executor.take_on(operation.subject()).await;
    assert!(matches!(first, Ok(Found::Work(_))));
    let again = executor.take_on(operation.subject()).await;
    assert!(matches!(again, Ok(Found::Nothing)));
    let claim = repo::get::<Claim>(&*store, operation.subject()).await.unwrap().unwrap();
    assert_eq!(claim.value.epoch, 1);
    executor.left(operation.subject());
    assert!(matches!(executor.take_on(operation.subject()).await, Ok(Found::Work(_))));
    beating.abort();
}
