//! Health, for whoever watches this master. No key is needed, so nothing is told but yes or no.

use super::dispatch::Dispatcher;
use super::problem::Problem;
use crate::model::problem::{Code, Refusal};
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;

/// The process answers.
pub(super) async fn healthz() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// This master can be sent calls: it hears from the Store, and it is not on its way out.
pub(super) async fn readyz(dispatcher: Arc<Dispatcher>) -> Response {
    let no = |message| Problem(Refusal::new(Code::NotReady, message).retry_after(1)).into_response();
    if dispatcher.is_shutting_down() {
        no("this master is shutting down")
    } else if !dispatcher.state().directory.is_fresh() {
        no("this master has not heard from the store lately")
    } else {
        Json(json!({"status": "ready"})).into_response()
    }
}
