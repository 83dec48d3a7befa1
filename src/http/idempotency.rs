//! `Idempotency-Key` (IETF draft): the same key and request give the same outcome, 422 with another request, 409 while the
//! first is being worked on. Scoped to the API key. Operations keep their own record in the commit that creates them; here
//! is what the calls need that change something at once, whose answers are kept for a day (`app/expiry.rs`).

use super::auth::Caller;
use super::call::{Call, ok};
use super::params::{self, Given};
use crate::app::{Idempotency, refuse};
use crate::clock::SharedClock;
use crate::model::ids::digest_id;
use crate::model::operation::{IdempotencyRecord, IdempotentOutcome};
use crate::model::problem::{Code, Refusal};
use crate::store::repo::{self, Versioned};
use crate::store::{Store, Version};
use axum::response::Response;
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The header.
pub const HEADER: &str = "idempotency-key";
/// A record that says "in flight" for longer than this was most likely left by a master that died. Every call that comes
/// here may be repeated without harm, so that the next one takes it over; the first can then no longer write.
const ABANDONED_AFTER: Duration = Duration::from_secs(10);

/// Reads the header, where there is one.
///
/// # Errors
/// 400 where it is empty, too long, given twice, or not printable ASCII.
pub fn read(headers: &HeaderMap, caller: &Caller, route: &str, given: &Given) -> Result<Option<Idempotency>, Refusal> {
    let mut values = headers.get_all(HEADER).iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    // The draft's form is a quoted string; most clients send it bare.
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if second.is_some() || !(1..=255).contains(&text.len()) {
        return Err(params::fault("Idempotency-Key", "must be given once, 1 to 255 printable ASCII characters"));
    }
    let mut request = vec![route.to_owned()];
    request.extend(given.canonical());
    let request: Vec<&str> = request.iter().map(String::as_str).collect();
    let id = digest_id(&["idempotency", caller.key().as_str(), text]);
    Ok(Some(Idempotency { id, request_sha256: digest_id(&request) }))
}

/// Does `work`, which may be repeated without harm, once for each Idempotency-Key; its answer is kept and given again. The
/// work goes on when the caller hangs up.
///
/// # Errors
/// The work's own refusal, which is not kept: nothing was done, so the next try is a new one. 409 and 422 as above.
pub async fn once<T, W>(call: &Call, work: W) -> Result<Response, Refusal>
where
    T: Serialize + Send + 'static,
    W: Future<Output = Result<T, Refusal>> + Send + 'static,
{
    let Some(key) = call.idempotency.clone() else { return ok(&in_background(work).await?) };
    let store = Arc::clone(&call.state.store);
    let version = match begin(&*store, &call.state.clock, &key).await? {
        Begun::Mine(version) => version,
        Begun::Answered(body) => {
            let mut response = ok(&body)?;
            response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
            return Ok(response);
        }
    };
    let clock = Arc::clone(&call.state.clock);
    let answer = in_background(async move {
        let outcome = match work.await {
            Ok(answer) => serde_json::to_value(answer).map_err(|_| refuse::internal()),
            Err(refusal) => Err(refusal),
        };
        end(&*store, &clock, &key, version, outcome.as_ref().ok()).await;
        outcome
    });
    ok(&answer.await?)
}

async fn in_background<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let task = tokio::spawn(tracing::Instrument::in_current_span(work));
    task.await.unwrap_or_else(|_| Err(refuse::internal()))
}

#[derive(Debug)]
enum Begun {
    /// The record is ours to end.
    Mine(Version),
    /// This was the answer.
    Answered(Value),
}

async fn begin(store: &dyn Store, clock: &SharedClock, key: &Idempotency) -> Result<Begun, Refusal> {
    let refuse_store = |error| refuse::store(&error);
    let record = record(clock, key, IdempotentOutcome::InFlight);
    // At most: found nothing, lost the race to create, found what won.
    for _ in 0..3 {
        let found = repo::get::<IdempotencyRecord>(store, &key.id).await.map_err(refuse_store)?;
        let write = match found {
            None => repo::create(&record),
            Some(found) => match judge(found, key, &record)? {
                Begun::Mine(version) => repo::update(&record, version),
                answered @ Begun::Answered(_) => return Ok(answered),
            },
        };
        match store.commit(vec![write.map_err(refuse_store)?]).await {
            Ok(versions) => return versions.first().map(|&version| Begun::Mine(version)).ok_or_else(refuse::internal),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(refuse_store(error)),
        }
    }
    Err(in_flight())
}

fn record(clock: &SharedClock, key: &Idempotency, outcome: IdempotentOutcome) -> IdempotencyRecord {
    let (id, request_sha256) = (key.id.clone(), key.request_sha256.clone());
    IdempotencyRecord { id, request_sha256, outcome, created_at: clock.now() }
}

/// What the record that is there says about this request.
fn judge(found: Versioned<IdempotencyRecord>, key: &Idempotency, mine: &IdempotencyRecord) -> Result<Begun, Refusal> {
    if found.value.request_sha256 != key.request_sha256 {
        return Err(Refusal::new(Code::IdempotencyKeyReused, "this Idempotency-Key was used with another request"));
    }
    match found.value.outcome {
        IdempotentOutcome::Answered { body, .. } => Ok(Begun::Answered(body)),
        IdempotentOutcome::InFlight if mine.created_at - found.value.created_at > ABANDONED_AFTER => {
            Ok(Begun::Mine(found.version))
        }
        IdempotentOutcome::InFlight => Err(in_flight()),
        // The digest holds the route, and no route is both: this record was written by something else.
        IdempotentOutcome::Operation { .. } => Err(refuse::internal()),
    }
}

fn in_flight() -> Refusal {
    Refusal::new(Code::IdempotencyKeyInFlight, "the first request with this Idempotency-Key is being worked on")
        .retry_after(1)
}

/// Keeps the answer, or forgets the record after a refusal. Where the Store fails here the work may be done again, which is
/// harmless; the caller is told what came of it all the same.
async fn end(store: &dyn Store, clock: &SharedClock, key: &Idempotency, version: Version, answer: Option<&Value>) {
    let write = match answer {
        Some(body) => {
            let outcome = IdempotentOutcome::Answered { status: 200, body: body.clone() };
            repo::update(&record(clock, key, outcome), version)
        }
        None => Ok(repo::delete::<IdempotencyRecord>(&key.id, version)),
    };
    let committed = match write {
        Ok(write) => store.commit(vec![write]).await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = committed {
        tracing::warn!(%error, "an idempotency record was left in flight");
    }
}

#[cfg(test)]
#[path = "idempotency_tests.rs"]
mod tests;
