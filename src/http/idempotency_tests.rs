use super::*;
use crate::clock::SystemClock;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::json;
use tempfile::TempDir;

async fn store() -> (SqliteStore, TempDir) {
    let folder = TempDir::new().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("db"), SqliteOptions::default()).await.expect("a store");
    (store, folder)
}

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

/// A clock that is ahead by more than any call takes.
#[derive(Debug)]
struct Later;

impl crate::clock::Clock for Later {
    fn now(&self) -> time::OffsetDateTime {
        time::OffsetDateTime::now_utc() + ABANDONED_AFTER + Duration::from_secs(1)
    }
}

fn key(request: &str) -> Idempotency {
    Idempotency { id: "a".repeat(64), request_sha256: request.to_owned() }
}

fn code(outcome: Result<Begun, Refusal>) -> Code {
    outcome.expect_err("refused").code
}

#[tokio::test]
async fn the_first_works_the_second_waits_the_third_is_told() {
    let (store, _folder) = store().await;
    let Begun::Mine(version) = begin(&store, &clock(), &key("one")).await.expect("first") else { panic!("not mine") };
    assert_eq!(code(begin(&store, &clock(), &key("one")).await), Code::IdempotencyKeyInFlight);
    assert_eq!(code(begin(&store, &clock(), &key("other")).await), Code::IdempotencyKeyReused);
    end(&store, &clock(), &key("one"), version, Some(&json!({"address": "x"}))).await;
    let told = begin(&store, &clock(), &key("one")).await.expect("answered");
    assert!(matches!(told, Begun::Answered(body) if body == json!({"address": "x"})));
    assert_eq!(code(begin(&store, &clock(), &key("other")).await), Code::IdempotencyKeyReused);
}

#[tokio::test]
async fn a_refusal_is_not_kept() {
    let (store, _folder) = store().await;
    let Begun::Mine(version) = begin(&store, &clock(), &key("one")).await.expect("first") else { panic!("not mine") };
    end(&store, &clock(), &key("one"), version, None).await;
    assert!(matches!(begin(&store, &clock(), &key("one")).await, Ok(Begun::Mine(_))));
}

#[tokio::test]
async fn what_a_dead_master_left_in_flight_is_taken_over_once() {
    let (store, _folder) = store().await;
    let Begun::Mine(old) = begin(&store, &clock(), &key("one")).await.expect("first") else { panic!("not mine") };
    let later: SharedClock = Arc::new(Later);
    let Begun::Mine(new) = begin(&store, &later, &key("one")).await.expect("taken over") else { panic!("not mine") };
    assert_ne!(old, new);
    assert_eq!(code(begin(&store, &later, &key("one")).await), Code::IdempotencyKeyInFlight);
    // The one that was thought dead can no longer write.
    end(&store, &clock(), &key("one"), old, Some(&json!("late"))).await;
    end(&store, &later, &key("one"), new, Some(&json!("mine"))).await;
    assert!(matches!(begin(&store, &later, &key("one")).await, Ok(Begun::Answered(body)) if body == json!("mine")));
}

#[tokio::test]
async fn of_many_at_once_one_works() {
    let (store, _folder) = store().await;
    let (clock, key) = (clock(), key("one"));
    let outcomes = futures::future::join_all((0..20).map(|_| begin(&store, &clock, &key))).await;
    let mine = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Begun::Mine(_)))).count();
    assert_eq!(mine, 1);
    let refused = outcomes.into_iter().filter_map(Result::err);
    assert!(refused.map(|refusal| refusal.code).all(|code| code == Code::IdempotencyKeyInFlight));
}
