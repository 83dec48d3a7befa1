//! Listings.

use super::Data;
use super::tools::*;
use scale_lnd::store::{Query, Store};
use serde_json::json;

fn name(n: usize) -> String {
    format!("doc-{n:02}")
}

/// Creates `doc-00` to `doc-24`, in an order of their own, with their parity as index.
async fn fill(store: &dyn Store) {
    for n in 0..25 {
        let n = n * 7 % 25;
        let parity = if n % 2 == 0 { "even" } else { "odd" };
        let write = indexed(create(&name(n), json!({"n": n})), &[("parity", parity), ("all", "")]);
        commit(store, write).await.unwrap();
    }
}

/// Walks all pages; every page but the last must be full.
async fn walk(store: &dyn Store, mut query: Query) -> Vec<String> {
    let mut walked = Vec::new();
    loop {
        let page = store.list(&query).await.unwrap();
        walked.extend(page.documents.iter().map(|d| d.key.id.clone()));
        match page.next {
            None => return walked,
            Some(next) => {
                assert_eq!(page.documents.len(), query.limit);
                query.after = Some(next);
            }
        }
    }
}

pub async fn pages_upwards(data: &impl Data) {
    let store = data.handle().await;
    fill(&*store).await;
    let expected: Vec<_> = (0..25).map(name).collect();
    for limit in [1, 5, 7, 25, 1000] {
        assert_eq!(walk(&*store, Query { limit, ..all() }).await, expected, "limit {limit}");
        assert_eq!(walk(&*store, Query { limit, ..by("all", "") }).await, expected, "limit {limit}");
    }
    // A last page that is full says that it is the last.
    assert_eq!(store.list(&Query { limit: 25, ..all() }).await.unwrap().next, None);
    // Where to go on need not be there.
    assert_eq!(ids(&*store, Query { after: Some("doc-22x".to_owned()), ..all() }).await, [name(23), name(24)]);
    assert!(ids(&*store, Query { after: Some(name(24)), ..all() }).await.is_empty());
}

pub async fn pages_downwards(data: &impl Data) {
    let store = data.handle().await;
    fill(&*store).await;
    let expected: Vec<_> = (0..25).rev().map(name).collect();
    for limit in [1, 5, 7, 25, 1000] {
        let down = |query: Query| Query { limit, descending: true, ..query };
        assert_eq!(walk(&*store, down(all())).await, expected, "limit {limit}");
        assert_eq!(walk(&*store, down(by("all", ""))).await, expected, "limit {limit}");
    }
    let after = |id: &str| Query { after: Some(id.to_owned()), descending: true, ..all() };
    assert_eq!(ids(&*store, after("doc-02")).await, [name(1), name(0)]);
    assert!(ids(&*store, after("doc-00")).await.is_empty());
}

pub async fn an_index_selects(data: &impl Data) {
    let store = data.handle().await;
    fill(&*store).await;
    let even: Vec<_> = (0..25).filter(|n| n % 2 == 0).map(name).collect();
    let odd: Vec<_> = (0..25).filter(|n| n % 2 == 1).map(name).collect();
    assert_eq!(walk(&*store, Query { limit: 4, ..by("parity", "even") }).await, even);
    assert_eq!(walk(&*store, Query { limit: 4, ..by("parity", "odd") }).await, odd);
    let down = Query { limit: 4, descending: true, ..by("parity", "odd") };
    assert_eq!(walk(&*store, down).await, odd.into_iter().rev().collect::<Vec<_>>());
    assert!(ids(&*store, by("parity", "neither")).await.is_empty());
    assert!(ids(&*store, by("no-such-index", "even")).await.is_empty());
    assert!(ids(&*store, Query { collection: OTHERS, ..by("parity", "even") }).await.is_empty());
    let page = store.list(&Query { limit: 1, ..by("parity", "odd") }).await.unwrap();
    assert_eq!(page.documents[0], read(&*store, "doc-01").await);
}

pub async fn an_index_compares_exactly(data: &impl Data) {
    let store = data.handle().await;
    let values = ["", " ", "a", "A", "a ", "a%", "a/b", "ä", "a'b", "a\"b", "02:00000000", "2:00000000", "1", "1.0"];
    for (n, value) in values.iter().enumerate() {
        // An entry given twice counts once.
        let entries = [("value", *value), ("value", *value), ("other", "x")];
        commit(&*store, indexed(create(&name(n), json!({})), &entries)).await.unwrap();
    }
    for (n, value) in values.iter().enumerate() {
        assert_eq!(ids(&*store, by("value", value)).await, [name(n)], "{value:?}");
    }
    assert!(ids(&*store, by("other", "a")).await.is_empty());
    // A document may have several values of one index.
    let both = indexed(create("both", json!({})), &[("value", "a"), ("value", "A")]);
    commit(&*store, both).await.unwrap();
    assert_eq!(ids(&*store, by("value", "a")).await, ["both", "doc-02"]);
    assert_eq!(ids(&*store, by("value", "A")).await, ["both", "doc-03"]);
}

pub async fn a_write_replaces_the_index(data: &impl Data) {
    let store = data.handle().await;
    let write = indexed(create("a", json!({})), &[("state", "running"), ("owner", "x")]);
    let version = commit(&*store, write).await.unwrap();
    let version = commit(&*store, indexed(update("a", version, json!({})), &[("state", "done")])).await.unwrap();
    assert!(ids(&*store, by("state", "running")).await.is_empty());
    assert!(ids(&*store, by("owner", "x")).await.is_empty());
    assert_eq!(ids(&*store, by("state", "done")).await, ["a"]);
    commit(&*store, update("a", version, json!({}))).await.unwrap();
    assert!(ids(&*store, by("state", "done")).await.is_empty());
    assert_eq!(ids(&*store, all()).await, ["a"]);
}

pub async fn a_delete_takes_its_index_along(data: &impl Data) {
    let store = data.handle().await;
    let version = commit(&*store, indexed(create("a", json!({})), &[("state", "x")])).await.unwrap();
    commit(&*store, delete("a", version)).await.unwrap();
    assert!(ids(&*store, by("state", "x")).await.is_empty());
    commit(&*store, create("a", json!({}))).await.unwrap();
    assert!(ids(&*store, by("state", "x")).await.is_empty());
}

/// What is there all the time is listed exactly once, whatever comes and goes beside it.
pub async fn paging_is_steady_while_others_write(data: &impl Data) {
    let store = data.handle().await;
    fill(&*store).await;
    let come_and_go = async {
        for n in 0..40 {
            let id = format!("doc-{:02}-passing", n * 11 % 25);
            let version = commit(&*store, create(&id, json!({}))).await.unwrap();
            commit(&*store, delete(&id, version)).await.unwrap();
        }
    };
    let list = async {
        for _ in 0..10 {
            let mut walked = walk(&*store, Query { limit: 3, ..all() }).await;
            walked.retain(|id| !id.ends_with("-passing"));
            assert_eq!(walked, (0..25).map(name).collect::<Vec<_>>());
        }
    };
    tokio::join!(come_and_go, list);
}
