//! A database that is locked, damaged, or has moved on.

use super::File;
use crate::store_contract::tools::*;
use futures::StreamExt;
use scale_lnd::error::StoreError;
use scale_lnd::store::sqlite::SqliteOptions;
use scale_lnd::store::{Change, Cursor, Store};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use std::time::{Duration, Instant};

/// A connection of somebody else.
async fn stranger(file: &File) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file.path()).connect().await.unwrap()
}

async fn run(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::query(sql).execute(connection).await.unwrap();
}

fn short() -> SqliteOptions {
    SqliteOptions { timeout: Duration::from_millis(300), ..SqliteOptions::default() }
}

#[tokio::test]
async fn a_locked_database_is_unavailable_in_time_and_comes_back() {
    timed(async {
        let file = File::new();
        let store = file.open(short()).await;
        let first = commit(&store, create("a", json!({"n": 1}))).await.unwrap();
        let mut other = stranger(&file).await;
        run(&mut other, "BEGIN IMMEDIATE").await;

        let started = Instant::now();
        let refused = commit(&store, update("a", first, json!({"n": 2}))).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert_eq!(read(&store, "a").await.version, first, "readers do not wait for writers");

        run(&mut other, "ROLLBACK").await;
        // The outcome of the refused one was unknown: whichever it was, going on from what is there works.
        let now = read(&store, "a").await.version;
        commit(&store, update("a", now, json!({"n": 3}))).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_commit_nobody_waits_for_any_more_is_not_done_later() {
    timed(async {
        let file = File::new();
        let store = file.open(short()).await;
        let mut other = stranger(&file).await;
        run(&mut other, "BEGIN IMMEDIATE").await;
        // The first occupies the writer; the others wait behind it until their callers have given up.
        let commits = (0..10).map(async |n| commit(&store, create(&format!("doc-{n}"), json!({}))).await);
        for refused in futures::future::join_all(commits).await {
            assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        }
        run(&mut other, "ROLLBACK").await;
        commit(&store, create("later", json!({}))).await.unwrap();
        assert_eq!(ids(&store, all()).await, ["later"]);
    })
    .await;
}

#[tokio::test]
async fn a_damaged_document_is_named_and_harms_no_other() {
    timed(async {
        let file = File::new();
        let store = file.open(SqliteOptions::default()).await;
        let mut feed = store.changes(None).await.unwrap();
        assert!(matches!(feed.next().await.unwrap().unwrap().change, Change::Resync));
        let mut other = stranger(&file).await;
        let trigger = "CREATE TRIGGER damage AFTER INSERT ON documents WHEN new.id = 'bad'
            BEGIN UPDATE documents SET body = '{\"secret\": \"hunter2' WHERE id = 'bad'; END";
        run(&mut other, trigger).await;
        store.commit(vec![create("bad", json!({})), create("good", json!({}))]).await.unwrap();

        let told = feed.next().await.unwrap();
        let errors = [
            store.get(&key("bad")).await.map(|_| ()).unwrap_err(),
            store.list(&all()).await.map(|_| ()).unwrap_err(),
            told.map(|_| ()).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(&error, StoreError::Corrupt { id, .. } if id == "bad"), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        let next = feed.next().await.unwrap().unwrap().change;
        assert!(matches!(next, Change::Put(document) if document.key == key("good")), "the feed goes on");
        assert!(exists(&store, "good").await);
    })
    .await;
}

#[tokio::test]
async fn a_cursor_that_was_pruned_is_a_resync() {
    timed(async {
        let file = File::new();
        let store = file.open(SqliteOptions { keep_changes: 32, ..SqliteOptions::default() }).await;
        let mut follower = Follower::from_now(&store).await;
        let version = commit(&store, create("first", json!({}))).await.unwrap();
        follower.until("first", version).await;
        let old = follower.cursor;
        for n in 0..100 {
            commit(&store, create(&format!("doc-{n:03}"), json!({}))).await.unwrap();
        }
        let mut late = Follower::of(&store, old).await;
        assert!(matches!(late.next().await, Some(Change::Resync)));
        // So is a follower that was there all the time but did not listen; both go on from there.
        assert!(matches!(follower.next().await, Some(Change::Resync)));
        let version = commit(&store, create("last", json!({}))).await.unwrap();
        for follower in [&mut late, &mut follower] {
            follower.until("last", version).await;
        }
        // What is young enough was kept.
        let beyond = Cursor(follower.cursor.unwrap().0 - 20);
        let mut near = Follower::of(&store, Some(beyond)).await;
        near.until("last", version).await;
        assert!(!near.told.iter().any(|change| matches!(change, Change::Resync)));
    })
    .await;
}

/// A database that was put back from an older copy has not yet seen the changes the cursor counts.
#[tokio::test]
async fn a_cursor_ahead_of_the_database_is_a_resync() {
    timed(async {
        let file = File::new();
        let store = file.open(SqliteOptions::default()).await;
        let now = Follower::from_now(&store).await.cursor.unwrap();
        let mut follower = Follower::of(&store, Some(Cursor(now.0 + 1))).await;
        assert!(matches!(follower.next().await, Some(Change::Resync)));
    })
    .await;
}

#[tokio::test]
async fn changes_are_heard_quickly() {
    timed(async {
        let file = File::new();
        let (here, there) = (file.open(SqliteOptions::default()).await, file.open(SqliteOptions::default()).await);
        let (mut near, mut far) = (Follower::from_now(&here).await, Follower::from_now(&there).await);
        let version = commit(&here, create("a", json!({}))).await.unwrap();
        let committed = Instant::now();
        near.until("a", version).await;
        let own = committed.elapsed();
        far.until("a", version).await;
        let others = committed.elapsed();
        println!("own commit heard after {own:?}, another handle's after {others:?}");
        assert!(others < Duration::from_secs(1), "{others:?}");
    })
    .await;
}
