//! One call that was let through: who calls, what they gave, and what there is to answer with.

use super::AppState;
use super::auth::Caller;
use super::host::HostPort;
use super::params::Given;
use super::places::Places;
use crate::app::Idempotency;
use crate::app::directory::{Lnd, NodeHandle};
use crate::lnd::macaroon::Grant;
use crate::model::ids::Uuid;
use crate::model::problem::Refusal;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A call.
#[derive(Debug)]
pub struct Call {
    /// What the master has.
    pub state: AppState,
    /// Who calls.
    pub caller: Caller,
    /// The parameters, until they are read.
    pub given: Given,
    /// What the Idempotency-Key stands for here.
    pub idempotency: Option<Idempotency>,
    /// Whether the caller wants a stream of events.
    pub wants_events: bool,
    /// The last event the caller has seen.
    pub last_event_id: Option<String>,
    /// Cancelled when the server shuts down: nobody waits any longer.
    pub shutdown: CancellationToken,
    /// Places for event streams.
    pub streams: Arc<Places>,
    /// Places for names that are being resolved.
    pub lookups: Arc<Places>,
}

impl Call {
    /// The node of the caller's user.
    ///
    /// # Errors
    /// 404 where there is none.
    pub async fn node(&self, uuid: &Uuid) -> Result<Arc<NodeHandle>, Refusal> {
        self.state.directory.node(self.caller.app()?, uuid).await
    }

    /// The address of a peer of the caller's user, as a literal. Nothing is resolved for a user that there is not.
    ///
    /// # Errors
    /// 400 where it is none that a peer may have; 404 where there is no such user; 429 or 503 where too many are being
    /// resolved.
    pub async fn address(&self, uuid: &Uuid, host: &HostPort) -> Result<String, Refusal> {
        self.node(uuid).await?;
        let place = || self.lookups.take(&self.caller);
        Ok(host.resolve(self.state.network, place).await?.to_string())
    }

    /// Leave to make one call to the lnd of the caller's user.
    ///
    /// # Errors
    /// 404 where there is none; 503 where it is not ready.
    pub async fn lnd(&self, uuid: &Uuid, grant: Grant) -> Result<Lnd, Refusal> {
        self.node(uuid).await?.lnd(grant).await
    }
}

/// The answer 200 with `value` as JSON.
///
/// # Errors
/// Only where a value has no JSON, which is a defect.
pub fn ok(value: &impl Serialize) -> Result<Response, Refusal> {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer has no JSON");
        crate::app::refuse::internal()
    })?;
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
