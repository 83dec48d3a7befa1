//! Who waits for an operation asks the Store once, and believes the feed from then on, unless that is behind.

use super::*;
use crate::clock::SystemClock;
use crate::model::ids::NodeId;
use crate::model::operation::State;
use crate::model::work::Work;
use crate::model::work::delete::{Delete, DeleteStep};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{
    Change, Cursor, Document, FeedItem, Key, Page, Query, Result as StoreResult, Store, Version, Write,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

/// A store whose feed tells what a test lets it tell.
#[derive(Debug)]
struct Told {
    store: SqliteStore,
    reads: AtomicUsize,
    changes: Mutex<Option<mpsc::UnboundedReceiver<StoreResult<FeedItem>>>>,
    _dir: TempDir,
}

#[async_trait::async_trait]
impl Store for Told {
    async fn get(&self, key: &Key) -> StoreResult<Option<Document>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.store.get(key).await
    }
    async fn commit(&self, writes: Vec<Write>) -> StoreResult<Vec<Version>> {
        self.store.commit(writes).await
    }
    async fn list(&self, query: &Query) -> StoreResult<Page> {
        self.store.list(query).await
    }
    async fn changes(&self, _: Option<Cursor>) -> StoreResult<BoxStream<'static, StoreResult<FeedItem>>> {
        let changes = self.changes.lock().unwrap().take().expect("followed once");
        Ok(UnboundedReceiverStream::new(changes).boxed())
    }
}

struct World {
    service: Service,
    store: Arc<Told>,
    tell: mpsc::UnboundedSender<StoreResult<FeedItem>>,
    operation: Operation,
}

impl World {
    /// With an operation that runs.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("db"), SqliteOptions::default()).await.unwrap();
        let at = OffsetDateTime::UNIX_EPOCH;
        let operation = Operation {
            id: OperationId::random(at, &mut rand::rng()),
            owner: None,
            node: Some(NodeId::random(&mut rand::rng())),
            host: None,
            work: Work::Delete(Delete { step: DeleteStep::Check }),
            state: State::Running,
            progress: String::new(),
            reservation: None,
            created_at: at,
            updated_at: at,
        };
        store.commit(vec![repo::create(&operation).unwrap()]).await.unwrap();
        let (tell, changes) = mpsc::unbounded_channel();
        let store = Told { store, reads: AtomicUsize::new(0), changes: Mutex::new(Some(changes)), _dir: dir };
        let store = Arc::new(store);
        let parts = Parts::for_tests(store.clone(), Arc::new(SystemClock));
        let directory = Directory::start(Arc::clone(&parts), 1, CancellationToken::new()).await.unwrap();
        tokio::spawn(Arc::clone(&parts.feed).run(store.clone(), CancellationToken::new()));
        Self { service: Service::new(parts, directory), store, tell, operation }
    }

    /// Writes the operation in another state, without a word; what the feed may say of it, now or later.
    async fn becomes(&self, state: State) -> Change {
        let key = repo::key::<Operation>(self.operation.id.as_str());
        let version = self.store.store.get(&key).await.unwrap().unwrap().version;
        let next = Operation { state, ..self.operation.clone() };
        self.store.commit(vec![repo::update(&next, version).unwrap()]).await.unwrap();
        Change::Put(self.store.store.get(&key).await.unwrap().unwrap())
    }

    fn tell(&self, change: Change) {
        self.tell.send(Ok(FeedItem { cursor: Cursor(0), change })).unwrap();
    }

    async fn until_read(&self, times: usize) {
        while self.store.reads.load(Ordering::SeqCst) < times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn parked() -> State {
    State::Parked { error: Refusal::new(Code::Parked, "it was") }
}

fn succeeded() -> State {
    State::Succeeded { result: serde_json::json!({}) }
}

#[tokio::test]
async fn a_call_that_waits_is_ended_by_the_feed_and_not_by_what_is_old() {
    let world = World::new().await;
    let (old, _freed) = (world.becomes(parked()).await, world.becomes(State::Running).await);
    let telling = async {
        world.until_read(1).await;
        world.tell(old);
        world.tell(world.becomes(succeeded()).await);
    };
    let both = async { tokio::join!(world.service.wait(&world.operation.id, SOON), telling) };
    let (seen, ()) = tokio::time::timeout(SOON / 2, both).await.expect("long before it gives up");
    assert_eq!(seen.unwrap().value.state, succeeded());
    assert_eq!(world.store.reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_gap_in_the_feed_is_looked_after() {
    let world = World::new().await;
    let telling = async {
        world.until_read(1).await;
        let _lost = world.becomes(succeeded()).await;
        world.tell(Change::Resync);
    };
    let both = async { tokio::join!(world.service.wait(&world.operation.id, SOON), telling) };
    let (seen, ()) = tokio::time::timeout(SOON / 2, both).await.expect("long before it gives up");
    assert_eq!(seen.unwrap().value.state, succeeded());
}

#[tokio::test]
async fn a_stream_goes_forward_only() {
    let world = World::new().await;
    let (old, _freed) = (world.becomes(parked()).await, world.becomes(State::Running).await);
    let seen = world.service.watch(&world.operation.id).map(|seen| seen.value.state).collect::<Vec<_>>();
    let telling = async {
        world.until_read(1).await;
        world.tell(old);
        world.tell(world.becomes(succeeded()).await);
    };
    let both = async { tokio::join!(seen, telling) };
    let (seen, ()) = tokio::time::timeout(SOON, both).await.expect("it ends");
    assert_eq!(seen, [State::Running, succeeded()]);
    assert_eq!(world.store.reads.load(Ordering::SeqCst), 1);
}
