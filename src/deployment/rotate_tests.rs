use super::*;
use crate::app::fleet::Fleet;
use crate::app::keys::field;
use crate::clock::{SharedClock, SystemClock};
use crate::deployment::open;
use crate::deployment::tests::{Wraps, files, section, store};
use crate::model::Network;
use crate::model::node::{Heartbeat, Node, Secrets};
use crate::model::{AppId, NodeId, OperationId, Uuid};
use crate::seal::SealKey;
use crate::store::sqlite::SqliteStore;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const FIELDS: [&str; 4] = [field::SEED, field::WALLET_PASSWORD, field::MACAROON_ROOT_KEY, field::INVOICE_KEY];

fn node(keys: &Keys) -> Node {
    let id = NodeId::random(&mut rand::rng());
    let seal = |field: &str| keys.seal(id.as_str(), field, field.as_bytes()).unwrap();
    let secrets = Secrets {
        seed: seal(field::SEED),
        wallet_password: seal(field::WALLET_PASSWORD),
        macaroon_root_key: seal(field::MACAROON_ROOT_KEY),
        invoice_key: seal(field::INVOICE_KEY),
    };
    Node {
        id,
        app: AppId::parse("app").unwrap(),
        uuid: Uuid::parse("alice").unwrap(),
        phase: crate::model::node::Phase::Ready,
        create_operation: OperationId::random(NOW, &mut rand::rng()),
        placement: None,
        endpoint: None,
        secrets: Some(secrets),
        wallet_may_exist: true,
        identity_pubkey: None,
        deposit_address: None,
        funding: crate::model::node::Funding::None,
        lnd: None,
        created_at: NOW,
    }
}

async fn keys(store: &SqliteStore, source: &KeySource) -> Result<Keys, OpenError> {
    let opening = open(store, source, &section("ours", Network::Simnet), NOW).await?;
    Ok(Keys::new(Arc::new(opening.sealer), "ours".to_owned(), Network::Simnet))
}

async fn authority(store: &Arc<SqliteStore>, keys: &Keys) -> String {
    let clock = Arc::new(SystemClock) as SharedClock;
    let fleet = Fleet::open(Arc::clone(store) as Arc<dyn Store>, clock, keys, time::Duration::days(1)).await.unwrap();
    fleet.ca().fingerprint().to_string()
}

async fn rotate(store: &SqliteStore, source: &KeySource, patience: Duration) -> Result<Rotated, RotateError> {
    Rotation { store, source, patience }.run(NOW, |_| {}).await
}

async fn deployment(store: &SqliteStore) -> Deployment {
    repo::get::<Deployment>(store, Deployment::ID).await.unwrap().unwrap().value
}

async fn opens(store: &SqliteStore, keys: &Keys, id: &NodeId) {
    let read = repo::get::<Node>(store, id.as_str()).await.unwrap().unwrap().value;
    for name in FIELDS {
        assert_eq!(&**keys.open_of(&read, name).unwrap(), name.as_bytes());
    }
}

#[tokio::test]
async fn afterwards_the_older_key_is_not_needed() {
    let (_folder, store) = store().await;
    let store = Arc::new(store);
    let first = keys(&store, &files(&[(1, 7)])).await.unwrap();
    let fingerprint = authority(&store, &first).await;
    let node = node(&first);
    store.commit(vec![repo::create(&node).unwrap()]).await.unwrap();
    let refused = rotate(&store, &files(&[(1, 7)]), Duration::ZERO).await;
    assert!(matches!(refused, Err(RotateError::NoNewerKey { sealing: 1, next: 2 })), "{refused:?}");

    let rotated = rotate(&store, &files(&[(1, 7), (2, 9)]), Duration::ZERO).await.unwrap();
    assert_eq!(rotated, Rotated { version: 2, secrets: 4 + 1, was_begun: false });

    let second = keys(&store, &files(&[(2, 9)])).await.unwrap();
    assert_eq!(authority(&store, &second).await, fingerprint);
    opens(&store, &second, &node.id).await;
    let refused = keys(&store, &files(&[(1, 7)])).await;
    assert!(matches!(refused, Err(OpenError::Key(SealError::UnknownKeyVersion { version: 2 }))), "{refused:?}");
}

#[tokio::test]
async fn a_service_makes_the_next_key_and_a_file_takes_over_from_it_and_back() {
    let (_folder, store) = store().await;
    let service = Arc::new(Wraps::default());
    let with = |files: &[(u32, u8)]| {
        let files = files.iter().map(|(version, byte)| (*version, SealKey::from_bytes([*byte; 32]))).collect();
        KeySource::new(files, Some(service.clone()))
    };
    let node = node(&keys(&store, &files(&[(1, 7)])).await.unwrap());
    store.commit(vec![repo::create(&node).unwrap()]).await.unwrap();
    assert_eq!(rotate(&store, &with(&[(1, 7)]), Duration::ZERO).await.unwrap().version, 2);
    assert_eq!(rotate(&store, &with(&[]), Duration::ZERO).await.unwrap().version, 3);
    let found = deployment(&store).await;
    assert_eq!(found.wrapped.iter().map(|wrapped| wrapped.version).collect::<Vec<_>>(), [3]);
    opens(&store, &keys(&store, &with(&[])).await.unwrap(), &node.id).await;

    assert_eq!(rotate(&store, &with(&[(5, 9)]), Duration::ZERO).await.unwrap().version, 5);
    assert_eq!(deployment(&store).await.wrapped, []);
    opens(&store, &keys(&store, &files(&[(5, 9)])).await.unwrap(), &node.id).await;
}

#[tokio::test]
async fn nothing_is_sealed_under_a_key_that_a_living_master_lacks() {
    let (_folder, store) = store().await;
    let store = Arc::new(store);
    keys(&store, &files(&[(1, 7)])).await.unwrap();
    // As an older program has left it.
    let old = repo::modify::<Deployment, StoreError>(&*store, Deployment::ID, |deployment| {
        deployment.sealing = None;
        Ok(true)
    });
    old.await.unwrap();
    let lease = crate::app::lease::Lease::new(
        MasterId::random(&mut rand::rng()),
        Duration::from_secs(1),
        Arc::new(SystemClock) as SharedClock,
    );
    lease.tell_keys(vec![1]);
    let stop = tokio_util::sync::CancellationToken::new();
    let beating = tokio::spawn(Arc::clone(&lease).run(Arc::clone(&store) as Arc<dyn Store>, stop.clone()));
    while repo::list_all::<Heartbeat>(&*store, None).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let both = files(&[(1, 7), (2, 9)]);
    // Longer than a dead one is waited for.
    let refused = rotate(&store, &both, Duration::from_secs(4)).await;
    assert!(
        matches!(&refused, Err(RotateError::Lacking { version: 2, masters }) if masters == &[lease.master().clone()])
    );
    assert_eq!(deployment(&store).await.sealing(), 1);
    let lacks = keys(&store, &files(&[(1, 7)])).await;
    assert!(lacks.is_err(), "announced: one that starts now must have it");

    lease.tell_keys(vec![1, 2]);
    let rotated = rotate(&store, &both, Duration::from_secs(60)).await.unwrap();
    assert_eq!((rotated.version, rotated.was_begun), (2, true));
    stop.cancel();
    beating.await.unwrap();
}

#[tokio::test]
async fn a_master_that_is_dead_is_not_waited_for() {
    let (_folder, store) = store().await;
    keys(&store, &files(&[(1, 7)])).await.unwrap();
    let dead = Heartbeat {
        master: MasterId::random(&mut rand::rng()),
        beat: 7,
        ttl_ms: 100,
        keys: vec![1],
        authorities: None,
    };
    store.commit(vec![repo::create(&dead).unwrap()]).await.unwrap();
    let rotated = rotate(&store, &files(&[(1, 7), (2, 9)]), Duration::from_secs(60)).await.unwrap();
    assert_eq!(rotated.version, 2);
}

#[tokio::test]
async fn two_at_the_same_time_make_one_key() {
    let (folder, a) = store().await;
    let b = SqliteStore::open(&folder.path().join("store.db"), Default::default()).await.unwrap();
    let service = Arc::new(Wraps::default());
    let [one, two] = [(); 2].map(|()| KeySource::new([].into(), Some(service.clone())));
    let node = node(&keys(&a, &one).await.unwrap());
    a.commit(vec![repo::create(&node).unwrap()]).await.unwrap();
    let (first, second) = tokio::join!(rotate(&a, &one, Duration::ZERO), rotate(&b, &two, Duration::ZERO));
    // One of them may have come when all was done, and have made another change.
    let version = first.unwrap().version.max(second.unwrap().version);
    let found = deployment(&a).await;
    assert_eq!((found.sealing(), found.versions(), found.wrapped.len()), (version, vec![version], 1));
    opens(&a, &keys(&a, &one).await.unwrap(), &node.id).await;
}

#[tokio::test]
async fn a_secret_that_does_not_open_stops_it_and_the_older_key_stays() {
    let (_folder, store) = store().await;
    let first = keys(&store, &files(&[(1, 7)])).await.unwrap();
    let (mut broken, good) = (node(&first), node(&first));
    let secrets = broken.secrets.as_mut().unwrap();
    secrets.seed = secrets.invoice_key.clone();
    store.commit(vec![repo::create(&broken).unwrap(), repo::create(&good).unwrap()]).await.unwrap();
    let both = files(&[(1, 7), (2, 9)]);
    for _ in 0..2 {
        let refused = rotate(&store, &both, Duration::ZERO).await;
        assert!(matches!(&refused, Err(RotateError::Secret { of, .. }) if of.contains(broken.id.as_str())));
        assert_eq!(deployment(&store).await.versions(), [1, 2]);
    }
    opens(&store, &keys(&store, &both).await.unwrap(), &good.id).await;
}

#[test]
fn what_was_begun_is_finished_first() {
    let check = |version: u32| {
        let sealer = crate::seal::Sealer::new([(version, SealKey::from_bytes([1; 32]))]).unwrap();
        let context = crate::seal::SealContext { deployment: "", network: "", owner: "", field: "" };
        sealer.seal(&context, b"").unwrap()
    };
    let with = |sealing: Option<u32>, versions: &[u32]| Deployment {
        name: "ours".to_owned(),
        network: Network::Simnet,
        key_checks: versions.iter().map(|version| check(*version)).collect(),
        sealing,
        wrapped: Vec::new(),
        created_at: NOW,
    };
    assert_eq!(plan(&with(Some(1), &[1]), Some(1), false), Plan::Nothing);
    assert_eq!(plan(&with(Some(1), &[1]), Some(4), true), Plan::Announce(4));
    assert_eq!(plan(&with(Some(1), &[1]), Some(1), true), Plan::Announce(2));
    assert_eq!(plan(&with(Some(1), &[1, 2]), Some(4), true), Plan::Switch(2));
    assert_eq!(plan(&with(Some(2), &[1, 2]), Some(4), true), Plan::Finish);
    // An older program has sealed under both.
    assert_eq!(plan(&with(None, &[1, 2]), Some(2), false), Plan::Finish);
}
