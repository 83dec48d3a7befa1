//! Limits hold exactly while many use them at once, in either Store: in one document, or in several.

use crate::harness::emulator::{self, Emulator};
use futures::future::join_all;
use scale_lnd::app::usage;
use scale_lnd::error::StoreError;
use scale_lnd::model::amount::Sat;
use scale_lnd::model::app::Limits;
use scale_lnd::model::limits::{Bounds, Reservation, Usage};
use scale_lnd::model::node::Claim;
use scale_lnd::model::problem::Code;
use scale_lnd::store::Store;
use scale_lnd::store::firestore::{FirestoreOptions, FirestoreStore};
use scale_lnd::store::repo::{self, Versioned};
use scale_lnd::store::sqlite::{SqliteOptions, SqliteStore};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

type Stores = [Arc<dyn Store>; 2];

/// What stands for an operation: it is made in the commit that sets its satoshi aside.
fn operation(n: usize) -> Claim {
    serde_json::from_value(serde_json::json!({"subject": format!("op-{n}"), "holder": null, "epoch": 0})).unwrap()
}

/// Sets a satoshi aside, as often as it takes. None: the limit is reached.
async fn ask(store: Arc<dyn Store>, n: usize, limit: u64) -> Option<Reservation> {
    let limits = Limits { outgoing_sat_per_day: Some(limit), ..Limits::default() };
    let id = format!("op-{n}");
    loop {
        let ask = Reservation { outgoing_sat: Sat(1), shard: usage::pick(&*store), ..Reservation::default() };
        let bounds = Bounds::of(&limits, &ask, false).unwrap();
        let mut writes = match usage::set_aside(&*store, "shop", &bounds, &ask, None).await {
            Ok(aside) => aside.writes,
            Err(refusal) if refusal.code == Code::LimitExceeded => return None,
            Err(refusal) => panic!("{refusal:?}"),
        };
        writes.push(repo::create(&operation(n)).unwrap());
        match store.commit(writes).await {
            Ok(_) => return Some(ask),
            Err(StoreError::Conflict { .. }) => {}
            // Whether it happened is unknown: look.
            Err(StoreError::Unavailable(_)) if repo::get::<Claim>(&*store, &id).await.unwrap().is_some() => {
                return Some(ask);
            }
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn ask_all(stores: &Stores, numbers: std::ops::Range<usize>, limit: u64) -> Vec<Reservation> {
    let asking = numbers.map(|n| tokio::spawn(ask(Arc::clone(&stores[n % 2]), n, limit)));
    join_all(asking).await.into_iter().filter_map(Result::unwrap).collect()
}

async fn give_back(store: &dyn Store, held: &Reservation) {
    let id = Usage::id_of("shop", held.shard);
    let given = repo::modify::<Usage, StoreError>(store, &id, |usage| {
        usage.release(held);
        Ok(true)
    });
    assert!(given.await.unwrap().is_some());
}

async fn used(stores: &Stores) -> u64 {
    usage::used(&*stores[0], "shop", OffsetDateTime::UNIX_EPOCH).await.unwrap().outgoing_sat.0
}

async fn exact(stores: Stores) {
    // Two had been counted by the version before, in the only document there was.
    let old = Usage { outgoing_sat: Sat(2), ..Usage::of("shop") };
    stores[0].commit(vec![repo::create(&old).unwrap()]).await.unwrap();
    let held = ask_all(&stores, 0..16, 10).await;
    assert_eq!((held.len(), used(&stores).await), (8, 10), "as many as there is room for, and no more");
    for held in held.iter().take(4) {
        give_back(&*stores[1], held).await;
    }
    assert_eq!(ask_all(&stores, 16..24, 10).await.len(), 4, "what was given back, wherever, is room");
    assert_eq!(ask_all(&stores, 24..26, 5).await.len(), 0, "a lowered limit");
    assert_eq!(ask_all(&stores, 26..66, 5_000).await.len(), 40, "nobody is refused while there is plainly room");
    assert_eq!(used(&stores).await, 50);
    let operations = repo::list_all::<Claim>(&*stores[1], None).await.unwrap();
    assert_eq!(
        operations.len(),
        52,
        "each that is counted is one that was made, but the two of before and four given back"
    );
    for Versioned { value, .. } in repo::list_all::<Usage>(&*stores[0], None).await.unwrap() {
        assert!(value.shard < stores[0].spread(), "{value:?}");
    }
}

fn run(test: impl Future<Output = ()> + Send + 'static) {
    crate::harness::run(Duration::from_secs(120), test);
}

#[test]
fn limits_are_exact_on_sqlite() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let one = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
        let two = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
        exact([Arc::new(one), Arc::new(two)]).await;
    });
}

#[test]
fn limits_are_exact_on_firestore() {
    run(async {
        let api_url = Some(Emulator::shared().await.url.clone());
        let options = FirestoreOptions { api_url, ..FirestoreOptions::new(emulator::project()) };
        let one = FirestoreStore::open(options.clone()).await.unwrap();
        let two = FirestoreStore::open(options).await.unwrap();
        exact([Arc::new(one), Arc::new(two)]).await;
    });
}
