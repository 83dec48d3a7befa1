//! Whom a conflict concerns: one over usage starts nothing anew, one over a natural key everything.

use super::*;
use crate::app::Parts;
use crate::app::directory::Directory;
use crate::clock::{Clock, SystemClock};
use crate::model::amount::Sat;
use crate::model::ids::{AppId, Uuid};
use crate::model::node::NodeName;
use crate::model::work::delete::{Delete, DeleteStep};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{Cursor, Document, FeedItem, Key, Page, Query, Result as StoreResult, Store, Version};
use futures::stream::BoxStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A store in which somebody else's operation is accepted just before ours, so many times.
#[derive(Debug)]
struct Interfered {
    store: SqliteStore,
    others: AtomicU32,
    _dir: TempDir,
}

impl Interfered {
    async fn other(&self) -> StoreResult<()> {
        let stored = repo::get::<Usage>(&self.store, "shop").await?;
        let write = match stored {
            Some(Versioned { mut value, version }) => {
                value.outgoing_sat = value.outgoing_sat.saturating_add(Sat(1));
                repo::update(&value, version)?
            }
            None => {
                let ask = Reservation::at(SystemClock.now());
                repo::create(&Usage { outgoing_sat: Sat(1), day: ask.day, ..Usage::of("shop") })?
            }
        };
        self.store.commit(vec![write]).await.map(drop)
    }
}

#[async_trait::async_trait]
impl Store for Interfered {
    async fn get(&self, key: &Key) -> StoreResult<Option<Document>> {
        self.store.get(key).await
    }
    async fn commit(&self, writes: Vec<Write>) -> StoreResult<Vec<Version>> {
        let comes = self.others.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if comes.is_ok() {
            self.other().await?;
        }
        self.store.commit(writes).await
    }
    async fn list(&self, query: &Query) -> StoreResult<Page> {
        self.store.list(query).await
    }
    async fn changes(&self, cursor: Option<Cursor>) -> StoreResult<BoxStream<'static, StoreResult<FeedItem>>> {
        self.store.changes(cursor).await
    }
}

async fn service(others: u32) -> (Service, Arc<Interfered>) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("db"), SqliteOptions::default()).await.unwrap();
    let store = Arc::new(Interfered { store, others: AtomicU32::new(others), _dir: dir });
    let parts = Parts::for_tests(store.clone(), Arc::new(SystemClock));
    let directory = Directory::start(Arc::clone(&parts), 1, CancellationToken::new()).await.unwrap();
    (Service::new(parts, directory), store)
}

fn proposal(service: &Service) -> Proposal {
    Proposal {
        owner: Owner { app: AppId::parse("shop").unwrap(), uuid: Uuid::parse("alice").unwrap() },
        node: NodeId::random(&mut rand::rng()),
        work: Work::Delete(Delete { step: DeleteStep::Check }),
        reservation: Some(Reservation { outgoing_sat: Sat(100), ..Reservation::at(service.parts.clock.now()) }),
    }
}

async fn used(store: &Interfered) -> Sat {
    repo::get::<Usage>(store, "shop").await.unwrap().map_or(Sat(0), |usage| usage.value.outgoing_sat)
}

#[tokio::test]
async fn a_conflict_over_usage_starts_nothing_anew() {
    let (service, store) = service(5).await;
    let mut tries = 0;
    let accepted = service.until_accepted(None, || {
        tries += 1;
        service.accept(service.new_id(), proposal(&service), None, Vec::new())
    });
    assert!(accepted.await.unwrap().is_running());
    assert_eq!((tries, used(&store).await), (1, Sat(105)), "set aside once, beside the five others");
}

#[tokio::test]
async fn a_conflict_over_a_natural_key_starts_anew() {
    let (service, store) = service(0).await;
    let owner = proposal(&service).owner;
    let name = NodeName { app: owner.app, uuid: owner.uuid, node: NodeId::random(&mut rand::rng()) };
    store.commit(vec![repo::create(&name).unwrap()]).await.unwrap();
    // Over both at once: it is the key that matters.
    store.others.store(1, Ordering::SeqCst);
    let mut tries = 0;
    let accepted = service.until_accepted(None, || {
        tries += 1;
        let writes = if tries == 1 { vec![repo::create(&name).unwrap()] } else { Vec::new() };
        service.accept(service.new_id(), proposal(&service), None, writes)
    });
    assert!(accepted.await.unwrap().is_running());
    assert_eq!((tries, used(&store).await), (2, Sat(101)), "what was not accepted has set nothing aside");
}
