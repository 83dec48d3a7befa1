//! Single documents.

use super::Data;
use super::tools::*;
use scale_lnd::store::{Expect, Key, Version, Write};
use serde_json::json;

pub async fn what_is_not_there_is_absent(data: &impl Data) {
    let store = data.handle().await;
    assert_eq!(store.get(&key("nothing")).await.unwrap(), None);
    assert!(store.list(&all()).await.unwrap().documents.is_empty());
}

pub async fn a_document_is_read_as_it_was_written(data: &impl Data) {
    let store = data.handle().await;
    let body = json!({
        "text": "ä 漢 🦀 \" ' \\ \n \u{1} %s ; --",
        "numbers": [0, -1, i64::MAX, i64::MIN, 0.25],
        "nothing": null, "truth": [true, false],
        "empty": {"list": [], "object": {}, "text": ""},
        "deep": {"a": {"b": {"c": [{"d": 1}]}}},
    });
    let version = commit(&*store, create("a", body.clone())).await.unwrap();
    let document = read(&*store, "a").await;
    assert_eq!((document.key, document.version, document.body), (key("a"), version, body));
}

pub async fn a_create_needs_absence(data: &impl Data) {
    let store = data.handle().await;
    commit(&*store, create("a", json!({"n": 1}))).await.unwrap();
    assert_conflict(commit(&*store, create("a", json!({"n": 2}))).await, "a");
    assert_eq!(read(&*store, "a").await.body, json!({"n": 1}));
}

pub async fn an_update_needs_the_version(data: &impl Data) {
    let store = data.handle().await;
    let first = commit(&*store, create("a", json!({"n": 1}))).await.unwrap();
    let second = commit(&*store, update("a", first, json!({"n": 2}))).await.unwrap();
    assert_conflict(commit(&*store, update("a", first, json!({"n": 3}))).await, "a");
    assert_conflict(commit(&*store, update("a", Version(u64::MAX), json!({"n": 3}))).await, "a");
    assert_conflict(commit(&*store, update("absent", second, json!({"n": 3}))).await, "absent");
    assert_eq!(read(&*store, "a").await.body, json!({"n": 2}));
    assert!(!exists(&*store, "absent").await);
}

pub async fn a_delete_needs_the_version(data: &impl Data) {
    let store = data.handle().await;
    let first = commit(&*store, create("a", json!({}))).await.unwrap();
    let second = commit(&*store, update("a", first, json!({}))).await.unwrap();
    assert_conflict(commit(&*store, delete("a", first)).await, "a");
    assert!(exists(&*store, "a").await);
    commit(&*store, delete("a", second)).await.unwrap();
    assert!(!exists(&*store, "a").await);
    assert_conflict(commit(&*store, delete("a", second)).await, "a");
    assert_conflict(commit(&*store, update("a", second, json!({}))).await, "a");
}

pub async fn every_write_makes_a_new_version(data: &impl Data) {
    let store = data.handle().await;
    let mut version = commit(&*store, create("a", json!({"same": true}))).await.unwrap();
    for _ in 0..10 {
        let before = version;
        version = commit(&*store, update("a", before, json!({"same": true}))).await.unwrap();
        assert_eq!(read(&*store, "a").await.version, version);
        assert!(version > before, "{version:?} after {before:?}");
    }
}

pub async fn a_version_is_never_used_again(data: &impl Data) {
    let store = data.handle().await;
    let mut old: Vec<Version> = Vec::new();
    for round in 0..5 {
        let version = commit(&*store, create("a", json!({"round": round}))).await.unwrap();
        for &stale in &old {
            assert!(stale < version, "{version:?} after {stale:?}");
            assert_conflict(commit(&*store, update("a", stale, json!({"stale": true}))).await, "a");
        }
        commit(&*store, delete("a", version)).await.unwrap();
        old.push(version);
    }
    // Nor by a handle that has not seen any of it.
    let fresh = commit(&*data.handle().await, create("a", json!({}))).await.unwrap();
    assert!(old.iter().all(|stale| *stale < fresh));
}

/// Firestore takes documents up to 1 MiB, names included.
pub async fn a_big_document_is_kept(data: &impl Data) {
    let store = data.handle().await;
    let mut follower = Follower::from_now(&*store).await;
    let body = json!({"text": "0123456789".repeat(100_000)});
    let version = commit(&*store, create("big", body.clone())).await.unwrap();
    follower.until("big", version).await;
    assert_eq!(read(&*store, "big").await.body, body);
    assert_eq!(store.list(&all()).await.unwrap().documents[0].body, body);
}

pub async fn ids_may_be_long_but_not_strange(data: &impl Data) {
    let store = data.handle().await;
    let long = "a-Z_9".repeat(40);
    commit(&*store, create(&long, json!({}))).await.unwrap();
    assert!(exists(&*store, &long).await);
    for bad in ["", "a/b", "..", "a b", "ä", "a\0b", &"x".repeat(201)] {
        assert_invalid(store.get(&key(bad)).await);
        assert_invalid(commit(&*store, create(bad, json!({}))).await);
        assert_invalid(commit(&*store, delete(bad, Version(1))).await);
        assert_invalid(commit(&*store, check(bad, Expect::Absent)).await);
    }
}

pub async fn collections_are_apart(data: &impl Data) {
    let store = data.handle().await;
    let other = Key { collection: OTHERS, id: "a".to_owned() };
    commit(&*store, create("a", json!({"of": "things"}))).await.unwrap();
    assert_eq!(store.get(&other).await.unwrap(), None);
    let write =
        Write::Put { key: other.clone(), expect: Expect::Absent, body: json!({"of": "others"}), index: Vec::new() };
    commit(&*store, write).await.unwrap();
    assert_eq!(read(&*store, "a").await.body, json!({"of": "things"}));
    assert_eq!(store.get(&other).await.unwrap().unwrap().body, json!({"of": "others"}));
    assert_eq!(ids(&*store, all()).await, ["a"]);
}
