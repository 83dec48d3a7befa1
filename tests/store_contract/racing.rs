//! Many at once, on two handles.

use super::Data;
use super::tools::*;
use futures::future::join_all;
use scale_lnd::store::{Expect, Store};
use serde_json::{Value, json};
use std::sync::Arc;

fn number(body: &Value) -> u64 {
    body["n"].as_u64().expect("a number")
}

/// Adds to `n` of a document, as often as it takes.
pub async fn add(store: &dyn Store, id: &str, amount: u64) {
    loop {
        let document = read(store, id).await;
        let body = json!({"n": number(&document.body) + amount});
        match commit(store, update(id, document.version, body)).await {
            Ok(_) => return,
            Err(e) => assert!(e.is_conflict(), "{e}"),
        }
    }
}

pub async fn no_increment_is_lost(data: &impl Data) {
    let stores = [data.handle().await, data.handle().await];
    commit(&*stores[0], create("counter", json!({"n": 0}))).await.unwrap();
    let adding = (0..50).map(|n| {
        let store = Arc::clone(&stores[n % 2]);
        tokio::spawn(async move { add(&*store, "counter", 1).await })
    });
    for task in join_all(adding).await {
        task.unwrap();
    }
    for store in &stores {
        assert_eq!(read(&**store, "counter").await.body, json!({"n": 50}));
    }
}

pub async fn one_create_wins(data: &impl Data) {
    let stores = [data.handle().await, data.handle().await];
    let creating = (0..50).map(|n| {
        let store = Arc::clone(&stores[n % 2]);
        tokio::spawn(async move { (n, commit(&*store, create("prize", json!({"winner": n}))).await) })
    });
    let mut winners = Vec::new();
    for task in join_all(creating).await {
        match task.unwrap() {
            (n, Ok(version)) => winners.push((n, version)),
            (_, lost) => assert_conflict(lost, "prize"),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    let document = read(&*stores[0], "prize").await;
    assert_eq!((document.body, document.version), (json!({"winner": winners[0].0}), winners[0].1));
}

pub async fn strangers_do_not_conflict(data: &impl Data) {
    let stores = [data.handle().await, data.handle().await];
    let writing = (0..100).map(|n| {
        let store = Arc::clone(&stores[n % 2]);
        tokio::spawn(async move {
            let id = format!("doc-{n:03}");
            let version = commit(&*store, create(&id, json!({"n": 0}))).await.unwrap();
            commit(&*store, update(&id, version, json!({"n": 1}))).await.unwrap()
        })
    });
    let mut versions = Vec::new();
    for task in join_all(writing).await {
        versions.push(task.unwrap());
    }
    for (n, version) in versions.into_iter().enumerate() {
        let document = read(&*stores[n % 2], &format!("doc-{n:03}")).await;
        assert_eq!((document.version, document.body), (version, json!({"n": 1})));
    }
}

/// Moves 1 from one account to another in one commit, unless it is empty.
async fn transfer(store: &dyn Store, from: &str, to: &str) {
    loop {
        let (source, target) = (read(store, from).await, read(store, to).await);
        if number(&source.body) == 0 {
            return;
        }
        let writes = vec![
            update(from, source.version, json!({"n": number(&source.body) - 1})),
            update(to, target.version, json!({"n": number(&target.body) + 1})),
        ];
        match store.commit(writes).await {
            Ok(_) => return,
            Err(e) => assert!(e.is_conflict(), "{e}"),
        }
    }
}

pub async fn transfers_keep_the_sum(data: &impl Data) {
    const ACCOUNTS: [&str; 3] = ["a", "b", "c"];
    let stores = [data.handle().await, data.handle().await];
    for account in ACCOUNTS {
        commit(&*stores[0], create(account, json!({"n": 5}))).await.unwrap();
    }
    let moving = (0..60).map(|n| {
        let store = Arc::clone(&stores[n % 2]);
        tokio::spawn(async move { transfer(&*store, ACCOUNTS[n % 3], ACCOUNTS[(n + 1 + n / 3 % 2) % 3]).await })
    });
    for task in join_all(moving).await {
        task.unwrap();
    }
    let sum: u64 = stores[1].list(&all()).await.unwrap().documents.iter().map(|d| number(&d.body)).sum();
    assert_eq!(sum, 15);
}

/// Each of two writes its own document if the other's is absent: both together must be impossible.
pub async fn checks_exclude_each_other(data: &impl Data) {
    let stores = [data.handle().await, data.handle().await];
    for round in 0..25 {
        let (left, right) = (format!("left-{round}"), format!("right-{round}"));
        let take = |mine: &str, other: &str| vec![check(other, Expect::Absent), create(mine, json!({}))];
        let (one, two) = tokio::join!(stores[0].commit(take(&left, &right)), stores[1].commit(take(&right, &left)));
        assert!(one.is_ok() != two.is_ok(), "round {round}: {one:?} {two:?}");
        assert!(exists(&*stores[0], &left).await != exists(&*stores[0], &right).await);
    }
}

/// A store may do several commits as one; one that fails among them leaves nothing, and takes nobody along.
pub async fn a_failure_stays_alone(data: &impl Data) {
    let store = data.handle().await;
    let there = commit(&*store, create("there", json!({"n": 0}))).await.unwrap();
    let committing = (0..64).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let (left, right) = (format!("left-{n:02}"), format!("right-{n:02}"));
            let pair = vec![
                indexed(create(&left, json!({"n": n})), &[("pair", "x")]),
                if n % 2 == 0 { create(&right, json!({"n": n})) } else { delete(&right, there) },
            ];
            match store.commit(pair).await {
                Ok(versions) => assert!(n % 2 == 0 && versions.len() == 2),
                failed => assert_conflict(failed, &right),
            }
        })
    });
    for task in join_all(committing.collect::<Vec<_>>()).await {
        task.unwrap();
    }
    let even = (0..64).filter(|n| n % 2 == 0);
    assert_eq!(ids(&*store, by("pair", "x")).await, even.map(|n| format!("left-{n:02}")).collect::<Vec<_>>());
    assert_eq!(ids(&*store, all()).await.len(), 32 + 32 + 1);
}
