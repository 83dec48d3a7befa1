//! The change feed.

use super::Data;
use super::tools::*;
use scale_lnd::store::{Change, Cursor, Store, Version};
use serde_json::json;
use std::sync::Arc;

pub async fn without_a_cursor_it_begins_with_a_resync(data: &impl Data) {
    let store = data.handle().await;
    commit(&*store, create("before", json!({}))).await.unwrap();
    let mut follower = Follower::from_now(&*store).await;
    let version = commit(&*store, create("after", json!({}))).await.unwrap();
    follower.until("after", version).await;
    assert!(follower.versions_of("before").is_empty(), "what was before is not a change");
}

pub async fn it_tells_what_was_written_and_deleted(data: &impl Data) {
    let store = data.handle().await;
    let mut follower = Follower::from_now(&*store).await;
    let first = commit(&*store, create("a", json!({"n": 1}))).await.unwrap();
    follower.until("a", first).await;
    let second = commit(&*store, update("a", first, json!({"n": 2}))).await.unwrap();
    follower.until("a", second).await;
    let Some(Change::Put(last)) = follower.told.last() else { panic!("{:?}", follower.told) };
    assert_eq!(last.body, json!({"n": 2}));
    commit(&*store, delete("a", second)).await.unwrap();
    while !matches!(follower.next().await, Some(Change::Deleted(gone)) if gone == key("a")) {}
    let again = commit(&*store, create("a", json!({"n": 3}))).await.unwrap();
    follower.until("a", again).await;
}

pub async fn it_tells_what_another_handle_writes(data: &impl Data) {
    let (here, there) = (data.handle().await, data.handle().await);
    let mut follower = Follower::from_now(&*here).await;
    for n in 0..5 {
        let id = format!("doc-{n}");
        let version = commit(&*there, create(&id, json!({}))).await.unwrap();
        follower.until(&id, version).await;
        commit(&*there, delete(&id, version)).await.unwrap();
        while !matches!(follower.next().await, Some(Change::Deleted(gone)) if gone == key(&id)) {}
    }
}

/// A write after `changes` has returned is told, however soon it comes and however late the feed is read.
pub async fn nothing_is_missed_between_following_and_writing(data: &impl Data) {
    let stores = [data.handle().await, data.handle().await];
    for n in 0..20 {
        let id = format!("doc-{n}");
        let mut follower = Follower::of(&*stores[n % 2], None).await;
        let version = commit(&*stores[n / 2 % 2], create(&id, json!({}))).await.unwrap();
        follower.until(&id, version).await;
    }
}

/// Writes `rounds` versions of each of 10 documents, and after each round deletes and recreates one of them.
async fn busy(store: Arc<dyn Store>, prefix: &'static str, rounds: u64) -> Vec<(String, Version)> {
    let mut documents = Vec::new();
    for n in 0..10 {
        let id = format!("{prefix}-{n}");
        let version = commit(&*store, create(&id, json!({"round": 0}))).await.unwrap();
        documents.push((id, version));
    }
    for round in 1..=rounds {
        for (id, version) in &mut documents {
            *version = commit(&*store, update(id, *version, json!({"round": round}))).await.unwrap();
        }
        let (id, version) = &mut documents[usize::try_from(round % 10).unwrap()];
        commit(&*store, delete(id, *version)).await.unwrap();
        *version = commit(&*store, create(id, json!({"round": round}))).await.unwrap();
    }
    documents
}

pub async fn every_follower_hears_everything_in_order(data: &impl Data) {
    let stores = [data.handle().await, data.handle().await];
    let mut followers = Vec::new();
    for store in [&stores[0], &stores[1], &stores[0]] {
        followers.push(Follower::from_now(&**store).await);
    }
    let writing = ["left", "right"]
        .into_iter()
        .zip(&stores)
        .map(|(prefix, store)| tokio::spawn(busy(Arc::clone(store), prefix, 10)));
    let listening = followers.into_iter().map(|mut follower| {
        tokio::spawn(async move {
            while !(0..2).all(|side| !follower.versions_of(["done-left", "done-right"][side]).is_empty()) {
                follower.next().await.expect("the feed goes on");
            }
            follower
        })
    });
    let listening: Vec<_> = listening.collect();
    let mut written = Vec::new();
    for (task, done) in writing.collect::<Vec<_>>().into_iter().zip(["done-left", "done-right"]) {
        written.extend(task.await.unwrap());
        commit(&*stores[0], create(done, json!({}))).await.unwrap();
    }
    for follower in listening {
        let mut follower = follower.await.unwrap();
        for (id, last) in &written {
            while follower.versions_of(id).last() != Some(last) {
                follower.next().await.expect("the feed goes on");
            }
            let versions = follower.versions_of(id);
            assert!(versions.is_sorted(), "{id}: {versions:?}");
        }
    }
}

pub async fn a_cursor_goes_on_where_it_was(data: &impl Data) {
    let store = data.handle().await;
    let mut follower = Follower::from_now(&*store).await;
    let first = commit(&*store, create("first", json!({}))).await.unwrap();
    follower.until("first", first).await;
    let cursor = follower.cursor;
    drop(follower);
    let second = commit(&*store, create("second", json!({}))).await.unwrap();
    let third = commit(&*store, create("third", json!({}))).await.unwrap();
    let mut follower = Follower::of(&*store, cursor).await;
    follower.until("second", second).await;
    follower.until("third", third).await;
    assert!(!follower.told.iter().any(|change| matches!(change, Change::Resync)), "{:?}", follower.told);
}

pub async fn a_cursor_goes_on_at_another_handle(data: &impl Data) {
    let store = data.handle().await;
    // Also the cursor of a resync, before any change.
    let mut follower = Follower::from_now(&*store).await;
    let start = follower.cursor;
    let first = commit(&*store, create("first", json!({}))).await.unwrap();
    follower.until("first", first).await;
    let second = commit(&*store, create("second", json!({}))).await.unwrap();
    drop(store);
    let other = data.handle().await;
    let mut later = Follower::of(&*other, follower.cursor).await;
    later.until("second", second).await;
    let mut from_start = Follower::of(&*other, start).await;
    from_start.until("first", first).await;
    from_start.until("second", second).await;
    let told = later.told.iter().chain(&from_start.told);
    assert_eq!(told.filter(|change| matches!(change, Change::Resync)).count(), 0);
}

/// Data that was thrown away and made anew, say: its changes are not those the cursor counted.
pub async fn a_cursor_of_other_data_is_a_resync(data: &impl Data) {
    let (store, other) = (data.handle().await, data.another().await);
    let elsewhere = other.handle().await;
    let mut follower = Follower::from_now(&*elsewhere).await;
    for (n, store) in [&store, &elsewhere].into_iter().enumerate() {
        commit(&**store, create(&format!("doc-{n}"), json!({}))).await.unwrap();
    }
    follower.next().await;
    for cursor in [follower.cursor.unwrap(), Cursor(0), Cursor(u64::MAX)] {
        let mut lost = Follower::of(&*store, Some(cursor)).await;
        assert!(matches!(lost.next().await, Some(Change::Resync)), "{cursor:?}");
        let id = format!("after-{}", cursor.0);
        let version = commit(&*store, create(&id, json!({}))).await.unwrap();
        lost.until(&id, version).await;
    }
}

pub async fn a_failed_commit_is_not_told(data: &impl Data) {
    let store = data.handle().await;
    let mut follower = Follower::from_now(&*store).await;
    let there = commit(&*store, create("there", json!({}))).await.unwrap();
    let failing = vec![create("never", json!({})), create("there", json!({}))];
    assert_conflict(store.commit(failing).await, "there");
    let marker = commit(&*store, create("marker", json!({}))).await.unwrap();
    follower.until("marker", marker).await;
    assert_eq!(follower.versions_of("there"), [there]);
    assert!(follower.versions_of("never").is_empty());
}

pub async fn it_ends_with_the_store(data: &impl Data) {
    let store = data.handle().await;
    let mut follower = Follower::from_now(&*store).await;
    drop(store);
    assert!(follower.next().await.is_none());
}
