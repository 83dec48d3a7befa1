use super::*;
use crate::store::{Change, Expect};
use futures::StreamExt;
use serde_json::json;

#[test]
fn ids_are_bounded_and_plain() {
    let check = |id: &str| Key { collection: "c", id: id.to_owned() }.validate().is_ok();
    assert!(check("a") && check("A-z_09") && check(&"x".repeat(200)));
    for bad in ["", "a/b", "a b", "ä", ".", "..", "a\0", &"x".repeat(201)] {
        assert!(!check(bad), "{bad:?}");
    }
}

#[test]
fn a_version_sqlite_cannot_have_given_matches_nothing() {
    assert_eq!(to_sql(u64::MAX), -1);
    assert_eq!(from_sql(to_sql(7)), 7);
}

fn big(id: &str, bytes: usize) -> Write {
    let key = Key { collection: "things", id: id.to_owned() };
    Write::Put { key, expect: Expect::Absent, body: json!({"text": "x".repeat(bytes)}), index: Vec::new() }
}

/// A full disk, played by SQLite's own bound on the size of a database, which ends with the connection it is set on.
#[tokio::test]
async fn a_full_disk_is_unavailable_loses_nothing_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let (path, options) = (dir.path().join("store.db"), SqliteOptions::default());
    let mut opened = open::open(&path, &options).await.unwrap();
    sqlx::query("PRAGMA max_page_count = 60").execute(&mut opened.writer).await.unwrap();
    let store = SqliteStore::start(&path, opened, &options);
    let mut feed = store.changes(None).await.unwrap();

    let mut committed = Vec::new();
    let full = loop {
        let id = format!("doc-{}", committed.len());
        match store.commit(vec![big(&id, 20_000)]).await {
            Ok(_) => committed.push(id),
            Err(e) => break e,
        }
    };
    assert!(matches!(&full, StoreError::Unavailable(reason) if reason.contains("full")), "{full:?}");
    assert!(committed.len() > 3, "{committed:?}");
    store.commit(vec![big("later", 20_000)]).await.unwrap();
    committed.push("later".to_owned());

    assert!(matches!(feed.next().await.unwrap().unwrap().change, Change::Resync));
    for id in &committed {
        let told = feed.next().await.unwrap().unwrap().change;
        assert!(matches!(&told, Change::Put(document) if document.key.id == *id), "{id}: {told:?}");
    }
    let query = Query { collection: "things", index: None, after: None, limit: 100, descending: false };
    assert_eq!(store.list(&query).await.unwrap().documents.len(), committed.len());
}

/// The write-ahead log is written back while the store is read and followed, so it does not grow for ever.
#[tokio::test]
async fn the_write_ahead_log_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    let mut feed = store.changes(None).await.unwrap();
    for n in 0..300 {
        let id = format!("doc-{n}");
        store.commit(vec![big(&id, 100_000)]).await.unwrap();
        store.get(&Key { collection: "things", id }).await.unwrap().unwrap();
        feed.next().await.unwrap().unwrap();
    }
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
    assert!(size("store.db") > 20_000_000);
    assert!(size("store.db-wal") < 10_000_000, "{}", size("store.db-wal"));
}
