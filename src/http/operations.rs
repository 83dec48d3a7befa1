//! Durable operations: waiting for one, showing it, following it, and freeing a parked one.

use super::auth;
use super::call::{Call, ok};
use super::page::PageParams;
use super::params::params;
use super::problem;
use super::values::Wait;
use crate::model::ids::OperationId;
use crate::model::operation::{Operation, State};
use crate::model::problem::{Code, Refusal};
use crate::store::repo::Versioned;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use std::convert::Infallible;
use std::time::Duration;
use time::OffsetDateTime;

/// How often a stream makes sure that its caller's key is still good, and says that it is alive.
const PULSE: Duration = Duration::from_secs(4);

params! {
    /// Which operation.
    pub struct OperationParams {
        /// The operation.
        id: OperationId,
    }
}

/// An operation as the API shows it.
#[derive(Debug, Serialize)]
pub(super) struct View<'a> {
    id: &'a OperationId,
    kind: &'static str,
    uuid: Option<&'a str>,
    state: &'static str,
    step: &'static str,
    progress: &'a str,
    result: Option<&'a Value>,
    error: Option<problem::Body<'a>>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

impl<'a> From<&'a Operation> for View<'a> {
    fn from(operation: &'a Operation) -> Self {
        let (result, error) = match &operation.state {
            State::Running => (None, None),
            State::Succeeded { result } => (Some(result), None),
            State::Failed { error } | State::Parked { error } => (None, Some(problem::body(error, None))),
        };
        Self {
            id: &operation.id,
            kind: operation.work.kind(),
            uuid: operation.owner.as_ref().map(|owner| owner.uuid.as_str()),
            state: operation.state.name(),
            step: operation.work.step(),
            progress: &operation.progress,
            result,
            error,
            created_at: operation.created_at,
            updated_at: operation.updated_at,
        }
    }
}

/// Waits for an operation that was accepted or joined, and answers with what came of it. From here on nothing that goes
/// wrong with the waiting is told as an error: the operation is there, and the caller learns its name.
pub(super) async fn answer(call: &Call, operation: Operation, wait: Option<Wait>) -> Result<Response, Refusal> {
    let wait = Wait::or_default(wait);
    if !operation.is_running() || wait.is_zero() {
        return finished_or_accepted(&operation);
    }
    let waited = tokio::select! {
        () = call.shutdown.cancelled() => None,
        waited = call.state.service.wait(&operation.id, wait) => waited.ok(),
    };
    finished_or_accepted(waited.as_ref().map_or(&operation, |waited| &waited.value))
}

fn finished_or_accepted(operation: &Operation) -> Result<Response, Refusal> {
    let mut response = match &operation.state {
        State::Succeeded { result } => ok(result)?,
        State::Failed { error } | State::Parked { error } => problem::response(error, Some(&operation.id)),
        State::Running => {
            let mut response = accepted(operation)?;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
    };
    if let Ok(id) = HeaderValue::try_from(operation.id.as_str()) {
        response.headers_mut().insert("x-operation-id", id);
    }
    Ok(response)
}

/// 202: the operation, and where it is told of.
pub(super) fn accepted(operation: &Operation) -> Result<Response, Refusal> {
    let mut response = ok(&View::from(operation))?;
    *response.status_mut() = StatusCode::ACCEPTED;
    let location = format!("/lnd/v1/operations/{}", operation.id);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `GET operations/{id}`: as JSON, or as a stream of every change.
pub(super) async fn show(call: Call, params: OperationParams) -> Result<Response, Refusal> {
    let operation = visible(&call, &params.id).await?;
    if call.wants_events { follow(call, operation) } else { ok(&View::from(&operation.value)) }
}

/// The operation, if the caller may see it. Another app's is as unknown as one that never was.
async fn visible(call: &Call, id: &OperationId) -> Result<Versioned<Operation>, Refusal> {
    let operation = call.state.service.operation(id).await?;
    let mine = |operation: &Operation| {
        call.caller.is_operator()
            || call.caller.app().is_ok_and(|app| operation.owner.as_ref().is_some_and(|owner| owner.app == *app))
    };
    let visible = operation.filter(|operation| mine(&operation.value));
    visible.ok_or_else(|| Refusal::new(Code::OperationNotFound, "no such operation"))
}

/// Events carry the document's version as their id. A state is complete in itself, so whoever comes back with a
/// Last-Event-ID, to whichever master, misses nothing that matters: they get the state now, unless it is what they saw.
fn follow(call: Call, operation: Versioned<Operation>) -> Result<Response, Refusal> {
    let last = (!operation.value.is_running()).then(|| operation.version.0.to_string());
    let changes = call.state.service.watch(&operation.value.id).map(|change| {
        let version = change.version.0.to_string();
        (version.clone(), event(&change.value, version))
    });
    follow_events(call, last, changes)
}

/// A stream of these events, each with its id, but for the one that was seen. `last`: the id after which none can come.
pub(super) fn follow_events(
    call: Call,
    last: Option<String>,
    changes: impl Stream<Item = (String, Event)> + Send + 'static,
) -> Result<Response, Refusal> {
    let seen = call.last_event_id.clone();
    if last.is_some() && last == seen {
        // To an EventSource this means: do not come back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let place = call.streams.take(&call.caller)?;
    let events = changes.filter_map(move |(version, event)| {
        let is_seen = seen.as_deref() == Some(version.as_str());
        std::future::ready((!is_seen).then_some(event))
    });
    let events = events.take_until(until_nobody_may_listen(call));
    let events = events.map(move |event| {
        let _held_while_the_stream_lives = &place;
        Ok::<_, Infallible>(event)
    });
    Ok(stream_response(events))
}

fn event(operation: &Operation, version: String) -> Event {
    let event = Event::default().event("operation").id(version);
    event.json_data(View::from(operation)).unwrap_or_else(|_| Event::default().comment("an operation without JSON"))
}

/// Ends with the server, and when the caller's key is revoked.
async fn until_nobody_may_listen(call: Call) {
    let valid = stream::unfold((), |()| async {
        tokio::time::sleep(PULSE).await;
        let valid = auth::is_still_valid(&call.caller, &call.state.directory).await;
        valid.then_some(((), ()))
    });
    tokio::select! {
        () = call.shutdown.cancelled() => {}
        () = valid.for_each(|()| std::future::ready(())) => {}
    }
}

fn stream_response(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(PULSE)).into_response();
    // For proxies that would otherwise hold the events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// `GET operations`: the app's, or for an operator all; newest first.
pub(super) async fn list(call: Call, params: PageParams) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Page<'a> {
        operations: Vec<View<'a>>,
        next_cursor: Option<String>,
    }
    let app = if call.caller.is_operator() { None } else { Some(call.caller.app()?) };
    let (limit, cursor) = params.limit_and_after();
    let (page, next_cursor) = call.state.service.operations(app, cursor, limit).await?;
    let operations = page.iter().map(|operation| View::from(&operation.value)).collect();
    ok(&Page { operations, next_cursor })
}

/// `POST operations/{id}/retry`: frees a parked one.
pub(super) async fn retry(call: Call, params: OperationParams) -> Result<Response, Refusal> {
    let operation = visible(&call, &params.id).await?;
    let operation = call.state.service.retry(&operation.value.id).await?;
    ok(&View::from(&operation))
}
