//! What a route is: its name, who may call it, its parameters and its answer. Both the router and the OpenAPI description
//! are made of these.

use super::call::Call;
use super::params::{Described, Params};
use crate::model::app::Scope;
use crate::model::problem::Refusal;
use axum::response::Response;
use futures::future::BoxFuture;
use std::sync::Arc;

/// By which methods a route is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Methods {
    /// GET only.
    Get,
    /// POST only.
    Post,
    /// Both, with the same parameters.
    GetAndPost,
}

/// What a call does, as far as it changes how it is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It only looks.
    Looks,
    /// It changes something, at once.
    Changes,
    /// It starts or joins an operation and waits for it.
    Operates,
}

/// What a successful call answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A message of lnd, as its REST gives it; the full name.
    Lnd(&'static str),
    /// The same with `next_cursor`.
    LndPage(&'static str),
    /// A schema of ours, by name (`openapi/schemas.rs`).
    Own(&'static str),
}

pub(super) type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Response, Refusal>> + Send + Sync>;

/// One call of the API.
pub struct Route {
    /// Its path below `/lnd/v1/`.
    pub path: &'static str,
    /// What it is for, in a sentence.
    pub about: &'static str,
    /// By which methods it is called.
    pub methods: Methods,
    /// What it does.
    pub effect: Effect,
    /// One of these scopes is needed.
    pub scopes: &'static [Scope],
    /// What it is given.
    pub params: Vec<Described>,
    /// What it answers.
    pub answer: Answer,
    pub(super) handler: Handler,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Route({})", self.path)
    }
}

impl Route {
    pub(super) fn new<P, F, Fut>(
        path: &'static str,
        methods: Methods,
        effect: Effect,
        scopes: &'static [Scope],
        answer: Answer,
        handler: F,
    ) -> Self
    where
        P: Params,
        F: Fn(Call, P) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Refusal>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |mut call: Call| {
            let handler = handler.clone();
            Box::pin(async move {
                let params = std::mem::take(&mut call.given).read::<P>()?;
                handler(call, params).await
            })
        });
        Self { path, about: "", methods, effect, scopes, params: P::describe(), answer, handler }
    }

    /// With what it is for.
    #[must_use]
    pub fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// Whether GET may be used, given whether GETs that change something are switched on.
    #[must_use]
    pub fn takes_get(&self, changing_gets: bool) -> bool {
        self.methods != Methods::Post && (changing_gets || self.effect == Effect::Looks)
    }

    /// Whether POST may be used.
    #[must_use]
    pub fn takes_post(&self) -> bool {
        self.methods != Methods::Get
    }

    /// The name of the parameter in its path, where there is one.
    #[must_use]
    pub fn path_parameter(&self) -> Option<&'static str> {
        let (_, rest) = self.path.split_once('{')?;
        rest.split_once('}').map(|(name, _)| name)
    }
}
