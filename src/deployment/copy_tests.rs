use super::*;
use crate::config::DeploymentSection;
use crate::deployment::{KeySource, OpenError, open};
use crate::model::work::create::{FundingRequest, FundingState};
use crate::model::{MasterId, Network, NodeId, OperationId, Sat};
use crate::seal::SealKey;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{Cursor, FeedItem, IndexEntry, Page, Version};
use futures::stream::BoxStream;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;
use time::OffsetDateTime;

/// A Store that breaks after some commits.
#[derive(Debug)]
struct Breaks {
    store: SqliteStore,
    commits_left: AtomicU32,
    _dir: TempDir,
}

impl Breaks {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("store.db"), SqliteOptions::default()).await.unwrap();
        Self { store, commits_left: AtomicU32::new(u32::MAX), _dir: dir }
    }

    fn breaks_after(&self, commits: u32) {
        self.commits_left.store(commits, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl Store for Breaks {
    async fn get(&self, key: &Key) -> store::Result<Option<Document>> {
        self.store.get(key).await
    }

    async fn commit(&self, writes: Vec<Write>) -> store::Result<Vec<Version>> {
        let left = self.commits_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => self.store.commit(writes).await,
            Err(_) => Err(StoreError::Unavailable("broken".to_owned())),
        }
    }

    async fn list(&self, query: &Query) -> store::Result<Page> {
        self.store.list(query).await
    }

    async fn changes(&self, cursor: Option<Cursor>) -> store::Result<BoxStream<'static, store::Result<FeedItem>>> {
        self.store.changes(cursor).await
    }
}

async fn opened(store: &Breaks) -> std::result::Result<(), OpenError> {
    let section = DeploymentSection { name: "prod".to_owned(), network: Network::Simnet };
    let source = KeySource::new([(1, SealKey::from_bytes([7; 32]))].into(), None);
    open(store, &source, &section, OffsetDateTime::UNIX_EPOCH).await.map(drop)
}

/// A deployment with more documents than go into one portion.
async fn filled() -> Breaks {
    let store = Breaks::new().await;
    opened(&store).await.unwrap();
    let mut rng = rand::rng();
    let requests: Vec<FundingRequest> = (0..450)
        .map(|n| FundingRequest {
            operation: OperationId::random(OffsetDateTime::UNIX_EPOCH, &mut rng),
            node: NodeId::random(&mut rng),
            address: format!("address-{n}"),
            amount_sat: Sat(n),
            state: FundingState::Waiting,
        })
        .collect();
    for chunk in requests.chunks(100) {
        store.commit(chunk.iter().map(|request| repo::create(request).unwrap()).collect()).await.unwrap();
    }
    store
}

async fn beat(store: &Breaks, ttl_ms: u64) {
    let heartbeat =
        Heartbeat { master: MasterId::random(&mut rand::rng()), beat: 1, ttl_ms, keys: Vec::new(), authorities: None };
    store.commit(vec![repo::create(&heartbeat).unwrap()]).await.unwrap();
}

async fn waiting(store: &Breaks) -> usize {
    let index = IndexEntry { name: "state", value: FundingState::Waiting.name().to_owned() };
    repo::list_all::<FundingRequest>(store, Some(index)).await.unwrap().len()
}

#[tokio::test]
async fn a_copy_has_everything_and_the_old_store_is_closed() {
    let (from, to) = (filled().await, Breaks::new().await);
    // Of a master that was killed.
    beat(&from, 1).await;
    let copied = copy(&from, &to, "there").await.unwrap();
    assert_eq!(copied, Some(Copied { written: 450, found: 0 }));
    opened(&to).await.unwrap();
    assert_eq!(waiting(&to).await, 450, "found by their index, too");
    assert!(repo::list_all::<Heartbeat>(&to, None).await.unwrap().is_empty());
    let error = opened(&from).await.unwrap_err();
    assert!(matches!(&error, OpenError::Moved(to) if to == "there"), "{error:?}");
    // Typed once more it does nothing, whatever has happened there since.
    beat(&to, 1).await;
    assert_eq!(copy(&from, &to, "there").await.unwrap(), None);
    assert!(matches!(copy(&from, &Breaks::new().await, "elsewhere").await, Err(CopyError::MovedElsewhere(_))));
    assert!(matches!(undo(&from, &to).await, Err(CopyError::Complete)));
}

#[tokio::test]
async fn wherever_a_copy_breaks_it_can_be_continued() {
    let (from, to) = (filled().await, Breaks::new().await);
    for commits in 0..5 {
        to.breaks_after(commits);
        let broken = copy(&from, &to, "there").await;
        assert!(matches!(broken, Err(CopyError::Store(StoreError::Unavailable(_)))), "{commits}: {broken:?}");
        assert!(matches!(opened(&from).await, Err(OpenError::Moved(_))), "no master starts here");
        if commits > 0 {
            assert!(matches!(opened(&to).await, Err(OpenError::Copying)), "nor there");
        }
    }
    to.breaks_after(u32::MAX);
    let copied = copy(&from, &to, "there").await.unwrap().unwrap();
    assert_eq!((copied.written + copied.found, waiting(&to).await), (450, 450));
    assert!(copied.found > 0, "{copied:?}");
    opened(&to).await.unwrap();
}

#[tokio::test]
async fn an_interrupted_copy_can_be_undone() {
    let (from, to) = (filled().await, Breaks::new().await);
    to.breaks_after(2);
    copy(&from, &to, "there").await.unwrap_err();
    to.breaks_after(u32::MAX);
    undo(&from, &to).await.unwrap();
    opened(&from).await.unwrap();
    assert_eq!(to.get(&key()).await.unwrap(), None);
}

#[tokio::test]
async fn a_store_with_data_of_its_own_is_left_alone() {
    let (from, to) = (filled().await, filled().await);
    let source = KeySource::new([(1, SealKey::from_bytes([7; 32]))].into(), None);
    let other = Breaks::new().await;
    let section = DeploymentSection { name: "other".to_owned(), network: Network::Simnet };
    open(&other, &source, &section, OffsetDateTime::UNIX_EPOCH).await.unwrap();
    assert!(matches!(copy(&from, &other, "there").await, Err(CopyError::NotEmpty(_))));
    opened(&from).await.unwrap();
    // Documents without a deployment are found when all is compared, before anybody may start there.
    let deployment = to.get(&key()).await.unwrap().unwrap();
    to.commit(vec![Write::Delete { key: key(), expect: deployment.version }]).await.unwrap();
    assert!(matches!(copy(&from, &to, "there").await, Err(CopyError::Different(_))));
    assert!(matches!(opened(&to).await, Err(OpenError::Copying)));
}

#[tokio::test]
async fn a_master_that_works_is_in_the_way() {
    let (from, to) = (filled().await, Breaks::new().await);
    beat(&from, 100).await;
    let beats = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for heartbeat in repo::list_all::<Heartbeat>(&from, None).await.unwrap() {
            from.commit(vec![repo::update(&heartbeat.value, heartbeat.version).unwrap()]).await.unwrap();
        }
    };
    let (copied, ()) = tokio::join!(copy(&from, &to, "there"), beats);
    assert!(matches!(copied, Err(CopyError::Busy(_))), "{copied:?}");
    opened(&from).await.unwrap();
    assert_eq!(to.get(&key()).await.unwrap(), None, "nothing was begun");
}
