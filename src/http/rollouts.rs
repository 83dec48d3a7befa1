//! Rollouts, for the operator: how they stand, why each node that waits does, and pause, resume, abort, retry.

use super::call::{Call, ok};
use super::operations;
use super::page::PageParams;
use super::params::params;
use super::values::Serial;
use crate::app::rollouts::{Reasons, Word};
use crate::model::ids::{NodeId, OperationId};
use crate::model::problem::Refusal;
use crate::model::rollout::plan::Reason;
use crate::model::rollout::{Progress, Rollout, State};
use axum::response::Response;
use axum::response::sse::Event;
use futures::StreamExt;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use time::OffsetDateTime;

params! {
    /// Which rollout.
    pub struct RolloutParams {
        /// The serial of its release.
        id: Serial,
    }
}

/// A rollout as the API shows it.
#[derive(Debug, Serialize)]
pub(super) struct View<'a> {
    serial: u64,
    state: &'static str,
    why: Option<&'a str>,
    superseded_by: Option<u64>,
    progress: &'a Progress,
    canaries: &'a BTreeSet<NodeId>,
    #[serde(with = "time::serde::rfc3339::option")]
    well_since: Option<OffsetDateTime>,
    under_way: &'a BTreeMap<NodeId, OperationId>,
    failed: &'a BTreeMap<NodeId, String>,
    again: &'a BTreeSet<NodeId>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl<'a> From<&'a Rollout> for View<'a> {
    fn from(rollout: &'a Rollout) -> Self {
        let (why, superseded_by) = match &rollout.state {
            State::Halted { why } => (Some(why.as_str()), None),
            State::Superseded { by } => (None, Some(*by)),
            State::Running | State::Paused | State::Aborted | State::Done => (None, None),
        };
        Self {
            serial: rollout.serial,
            state: rollout.state.name(),
            why,
            superseded_by,
            progress: &rollout.progress,
            canaries: &rollout.canaries,
            well_since: rollout.well_since,
            under_way: &rollout.under_way,
            failed: &rollout.failed,
            again: &rollout.again,
            created_at: rollout.created_at,
        }
    }
}

/// `GET rollouts`: newest first.
pub(super) async fn list(call: Call, params: PageParams) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Page<'a> {
        rollouts: Vec<View<'a>>,
        next_cursor: Option<String>,
    }
    let (limit, cursor) = params.limit_and_after();
    let (page, next_cursor) = call.state.service.rollouts(cursor, limit).await?;
    ok(&Page { rollouts: page.iter().map(|rollout| View::from(&rollout.value)).collect(), next_cursor })
}

/// `GET rollouts/{id}`: as JSON, or as a stream of every change.
pub(super) async fn show(call: Call, params: RolloutParams) -> Result<Response, Refusal> {
    let rollout = call.state.service.rollout(params.id.0).await?;
    if !call.wants_events {
        return ok(&View::from(&rollout.value));
    }
    let is_over = rollout.value.is_over() && rollout.value.under_way.is_empty();
    let changes = call.state.service.watch_rollout(params.id.0).map(|change| {
        let version = change.version.0.to_string();
        (version.clone(), event(&change.value, version))
    });
    operations::follow_events(call, is_over.then(|| rollout.version.0.to_string()), changes)
}

fn event(rollout: &Rollout, version: String) -> Event {
    let event = Event::default().event("rollout").id(version);
    event.json_data(View::from(rollout)).unwrap_or_else(|_| Event::default().comment("a rollout without JSON"))
}

/// `GET rollouts/{id}/nodes`: why each node that has not the release has it not. Planned afresh for every call.
pub(super) async fn nodes(call: Call, params: RolloutParams) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct NodeView<'a> {
        node: &'a NodeId,
        reason: &'static str,
        detail: String,
    }
    #[derive(Serialize)]
    struct Nodes<'a> {
        serial: u64,
        state: &'static str,
        nodes: Vec<NodeView<'a>>,
    }
    let Reasons { rollout, nodes } = call.state.service.rollout_reasons(params.id.0).await?;
    let waiting = nodes.iter().filter(|(_, reason)| *reason != Some(Reason::AlreadyThere));
    let nodes = waiting.map(|(node, reason)| NodeView {
        node,
        reason: reason.as_ref().map_or("next", Reason::name),
        detail: reason.as_ref().map_or_else(|| "it is next".to_owned(), Reason::words),
    });
    ok(&Nodes { serial: rollout.serial, state: rollout.state.name(), nodes: nodes.collect() })
}

async fn say(call: &Call, params: &RolloutParams, word: Word) -> Result<Response, Refusal> {
    let rollout = call.state.service.say_to_rollout(params.id.0, word).await?;
    ok(&View::from(&rollout))
}

pub(super) async fn pause(call: Call, params: RolloutParams) -> Result<Response, Refusal> {
    say(&call, &params, Word::Pause).await
}

pub(super) async fn resume(call: Call, params: RolloutParams) -> Result<Response, Refusal> {
    say(&call, &params, Word::Resume).await
}

pub(super) async fn abort(call: Call, params: RolloutParams) -> Result<Response, Refusal> {
    say(&call, &params, Word::Abort).await
}

pub(super) async fn retry(call: Call, params: RolloutParams) -> Result<Response, Refusal> {
    say(&call, &params, Word::Retry).await
}
