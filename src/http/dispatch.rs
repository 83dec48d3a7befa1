//! The way of every call: who, how often, what, may they, read it, do it, tell it. No handler runs before all of it.

use super::auth;
use super::call::Call;
use super::gate::Connection;
use super::held;
use super::idempotency;
use super::params::{self, Given};
use super::places::{Place, Places};
use super::problem;
use super::route::{Effect, Route};
use super::webhook::{self, Webhook};
use super::{AppState, auth::Caller};
use crate::apikey::ApiKeyId;
use crate::app::refuse;
use crate::config::HttpSection;
use crate::model::problem::{Code, Fault, Refusal};
use axum::body::Body;
use axum::response::Response;
use futures::{FutureExt, StreamExt};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, HeaderValue, Method, Request, header, request::Parts};
use rand::Rng;
use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// What all calls share.
#[derive(Debug)]
pub(super) struct Dispatcher {
    state: AppState,
    config: HttpSection,
    rates: DefaultKeyedRateLimiter<ApiKeyId>,
    calls: Arc<Places>,
    waiting: Arc<Places>,
    streams: Arc<Places>,
    lookups: Arc<Places>,
    shutdown: CancellationToken,
}

/// Where a request wants to go.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// A route, with the part of the path that is a parameter.
    Route(Arc<Route>, Option<String>),
    /// GitHub's webhook.
    Webhook(Arc<Webhook>),
    /// GitHub's webhook, where none is taken.
    NoWebhook,
    /// No route.
    Nowhere,
}

/// What is known of a request by the time it is logged, and the place that its answer keeps.
#[derive(Debug, Default)]
struct Trace {
    caller: Option<Caller>,
    place: Option<Place>,
}

impl Dispatcher {
    pub(super) fn new(state: AppState, config: HttpSection, shutdown: CancellationToken) -> Self {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(config.per_key_per_second));
        let most = config.max_concurrency.min(Semaphore::MAX_PERMITS / WAITING_FOR_EACH_CALL);
        Self {
            rates: RateLimiter::keyed(quota.allow_burst(at_least_one(config.per_key_burst))),
            calls: Places::new(most, 2),
            waiting: Places::new(most * WAITING_FOR_EACH_CALL, 4),
            streams: Places::new(most, 4),
            lookups: Places::new(LOOKUPS, 2),
            state,
            config,
            shutdown,
        }
    }

    pub(super) fn state(&self) -> &AppState {
        &self.state
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Answers a request. Its query is never logged: it may name users and payments.
    pub(super) async fn handle(&self, target: Target, request: Request<Body>) -> Response {
        let request_id = request_id();
        let span = tracing::error_span!("request", id = %request_id);
        let method = request.method().clone();
        let connection = request.extensions().get::<Connection>().cloned();
        let started = Instant::now();
        let mut trace = Trace::default();
        let most =
            if matches!(target, Target::Webhook(_)) { webhook::MOST_BYTES } else { self.config.body_limit_bytes };
        let is_large = told_length(request.headers()).is_some_and(|length| length > most);
        let answer =
            AssertUnwindSafe(self.answer(&target, request, &mut trace)).catch_unwind().instrument(span.clone());
        let outcome = answer.await.unwrap_or_else(|_| {
            let _in_span = span.enter();
            tracing::error!("a handler panicked");
            Err(refuse::internal())
        });
        let mut response = outcome.unwrap_or_else(|refusal| problem::response(&refusal, None));
        if let (Target::Route(route, _), http::StatusCode::METHOD_NOT_ALLOWED) = (&target, response.status()) {
            response.headers_mut().insert(header::ALLOW, self.allowed(route));
        }
        if is_large || response.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
            // The rest of the body stays unread, so the next request cannot come over this connection: say so.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        finish(&mut response, &request_id);
        let _in_span = span.enter();
        log(&target, &method, &response, started.elapsed(), trace.caller.as_ref());
        match trace.place {
            Some(place) => held::hold(response, place, connection, self.config.answer_timeout),
            None => response,
        }
    }

    async fn answer(&self, target: &Target, request: Request<Body>, trace: &mut Trace) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        if let Target::Webhook(webhook) = target {
            let received = webhook.receive(&self.state, &parts.headers, body);
            return self.within(self.config.request_timeout, received).await;
        }
        if matches!(target, Target::NoWebhook) {
            let message = "this deployment takes no webhook: [updates] has no webhook_secret_file";
            return Err(Refusal::new(Code::NotFound, message));
        }
        let caller = auth::authenticate(&parts.headers, &self.state.directory, self.state.network).await?;
        let caller = trace.caller.insert(caller).clone();
        self.check_rate(&caller)?;
        let Target::Route(route, in_path) = target else {
            return Err(Refusal::new(Code::NotFound, "there is no such call"));
        };
        self.check_method(route, &parts.method)?;
        caller.must_have(route.scopes)?;
        let waits = route.effect == Effect::Operates;
        let places = if waits { &self.waiting } else { &self.calls };
        trace.place = Some(places.take(&caller)?);
        let given = self.within(self.config.request_timeout, self.given(route, &parts, body)).await?;
        let given = match (route.path_parameter(), in_path) {
            (Some(name), Some(value)) => given.with_path(name, value.clone()),
            _ => given,
        };
        let idempotency = match route.effect {
            Effect::Looks => None,
            Effect::Changes | Effect::Operates => idempotency::read(&parts.headers, &caller, route.path, &given)?,
        };
        if route.effect != Effect::Looks && !self.state.directory.is_fresh() {
            return Err(Refusal::new(Code::NotReady, "this master has not heard from the store lately").retry_after(1));
        }
        let call = Call {
            state: self.state.clone(),
            caller,
            given,
            idempotency,
            wants_events: wants_events(&parts.headers),
            last_event_id: text(&parts.headers, "last-event-id"),
            shutdown: self.shutdown.clone(),
            streams: Arc::clone(&self.streams),
            lookups: Arc::clone(&self.lookups),
        };
        // A call that waits for its operation has its own bound in `wait`; this is for the time before and after.
        let extra = if waits { LONGEST_WAIT } else { Duration::ZERO };
        self.within(self.config.request_timeout + extra, (route.handler)(call)).await
    }

    async fn within<T>(&self, limit: Duration, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let late = || Refusal::new(Code::Timeout, "the call took too long; what it asked for may still happen");
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late().retry_after(1)))
    }

    fn check_rate(&self, caller: &Caller) -> Result<(), Refusal> {
        self.rates.check_key(caller.key()).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
            Refusal::new(Code::RateLimited, "too many requests with this key").retry_after(seconds)
        })
    }

    /// HEAD is a GET without a body, so it is allowed only where GET does nothing.
    fn check_method(&self, route: &Route, method: &Method) -> Result<(), Refusal> {
        let get = route.takes_get(self.config.changing_gets);
        let fits = match *method {
            Method::GET => get,
            Method::HEAD => get && route.effect == Effect::Looks,
            Method::POST => route.takes_post(),
            _ => false,
        };
        let no = || Refusal::new(Code::MethodNotAllowed, "this call does not take this method");
        if fits { Ok(()) } else { Err(no()) }
    }

    fn allowed(&self, route: &Route) -> HeaderValue {
        let get = route.takes_get(self.config.changing_gets);
        let head = get && route.effect == Effect::Looks;
        HeaderValue::from_static(match (get, head, route.takes_post()) {
            (true, true, true) => "GET, HEAD, POST",
            (true, true, false) => "GET, HEAD",
            (true, false, true) => "GET, POST",
            (true, false, false) => "GET",
            (false, _, _) => "POST",
        })
    }

    async fn given(&self, route: &Route, parts: &Parts, body: Body) -> Result<Given, Refusal> {
        if parts.method != Method::POST {
            return Given::from_query(parts.uri.query());
        }
        if let Some(query) = parts.uri.query().filter(|query| !query.is_empty()) {
            params::not_too_many(query)?;
            return Err(misplaced(query));
        }
        let bytes = self.read(parts, body).await?;
        let needs_none = route.params.iter().all(|param| !param.required || route.path_parameter() == Some(param.name));
        if !(bytes.is_empty() && needs_none) {
            check_content_type(&parts.headers)?;
        }
        Given::from_json(&bytes)
    }

    async fn read(&self, parts: &Parts, body: Body) -> Result<Vec<u8>, Refusal> {
        let limit = self.config.body_limit_bytes;
        let too_large = || Refusal::new(Code::BodyTooLarge, format!("the body is larger than {limit} bytes"));
        let told = told_length(&parts.headers);
        if told.is_some_and(|told| told > limit) {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(told.unwrap_or(0));
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Refusal::new(Code::MalformedBody, "the body ended too soon"))?;
            if bytes.len() + chunk.len() > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// The longest that a caller may have a call wait.
const LONGEST_WAIT: Duration = Duration::from_secs(50);
/// A call that waits for its operation holds next to nothing, so there may be more of them than of others.
const WAITING_FOR_EACH_CALL: usize = 4;

/// Names that are resolved at a time. Each takes a thread that the Store needs, too, for as long as the name's servers like.
const LOOKUPS: usize = 16;

/// A parameter in the query of a POST would be logged by proxies on the way, which is why it is a POST.
fn misplaced(query: &str) -> Refusal {
    let names = query.split('&').map(|pair| pair.split('=').next().unwrap_or(pair));
    let fault = |name: &str| Fault { parameter: name.to_owned(), message: "belongs into the JSON body".to_owned() };
    params::invalid(names.map(fault).collect())
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default().to_ascii_lowercase();
    let mut parts = value.split(';').map(str::trim);
    let is_json = parts.next() == Some("application/json");
    let utf8 = parts.all(|part| matches!(part, "charset=utf-8" | "charset=\"utf-8\""));
    let no = || Refusal::new(Code::UnsupportedMediaType, "a POST needs Content-Type: application/json");
    if is_json && utf8 { Ok(()) } else { Err(no()) }
}

fn wants_events(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|value| value.to_str().is_ok_and(|v| v.contains("text/event-stream")))
}

pub(super) fn told_length(headers: &HeaderMap) -> Option<usize> {
    text(headers, header::CONTENT_LENGTH.as_str())?.parse().ok()
}

pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn request_id() -> String {
    let mut bytes = [0u8; 12];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// What every answer carries. Nothing here may be kept by a cache: some GETs change something, and all are private.
fn finish(response: &mut Response, request_id: &str) {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::try_from(request_id) {
        headers.insert("x-request-id", id);
    }
}

fn log(target: &Target, method: &Method, response: &Response, took: Duration, caller: Option<&Caller>) {
    let (route, looks) = match target {
        Target::Route(route, _) => (route.path, route.effect == Effect::Looks),
        Target::Webhook(_) | Target::NoWebhook => ("update", false),
        Target::Nowhere => ("", true),
    };
    let status = response.status().as_u16();
    let key = caller.map(|caller| caller.key().as_str()).unwrap_or_default();
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if response.status().is_server_error() && status != 503 {
        tracing::error!(http.method = %method, http.route = route, http.status = status, http.ms = ms, key.id = key);
    } else if looks {
        tracing::debug!(http.method = %method, http.route = route, http.status = status, http.ms = ms, key.id = key);
    } else {
        tracing::info!(http.method = %method, http.route = route, http.status = status, http.ms = ms, key.id = key);
    }
}
