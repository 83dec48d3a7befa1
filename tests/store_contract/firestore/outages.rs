//! Firestore that does not answer, is not there, or has lost what it was told.

use super::options;
use crate::harness::emulator::{Emulator, project};
use crate::harness::ports;
use crate::store_contract::tools::*;
use futures::StreamExt;
use scale_lnd::error::StoreError;
use scale_lnd::store::firestore::{FirestoreOptions, FirestoreStore, OpenError};
use scale_lnd::store::{Change, Store};
use serde_json::json;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(4);

/// An emulator of the test's own that has warmed up, and options for it.
async fn emulator() -> (Emulator, FirestoreOptions) {
    let emulator = Emulator::start(None).await;
    let options = FirestoreOptions { silence: TIMEOUT, ..options(&emulator.url, &project()) };
    (emulator, FirestoreOptions { timeout: TIMEOUT, ..options })
}

/// Every kind of call must fail in time.
async fn all_fail(store: &FirestoreStore) {
    let started = Instant::now();
    let (get, list, written, feed) = tokio::join!(
        async { store.get(&key("a")).await },
        async { store.list(&all()).await },
        commit(store, create("lost", json!({}))),
        store.changes(None),
    );
    assert!(started.elapsed() < TIMEOUT + Duration::from_secs(1), "{:?}", started.elapsed());
    let errors = [get.map(drop).unwrap_err(), list.map(drop).unwrap_err(), written.map(drop).unwrap_err()];
    for error in errors.into_iter().chain(feed.map(drop).err()) {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
}

/// A feed that was told of errors goes on; what was written meanwhile or later is told.
async fn until(follower: &mut Feed, id: &str) {
    let heard = async {
        loop {
            match follower.next().await.expect("the feed goes on") {
                Ok(item) => {
                    if let Change::Put(document) = item.change
                        && document.key == key(id)
                    {
                        return;
                    }
                }
                Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), heard).await.unwrap_or_else(|_| panic!("{id} was not told"));
}

type Feed = futures::stream::BoxStream<'static, scale_lnd::store::Result<scale_lnd::store::FeedItem>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_unavailable_in_time_and_comes_back() {
    timed(async {
        let (emulator, options) = emulator().await;
        let store = FirestoreStore::open(options.clone()).await.unwrap();
        let other = FirestoreStore::open(options).await.unwrap();
        let mut feed = store.changes(None).await.unwrap();
        let first = commit(&store, create("a", json!({"n": 1}))).await.unwrap();
        until(&mut feed, "a").await;

        emulator.freeze().await;
        all_fail(&store).await;
        emulator.resume().await;
        assert_eq!(read(&store, "a").await.version, first);
        // Whether the commit that was not answered was done is unknown; going on from what is there works.
        let lost = commit(&store, create("lost", json!({}))).await;
        assert!(lost.is_ok() || lost.is_err_and(|e| e.is_conflict()));
        commit(&other, create("later", json!({}))).await.unwrap();
        until(&mut feed, "later").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_died_is_unavailable_and_found_again() {
    timed(async {
        let (emulator, options) = emulator().await;
        let store = FirestoreStore::open(options.clone()).await.unwrap();
        let mut feed = store.changes(None).await.unwrap();
        commit(&store, create("a", json!({}))).await.unwrap();
        until(&mut feed, "a").await;

        emulator.kill().await;
        all_fail(&store).await;
        let error = feed.next().await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");

        // It comes back with other data: a gap.
        emulator.restart().await;
        let fresh = FirestoreStore::open(options).await.unwrap();
        let resync = async {
            while !matches!(feed.next().await.expect("the feed goes on"), Ok(item) if matches!(item.change, Change::Resync))
            {
            }
        };
        tokio::time::timeout(Duration::from_secs(10), resync).await.expect("other data are a gap");
        commit(&fresh, create("later", json!({}))).await.unwrap();
        until(&mut feed, "later").await;
        assert!(exists(&store, "later").await, "the old connection is made anew");
    }).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_at_the_start_is_named() {
    timed(async {
        let url = format!("http://127.0.0.1:{}", ports::free(1));
        let error = FirestoreStore::open(options(&url, "nothing")).await.unwrap_err();
        assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains(&url), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_answer_at_the_start_is_named() {
    timed(async {
        // It takes connections, as a listening socket does by itself, and says nothing.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let started = Instant::now();
        let options = FirestoreOptions { timeout: TIMEOUT, ..options(&url, "nothing") };
        let error = FirestoreStore::open(options).await.unwrap_err();
        assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
        assert!(started.elapsed() < TIMEOUT * 4, "{:?}", started.elapsed());
    })
    .await;
}
