//! What moto lacks of EC2, in front of it: ClientToken's meaning, and the faults that a test asks for. A server of its own
//! on a socket of its own, of which nobody behind or before it knows.

use crate::harness::Served;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::{HeaderMap, StatusCode, header};
use percent_encoding::percent_decode_str;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// EC2's code for an instance that ends because the key of a volume of its cannot be used.
const ENDS_BECAUSE: &str = "Client.InvalidKMSKey.InvalidState";

/// What goes wrong, until it is taken back.
#[derive(Debug, Default)]
pub struct Faults {
    /// Subnets in which there is no room.
    pub full: HashSet<String>,
    /// So many of the next RunInstances are too many.
    pub throttled: usize,
    /// So many of the next RunInstances are carried out, and their answers are lost.
    pub lost: usize,
    /// Nothing is allowed.
    pub denied: bool,
    /// No instance is further than being started.
    pub pending: bool,
    /// Each instance ends as soon as it was started, as where its volumes' key cannot be used.
    pub ends: bool,
    /// Private addresses that have changed: old and new.
    pub moved: HashMap<String, String>,
}

#[derive(Debug, Default)]
struct Shared {
    moto: String,
    http: reqwest::Client,
    faults: Mutex<Faults>,
    /// What was asked for by each ClientToken in each subnet, and what was answered.
    known: tokio::sync::Mutex<HashMap<(String, String), (Bytes, String)>>,
    calls: Mutex<Vec<String>>,
    /// Whether calls wait before they are carried out.
    is_held: watch::Sender<bool>,
    /// The calls that wait.
    held: Mutex<Vec<String>>,
}

/// The proxy; it ends with this.
#[derive(Debug)]
pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
    _served: Served,
}

impl Proxy {
    pub async fn start(moto: &str) -> Self {
        let shared = Arc::new(Shared { moto: moto.to_owned(), ..Shared::default() });
        let served = Served::new(Router::new().fallback(answer).with_state(Arc::clone(&shared))).await;
        Self { url: served.url.clone(), shared, _served: served }
    }

    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.faults.lock().unwrap());
    }

    /// From now on no call is carried out, nor answered.
    pub fn hold(&self) {
        self.shared.is_held.send_replace(true);
    }

    /// What was held is carried out, and answered where somebody still waits.
    pub fn release(&self) {
        self.shared.is_held.send_replace(false);
    }

    /// Whether a call of this action is held now.
    pub fn holds(&self, action: &str) -> bool {
        *self.shared.is_held.borrow() && self.shared.held.lock().unwrap().iter().any(|held| held == action)
    }

    /// How often each action was called.
    pub fn counts(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for call in self.shared.calls.lock().unwrap().iter() {
            *counts.entry(call.clone()).or_default() += 1;
        }
        counts
    }

    /// All actions that were called.
    pub fn actions(&self) -> HashSet<String> {
        self.counts().into_keys().collect()
    }

    /// How often this action was called.
    pub fn calls(&self, action: &str) -> usize {
        self.counts().get(action).copied().unwrap_or(0)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let call: HashMap<String, String> = String::from_utf8_lossy(&body).split('&').filter_map(parameter).collect();
    let action = call.get("Action").cloned().unwrap_or_default();
    shared.calls.lock().unwrap().push(action.clone());
    wait_while_held(&shared, &action).await;
    if shared.faults.lock().unwrap().denied {
        return error("UnauthorizedOperation", "You are not authorized to perform this operation.", 403);
    }
    match action.as_str() {
        "RunInstances" => run(&shared, &call, &headers, body).await,
        _ => {
            let (status, text) = forward(&shared, &headers, body).await;
            xml(status, shared.faults.lock().unwrap().as_seen(text))
        }
    }
}

impl Faults {
    /// What is described, as it is made out to be.
    fn as_seen(&self, mut text: String) -> String {
        for (old, new) in &self.moved {
            text = text.replace(&format!(">{old}<"), &format!(">{new}<"));
        }
        let made_out = [self.pending.then_some(("0", "pending")), self.ends.then_some(("48", "terminated"))];
        for (code, name) in made_out.into_iter().flatten() {
            text = text.replace("<code>16</code>", &format!("<code>{code}</code>"));
            text = text.replace("<name>running</name>", &format!("<name>{name}</name>"));
        }
        if self.ends {
            let reason = format!("<code>{ENDS_BECAUSE}</code><message>{ENDS_BECAUSE}: see its key</message>");
            let state = "<name>terminated</name></instanceState>";
            text = text.replace(state, &format!("{state}<stateReason>{reason}</stateReason>"));
        }
        text
    }
}

/// A caller that gives up is no longer waited for: its call is dropped with it, as by a network that lost the request.
async fn wait_while_held(shared: &Shared, action: &str) {
    let mut is_held = shared.is_held.subscribe();
    if !*is_held.borrow_and_update() {
        return;
    }
    shared.held.lock().unwrap().push(action.to_owned());
    let _over = is_held.wait_for(|held| !held).await;
    shared.held.lock().unwrap().retain(|held| held != action);
}

fn parameter(pair: &str) -> Option<(String, String)> {
    let (name, value) = pair.split_once('=')?;
    let value = percent_decode_str(&value.replace('+', " ")).decode_utf8().ok()?.into_owned();
    Some((name.to_owned(), value))
}

async fn run(shared: &Shared, call: &HashMap<String, String>, headers: &HeaderMap, body: Bytes) -> Response {
    let subnet = call.get("SubnetId").cloned().unwrap_or_default();
    let lost = {
        let mut faults = shared.faults.lock().unwrap();
        if faults.throttled > 0 {
            faults.throttled -= 1;
            return error("RequestLimitExceeded", "Request limit exceeded.", 503);
        }
        let lost = faults.lost > 0;
        faults.lost = faults.lost.saturating_sub(1);
        lost
    };
    let key = (call["ClientToken"].clone(), subnet.clone());
    // Of two at the same time, one is first.
    let mut known = shared.known.lock().await;
    let text = match known.get(&key) {
        Some((before, text)) if *before == body => text.clone(),
        Some(_) => return error("IdempotentParameterMismatch", "The token was used with other parameters.", 400),
        None if shared.faults.lock().unwrap().full.contains(&subnet) => {
            return error("InsufficientInstanceCapacity", "We currently do not have sufficient capacity.", 500);
        }
        None => {
            let (status, text) = forward(shared, headers, body.clone()).await;
            if status == StatusCode::INTERNAL_SERVER_ERROR && !text.contains("<Response>") {
                // An unknown template is an accident to moto.
                return error("InvalidLaunchTemplateId.NotFoundException", "The launch template does not exist.", 400);
            }
            if !status.is_success() {
                return xml(status, text);
            }
            known.insert(key, (body, text.clone()));
            text
        }
    };
    if lost {
        let broken = stream::once(async { Err::<Bytes, _>(std::io::Error::other("the answer is lost")) });
        return Body::from_stream(broken).into_response();
    }
    xml(StatusCode::OK, text)
}

async fn forward(shared: &Shared, headers: &HeaderMap, body: Bytes) -> (StatusCode, String) {
    let mut request = shared.http.post(format!("{}/", shared.moto)).body(body);
    // moto takes the region from the signature's scope.
    for name in [header::AUTHORIZATION, header::CONTENT_TYPE] {
        if let Some(value) = headers.get(&name) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

fn error(code: &str, message: &str, status: u16) -> Response {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>{message}\
         </Message></Error></Errors><RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"
    );
    xml(StatusCode::from_u16(status).unwrap(), text)
}

fn xml(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/xml;charset=UTF-8")], text).into_response()
}
