use super::*;
use crate::kms::KeyService;
use crate::model::deployment::WrappedKey;
use crate::seal::SealKey;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use tempfile::TempDir;

/// A service whose "wrapped" keys are the bytes that they are made of, with what they are for.
#[derive(Debug, Default)]
pub(super) struct Wraps {
    pub made: AtomicU8,
    pub asked: AtomicUsize,
}

#[async_trait::async_trait]
impl KeyService for Wraps {
    async fn generate(&self, deployment: &str, version: u32, now: OffsetDateTime) -> Result<WrappedKey, KmsError> {
        let byte = 100 + self.made.fetch_add(1, Ordering::Relaxed);
        let blob = format!("{deployment}:{version}:{byte}");
        Ok(WrappedKey { version, by: "service".to_owned(), blob, created_at: now })
    }

    async fn unwrap(&self, deployment: &str, wrapped: &WrappedKey) -> Result<SealKey, KmsError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let version = wrapped.version;
        let byte = wrapped.blob.strip_prefix(&format!("{deployment}:{version}:"));
        let byte = byte.and_then(|byte| byte.parse().ok()).ok_or(KmsError::DoesNotUnwrap { version })?;
        Ok(SealKey::from_bytes([byte; 32]))
    }
}

pub(super) fn section(name: &str, network: Network) -> DeploymentSection {
    DeploymentSection { name: name.to_owned(), network }
}

/// Keys in files: versions, and a byte that stands for each key.
pub(super) fn files(versions: &[(u32, u8)]) -> KeySource {
    KeySource::new(versions.iter().map(|(version, byte)| (*version, SealKey::from_bytes([*byte; 32]))).collect(), None)
}

pub(super) async fn store() -> (TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("store.db"), SqliteOptions::default()).await.unwrap();
    (folder, store)
}

async fn try_open(store: &SqliteStore, source: &KeySource, section: &DeploymentSection) -> Result<Opened, OpenError> {
    open(store, source, section, OffsetDateTime::UNIX_EPOCH).await.map(|opening| opening.opened)
}

#[tokio::test]
async fn a_store_belongs_to_one_deployment_and_its_keys() {
    let (_folder, store) = store().await;
    let ours = section("ours", Network::Simnet);
    assert_eq!(try_open(&store, &files(&[(1, 7)]), &ours).await.unwrap(), Opened::New);
    assert_eq!(try_open(&store, &files(&[(1, 7)]), &ours).await.unwrap(), Opened::Known);

    let other_key = try_open(&store, &files(&[(1, 8)]), &ours).await;
    assert!(matches!(other_key, Err(OpenError::Key(SealError::DoesNotOpen))), "{other_key:?}");
    for other in [section("theirs", Network::Simnet), section("ours", Network::Mainnet)] {
        let refused = try_open(&store, &files(&[(1, 7)]), &other).await;
        assert!(matches!(refused, Err(OpenError::Other { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_newer_key_does_not_seal_before_it_is_told_to() {
    let (_folder, store) = store().await;
    let ours = section("ours", Network::Simnet);
    try_open(&store, &files(&[(1, 7)]), &ours).await.unwrap();
    let both = open(&store, &files(&[(1, 7), (2, 9)]), &ours, OffsetDateTime::UNIX_EPOCH).await.unwrap();
    assert_eq!((both.sealer.current(), both.versions), (1, vec![1]));
    // So whoever has only the older one is not left out.
    assert_eq!(try_open(&store, &files(&[(1, 7)]), &ours).await.unwrap(), Opened::Known);
    let refused = try_open(&store, &files(&[(2, 9)]), &ours).await;
    assert!(matches!(refused, Err(OpenError::Key(SealError::UnknownKeyVersion { version: 1 }))), "{refused:?}");
    let refused = try_open(&store, &files(&[]), &ours).await;
    assert!(matches!(refused, Err(OpenError::Key(SealError::UnknownKeyVersion { version: 1 }))), "{refused:?}");
}

/// As programs that knew of no rotation have left it: the newest key that there is seals.
#[tokio::test]
async fn a_store_of_an_older_program_opens() {
    let (_folder, store) = store().await;
    let (ours, source) = (section("ours", Network::Simnet), files(&[(1, 7), (2, 9)]));
    let (mut old, _) = files(&[(1, 7)]).first(&ours, OffsetDateTime::UNIX_EPOCH).await.unwrap();
    source.announce(&mut old, 2, OffsetDateTime::UNIX_EPOCH).await.unwrap();
    old.sealing = None;
    store.commit(vec![repo::create(&old).unwrap()]).await.unwrap();
    let opening = open(&store, &source, &ours, OffsetDateTime::UNIX_EPOCH).await.unwrap();
    assert_eq!((opening.sealer.current(), opening.versions), (2, vec![1, 2]));
}

#[tokio::test]
async fn two_that_start_at_once_agree() {
    let (folder, a) = store().await;
    let b = SqliteStore::open(&folder.path().join("store.db"), SqliteOptions::default()).await.unwrap();
    let (ours, source) = (section("ours", Network::Simnet), files(&[(1, 7)]));
    let (first, second) = tokio::join!(try_open(&a, &source, &ours), try_open(&b, &source, &ours));
    let mut opened = [first.unwrap(), second.unwrap()];
    opened.sort_by_key(|opened| *opened == Opened::Known);
    assert_eq!(opened, [Opened::New, Opened::Known]);
}

/// Each has a key of its own made, and both end with the one that was stored.
#[tokio::test]
async fn two_that_start_at_once_with_a_service_have_one_key() {
    let (folder, a) = store().await;
    let b = SqliteStore::open(&folder.path().join("store.db"), SqliteOptions::default()).await.unwrap();
    let (ours, service) = (section("ours", Network::Simnet), Arc::new(Wraps::default()));
    let [one, two] = [(); 2].map(|()| KeySource::new([].into(), Some(service.clone())));
    let now = OffsetDateTime::UNIX_EPOCH;
    let (first, second) = tokio::join!(open(&a, &one, &ours, now), open(&b, &two, &ours, now));
    let (first, second) = (first.unwrap(), second.unwrap());
    let context =
        crate::seal::SealContext { deployment: "ours", network: "simnet", owner: "deployment", field: "ca_key" };
    let sealed = first.sealer.seal(&context, b"secret").unwrap();
    assert_eq!(second.sealer.open(&context, &sealed).unwrap().as_slice(), b"secret");
    // Whoever comes later asks the service once.
    let later = KeySource::new([].into(), Some(service.clone()));
    let before = service.asked.load(Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(try_open(&a, &later, &ours).await.unwrap(), Opened::Known);
    }
    assert_eq!(service.asked.load(Ordering::Relaxed), before + 1);

    let nobody = try_open(&a, &files(&[(7, 7)]), &ours).await;
    assert!(matches!(nobody, Err(OpenError::Kms(KmsError::NotNamed { version: 1, .. }))), "{nobody:?}");
    let twice = KeySource::new([(1, SealKey::from_bytes([1; 32]))].into(), Some(service));
    let twice = try_open(&a, &twice, &ours).await;
    assert!(matches!(twice, Err(OpenError::Source(KeyError::Versions))), "{twice:?}");
}
