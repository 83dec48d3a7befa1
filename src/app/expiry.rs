//! What is forgotten when its time is over: the answers that are kept for an Idempotency-Key, and the webhook's deliveries.

use crate::clock::SharedClock;
use crate::error::Result;
use crate::model::operation::IdempotencyRecord;
use crate::model::updates::Delivery;
use crate::store::repo::Entity;
use crate::store::{IndexEntry, Query, Store, Write};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(600);
/// How far back the first look goes, hours: a deployment that stood still for longer keeps what was too old by then.
const FIRST_LOOK: i64 = 24 * 30;
/// Records that are forgotten in one commit.
const AT_ONCE: usize = 100;

/// A kind of document that is forgotten by the hour in which it was made.
struct Forgotten {
    collection: &'static str,
    index: &'static str,
    kept_for: time::Duration,
    /// The first hour that may have any.
    from: Option<i64>,
}

impl Forgotten {
    fn all() -> [Self; 2] {
        let answers = (IdempotencyRecord::COLLECTION, IdempotencyRecord::HOUR, IdempotencyRecord::KEPT_FOR);
        let deliveries = (Delivery::COLLECTION, Delivery::HOUR, Delivery::KEPT_FOR);
        [answers, deliveries].map(|(collection, index, kept_for)| Self { collection, index, kept_for, from: None })
    }

    /// Forgets those of all hours that are over for as long as they are kept. How many there were.
    async fn forget(&mut self, store: &dyn Store, now: OffsetDateTime) -> Result<usize> {
        let end = IdempotencyRecord::hour_of(now - self.kept_for);
        let first = self.from.unwrap_or(end - FIRST_LOOK);
        let mut forgotten = 0;
        for hour in first..end {
            forgotten += self.forget_hour(store, hour).await?;
            self.from = Some(hour + 1);
        }
        Ok(forgotten)
    }

    async fn forget_hour(&self, store: &dyn Store, hour: i64) -> Result<usize> {
        let index = IndexEntry { name: self.index, value: hour.to_string() };
        let collection = self.collection;
        let query = Query { collection, index: Some(index), after: None, limit: AT_ONCE, descending: false };
        let mut forgotten = 0;
        loop {
            let page = store.list(&query).await?;
            let delete =
                |document: crate::store::Document| Write::Delete { key: document.key, expect: document.version };
            let writes: Vec<Write> = page.documents.into_iter().map(delete).collect();
            let records = writes.len();
            if records == 0 {
                return Ok(forgotten);
            }
            match store.commit(writes).await {
                Ok(_) => forgotten += records,
                // Another master is at them, or one of them has just been taken over, and is of another hour now.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Forgets until `stop`. Every master does; of two at the same record one has nothing left to do.
pub async fn run(store: Arc<dyn Store>, clock: SharedClock, stop: CancellationToken) {
    let mut kinds = Forgotten::all();
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        for kind in &mut kinds {
            let collection = kind.collection;
            match stop.run_until_cancelled(kind.forget(&*store, clock.now())).await {
                Some(Ok(0)) | None => {}
                Some(Ok(records)) => tracing::debug!(records, collection, "what is too old is forgotten"),
                Some(Err(error)) => tracing::warn!(%error, collection, "what is too old cannot be forgotten now"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OperationId;
    use crate::model::operation::IdempotentOutcome;
    use crate::store::repo;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};

    const NOW: OffsetDateTime = time::macros::datetime!(2026-03-01 12:30 UTC);

    async fn put(store: &dyn Store, id: &str, minutes_ago: i64, outcome: IdempotentOutcome) {
        let created_at = NOW - time::Duration::minutes(minutes_ago);
        let record = IdempotencyRecord { id: id.to_owned(), request_sha256: String::new(), outcome, created_at };
        store.commit(vec![repo::create(&record).unwrap()]).await.unwrap();
    }

    async fn left(store: &dyn Store) -> Vec<String> {
        let all = repo::list_all::<IdempotencyRecord>(store, None).await.unwrap();
        all.into_iter().map(|record| record.value.id).collect()
    }

    #[tokio::test]
    async fn answers_are_kept_for_a_day_and_operations_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("db"), SqliteOptions::default()).await.unwrap();
        let answered = || IdempotentOutcome::Answered { status: 200, body: "x".into() };
        let operation = OperationId::random(NOW, &mut rand::rng());
        put(&store, "operation", 60 * 48, IdempotentOutcome::Operation { operation }).await;
        put(&store, "abandoned", 60 * 48, IdempotentOutcome::InFlight).await;
        put(&store, "old", 60 * 25, answered()).await;
        put(&store, "young", 60 * 24 - 1, answered()).await;
        put(&store, "new", 1, IdempotentOutcome::InFlight).await;
        for number in 0..AT_ONCE + 1 {
            put(&store, &format!("many{number}"), 60 * 30, answered()).await;
        }
        let [mut answers, _] = Forgotten::all();
        assert_eq!(answers.forget(&store, NOW).await.unwrap(), AT_ONCE + 3);
        assert_eq!(left(&store).await, ["new", "operation", "young"]);
        assert_eq!(answers.forget(&store, NOW).await.unwrap(), 0);
        assert_eq!(answers.forget(&store, NOW + time::Duration::hours(2)).await.unwrap(), 1);
        assert_eq!(left(&store).await, ["new", "operation"]);
    }
}
