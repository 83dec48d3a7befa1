//! `POST update`: GitHub's webhook. Who sends it is proven by its signature over the raw body, which is computed while the body
//! comes in; nothing of it is looked at, and nothing written, before that is right.
//! <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>

use super::AppState;
use super::call::ok;
use super::dispatch::{text, told_length};
use super::operations;
use super::params;
use crate::app::updates::{Accepted, Received};
use crate::model::problem::{Code, Fault, Refusal};
use crate::model::updates::{DeliveryId, Hint, Ignored, Watched, hint};
use axum::body::Body;
use axum::response::Response;
use futures::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sha2::Sha256;
use std::borrow::Cow;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// GitHub sends no more.
pub(super) const MOST_BYTES: usize = 25 * 1024 * 1024;
/// GitHub gives up after ten seconds.
const LONGEST: Duration = Duration::from_secs(10);
/// What nearly every delivery is smaller than.
const SMALL: usize = 512 * 1024;
/// How many bodies may be in memory, whoever sends them: 32 MiB of small ones and 50 of large ones.
const SMALL_PLACES: usize = 64;
const LARGE_PLACES: usize = 2;

type Signing = Hmac<Sha256>;

/// Takes deliveries.
pub struct Webhook {
    /// With one of its secrets each. Two while it is changed at GitHub.
    keyed: Vec<Signing>,
    watched: Watched,
    small: Semaphore,
    large: Semaphore,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("watched", &self.watched).finish_non_exhaustive()
    }
}

/// How the body says what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    /// `payload=` and the JSON.
    Urlencoded,
}

impl Webhook {
    /// With these secrets, any of which will do.
    #[must_use]
    pub fn new(secrets: &[SecretString], watched: Watched) -> Self {
        let keyed = |secret: &SecretString| Signing::new_from_slice(secret.expose_secret().as_bytes()).ok();
        Self {
            // HMAC takes keys of any length.
            keyed: secrets.iter().filter_map(keyed).collect(),
            watched,
            small: Semaphore::new(SMALL_PLACES),
            large: Semaphore::new(LARGE_PLACES),
        }
    }

    /// Takes a delivery. Answered means stored.
    pub(super) async fn receive(&self, state: &AppState, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
        let signature = signature(headers)?;
        let form = form(headers)?;
        let told = told_length(headers);
        if told.is_some_and(|told| told > MOST_BYTES) {
            return Err(too_large());
        }
        let _place = self.place(told)?;
        let late = |_| Refusal::new(Code::Timeout, "the body took too long to come").retry_after(1);
        let read = tokio::time::timeout(LONGEST, self.read(body, &signature));
        let body = read.await.map_err(late)??;
        let (id, event) = names(headers)?;
        let payload = payload(form, &body)?;
        let points_to = match hint(&event, &payload, &self.watched) {
            Hint::Look(source) => Ok(source),
            Hint::Ping => Err(Ignored::Ping),
            Hint::Ignored(reason) => Err(reason),
            Hint::Malformed(what) => return Err(Refusal::new(Code::MalformedBody, format!("the payload {what}"))),
        };
        let accepted = state.service.accept_delivery(&Received { id, event, points_to }).await?;
        answer(&accepted)
    }

    /// A body of which nobody knows the length is a large one.
    fn place(&self, told: Option<usize>) -> Result<SemaphorePermit<'_>, Refusal> {
        let places = if told.is_some_and(|told| told <= SMALL) { &self.small } else { &self.large };
        places.try_acquire().map_err(|_| Refusal::new(Code::Overloaded, "too many deliveries at once").retry_after(5))
    }

    async fn read(&self, body: Body, signature: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut keyed = self.keyed.clone();
        let mut bytes = Vec::new();
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| Refusal::new(Code::MalformedBody, "the body ended too soon"))?;
            if bytes.len() + piece.len() > MOST_BYTES {
                return Err(too_large());
            }
            keyed.iter_mut().for_each(|keyed| keyed.update(&piece));
            bytes.extend_from_slice(&piece);
        }
        // In constant time, and all of them, so that nobody learns by which it failed, or how far.
        let is_right = keyed.into_iter().fold(false, |right, keyed| keyed.verify_slice(signature).is_ok() | right);
        let wrong = || Refusal::new(Code::WebhookSignatureWrong, "the signature is not one of this body");
        if is_right { Ok(bytes) } else { Err(wrong()) }
    }
}

fn too_large() -> Refusal {
    Refusal::new(Code::BodyTooLarge, format!("the body is larger than {MOST_BYTES} bytes"))
}

/// `X-Hub-Signature-256: sha256=…`, once.
fn signature(headers: &HeaderMap) -> Result<Vec<u8>, Refusal> {
    let no = || Refusal::new(Code::WebhookUnsigned, "a delivery needs X-Hub-Signature-256: sha256=…, once");
    let mut all = headers.get_all("x-hub-signature-256").iter();
    let (Some(value), None) = (all.next(), all.next()) else { return Err(no()) };
    let digits = value.to_str().ok().and_then(|value| value.strip_prefix("sha256="));
    let digits = digits.and_then(|digits| hex::decode(digits).ok());
    digits.filter(|digest| digest.len() == 32).ok_or_else(no)
}

fn form(headers: &HeaderMap) -> Result<Form, Refusal> {
    let value = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default().to_ascii_lowercase();
    match value.split(';').next().unwrap_or_default().trim() {
        "application/json" => Ok(Form::Json),
        "application/x-www-form-urlencoded" => Ok(Form::Urlencoded),
        _ => {
            let message = "a delivery is application/json or application/x-www-form-urlencoded";
            Err(Refusal::new(Code::UnsupportedMediaType, message))
        }
    }
}

fn names(headers: &HeaderMap) -> Result<(DeliveryId, String), Refusal> {
    let is_event = |name: &String| {
        (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    let id = text(headers, "x-github-delivery").and_then(|id| DeliveryId::parse(&id));
    let event = text(headers, "x-github-event").filter(is_event);
    let fault = |name: &str, message: &str| Fault { parameter: name.to_owned(), message: message.to_owned() };
    let mut faults = Vec::new();
    if id.is_none() {
        faults.push(fault("X-GitHub-Delivery", "must be the name of the delivery, a GUID"));
    }
    if event.is_none() {
        faults.push(fault("X-GitHub-Event", "must be the name of an event"));
    }
    id.zip(event).ok_or_else(|| params::invalid(faults))
}

fn payload(form: Form, body: &[u8]) -> Result<Cow<'_, [u8]>, Refusal> {
    match form {
        Form::Json => Ok(Cow::Borrowed(body)),
        Form::Urlencoded => {
            let field = form_urlencoded::parse(body).find(|(name, _)| name == "payload").map(|(_, value)| value);
            let none = || Refusal::new(Code::MalformedBody, "the form has no field payload");
            Ok(Cow::Owned(field.ok_or_else(none)?.into_owned().into_bytes()))
        }
    }
}

fn answer(accepted: &Accepted) -> Result<Response, Refusal> {
    match accepted {
        Accepted::Operation(operation) => operations::accepted(operation),
        Accepted::Ignored(reason) => {
            let mut response = ok(&json!({ "ignored": reason, "detail": reason.words() }))?;
            if *reason != Ignored::Ping {
                *response.status_mut() = StatusCode::ACCEPTED;
            }
            Ok(response)
        }
    }
}
