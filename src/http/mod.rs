//! The REST API. A handler parses, calls one use case or one lnd, and renders; `router` has every route on one screen,
//! `dispatch` what happens to every call before its handler, `problem` the one mapping of refusals.

mod auth;
mod call;
mod channels;
mod dispatch;
mod docs;
mod gate;
mod health;
mod held;
mod host;
mod hosts;
mod idempotency;
mod info;
mod invoices;
mod nodes;
mod onchain;
mod openapi;
mod operations;
mod page;
mod params;
mod payments;
mod peers;
mod places;
mod problem;
mod rollouts;
mod route;
mod router;
mod serve;
mod updates;
mod values;
mod webhook;

pub use serve::{BoundServer, ServeError, check_certificate};
pub use webhook::Webhook;

use crate::app::Service;
use crate::app::directory::Directory;
use crate::clock::SharedClock;
use crate::model::Network;
use crate::store::Store;
use std::sync::Arc;

/// What the API stands on.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The use cases.
    pub service: Service,
    /// What is known by heart.
    pub directory: Arc<Directory>,
    /// For listings.
    pub store: Arc<dyn Store>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The network of the deployment.
    pub network: Network,
    /// What takes GitHub's webhook, where there is one.
    pub webhook: Option<Arc<Webhook>>,
}

/// The OpenAPI description of the API, as it is served: for the command line and for tests.
#[must_use]
pub fn description() -> serde_json::Value {
    openapi::describe(&router::routes())
}

#[cfg(test)]
mod tests;
