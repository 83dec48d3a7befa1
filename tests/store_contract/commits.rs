//! Several writes in one commit.

use super::Data;
use super::tools::*;
use scale_lnd::store::{Expect, Key, Store, Version, Write};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};

pub async fn all_or_nothing(data: &impl Data) {
    let store = data.handle().await;
    let kept = commit(&*store, indexed(create("kept", json!({"n": 1})), &[("colour", "red")])).await.unwrap();
    let doomed = commit(&*store, create("doomed", json!({}))).await.unwrap();
    let writes = vec![
        create("new", json!({})),
        indexed(update("kept", kept, json!({"n": 2})), &[("colour", "blue")]),
        delete("doomed", doomed),
        create("kept-not", json!({})),
        update("absent", kept, json!({})),
    ];
    assert_conflict(store.commit(writes).await, "absent");
    assert_eq!(ids(&*store, all()).await, ["doomed", "kept"]);
    let document = read(&*store, "kept").await;
    assert_eq!((document.version, document.body), (kept, json!({"n": 1})));
    assert_eq!(ids(&*store, by("colour", "red")).await, ["kept"]);
    assert!(ids(&*store, by("colour", "blue")).await.is_empty());
    commit(&*store, delete("doomed", doomed)).await.unwrap();
}

pub async fn a_conflict_names_the_first_that_failed(data: &impl Data) {
    let store = data.handle().await;
    let version = commit(&*store, create("there", json!({}))).await.unwrap();
    let failing = [
        create("there", json!({})),
        update("gone-1", version, json!({})),
        delete("gone-2", version),
        check("gone-3", Expect::Version(version)),
    ];
    for (first, name) in failing.iter().zip(["there", "gone-1", "gone-2", "gone-3"]) {
        let writes =
            vec![create("good", json!({})), first.clone(), create("better", json!({})), delete("last", version)];
        assert_conflict(store.commit(writes).await, name);
    }
}

pub async fn a_check_guards_and_writes_nothing(data: &impl Data) {
    let store = data.handle().await;
    let old = commit(&*store, create("guard", json!({}))).await.unwrap();
    let new = commit(&*store, update("guard", old, json!({}))).await.unwrap();
    for (id, wrong) in [("guard", Expect::Version(old)), ("guard", Expect::Absent), ("absent", Expect::Version(new))] {
        assert_conflict(store.commit(vec![create("a", json!({})), check(id, wrong)]).await, id);
        assert_conflict(store.commit(vec![check(id, wrong)]).await, id);
    }
    assert!(!exists(&*store, "a").await);
    let writes = vec![check("guard", Expect::Version(new)), check("absent", Expect::Absent), create("a", json!({}))];
    store.commit(writes).await.unwrap();
    store.commit(vec![check("guard", Expect::Version(new))]).await.unwrap();
    assert_eq!(read(&*store, "guard").await.version, new);
    assert_eq!(ids(&*store, all()).await, ["a", "guard"]);
}

pub async fn a_document_may_occur_once(data: &impl Data) {
    let store = data.handle().await;
    let there = commit(&*store, create("there", json!({}))).await.unwrap();
    let twice = [
        [create("a", json!({})), create("a", json!({}))],
        [create("a", json!({})), check("a", Expect::Absent)],
        [update("there", there, json!({})), delete("there", there)],
        [check("there", Expect::Version(there)), delete("there", there)],
    ];
    for writes in twice {
        let mut with_more = vec![create("more", json!({}))];
        with_more.extend(writes);
        assert_invalid(store.commit(with_more).await);
    }
    assert_eq!(ids(&*store, all()).await, ["there"]);
    assert_eq!(read(&*store, "there").await.version, there);
}

pub async fn versions_come_in_the_order_of_the_writes(data: &impl Data) {
    let store = data.handle().await;
    let old = commit(&*store, create("old", json!({}))).await.unwrap();
    let guard = commit(&*store, create("guard", json!({}))).await.unwrap();
    let writes = vec![
        create("a", json!({})),
        delete("old", old),
        check("guard", Expect::Version(guard)),
        create("b", json!({})),
    ];
    let versions = store.commit(writes).await.unwrap();
    assert_eq!(versions.len(), 4);
    assert_eq!(read(&*store, "a").await.version, versions[0]);
    assert_eq!(read(&*store, "b").await.version, versions[3]);
    assert!(store.commit(Vec::new()).await.unwrap().is_empty());
}

pub async fn a_large_commit_is_one(data: &impl Data) {
    let store = data.handle().await;
    let name = |n: usize| format!("doc-{n:03}");
    let creates =
        |names: std::ops::Range<usize>| -> Vec<Write> { names.map(|n| create(&name(n), json!({"n": n}))).collect() };
    store.commit(creates(0..200)).await.unwrap();
    // The last of these is there already.
    let mut again = creates(200..300);
    again.push(create(&name(0), json!({})));
    assert_conflict(store.commit(again).await, &name(0));
    let mut query = all();
    query.limit = 1000;
    assert_eq!(ids(&*store, query).await, (0..200).map(name).collect::<Vec<_>>());
}

/// Two documents that are always written together never differ. A listing need not be of one instant, but none of what it shows is
/// older than what was there before it, or newer than what is there after it.
pub async fn nobody_sees_half_a_commit(data: &impl Data) {
    let (writer, reader) = (data.handle().await, data.handle().await);
    let both = |n: u64| [("left", json!({"n": n})), ("right", json!({"n": n}))];
    let [left, right] = both(0).map(|(id, body)| create(id, body));
    let mut version = writer.commit(vec![left, right]).await.unwrap();
    let done = AtomicBool::new(false);
    let write = async {
        for n in 1..=100 {
            let [left, right] = both(n);
            let writes = vec![update(left.0, version[0], left.1), update(right.0, version[1], right.1)];
            version = writer.commit(writes).await.unwrap();
        }
        done.store(true, Ordering::Release);
    };
    let read = async {
        let mut before = 0;
        while !done.load(Ordering::Acquire) {
            let listed = numbers(&*reader).await;
            let now = data.numbers_now(&*reader).await;
            assert!(now.len() == 2 && now[0] == now[1], "half a commit: {now:?}");
            let possible = before..=now[0];
            assert!(listed.len() == 2 && listed.iter().all(|n| possible.contains(n)), "{possible:?}: {listed:?}");
            before = now[0];
        }
    };
    tokio::join!(write, read);
    assert_eq!(numbers(&*reader).await, [100, 100]);
}

pub async fn another_handle_reads_what_was_committed(data: &impl Data) {
    let (one, two) = (data.handle().await, data.handle().await);
    let stores: [&dyn Store; 2] = [&*one, &*two];
    let mut version: Option<Version> = None;
    for n in 0..20 {
        let (writer, reader) = (stores[n % 2], stores[(n + 1) % 2]);
        let write = match version {
            None => create("a", json!({"n": n})),
            Some(version) => update("a", version, json!({"n": n})),
        };
        version = Some(commit(writer, write).await.unwrap());
        let document = reader.get(&Key { ..key("a") }).await.unwrap().unwrap();
        assert_eq!((Some(document.version), document.body), (version, json!({"n": n})));
    }
}
