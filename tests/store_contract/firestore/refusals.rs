//! Who may not, what another hand has written, and what it costs.

use super::{fresh, options};
use crate::harness::emulator::{Emulator, project};
use crate::store_contract::tools::*;
use scale_lnd::error::StoreError;
use scale_lnd::store::firestore::{FirestoreOptions, FirestoreStore, OpenError};
use scale_lnd::store::{Change, Expect, Store};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// Writes a document as somebody would in the console.
async fn by_hand(url: &str, project: &str, id: &str, fields: Value) {
    let path = format!("{url}/v1/projects/{project}/databases/(default)/documents/{THINGS}/{id}");
    let answer = reqwest::Client::new().patch(path).json(&json!({"fields": fields})).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

/// The rules of deploy/firestore let nobody in who comes without credentials.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_is_told_what_to_do() {
    timed(async {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/firestore/firestore.rules");
        let emulator = Emulator::start(Some(&rules)).await;
        // Its Java is cold.
        let options = FirestoreOptions { timeout: Duration::from_secs(60), ..options(&emulator.url, &project()) };
        let error = FirestoreStore::open(options).await.unwrap_err();
        assert!(matches!(error, OpenError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains("roles/datastore.user"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn credentials_that_cannot_be_used_are_named_and_not_quoted() {
    timed(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.json");
        let cases = [
            (None, "cannot be read"),
            (Some("{\"private_key\": \"hunter2"), "is not JSON"),
            (Some("{\"private_key\": \"hunter2\"}"), "of the type"),
            (
                Some("{\"type\": \"service_account\", \"private_key\": \"hunter2\"}"),
                "is not a complete service_account file",
            ),
            (
                Some("{\"type\": \"external_account\", \"audience\": \"hunter2\"}"),
                "is not a complete external_account file",
            ),
        ];
        for (text, expected) in cases {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let options = FirestoreOptions { credentials_file: Some(path.clone()), ..FirestoreOptions::new("nobody") };
            let error = FirestoreStore::open(options).await.unwrap_err();
            assert!(matches!(error, OpenError::Credentials { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_hand_wrote_is_noticed() {
    timed(async {
        let project = fresh().await;
        let store = project.open().await;
        let mut follower = Follower::from_now(&store).await;
        let version = commit(&store, create("a", json!({"n": 1}))).await.unwrap();
        follower.until("a", version).await;
        by_hand(&project.emulator.url, &project.name, "a", json!({"n": {"bytesValue": "aHVudGVyMg=="}})).await;

        assert_conflict(commit(&store, update("a", version, json!({"n": 2}))).await, "a");
        let error = store.get(&key("a")).await.unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { collection: THINGS, id, .. } if id == "a"), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        // It harms no other, and the feed goes on.
        let version = commit(&store, create("b", json!({}))).await.unwrap();
        follower.until("b", version).await;
    })
    .await;
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    timed(async {
        let project = fresh().await;
        drop(project.open().await);
        let (url, name) = (&project.emulator.url, &project.name);
        let path =
            format!("{url}/v1/projects/{name}/databases/(default)/documents/store/meta?updateMask.fieldPaths=schema");
        let body = json!({"fields": {"schema": {"integerValue": "99"}}});
        assert!(reqwest::Client::new().patch(path).json(&body).send().await.unwrap().status().is_success());
        let error = FirestoreStore::open(project.options()).await.unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 99 }), "{error:?}");
        assert!(error.to_string().contains("use a newer scale-lnd"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn what_no_feed_follows_is_refused() {
    timed(async {
        let store = fresh().await.open().await;
        let stray = scale_lnd::store::Key { collection: "strays", id: "a".to_owned() };
        let write = scale_lnd::store::Write::Check { key: stray, expect: Expect::Absent };
        assert_invalid(store.commit(vec![write]).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_heard_quickly() {
    timed(async {
        let project = fresh().await;
        let (here, there) = (project.open().await, project.open().await);
        let mut far = Follower::from_now(&there).await;
        let version = commit(&here, create("first", json!({}))).await.unwrap();
        far.until("first", version).await;
        let version = commit(&here, create("a", json!({}))).await.unwrap();
        let committed = Instant::now();
        far.until("a", version).await;
        println!("another handle's commit heard after {:?}", committed.elapsed());
        assert!(committed.elapsed() < Duration::from_secs(1), "{:?}", committed.elapsed());
    })
    .await;
}

/// A commit is one write for each document, one more for each deletion, and a conflict alone reads.
#[tokio::test]
async fn writes_are_what_firestore_bills() {
    timed(async {
        let store = fresh().await.open().await;
        let start = store.usage();
        let a = commit(&store, create("a", json!({}))).await.unwrap();
        let b = store.commit(vec![create("b", json!({})), check("a", Expect::Version(a))]).await.unwrap()[0];
        let mut usage = store.usage();
        assert_eq!((usage.commits - start.commits, usage.writes - start.writes, usage.reads - start.reads), (2, 3, 0));
        commit(&store, delete("b", b)).await.unwrap();
        assert_eq!(store.usage().writes - usage.writes, 2);
        usage = store.usage();
        assert_conflict(commit(&store, create("a", json!({}))).await, "a");
        assert_eq!((store.usage().writes, store.usage().reads), (usage.writes, usage.reads + 1));
    })
    .await;
}

/// A check leaves the version alone, so that checks of one claim by many commits do not get in each other's way.
#[tokio::test]
async fn a_check_changes_no_version_and_tells_nobody() {
    timed(async {
        let store = fresh().await.open().await;
        let guard = commit(&store, create("guard", json!({}))).await.unwrap();
        let mut follower = Follower::from_now(&store).await;
        for n in 0..5 {
            store
                .commit(vec![check("guard", Expect::Version(guard)), create(&format!("doc-{n}"), json!({}))])
                .await
                .unwrap();
        }
        let marker = commit(&store, create("marker", json!({}))).await.unwrap();
        follower.until("marker", marker).await;
        assert!(!follower.told.iter().any(|change| matches!(change, Change::Put(d) if d.key == key("guard"))));
        assert_eq!(read(&store, "guard").await.version, guard);
    })
    .await;
}
